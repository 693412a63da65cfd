//! Cost of the traffic of the last hour: `last_hour [SERVICES]` takes samples of that many services for an hour, every 5 s of it, and prints
//! as JSON the memory that they need, without traffic and with traffic in each slot, and the processor time of a sample. Beside it, the
//! memory of the services' names alone, and the time of walking through them.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tcpgw::traffic::ServiceTotals;
use tcpgw::traffic::last_hour::{HourSample, LastHour, SLOT, SLOTS};

const STEP: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).as_deref().unwrap_or("10000").parse()?;
    let before = resident()?;
    let names: Vec<String> = (0..count).map(|number| format!("service-{number}")).collect();
    let of_names = resident()? - before;
    let begun = processor_time()?;
    for name in black_box(&names) {
        black_box(name.len());
    }
    let walk = processor_time()?.saturating_sub(begun);
    let found = json!({
        "services": count,
        "names": {"kilobytes": of_names, "sample_ms": milliseconds(walk)},
        "idle": hour(&names, 0)?,
        "busy": hour(&names, 1)?,
    });
    println!("{found}");
    Ok(())
}

/// Takes the samples of an hour in which each service gets so many connections between two of them.
fn hour(names: &[String], connections: u64) -> Result<Value, Box<dyn Error>> {
    let before = resident()?;
    let mut hour = LastHour::default();
    let mut totals = ServiceTotals::default();
    let samples = SLOT.as_secs() * SLOTS as u64 / STEP.as_secs();
    let begun = processor_time()?;
    for number in 1..=u32::try_from(samples)? {
        totals.others.connections += connections;
        let sample = HourSample::new(&totals, connections);
        hour.take(STEP * number, names.iter().map(|name| (&**name, sample)));
    }
    let mean = processor_time()?.saturating_sub(begun) / u32::try_from(samples)?;
    let kilobytes = resident()?.saturating_sub(before);
    assert_eq!(black_box(&hour).len(), names.len());
    Ok(json!({"kilobytes": kilobytes, "sample_ms": milliseconds(mean)}))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns the time that this thread has had a processor.
fn processor_time() -> Result<Duration, nix::Error> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

/// Returns the resident memory of this process, in kilobytes.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse()?)
}
