//! Sockets for probes, which are reused: opening and closing a socket costs more than using it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockname, getsockopt,
    recv, setsockopt, socket, sockopt,
};

use super::errno;
use super::errno::local;
use super::results::ProbeReport;
use super::talk::Talk;
use tcpgw_core::health::{AnswerFault, Probe, ProbeOutcome};
use tcpgw_core::ruleset::stmt::PROBE_PRIORITY;
use tcpgw_kernel::ffi::socket;

/// Maximum number of idle sockets of one kind that are kept.
const KEPT: usize = 256;
/// Maximum number of ICMP errors that are read from a socket's queue at a time. A SYN that is repeated a few times
/// causes fewer.
const MOST_ERRORS: usize = 64;

pub(super) struct Pool {
    epoll: Epoll,
    /// Places of sockets by token.
    places: Vec<ProbePlace>,
    /// Tokens of places without a socket.
    vacant: Vec<usize>,
    /// Tokens of sockets without a probe.
    idle: BTreeMap<SocketKind, Vec<usize>>,
    ended: Vec<Ended>,
    deadlines: BTreeSet<(Instant, usize)>,
    by_id: BTreeMap<u64, usize>,
}

#[derive(Default)]
struct ProbePlace {
    socket: Option<ProbeSocket>,
    flight: Option<ActiveProbe>,
}

struct ProbeSocket {
    fd: OwnedFd,
    kind: SocketKind,
}

/// Kind of a socket for its reuse: once bound to an address, it does not choose another one by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SocketKind {
    family: SocketFamily,
    is_bound: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SocketFamily {
    V4,
    V6,
}

/// A probe that has ended.
pub(super) struct Ended {
    /// Source and destination of its connection.
    pub(super) flow: (SocketAddr, SocketAddr),
    /// Whether it was answered, and so ended with a reset.
    pub(super) answered: bool,
}

struct ActiveProbe {
    id: u64,
    endpoint: SocketAddr,
    sent: Instant,
    deadline: Instant,
    /// The question, if the probe asks one.
    talk: Option<Talk>,
}

impl ActiveProbe {
    fn report(&self, outcome: ProbeOutcome, now: Instant) -> ProbeReport {
        ProbeReport {
            id: self.id,
            outcome,
            took: now.saturating_duration_since(self.sent),
        }
    }
}

impl Pool {
    pub(super) const fn new(epoll: Epoll) -> Self {
        Self {
            epoll,
            places: Vec::new(),
            vacant: Vec::new(),
            idle: BTreeMap::new(),
            ended: Vec::new(),
            deadlines: BTreeSet::new(),
            by_id: BTreeMap::new(),
        }
    }

    pub(super) const fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    pub(super) fn in_flight(&self) -> usize {
        self.by_id.len()
    }

    /// Returns the number of open sockets, used or not.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.places.iter().filter(|place| place.socket.is_some()).count()
    }

    /// Returns the probes that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Returns the time of the next timeout.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Sends a SYN. Returns a report if the probe has already ended.
    pub(super) fn start(&mut self, probe: &Probe, now: Instant) -> Option<ProbeReport> {
        let outcome = match self.try_start(probe, now) {
            Ok(()) => return None,
            Err(outcome) => outcome,
        };
        Some(ProbeReport {
            id: probe.id,
            outcome,
            took: Duration::ZERO,
        })
    }

    fn try_start(&mut self, probe: &Probe, now: Instant) -> Result<(), ProbeOutcome> {
        let family = match probe.endpoint {
            SocketAddr::V4(_) => SocketFamily::V4,
            SocketAddr::V6(_) => SocketFamily::V6,
        };
        let token = match probe.source.and_then(|source| self.bound(family, source)) {
            Some(token) => token,
            None => self
                .socket(SocketKind {
                    family,
                    is_bound: false,
                })
                .map_err(local)?,
        };
        let Some(place) = self.places.get_mut(token) else {
            return Err(local(Errno::EBADF));
        };
        let Some(socket) = &place.socket else {
            return Err(local(Errno::EBADF));
        };
        let sent = socket.connect(probe.endpoint, probe.question.is_some());
        let deadline = now + probe.timeout;
        let (id, endpoint) = (probe.id, probe.endpoint);
        place.flight = Some(ActiveProbe {
            id,
            endpoint,
            sent: now,
            deadline,
            talk: probe.question.as_ref().map(|question| Talk::new(question, endpoint)),
        });
        self.deadlines.insert((deadline, token));
        self.by_id.insert(probe.id, token);
        if sent.is_err() {
            self.end(token, false);
        }
        sent
    }

    fn socket(&mut self, kind: SocketKind) -> Result<usize, Errno> {
        match self.idle.get_mut(&kind).and_then(Vec::pop) {
            Some(token) => Ok(token),
            None => self.open(kind),
        }
    }

    /// Returns a socket that is bound to the address, if the gateway has it. It is bound again each time, since the
    /// address may have been removed.
    fn bound(&mut self, family: SocketFamily, source: IpAddr) -> Option<usize> {
        let kind = SocketKind { family, is_bound: true };
        let token = self.socket(kind).ok()?;
        let place = self.places.get_mut(token)?;
        let Err(errno) = place.socket.as_ref()?.bind(source) else {
            return Some(token);
        };
        tracing::debug!(%source, %errno, "failed to probe from a source address: the address that the route has is used instead");
        place.socket = None;
        self.vacant.push(token);
        None
    }

    /// Handles an event of a socket. Returns a report if its probe has ended.
    pub(super) fn happened(&mut self, token: u64, events: EpollFlags, now: Instant) -> Option<ProbeReport> {
        let token = usize::try_from(token).ok()?;
        let place = self.places.get_mut(token)?;
        // A socket that was just disconnected has events, too.
        let (Some(socket), Some(flight)) = (&place.socket, &mut place.flight) else {
            return None;
        };
        let outcome = match &mut flight.talk {
            None => socket.outcome(events)?,
            Some(talk) => {
                if !talk.is_open() {
                    match socket.outcome(events)? {
                        ProbeOutcome::Accepted => talk.open(),
                        outcome => return self.over(token, outcome, now),
                    }
                }
                match talk.go_on(&socket.fd)? {
                    Ok(()) => ProbeOutcome::Accepted,
                    Err(fault) => ProbeOutcome::Unfit(fault),
                }
            }
        };
        self.over(token, outcome, now)
    }

    fn over(&mut self, token: usize, outcome: ProbeOutcome, now: Instant) -> Option<ProbeReport> {
        let is_answered = matches!(outcome, ProbeOutcome::Accepted | ProbeOutcome::Unfit(_));
        Some(self.end(token, is_answered)?.report(outcome, now))
    }

    /// Ends the probes that have timed out, and returns their reports.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<ProbeReport> {
        let mut reports = Vec::new();
        while let Some((deadline, token)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let is_open = |place: &ProbePlace| {
                let talk = place.flight.as_ref().and_then(|flight| flight.talk.as_ref());
                talk.is_some_and(Talk::is_open)
            };
            let outcome = if self.places.get(token).is_some_and(is_open) {
                ProbeOutcome::Unfit(AnswerFault::Silent)
            } else {
                ProbeOutcome::TimedOut
            };
            reports.extend(self.over(token, outcome, now));
            self.deadlines.remove(&(deadline, token));
        }
        reports
    }

    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(token) = self.by_id.get(&id) {
            self.end(*token, false);
        }
    }

    /// Ends the probe of a socket, and makes the socket idle.
    fn end(&mut self, token: usize, answered: bool) -> Option<ActiveProbe> {
        let place = self.places.get_mut(token)?;
        let flight = place.flight.take()?;
        self.deadlines.remove(&(flight.deadline, token));
        self.by_id.remove(&flight.id);
        let socket = place.socket.as_ref()?;
        if let Some(local) = socket.local() {
            let flow = (local, flight.endpoint);
            self.ended.push(Ended { flow, answered });
        }
        let idle = self.idle.entry(socket.kind).or_default();
        // A disconnected socket receives nothing more, so its queue is emptied after that.
        let is_free = socket::disconnect(socket.fd.as_fd()).is_ok() && socket.forget_errors();
        if is_free && idle.len() < KEPT {
            idle.push(token);
        } else {
            place.socket = None;
            self.vacant.push(token);
        }
        Some(flight)
    }

    fn open(&mut self, kind: SocketKind) -> Result<usize, Errno> {
        let socket = ProbeSocket::open(kind)?;
        let token = self.vacant.last().copied().unwrap_or(self.places.len());
        let data = u64::try_from(token).map_err(|_| Errno::EMFILE)?;
        // Readable or closed by the other side: answers to questions.
        let events = EpollFlags::EPOLLOUT | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let event = EpollEvent::new(events, data);
        self.epoll.add(&socket.fd, event)?;
        if self.vacant.pop().is_none() {
            self.places.push(ProbePlace::default());
        }
        let place = self.places.get_mut(token).ok_or(Errno::EMFILE)?;
        place.socket = Some(socket);
        Ok(token)
    }
}

/// Gives a socket the priority by which the rules recognise probes, so that they leave nothing in conntrack. If this
/// fails (it needs `CAP_NET_ADMIN`), probes stay there as long as other connections.
fn prioritize(fd: &OwnedFd) {
    let priority = i32::try_from(PROBE_PRIORITY).unwrap_or_default();
    if let Err(errno) = set_int(fd, nix::libc::SOL_SOCKET, nix::libc::SO_PRIORITY, priority) {
        tracing::debug!(%errno, "failed to set the priority of a probe's socket: probes stay in conntrack for a while");
    }
}

fn set_int(fd: &OwnedFd, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    socket::set_int_option(fd.as_fd(), level, option, value)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

impl ProbeSocket {
    fn open(kind: SocketKind) -> Result<Self, Errno> {
        let domain = match kind.family {
            SocketFamily::V4 => AddressFamily::Inet,
            SocketFamily::V6 => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(domain, SockType::Stream, flags, SockProtocol::Tcp)?;
        // If this process is killed, the kernel closes its sockets with a reset.
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&fd, sockopt::Linger, &linger)?;
        prioritize(&fd);
        if kind.is_bound {
            // The port is chosen for each destination when it is known.
            set_int(&fd, nix::libc::IPPROTO_IP, nix::libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        Ok(Self { fd, kind })
    }

    fn bind(&self, source: IpAddr) -> Result<(), Errno> {
        bind(self.fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))
    }

    /// Returns the local address of the connection.
    fn local(&self) -> Option<SocketAddr> {
        let at: SockaddrStorage = getsockname(self.fd.as_raw_fd()).ok()?;
        let v4 = at.as_sockaddr_in().map(|at| SocketAddr::from((at.ip(), at.port())));
        v4.or_else(|| at.as_sockaddr_in6().map(|at| SocketAddr::from((at.ip(), at.port()))))
    }

    /// Sends a SYN. `acknowledges`: whether the handshake is to be completed at once.
    fn connect(&self, endpoint: SocketAddr, acknowledges: bool) -> Result<(), ProbeOutcome> {
        let quick = (nix::libc::IPPROTO_TCP, nix::libc::TCP_QUICKACK);
        // Without a question the ACK is delayed for longer than it takes to send the reset. The kernel resets this
        // option when the socket is disconnected.
        set_int(&self.fd, quick.0, quick.1, i32::from(acknowledges)).map_err(local)?;
        match connect(self.fd.as_raw_fd(), &SockaddrStorage::from(endpoint)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
            Err(errno) => Err(errno::of_connect(errno)),
        }
    }

    /// Returns the outcome of the handshake, if it has ended.
    fn outcome(&self, events: EpollFlags) -> Option<ProbeOutcome> {
        let has_ended = events.contains(EpollFlags::EPOLLHUP);
        if has_ended || events.contains(EpollFlags::EPOLLERR) {
            match getsockopt(&self.fd, sockopt::SocketError) {
                // The error queue is not empty, though the handshake has not ended: for example after an ICMP error
                // that arrived while the kernel was busy with the socket.
                Ok(0) if !has_ended => self.forget_errors(),
                Ok(0) => return Some(local(Errno::ECONNABORTED)),
                Ok(errno) => return Some(errno::of_answer(Errno::from_raw(errno))),
                Err(errno) => return Some(errno::of_answer(errno)),
            };
        }
        // A socket is not writable before it is connected.
        events.contains(EpollFlags::EPOLLOUT).then_some(ProbeOutcome::Accepted)
    }

    /// Empties the error queue, and returns whether it is empty. ICMP errors for a SYN are put there without
    /// `IP_RECVERR`, stay when the socket is disconnected, and would be the error of each later handshake.
    fn forget_errors(&self) -> bool {
        let read = || {
            recv(
                self.fd.as_raw_fd(),
                &mut [],
                MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
            )
        };
        (0..MOST_ERRORS).any(|_| read() == Err(Errno::EAGAIN))
    }
}
