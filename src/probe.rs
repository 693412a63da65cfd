//! Prober: the sockets of [`tcpgw_core::health`]. A thread makes TCP handshakes, hundreds at a time, asks where
//! a question is set, and reports the outcomes.
//!
//! A probe that is answered takes three system calls: `setsockopt`, `connect`, and a `connect` to `AF_UNSPEC`, which
//! disconnects the socket for its next use. On the wire it is three packets: SYN, SYN-ACK, RST. The ACK is delayed, and
//! the reset overtakes it, so the backend's kernel has answered for its listener while its program is not woken: it
//! does not accept a connection that is reset at once. If this thread is delayed for longer than the ACK (200 ms), the
//! program accepts the connection, and sees a reset.
//!
//! A probe with a question goes on after the handshake: it sends its bytes and reads the answer until it can be judged,
//! and then ends with a reset, too. The program in the container sees a connection that is reset after the answer.
//!
//! The kernel repeats a lost SYN after 1 s, until the probe times out and its socket is disconnected.
//!
//! A reset leaves no `TIME_WAIT` on either side, so no source port is used up. The gateway's conntrack removes a probe
//! with its reset, and one that was not answered 2 s after its last SYN: sockets have a priority
//! ([`tcpgw_core::ruleset::stmt::PROBE_PRIORITY`]) by which the rules give their flows other timeouts. conntrack counts
//! expired entries until they are looked up or collected, so their entries are looked up after the timeout.
//!
//! Probes go from the gateway's own sockets to a backend's real address. They are not translated, carry no flow mark,
//! and are neither limited nor counted.
//!
//! Source: `tcp_rcv_synsent_state_process` in `net/ipv4/tcp_input.c` (which delays the ACK), `tcp_disconnect` in
//! `net/ipv4/tcp.c`, `tcp_check_req` in `net/ipv4/tcp_minisocks.c` (the reset at the other side), connect(2).

mod errno;
mod pool;
mod results;
mod talk;

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
pub use self::results::ProbeReport;
use tcpgw_core::health::Probe;
use tcpgw_kernel::conntrack::Collector;

/// Number of probes in flight from which answers are collected for a moment, since waking up for each one costs more
/// than the rest.
const CROWD: usize = 8;
const MOMENT: Duration = Duration::from_millis(1);
const EVENTS: usize = 256;
/// Token of the command channel; sockets count from 0.
const WAKE: u64 = u64::MAX;

/// Reason why no probes can be made.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The system refused a resource of the thread.
    #[error("failed to start the thread that probes backends: {0}")]
    Start(#[from] io::Error),
    /// The thread has ended, because its reports are not received any more or `epoll_wait` failed, which was logged.
    #[error("failed to probe backends: the thread that probes has ended")]
    Gone,
}

/// Source and destination of a connection.
type ProbeFlow = (SocketAddr, SocketAddr);

enum ProbeCommand {
    Probe(Vec<Probe>),
    Cancel(Vec<u64>),
}

/// Handle of the prober's thread, which ends when it is dropped.
#[derive(Debug)]
pub struct Prober {
    /// Channel for commands; it exists until the handle is dropped.
    commands: Option<Sender<ProbeCommand>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts the thread, in the network namespace of the calling thread. Reports come in batches that are never
    /// empty; each probe is reported once, unless it was cancelled.
    ///
    /// # Errors
    /// Fails with [`ProbeError::Start`] when the system refuses a resource.
    pub fn start(reports: UnboundedSender<Vec<ProbeReport>>) -> Result<Self, ProbeError> {
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

    /// Sends probes.
    ///
    /// # Errors
    /// Fails with [`ProbeError::Gone`] when the thread has ended.
    pub fn probe(&self, probes: Vec<Probe>) -> Result<(), ProbeError> {
        if probes.is_empty() {
            return Ok(());
        }
        self.command(ProbeCommand::Probe(probes))
    }

    /// Cancels probes. Reports of some of them may still arrive.
    ///
    /// # Errors
    /// Fails with [`ProbeError::Gone`] when the thread has ended.
    pub fn cancel(&self, ids: Vec<u64>) -> Result<(), ProbeError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.command(ProbeCommand::Cancel(ids))
    }

    fn command(&self, command: ProbeCommand) -> Result<(), ProbeError> {
        let commands = self.commands.as_ref().ok_or(ProbeError::Gone)?;
        commands.send(command).map_err(|_| ProbeError::Gone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // A write fails after 2^64 of them. The counter need not be read: each write is an edge.
        let _ = self.wake.write(1);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic, and a panic could not be handled here.
            let _ = thread.join();
        }
    }
}

/// Maximum time for which an unanswered probe stays in conntrack after its end, since its last SYN may have been sent
/// just before.
const FORGOTTEN: Duration = Duration::from_secs(3);

struct Thread {
    pool: Pool,
    /// Deletes entries of conntrack; `None`: conntrack cannot be used.
    collector: Option<Collector>,
    /// Unanswered probes, with the times when conntrack's timeouts for them have passed.
    unanswered: VecDeque<(Instant, ProbeFlow)>,
    commands: Receiver<ProbeCommand>,
    reports: UnboundedSender<Vec<ProbeReport>>,
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
            let now = Instant::now();
            for event in events.iter().take(count).filter(|event| event.data() != WAKE) {
                reports.extend(self.pool.happened(event.data(), event.events(), now));
            }
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

    /// Executes commands. Returns `false` when the channel is closed.
    fn obey(&mut self, now: Instant, reports: &mut Vec<ProbeReport>) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(ProbeCommand::Probe(probes)) => {
                    reports.extend(probes.iter().filter_map(|probe| self.pool.start(probe, now)));
                }
                Ok(ProbeCommand::Cancel(ids)) => ids.into_iter().for_each(|id| self.pool.cancel(id)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Deletes entries of ended probes from conntrack.
    fn collect(&mut self, now: Instant) {
        let ended = self.pool.take_ended();
        let Some(collector) = &mut self.collector else { return };
        let mut over: Vec<ProbeFlow> = Vec::new();
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
        let remaining = deadline.saturating_duration_since(Instant::now());
        // The time is rounded up, so that the thread does not wake too early repeatedly.
        let millis = remaining.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
    }
}

#[cfg(test)]
#[path = "probe/tests.rs"]
mod tests;
