//! The processor time of this process.

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

/// Seconds of this process, all its threads.
#[derive(Debug, Serialize)]
pub(crate) struct Cpu {
    user: f64,
    kernel: f64,
}

/// Returns the processor time of this process so far.
pub(crate) fn cpu() -> Result<Cpu, nix::Error> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| {
        std::time::Duration::new(time.tv_sec().unsigned_abs(), 0).as_secs_f64()
            + std::time::Duration::from_micros(time.tv_usec().unsigned_abs()).as_secs_f64()
    };
    Ok(Cpu {
        user: seconds(usage.user_time()),
        kernel: seconds(usage.system_time()),
    })
}
