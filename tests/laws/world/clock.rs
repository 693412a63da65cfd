//! Time in the world of a law: it passes only when no other event is due.

use std::time::{Duration, Instant};

use tcpgw::control::core::Now;

/// The clocks of a machine. The one that can be set starts far from zero, so that it can be set back.
#[derive(Debug)]
pub(crate) struct Clock {
    begin: Instant,
    pub(crate) now: Instant,
    /// Time since the Unix epoch.
    pub(crate) unix: Duration,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            now,
            unix: Duration::from_secs(1_000_000_000),
        }
    }

    pub(crate) fn time(&self) -> Now {
        Now {
            instant: self.now,
            unix: self.unix,
            boot: self.passed(),
        }
    }

    /// Returns the time since the world began.
    pub(crate) fn passed(&self) -> Duration {
        self.now - self.begin
    }

    /// Lets the time pass until then.
    pub(crate) fn pass(&mut self, until: Instant) {
        self.unix += until - self.now;
        self.now = until;
    }

    /// Sets the clock forward by so many seconds.
    pub(crate) fn set(&mut self, seconds: i64) {
        let step = Duration::from_secs(seconds.unsigned_abs());
        self.unix = if seconds < 0 {
            self.unix.saturating_sub(step)
        } else {
            self.unix + step
        };
    }
}

/// Returns when something may happen next, which is after `now`; `None`: nothing before `end`.
pub(crate) fn next_step(
    wakes: impl IntoIterator<Item = Option<Instant>>,
    now: Instant,
    end: Instant,
) -> Option<Instant> {
    let next = wakes.into_iter().flatten().min().unwrap_or(end).min(end).max(now);
    // A time that is not yet over must not be waited for again.
    (next != end).then(|| next.max(now + Duration::from_millis(1)).min(end))
}
