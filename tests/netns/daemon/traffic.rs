//! Short requests at a steady rate, and sessions that go on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::{Conn, PATIENCE, connect};
use crate::harness::{Net, wait_until};

/// Time without an answer after which a session has lost its peer.
const SILENCE: Duration = Duration::from_secs(5);
/// Time between two messages of a session.
const BEAT: Duration = Duration::from_millis(250);

/// End of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server closed the session.
    Closed,
    /// The session got a reset.
    Reset,
    /// No answer arrived any more.
    Silent,
}

/// A session that has ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) service: u16,
    pub(super) backend: String,
    pub(super) end: End,
    pub(super) at: Instant,
    /// Time of the last message of the session, which got no answer.
    pub(super) said: Instant,
}

/// Traffic between a client and some services.
pub(super) struct Traffic {
    over: AtomicBool,
    /// Each client's count of beginnings and ends: odd while a request is out, or a session is about to begin.
    steps: Vec<AtomicU64>,
    pub(super) served: AtomicU64,
    pub(super) begin: Instant,
    pub(super) failures: Mutex<Vec<String>>,
    pub(super) longest: Mutex<Duration>,
    pub(super) ended: Mutex<Vec<Ended>>,
    /// Sessions that could not begin.
    pub(super) refused: Mutex<Vec<String>>,
}

/// Amount of traffic.
pub(super) struct Amount {
    /// Short requests per second.
    pub(super) rate: u32,
    /// Clients that share the requests.
    pub(super) clients: u32,
    /// Number of sessions.
    pub(super) sessions: usize,
}

impl Traffic {
    /// Runs `work` under traffic. Returns the traffic with the result of `work`.
    pub(super) fn during<T>(net: &Net, to: &[SocketAddr], amount: &Amount, work: impl FnOnce(&Self) -> T) -> (Self, T) {
        let steps = amount.clients as usize + amount.sessions;
        let traffic = Self {
            over: AtomicBool::new(false),
            steps: (0..steps).map(|_| AtomicU64::new(0)).collect(),
            served: AtomicU64::new(0),
            begin: Instant::now(),
            failures: Mutex::default(),
            longest: Mutex::default(),
            ended: Mutex::default(),
            refused: Mutex::default(),
        };
        let place = net.place("client");
        let done = thread::scope(|scope| {
            let (short, long) = traffic.steps.split_at(amount.clients as usize);
            for (number, step) in short.iter().enumerate() {
                let (traffic, place) = (&traffic, &place);
                let pause = Duration::from_secs(1) * amount.clients / amount.rate;
                scope.spawn(move || {
                    place.enter();
                    traffic.ask(to[number % to.len()], step, pause);
                });
            }
            for (number, step) in long.iter().enumerate() {
                let (traffic, place) = (&traffic, &place);
                scope.spawn(move || {
                    place.enter();
                    traffic.talk(to[number % to.len()], step);
                });
            }
            let end = SetOnDrop(&traffic.over);
            let done = work(&traffic);
            drop(end);
            done
        });
        (traffic, done)
    }

    /// Waits until every request that is out now has ended, and every session that begins now has begun.
    #[track_caller]
    pub(super) fn passes(&self) {
        let before: Vec<u64> = self.steps.iter().map(|step| step.load(Relaxed)).collect();
        let mut steps = self.steps.iter().zip(before);
        assert!(
            steps.all(|(step, before)| wait_until(PATIENCE * 2, || before % 2 == 0 || step.load(Relaxed) != before)),
            "a request does not end"
        );
    }

    fn ask(&self, to: SocketAddr, step: &AtomicU64, pause: Duration) {
        let mut next = Instant::now();
        while !self.over.load(Relaxed) {
            let since = Instant::now();
            step.fetch_add(1, Relaxed);
            let outcome = connect(to, PATIENCE).and_then(|mut conn| conn.greeting());
            step.fetch_add(1, Relaxed);
            let took = since.elapsed();
            match outcome {
                Ok(_) => drop(self.served.fetch_add(1, Relaxed)),
                Err(error) => {
                    let at = since.duration_since(self.begin);
                    lock(&self.failures).push(format!("{to} at {at:.4?}: {error} after {took:?}"));
                }
            }
            let mut longest = lock(&self.longest);
            *longest = longest.max(took);
            drop(longest);
            next = (next + pause).max(since);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn talk(&self, to: SocketAddr, step: &AtomicU64) {
        while !self.over.load(Relaxed) {
            step.fetch_add(1, Relaxed);
            let begun = connect(to, PATIENCE).and_then(|mut conn| {
                conn.patience(SILENCE);
                Ok((conn.greeting()?.backend, conn))
            });
            step.fetch_add(1, Relaxed);
            match begun {
                Ok((backend, conn)) => self.session(to, backend, conn),
                Err(error) => lock(&self.refused).push(format!("{to}: {error}")),
            }
        }
    }

    fn session(&self, to: SocketAddr, backend: String, mut conn: Conn) {
        while !self.over.load(Relaxed) {
            let said = Instant::now();
            match conn.echo(b"still there?") {
                Ok(()) => thread::sleep(BEAT),
                Err(error) => {
                    lock(&self.ended).push(Ended {
                        service: to.port(),
                        backend,
                        end: end(&error),
                        at: Instant::now(),
                        said,
                    });
                    return;
                }
            }
        }
    }
}

fn end(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => End::Closed,
        ErrorKind::ConnectionReset => End::Reset,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Silent,
        other => panic!("{other}: {error}"),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("clients do not panic")
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
