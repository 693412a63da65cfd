//! The sockets of [`tcpgw_core::health`]: a thread that does TCP handshakes, hundreds at a time, and says how they ended.
//!
//! A probe is three system calls where it is answered: `setsockopt`, `connect`, and a `connect` to `AF_UNSPEC` that
//! takes the socket back, to be used again. On the wire it is three packets: SYN, SYN-ACK, RST. The ACK is held back,
//! and the reset overtakes it, so the backend's kernel has answered for its listener while its program is not woken: it
//! never accepts a connection that is reset at once. The ACK is only delayed: should this thread be kept from its work
//! for longer than that (200 ms), the program accepts, and sees a reset.
//!
//! A lost SYN is sent again after 1 s, by the kernel, and no more once the probe's time is up: taking the socket back
//! ends that, too.
//!
//! A reset leaves no `TIME_WAIT` on either side, so no source port is used up. The gateway's conntrack forgets a probe with
//! its reset, and one that was not answered 2 s after its last SYN: sockets have a priority of their own
//! ([`tcpgw_core::ruleset::stmt::PROBE_PRIORITY`]), by which the rules give their flows timeouts of their own. So that it does
//! not count them until it collects them by itself, their entries are looked up when their time is over.
//!
//! Probes go from the gateway's own sockets to a backend's real address. They are not translated, carry no flow mark,
//! and are neither limited nor counted.
//!
//! Source: `tcp_rcv_synsent_state_process` in `net/ipv4/tcp_input.c` (which holds back the ACK), `tcp_disconnect` in
//! `net/ipv4/tcp.c`, `tcp_check_req` in `net/ipv4/tcp_minisocks.c` (the reset at the other side), connect(2).

mod errno;
mod pool;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use self::pool::Pool;
use tcpgw_core::health::{Probe, ProbeOutcome};
use tcpgw_kernel::conntrack::Collector;

/// While that many are on their way, answers are gathered for a moment: waking up for each costs more than the rest.
const CROWD: usize = 8;
const MOMENT: Duration = Duration::from_millis(1);
const EVENTS: usize = 256;
/// The token of the command channel; sockets count from 0.
const WAKE: u64 = u64::MAX;

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Which: [`Probe::id`].
    pub id: u64,
    /// How.
    pub outcome: ProbeOutcome,
}

/// Why there can be no probes.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The system refused what the thread needs.
    #[error("failed to start probing: {0}")]
    Start(#[from] io::Error),
    /// The thread has ended: nobody listens for its reports, or `epoll_wait` failed, which was logged.
    #[error("failed to probe: its thread has ended")]
    Gone,
}

/// Who began a connection, and towards whom.
type Flow = (SocketAddr, SocketAddr);

enum Command {
    Probe(Vec<Probe>),
    Cancel(Vec<u64>),
}

/// The thread. It ends with this value.
#[derive(Debug)]
pub struct Prober {
    /// Always there until it is dropped.
    commands: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts it, in the network namespace of the calling thread. Reports come in batches, never empty ones; each probe
    /// is reported once, unless it was cancelled.
    ///
    /// # Errors
    /// [`ProbeError::Start`].
    pub fn start(reports: UnboundedSender<Vec<Report>>) -> Result<Self, ProbeError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(io::Error::from)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll
            .add(&*wake, EpollEvent::new(edge, WAKE))
            .map_err(io::Error::from)?;
        let (commands, receiver) = channel();
        let collector = Collector::open()
            .inspect_err(|error| tracing::debug!(%error, "entries of probes in conntrack are not deleted and expire by themselves"))
            .ok();
        let prober = Thread {
            pool: Pool::new(epoll),
            collector,
            unanswered: VecDeque::new(),
            commands: receiver,
            reports,
        };
        let thread = thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || prober.run())?;
        Ok(Self {
            commands: Some(commands),
            wake,
            thread: Some(thread),
        })
    }

    /// Sends these.
    ///
    /// # Errors
    /// [`ProbeError::Gone`].
    pub fn probe(&self, probes: Vec<Probe>) -> Result<(), ProbeError> {
        if probes.is_empty() {
            return Ok(());
        }
        self.command(Command::Probe(probes))
    }

    /// Gives these up. Reports of some may be on their way.
    ///
    /// # Errors
    /// [`ProbeError::Gone`].
    pub fn cancel(&self, ids: Vec<u64>) -> Result<(), ProbeError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.command(Command::Cancel(ids))
    }

    fn command(&self, command: Command) -> Result<(), ProbeError> {
        let commands = self.commands.as_ref().ok_or(ProbeError::Gone)?;
        commands.send(command).map_err(|_| ProbeError::Gone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // It fails when it was written to 2^64 times. Nobody needs to read it: each write is an edge.
        let _ = self.wake.write(1);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It never panics, and if it did, there would be nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// How long an unanswered probe stays in conntrack after its end, at most: its last SYN may have gone out a moment before.
const FORGOTTEN: Duration = Duration::from_secs(3);

struct Thread {
    pool: Pool,
    /// Looks up what conntrack should forget; `None` where it cannot be asked.
    collector: Option<Collector>,
    /// Unanswered probes, and when conntrack's time for them is over.
    unanswered: VecDeque<(Instant, Flow)>,
    commands: Receiver<Command>,
    reports: UnboundedSender<Vec<Report>>,
}

impl Thread {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.pool.epoll().wait(&mut events, self.patience()) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!("failed to wait for answers to probes: {errno}");
                    return;
                }
            };
            let mut reports = Vec::new();
            for event in events.iter().take(count).filter(|event| event.data() != WAKE) {
                reports.extend(self.pool.happened(event.data(), event.events()));
            }
            let now = Instant::now();
            reports.extend(self.pool.expired(now));
            if !self.obey(now, &mut reports) {
                return;
            }
            self.collect(now);
            if !reports.is_empty() && self.reports.send(reports).is_err() {
                return;
            }
            if count > 0 && self.pool.in_flight() >= CROWD {
                thread::sleep(MOMENT);
            }
        }
    }

    /// Does as commanded; `false` once there will be no more commands.
    fn obey(&mut self, now: Instant, reports: &mut Vec<Report>) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Probe(probes)) => {
                    reports.extend(probes.into_iter().filter_map(|probe| self.pool.start(probe, now)));
                }
                Ok(Command::Cancel(ids)) => ids.into_iter().for_each(|id| self.pool.cancel(id)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Has conntrack forget what has ended.
    fn collect(&mut self, now: Instant) {
        let ended = self.pool.take_ended();
        let Some(collector) = &mut self.collector else { return };
        let mut over: Vec<Flow> = Vec::new();
        for probe in ended {
            if probe.answered {
                over.push(probe.flow);
            } else {
                self.unanswered.push_back((now + FORGOTTEN, probe.flow));
            }
        }
        let due = self.unanswered.partition_point(|(at, _)| *at <= now);
        over.extend(self.unanswered.drain(..due).map(|(_, flow)| flow));
        if let Err(error) = collector.collect(&over) {
            tracing::debug!(%error, "failed to delete entries of probes from conntrack; they expire by themselves");
        }
    }

    fn patience(&self) -> EpollTimeout {
        let forget = self.unanswered.front().map(|(at, _)| *at);
        let Some(deadline) = self.pool.deadline().into_iter().chain(forget).min() else {
            return EpollTimeout::NONE;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, lest it wakes too early, again and again.
        let millis = left.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
    }
}

#[cfg(test)]
#[path = "probe/tests.rs"]
mod tests;
