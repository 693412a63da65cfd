//! The boot of the machine: its id, and the time since then.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Returns the time since the machine's start (`CLOCK_BOOTTIME`). Zero if the kernel does not say, which none has done since Linux
/// 2.6.39: drains have all their time again then.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.map_or(Duration::ZERO, Duration::from)
}

/// Returns the kernel's name for this boot (`/proc/sys/kernel/random/boot_id`).
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}
