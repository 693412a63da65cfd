//! Cost of probing: `probes [COUNT [SECONDS [ADDRESS:PORT [MAX_IN_FLIGHT]]]]` probes that many endpoints, at consecutive
//! addresses, and prints the processor time and memory that this process takes for it, after 15 seconds of warming up.
//!
//! Without an address it listens on one port of 127.0.0.0/8 itself. The kernel then answers its own SYNs, and that
//! counts, too.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tcpgw::probe::{ProbeReport, Prober};
use tcpgw_core::health::{Health, HealthCounts, MAX_IN_FLIGHT, ProbeTarget};
use tcpgw_core::model;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant as Later, sleep_until};

const WARM: Duration = Duration::from_secs(15);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |n: usize| args.get(n).map(String::as_str);
    let count: u32 = arg(0).unwrap_or("40000").parse()?;
    let seconds: u64 = arg(1).unwrap_or("20").parse()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let own = SocketAddr::from(([127, 1, 0, 0], listener.local_addr()?.port()));
    // Connections are only accepted here if this process was kept from sending a reset in time.
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let first: SocketAddr = arg(2).map_or(Ok(own), str::parse)?;
    let max: NonZeroUsize = arg(3).map_or(Ok(MAX_IN_FLIGHT), str::parse)?;
    let IpAddr::V4(address) = first.ip() else {
        return Err("an IPv4 address is wanted".into());
    };
    let endpoints = (0..count).map(|n| SocketAddr::from((Ipv4Addr::from_bits(address.to_bits() + n), first.port())));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(endpoints, max, Duration::from_secs(seconds)))
}

async fn run(
    endpoints: impl Iterator<Item = SocketAddr>,
    max: NonZeroUsize,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let (sender, mut reports) = unbounded_channel();
    let prober = Prober::start(sender)?;
    let mut health = Health::new(max);
    let target = ProbeTarget {
        params: model::HealthSettings::default(),
        presumed: false,
    };
    let before = memory()?;
    health.set(endpoints.map(|endpoint| (endpoint, target.clone())), Instant::now());
    eprintln!("warming up");
    let start = Instant::now();
    let changes = drive(&mut health, &prober, &mut reports, start + WARM).await?;
    println!("at the start: {changes} changes; {:?}", health.counts());
    let (from, cpu, wakes) = (health.counts(), cpu()?, wakes()?);
    let start = Instant::now();
    drive(&mut health, &prober, &mut reports, start + time).await?;
    tell(from, health.counts(), self::cpu()?.saturating_sub(cpu), start.elapsed());
    println!(
        "{} wakeups; {} kB, {before} kB without them",
        self::wakes()? - wakes,
        memory()?
    );
    Ok(())
}

/// Runs the probes as the loop of a daemon does.
async fn drive(
    health: &mut Health,
    prober: &Prober,
    reports: &mut UnboundedReceiver<Vec<ProbeReport>>,
    end: Instant,
) -> Result<usize, Box<dyn Error>> {
    let mut changes = 0;
    while Instant::now() < end {
        prober.probe(health.due(Instant::now()))?;
        let next = health.next_at().map_or(end, |next| next.min(end));
        tokio::select! {
            batch = reports.recv() => {
                let now = Instant::now();
                for report in batch.ok_or("the prober has ended")? {
                    changes += usize::from(health.report(report.id, report.outcome, now).is_some());
                }
            }
            () = sleep_until(Later::from_std(next)) => {}
        }
    }
    Ok(changes)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn tell(from: HealthCounts, to: HealthCounts, cpu: Duration, time: Duration) {
    let probes = (to.accepted + to.failed + to.local - from.accepted - from.failed - from.local) as f64;
    println!(
        "{:.0} probes/s; {:.1} % of a core; {:.1} us of CPU each; {to:?}",
        probes / time.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / time.as_secs_f64(),
        1e6 * cpu.as_secs_f64() / probes,
    );
}

fn cpu() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

fn wakes() -> Result<i64, Box<dyn Error>> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.voluntary_context_switches())
}

/// Kilobytes of this process in memory.
fn memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.ok_or("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
}
