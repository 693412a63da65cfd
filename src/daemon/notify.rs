//! What the service manager is told (`sd_notify(3)`), and the watchdog. Without a service manager nothing is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// One thing that the worker does may take so long. Reading a table of 200,000 elements back takes seconds.
pub const LONGEST_JOB: Duration = Duration::from_secs(60);

/// More of a status than anybody reads.
const LONGEST_STATUS: usize = 200;

/// Talks to the service manager that `NOTIFY_SOCKET` names.
#[derive(Debug, Default)]
pub struct Manager {
    status: String,
}

impl Manager {
    /// The daemon serves: its socket is there, and the kernel holds what is desired, or it is known why not.
    pub fn ready(&mut self, status: &str) {
        self.status = one_line(status);
        tell(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// The settings are being read again; [`Manager::ready`] ends it, whatever came of it.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            // systemd 253 and newer would end a service that does not say when.
            Err(error) => tracing::debug!(%error, "failed to read the clock"),
        }
    }

    /// The daemon ends. What it forwards goes on.
    pub fn stopping(&mut self) {
        tell(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`; told when it is another than the last.
    pub fn status(&mut self, status: &str) {
        let status = one_line(status);
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// Ends the daemon, through the service manager, when the loop or its worker hangs: an owner of the table that hangs keeps
/// everybody else from changing it.
#[derive(Debug)]
pub struct Watchdog {
    limit: Option<Duration>,
    worker: Weak<Heart>,
}

/// Held by the worker alone: when it is dropped, the worker is gone.
#[derive(Debug)]
pub struct Pulse(Arc<Heart>);

#[derive(Debug)]
struct Heart {
    start: Instant,
    /// Milliseconds from `start` to the last sign of life in a job; [`IDLE`] between jobs.
    beat: AtomicU64,
}

const IDLE: u64 = u64::MAX;

impl Watchdog {
    /// As the service manager asks for (`WATCHDOG_USEC`), and the worker's part of it.
    pub fn new() -> (Self, Pulse) {
        let mut micros = 0;
        let is_on = sd_notify::watchdog_enabled(false, &mut micros);
        Self::with_limit((is_on && micros > 0).then(|| Duration::from_micros(micros)))
    }

    fn with_limit(limit: Option<Duration>) -> (Self, Pulse) {
        let heart = Arc::new(Heart {
            start: Instant::now(),
            beat: AtomicU64::new(IDLE),
        });
        let watchdog = Self {
            limit,
            worker: Arc::downgrade(&heart),
        };
        (watchdog, Pulse(heart))
    }

    /// The pause between calls of [`Watchdog::pet`]; `None`: nobody watches.
    pub fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / 3)
    }

    /// Whether the worker is there, and idle or no longer at one thing than [`LONGEST_JOB`].
    pub fn is_worker_alive(&self, now: Instant) -> bool {
        let Some(heart) = self.worker.upgrade() else {
            return false;
        };
        let beat = heart.beat.load(Ordering::Relaxed);
        let since = now.saturating_duration_since(heart.start);
        beat == IDLE || since.saturating_sub(Duration::from_millis(beat)) <= LONGEST_JOB
    }

    /// Tells the service manager that all is alive, unless the worker is not. Gives what [`Watchdog::is_worker_alive`] says.
    pub fn pet(&self, now: Instant) -> bool {
        let is_alive = self.is_worker_alive(now);
        if is_alive && self.limit.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        is_alive
    }
}

impl Pulse {
    /// Does one thing.
    pub fn during<T>(&self, job: impl FnOnce() -> T) -> T {
        struct Rest<'a>(&'a Heart);
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                self.0.beat.store(IDLE, Ordering::Relaxed);
            }
        }
        self.beat(Instant::now());
        let _rest = Rest(&self.0);
        job()
    }

    /// In the middle of something long: there is progress.
    pub fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.start).as_millis();
        let beat = u64::try_from(since).unwrap_or(IDLE - 1).min(IDLE - 1);
        self.0.beat.store(beat, Ordering::Relaxed);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "failed to tell the service manager");
    }
}

/// A line break would begin another message.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_STATUS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_lives_while_it_is_idle_or_gets_on() {
        let (watchdog, pulse) = Watchdog::with_limit(Some(Duration::from_secs(30)));
        let start = pulse.0.start;
        let hours = start + Duration::from_secs(7200);
        assert_eq!(watchdog.interval(), Some(Duration::from_secs(10)));
        assert!(watchdog.is_worker_alive(hours));
        pulse.beat(start + Duration::from_secs(10));
        assert!(watchdog.is_worker_alive(start + Duration::from_secs(10) + LONGEST_JOB));
        assert!(!watchdog.is_worker_alive(start + Duration::from_secs(11) + LONGEST_JOB));
        pulse.beat(hours);
        assert!(watchdog.is_worker_alive(hours + LONGEST_JOB));
        assert!(watchdog.is_worker_alive(start), "a clock that is behind kills nobody");
    }

    #[test]
    fn a_job_has_an_end_and_a_worker_that_panics_is_gone() {
        let (watchdog, pulse) = Watchdog::with_limit(None);
        let later = || Instant::now() + LONGEST_JOB * 2;
        assert_eq!(watchdog.interval(), None);
        assert!(!pulse.during(|| watchdog.is_worker_alive(later())));
        assert!(watchdog.is_worker_alive(later()));
        let worker = std::thread::spawn(move || pulse.during(|| std::panic::resume_unwind(Box::new(()))));
        worker.join().unwrap_err();
        assert!(!watchdog.pet(Instant::now()));
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("a\nREADY=1\u{1b}"), "a READY=1 ");
        assert_eq!(one_line(&"ä".repeat(500)).chars().count(), LONGEST_STATUS);
    }
}
