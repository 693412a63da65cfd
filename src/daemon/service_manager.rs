//! Messages to the service manager (`sd_notify(3)`), and the watchdog. Without a service manager no message is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Maximum duration of one job of the kernel thread. Reading a table of 200,000 elements takes seconds.
pub const LONGEST_JOB: Duration = Duration::from_secs(60);

/// Longest sleep of the main loop while no work is due and there is no watchdog.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Maximum time to wait for a service manager that reads no messages, for each message.
const LONGEST_SEND: Duration = Duration::from_millis(200);

/// Maximum length of a status in characters.
const LONGEST_STATUS: usize = 200;

/// Connection to the service manager that `NOTIFY_SOCKET` names.
#[derive(Debug, Default)]
pub struct Manager {
    status: String,
}

impl Manager {
    /// Reports that the daemon serves: its socket exists, and the kernel holds the desired state, or the status tells
    /// why not.
    pub fn ready(&mut self, status: &str) {
        self.status = one_line(status);
        tell(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// Reports that the settings are being read again; [`Manager::ready`] ends this, also after an error.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            // systemd 253 and newer end a service whose message lacks the time.
            Err(error) => tracing::debug!(%error, "failed to read the clock"),
        }
    }

    /// Reports that the daemon ends. The kernel forwards as before.
    pub fn stopping(&mut self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Sends a line for `systemctl status` if it has changed.
    pub fn status(&mut self, status: &str) {
        let status = one_line(status);
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// Watchdog: lets the service manager end the daemon when the main loop or the kernel thread hangs, since the owner of
/// a table keeps other programs from changing it.
///
/// The messages are sent by a thread of their own, so that their interval depends neither on the work of the main loop
/// nor on the duration of one iteration.
#[derive(Debug)]
pub struct Watchdog {
    limit: Option<Duration>,
    kernel_thread: Weak<LifeSigns>,
    main_loop: Weak<LifeSigns>,
}

/// Sign of life of the kernel thread, held by it alone: when it is dropped, the thread has ended.
#[derive(Debug)]
pub struct JobSigns(Arc<LifeSigns>);

/// Sign of life of the main loop, held by it alone.
#[derive(Debug)]
pub struct LoopSigns {
    signs: Arc<LifeSigns>,
    /// Maximum pause between two iterations of the main loop.
    interval: Option<Duration>,
}

/// Handle of the watchdog's thread, which ends when it is dropped.
#[derive(Debug)]
pub struct Watching {
    _stop: SyncSender<()>,
}

#[derive(Debug)]
struct LifeSigns {
    start: Instant,
    /// Milliseconds from `start` to the last sign of life in a job; [`IDLE`] between jobs.
    beat: AtomicU64,
    /// Milliseconds from `start` to the start of the main loop's iteration; [`IDLE`] where there are none.
    iteration: AtomicU64,
}

const IDLE: u64 = u64::MAX;

impl LifeSigns {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            beat: AtomicU64::new(IDLE),
            iteration: AtomicU64::new(IDLE),
        })
    }

    fn note(&self, mark: &AtomicU64, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis();
        let since = u64::try_from(since).unwrap_or(IDLE - 1).min(IDLE - 1);
        mark.store(since, Ordering::Relaxed);
    }

    fn beat(&self, now: Instant) {
        self.note(&self.beat, now);
    }

    /// Returns whether the last sign of life is at most `limit` ago, or none is expected, and the iteration lasts no
    /// longer than the greater of [`LONGEST_JOB`] and `limit`.
    fn is_alive(&self, now: Instant, limit: Duration) -> bool {
        let since = now.saturating_duration_since(self.start);
        let is_within = |mark: &AtomicU64, limit: Duration| {
            let mark = mark.load(Ordering::Relaxed);
            mark == IDLE || since.saturating_sub(Duration::from_millis(mark)) <= limit
        };
        is_within(&self.beat, limit) && is_within(&self.iteration, limit.max(LONGEST_JOB))
    }
}

impl Watchdog {
    /// Creates the watchdog that the service manager asks for (`WATCHDOG_USEC`), with the signs of life of the kernel
    /// thread and the main loop.
    pub fn new() -> (Self, JobSigns, LoopSigns) {
        let mut micros = 0;
        let is_on = sd_notify::watchdog_enabled(false, &mut micros);
        Self::with_limit((is_on && micros > 0).then(|| Duration::from_micros(micros)))
    }

    fn with_limit(limit: Option<Duration>) -> (Self, JobSigns, LoopSigns) {
        let (kernel_thread, main_loop) = (LifeSigns::new(), LifeSigns::new());
        let watchdog = Self {
            limit,
            kernel_thread: Arc::downgrade(&kernel_thread),
            main_loop: Arc::downgrade(&main_loop),
        };
        let interval = watchdog.interval();
        (
            watchdog,
            JobSigns(kernel_thread),
            LoopSigns {
                signs: main_loop,
                interval,
            },
        )
    }

    /// Returns the interval between messages to the service manager; `None`: there is no watchdog. systemd asks for
    /// half of the limit; a quarter leaves room for a busy machine.
    fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / 4)
    }

    /// Returns whether the main loop gave a sign of life within the limit and its iteration lasts no longer than
    /// [`LONGEST_JOB`], and the kernel thread is idle or its job lasts no longer than that.
    pub fn is_alive(&self, now: Instant) -> bool {
        let lives = |signs: &Weak<LifeSigns>, limit| signs.upgrade().is_some_and(|signs| signs.is_alive(now, limit));
        lives(&self.main_loop, self.limit.unwrap_or(LONGEST_JOB)) && lives(&self.kernel_thread, LONGEST_JOB)
    }

    /// Starts the thread, if the service manager asks for a watchdog.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub fn start(self) -> io::Result<Option<Watching>> {
        let Some(interval) = self.interval() else {
            return Ok(None);
        };
        let (stop, stopped) = sync_channel::<()>(0);
        let watch = move || {
            let mut was_alive = true;
            loop {
                let is_alive = self.is_alive(Instant::now());
                if is_alive {
                    tell(&[NotifyState::Watchdog]);
                } else if was_alive {
                    tracing::error!(
                        "the daemon hangs: it sends the service manager no watchdog messages until it continues"
                    );
                }
                was_alive = is_alive;
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(watch)?;
        Ok(Some(Watching { _stop: stop }))
    }
}

impl LoopSigns {
    /// Marks the start of an iteration.
    pub fn beat(&self, now: Instant) {
        self.signs.note(&self.signs.iteration, now);
        self.signs.beat(now);
    }

    /// Marks the end of a step: an iteration with much work may exceed the limit, but a single step may not, nor may
    /// the iteration exceed [`LONGEST_JOB`].
    pub fn step_done(&self, now: Instant) {
        self.signs.beat(now);
    }

    /// Returns the time at which the main loop continues at the latest, if the next work is due at `due`.
    pub fn wakes_at(&self, now: Instant, due: Option<Instant>) -> Instant {
        let latest = now + self.interval.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        due.map_or(latest, |due| due.min(latest))
    }
}

impl JobSigns {
    /// Runs a job.
    pub fn during<T>(&self, job: impl FnOnce() -> T) -> T {
        struct Rest<'a>(&'a LifeSigns);
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                self.0.beat.store(IDLE, Ordering::Relaxed);
            }
        }
        self.0.beat(Instant::now());
        let _rest = Rest(&self.0);
        job()
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let message = states
        .iter()
        .fold(String::new(), |message, state| message + &state.to_string() + "\n");
    if let Some(to) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&to, &message)
    {
        tracing::debug!(%error, "failed to send a message to the service manager");
    }
}

/// Sends a message to the socket of a service manager; `@` begins an abstract name. Waits at most [`LONGEST_SEND`].
fn send(to: &OsStr, message: &str) -> io::Result<()> {
    let to = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(LONGEST_SEND))?;
    socket.send_to_addr(message.as_bytes(), &to).map(drop)
}

/// Replaces control characters, since a line break would begin another message.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_STATUS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kernel_thread_lives_while_it_is_idle_or_gets_on() {
        let (watchdog, signs, loop_signs) = Watchdog::with_limit(Some(Duration::from_secs(30)));
        let start = signs.0.start;
        let is_alive = |now: Instant| {
            loop_signs.beat(now);
            watchdog.is_alive(now)
        };
        let hours = start + Duration::from_secs(7200);
        assert!(is_alive(hours));
        signs.0.beat(start + Duration::from_secs(10));
        assert!(is_alive(start + Duration::from_secs(10) + LONGEST_JOB));
        assert!(!is_alive(start + Duration::from_secs(11) + LONGEST_JOB));
        signs.0.beat(hours);
        assert!(is_alive(hours + LONGEST_JOB));
        assert!(is_alive(start), "a clock that is behind kills nobody");
    }

    #[test]
    fn a_service_manager_that_reads_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\n").unwrap();
        let mut told = [0; 32];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(told[..length], *b"READY=1\n");
        let mut times = 0;
        let error = loop {
            times += 1;
            match send(path.as_os_str(), "STATUS=x\n") {
                Ok(()) => assert!(times < 100_000, "its queue never gets full"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        let name = format!("tcpgw-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n").unwrap();
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(told[..length], *b"STOPPING=1\n");
    }

    #[test]
    fn a_job_has_an_end_and_a_kernel_thread_that_panics_is_gone() {
        let (watchdog, signs, loop_signs) = Watchdog::with_limit(None);
        let is_alive = || {
            let later = Instant::now() + LONGEST_JOB * 2;
            loop_signs.beat(later);
            watchdog.is_alive(later)
        };
        assert!(!signs.during(is_alive));
        assert!(is_alive());
        let kernel_thread = std::thread::spawn(move || signs.during(|| std::panic::resume_unwind(Box::new(()))));
        kernel_thread.join().unwrap_err();
        assert!(!is_alive());
    }

    proptest! {
        /// Checks that the daemon is alive at any time, whatever is due in the main loop, since the thread sends
        /// messages every `interval` only while it is.
        #[test]
        fn the_loop_is_alive_whatever_is_due(
            limit in 100_u64..600_000,
            iterations in prop::collection::vec((prop::option::of(0_u64..10_000_000), 0_u64..=70), 1..50),
        ) {
            let limit = Duration::from_millis(limit);
            let (watchdog, _job_signs, signs) = Watchdog::with_limit(Some(limit));
            let interval = watchdog.interval().unwrap();
            prop_assert!(interval * 2 <= limit / 2);
            let mut now = signs.signs.start;
            for (due, percent) in iterations {
                signs.beat(now);
                // One iteration.
                now += limit * u32::try_from(percent).unwrap() / 100;
                prop_assert!(watchdog.is_alive(now));
                let due = due.map(|due| now + Duration::from_millis(due));
                let wakes = signs.wakes_at(now, due);
                prop_assert!(due.is_none_or(|due| wakes <= due));
                now = wakes;
                prop_assert!(watchdog.is_alive(now), "asleep for too long");
            }
        }
    }

    #[test]
    fn a_loop_that_hangs_is_not_alive() {
        let (watchdog, _job_signs, signs) = Watchdog::with_limit(Some(Duration::from_secs(30)));
        let start = signs.signs.start;
        signs.beat(start);
        assert!(watchdog.is_alive(start + Duration::from_secs(30)));
        assert!(!watchdog.is_alive(start + Duration::from_secs(31)));
        drop(signs);
        assert!(!watchdog.is_alive(start));
    }

    /// Tests an iteration with much work, which differs from a hang by its finished steps.
    #[test]
    fn a_turn_that_gets_on_is_no_hang_and_one_that_never_ends_is() {
        let limit = Duration::from_secs(4);
        let (watchdog, _job_signs, signs) = Watchdog::with_limit(Some(limit));
        let start = signs.signs.start;
        signs.beat(start);
        let mut now = start;
        while now + limit <= start + LONGEST_JOB {
            now += limit;
            assert!(watchdog.is_alive(now), "after {:?}", now - start);
            signs.step_done(now);
        }
        let over = start + LONGEST_JOB + Duration::from_secs(1);
        signs.step_done(over);
        assert!(!watchdog.is_alive(over), "steps without end are a hang, too");
        signs.beat(over);
        assert!(watchdog.is_alive(over + limit));
        assert!(
            !watchdog.is_alive(over + limit + Duration::from_secs(1)),
            "no step is done"
        );
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("a\nREADY=1\u{1b}"), "a READY=1 ");
        assert_eq!(one_line(&"ä".repeat(500)).chars().count(), LONGEST_STATUS);
    }
}
