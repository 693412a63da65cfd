//! Connections per second: connect, request, answer, close; so many at a time, as fast as they go.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::{Value, json};
use socket2::Socket;

use crate::opened::Opener;
use crate::outcome::{Durations, Errors};
use crate::protocol::LoadRequest;
use crate::{Close, To, clock};

/// Parameters of the run.
pub(crate) struct Plan {
    pub(crate) to: To,
    pub(crate) seconds: Duration,
    pub(crate) threads: usize,
    pub(crate) concurrency: usize,
    /// New connections per second, at most.
    pub(crate) rate: f64,
    pub(crate) answer: u64,
    pub(crate) close: Close,
    pub(crate) patience: Duration,
}

/// Counts of one thread, or of all.
#[derive(Default)]
struct Done {
    /// Finished within each second, from the beginning.
    per_second: Vec<u64>,
    /// Finished when time was up, having begun before.
    afterwards: u64,
    connects: Durations,
    whole: Durations,
    errors: Errors,
}

/// Runs for this many seconds, and until the connections that are open then have ended.
pub(crate) fn run(plan: &Plan) -> Result<Value, Box<dyn Error>> {
    let begin = Instant::now();
    let mut done = Done::default();
    let results: Vec<io::Result<Done>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| scope.spawn(move || Client::new(plan, thread, begin)?.run()))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread ended")))
            })
            .collect()
    });
    for result in results {
        done.add(result?);
    }
    done.per_second.resize(seconds_in(plan.seconds), 0);
    let connections: u64 = done.per_second.iter().sum();
    Ok(json!({
        "connections": connections,
        "seconds": plan.seconds.as_secs_f64(),
        "per_second": done.per_second,
        "afterwards": done.afterwards,
        "errors": done.errors,
        "connect_us": done.connects.percentiles(),
        "whole_us": done.whole.percentiles(),
        "cpu": clock::cpu()?,
    }))
}

/// Seconds begun.
fn seconds_in(duration: Duration) -> usize {
    usize::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(usize::MAX)
}

impl Done {
    fn add(&mut self, other: Self) {
        let length = self.per_second.len().max(other.per_second.len());
        self.per_second.resize(length, 0);
        for (sum, number) in self.per_second.iter_mut().zip(other.per_second) {
            *sum += number;
        }
        self.afterwards += other.afterwards;
        self.connects.add(other.connects);
        self.whole.add(other.whole);
        self.errors.add(other.errors);
    }
}

struct Client<'a> {
    plan: &'a Plan,
    opener: Opener,
    epoll: Epoll,
    slots: Vec<Option<Open>>,
    free: Vec<usize>,
    begin: Instant,
    request: [u8; crate::protocol::LEN],
    buffer: Vec<u8>,
    done: Done,
    opened: f64,
}

struct Open {
    socket: Socket,
    begin: Instant,
    asked: bool,
    left: u64,
}

impl<'a> Client<'a> {
    fn new(plan: &'a Plan, thread: usize, begin: Instant) -> io::Result<Self> {
        let at_a_time = plan.concurrency.div_ceil(plan.threads.max(1)).max(1);
        let ask = match plan.close {
            Close::Server => LoadRequest::AnswerAndClose(plan.answer),
            Close::Client | Close::Reset => LoadRequest::Answer(plan.answer),
        };
        Ok(Self {
            plan,
            opener: Opener::new(&plan.to, thread),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            slots: (0..at_a_time).map(|_| None).collect(),
            free: (0..at_a_time).collect(),
            begin,
            request: ask.to_bytes(),
            buffer: vec![0; 64 * 1024],
            done: Done::default(),
            opened: 0.0,
        })
    }

    fn run(mut self) -> io::Result<Done> {
        let mut events = [EpollEvent::empty(); 256];
        let mut check_again = self.begin;
        loop {
            let now = Instant::now();
            let up = now.duration_since(self.begin) >= self.plan.seconds;
            if up && self.free.len() == self.slots.len() {
                return Ok(self.done);
            }
            if !up {
                self.open_all()?;
            }
            // A rate is kept to within a millisecond.
            let patience: u8 = if self.plan.rate.is_finite() { 1 } else { 50 };
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(patience)) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..ready] {
                let slot = usize::try_from(event.data()).unwrap_or(usize::MAX);
                self.go_on(slot, event.events());
            }
            if now >= check_again {
                check_again = now + Duration::from_millis(100);
                self.give_up(now);
            }
        }
    }

    fn open_all(&mut self) -> io::Result<()> {
        let rate = self.plan.rate / f64::from(u32::try_from(self.plan.threads.max(1)).unwrap_or(u32::MAX));
        for _ in 0..self.free.len() {
            let begin = Instant::now();
            if self.opened >= rate * begin.duration_since(self.begin).as_secs_f64() {
                break;
            }
            self.opened += 1.0;
            let socket = match self.opener.begin() {
                Ok(socket) => socket,
                Err(error) => {
                    self.done.errors.count_io(&error);
                    continue;
                }
            };
            let Some(slot) = self.free.pop() else { break };
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            self.epoll.add(&socket, EpollEvent::new(flags, slot as u64))?;
            self.slots[slot] = Some(Open {
                socket,
                begin,
                asked: false,
                left: self.plan.answer,
            });
        }
        Ok(())
    }

    fn go_on(&mut self, slot: usize, flags: EpollFlags) {
        let Some(open) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        match open.go_on(flags, self.plan.close, &self.request, &mut self.buffer, &mut self.done) {
            Ok(false) => return,
            Ok(true) => self.done.finished(open, self.begin, self.plan.seconds),
            Err(error) => self.done.errors.count_io(&error),
        }
        self.slots[slot] = None;
        self.free.push(slot);
    }

    fn give_up(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            let Some(open) = &self.slots[slot] else { continue };
            if now.saturating_duration_since(open.begin) < self.plan.patience {
                continue;
            }
            self.done
                .errors
                .count(if open.asked { "no answer" } else { "no handshake" });
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }
}

impl Done {
    fn finished(&mut self, open: &Open, begin: Instant, seconds: Duration) {
        let now = Instant::now();
        self.whole.push(now.duration_since(open.begin));
        let at = now.duration_since(begin);
        if at >= seconds {
            self.afterwards += 1;
            return;
        }
        let second = usize::try_from(at.as_secs()).unwrap_or(usize::MAX);
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }
}

impl Open {
    /// Returns whether the connection is over.
    fn go_on(
        &mut self,
        flags: EpollFlags,
        close: Close,
        request: &[u8],
        buffer: &mut [u8],
        done: &mut Done,
    ) -> io::Result<bool> {
        if !self.asked {
            if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP)
                && let Some(error) = self.socket.take_error()?
            {
                return Err(error);
            }
            if !flags.contains(EpollFlags::EPOLLOUT) {
                return Ok(false);
            }
            done.connects.push(self.begin.elapsed());
            self.socket.write_all(request)?;
            self.asked = true;
        }
        loop {
            let got = match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                other => other? as u64,
            };
            if got == 0 {
                return match self.left {
                    0 => Ok(true),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.left = self.left.saturating_sub(got);
            if self.left > 0 {
                continue;
            }
            match close {
                Close::Server => {}
                Close::Client => return self.socket.shutdown(Shutdown::Both).map(|()| true),
                Close::Reset => return self.socket.set_linger(Some(Duration::ZERO)).map(|()| true),
            }
        }
    }
}
