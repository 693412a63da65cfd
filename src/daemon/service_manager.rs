//! What the service manager is told (`sd_notify(3)`), and the watchdog. Without a service manager nothing is told.

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

/// One thing that the worker does may take so long. Reading a table of 200,000 elements back takes seconds.
pub const LONGEST_JOB: Duration = Duration::from_secs(60);

/// Longest sleep of the loop while nothing is due and nobody watches.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long a service manager that reads nothing is waited for, each time that it is told something.
const LONGEST_SEND: Duration = Duration::from_millis(200);

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
///
/// The service manager is told by a thread of its own, so that the pause between two messages depends neither on what is
/// due in the loop nor on how long one turn of it takes.
#[derive(Debug)]
pub struct Watchdog {
    limit: Option<Duration>,
    worker: Weak<Heart>,
    turns: Weak<Heart>,
}

/// Held by the worker alone: when it is dropped, the worker is gone.
#[derive(Debug)]
pub struct Pulse(Arc<Heart>);

/// Held by the loop alone.
#[derive(Debug)]
pub struct LoopPulse {
    heart: Arc<Heart>,
    /// Pause between two turns of the loop at most.
    interval: Option<Duration>,
}

/// The watchdog's thread; it ends with the value.
#[derive(Debug)]
pub struct Watching {
    _stop: SyncSender<()>,
}

#[derive(Debug)]
struct Heart {
    start: Instant,
    /// Milliseconds from `start` to the last sign of life in a job; [`IDLE`] between jobs.
    beat: AtomicU64,
    /// Milliseconds from `start` to the begin of the loop's turn; [`IDLE`] where there are no turns.
    turn: AtomicU64,
}

const IDLE: u64 = u64::MAX;

impl Heart {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            beat: AtomicU64::new(IDLE),
            turn: AtomicU64::new(IDLE),
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

    /// Whether the last sign of life is no older than that, or none is expected, and the turn is no longer than
    /// [`LONGEST_JOB`] or that, whichever is longer.
    fn is_alive(&self, now: Instant, limit: Duration) -> bool {
        let since = now.saturating_duration_since(self.start);
        let is_within = |mark: &AtomicU64, limit: Duration| {
            let mark = mark.load(Ordering::Relaxed);
            mark == IDLE || since.saturating_sub(Duration::from_millis(mark)) <= limit
        };
        is_within(&self.beat, limit) && is_within(&self.turn, limit.max(LONGEST_JOB))
    }
}

impl Watchdog {
    /// As the service manager asks for (`WATCHDOG_USEC`), with the worker's and the loop's part of it.
    pub fn new() -> (Self, Pulse, LoopPulse) {
        let mut micros = 0;
        let is_on = sd_notify::watchdog_enabled(false, &mut micros);
        Self::with_limit((is_on && micros > 0).then(|| Duration::from_micros(micros)))
    }

    fn with_limit(limit: Option<Duration>) -> (Self, Pulse, LoopPulse) {
        let (worker, turns) = (Heart::new(), Heart::new());
        let watchdog = Self {
            limit,
            worker: Arc::downgrade(&worker),
            turns: Arc::downgrade(&turns),
        };
        let interval = watchdog.interval();
        (watchdog, Pulse(worker), LoopPulse { heart: turns, interval })
    }

    /// Pause between two messages to the service manager; `None`: nobody watches. Half of the limit is what systemd asks
    /// for; this leaves as much again for a machine that is busy.
    fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / 4)
    }

    /// Whether the loop has begun a turn or got on in it within the limit, is in it no longer than [`LONGEST_JOB`], and the worker is
    /// idle or no longer at one thing than that.
    pub fn is_alive(&self, now: Instant) -> bool {
        let lives = |heart: &Weak<Heart>, limit| heart.upgrade().is_some_and(|heart| heart.is_alive(now, limit));
        lives(&self.turns, self.limit.unwrap_or(LONGEST_JOB)) && lives(&self.worker, LONGEST_JOB)
    }

    /// Starts the thread, if somebody watches.
    ///
    /// # Errors
    /// That no thread can be had.
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
                    tracing::error!("the daemon hangs: it does not notify the service manager until it continues");
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

impl LoopPulse {
    /// A turn begins.
    pub fn beat(&self, now: Instant) {
        self.heart.note(&self.heart.turn, now);
        self.heart.beat(now);
    }

    /// A step of the turn is done: with much to do a turn may take longer than the limit. A step by itself may not, nor may a turn
    /// go on for ever by ever more steps.
    pub fn step_done(&self, now: Instant) {
        self.heart.beat(now);
    }

    /// When the loop goes on at the latest, if the next thing is due at `due`.
    pub fn wakes_at(&self, now: Instant, due: Option<Instant>) -> Instant {
        let latest = now + self.interval.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        due.map_or(latest, |due| due.min(latest))
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
        tracing::debug!(%error, "failed to tell the service manager");
    }
}

/// Sends a message to a service manager's socket; `@` begins an abstract name. One that reads nothing any more is not waited for
/// for long.
fn send(to: &OsStr, message: &str) -> io::Result<()> {
    let to = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(LONGEST_SEND))?;
    socket.send_to_addr(message.as_bytes(), &to).map(drop)
}

/// A line break would begin another message.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_STATUS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_worker_lives_while_it_is_idle_or_gets_on() {
        let (watchdog, pulse, turns) = Watchdog::with_limit(Some(Duration::from_secs(30)));
        let start = pulse.0.start;
        let is_alive = |now: Instant| {
            turns.beat(now);
            watchdog.is_alive(now)
        };
        let hours = start + Duration::from_secs(7200);
        assert!(is_alive(hours));
        pulse.0.beat(start + Duration::from_secs(10));
        assert!(is_alive(start + Duration::from_secs(10) + LONGEST_JOB));
        assert!(!is_alive(start + Duration::from_secs(11) + LONGEST_JOB));
        pulse.0.beat(hours);
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
    fn a_job_has_an_end_and_a_worker_that_panics_is_gone() {
        let (watchdog, pulse, turns) = Watchdog::with_limit(None);
        let is_alive = || {
            let later = Instant::now() + LONGEST_JOB * 2;
            turns.beat(later);
            watchdog.is_alive(later)
        };
        assert!(!pulse.during(is_alive));
        assert!(is_alive());
        let worker = std::thread::spawn(move || pulse.during(|| std::panic::resume_unwind(Box::new(()))));
        worker.join().unwrap_err();
        assert!(!is_alive());
    }

    proptest! {
        /// The thread tells the service manager every `interval`, as long as the daemon is alive: so it has to be, at any
        /// time, whatever is due in the loop and however long its turns take, up to the limit less one sleep.
        #[test]
        fn the_loop_is_alive_whatever_is_due(
            limit in 100_u64..600_000, turns in prop::collection::vec((prop::option::of(0_u64..10_000_000), 0_u64..=70), 1..50),
        ) {
            let limit = Duration::from_millis(limit);
            let (watchdog, _worker, pulse) = Watchdog::with_limit(Some(limit));
            let interval = watchdog.interval().unwrap();
            prop_assert!(interval * 2 <= limit / 2);
            let mut now = pulse.heart.start;
            for (due, percent) in turns {
                pulse.beat(now);
                // One turn.
                now += limit * u32::try_from(percent).unwrap() / 100;
                prop_assert!(watchdog.is_alive(now));
                let due = due.map(|due| now + Duration::from_millis(due));
                let wakes = pulse.wakes_at(now, due);
                prop_assert!(due.is_none_or(|due| wakes <= due));
                now = wakes;
                prop_assert!(watchdog.is_alive(now), "asleep for too long");
            }
        }
    }

    #[test]
    fn a_loop_that_hangs_is_not_alive() {
        let (watchdog, _worker, pulse) = Watchdog::with_limit(Some(Duration::from_secs(30)));
        let start = pulse.heart.start;
        pulse.beat(start);
        assert!(watchdog.is_alive(start + Duration::from_secs(30)));
        assert!(!watchdog.is_alive(start + Duration::from_secs(31)));
        drop(pulse);
        assert!(!watchdog.is_alive(start));
    }

    /// With many services one turn has much to do: that is told from a hang by the steps of it that are done.
    #[test]
    fn a_turn_that_gets_on_is_no_hang_and_one_that_never_ends_is() {
        let limit = Duration::from_secs(4);
        let (watchdog, _worker, pulse) = Watchdog::with_limit(Some(limit));
        let start = pulse.heart.start;
        pulse.beat(start);
        let mut now = start;
        while now + limit <= start + LONGEST_JOB {
            now += limit;
            assert!(watchdog.is_alive(now), "after {:?}", now - start);
            pulse.step_done(now);
        }
        let over = start + LONGEST_JOB + Duration::from_secs(1);
        pulse.step_done(over);
        assert!(!watchdog.is_alive(over), "steps without end are a hang, too");
        pulse.beat(over);
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
