//! Sockets that probe, again and again: a socket costs more to make and to close than to use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockname, getsockopt,
    recv, setsockopt, socket, sockopt,
};

use super::errno::local;
use super::{Report, errno};
use tcpgw_core::health::{Probe, ProbeOutcome};
use tcpgw_core::ruleset::stmt::PROBE_PRIORITY;
use tcpgw_kernel::ffi;

/// Sockets of one kind that are kept while there is nothing for them to do.
const KEPT: usize = 256;
/// ICMP errors that are taken out of a socket's queue at a time. A SYN that is sent again a few times gets fewer.
const MOST_ERRORS: usize = 64;

pub(super) struct Pool {
    epoll: Epoll,
    /// By token.
    places: Vec<ProbePlace>,
    /// Tokens of places without a socket.
    vacant: Vec<usize>,
    /// Tokens of sockets without a probe.
    idle: BTreeMap<Kind, Vec<usize>>,
    ended: Vec<Ended>,
    deadlines: BTreeSet<(Instant, usize)>,
    by_id: BTreeMap<u64, usize>,
}

#[derive(Default)]
struct ProbePlace {
    socket: Option<Socket>,
    flight: Option<Flight>,
}

struct Socket {
    fd: OwnedFd,
    kind: Kind,
}

/// What a socket can be used for again: once bound to an address, it takes no other one by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    family: Family,
    is_bound: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// A probe that is over.
pub(super) struct Ended {
    /// Its connection.
    pub(super) flow: (SocketAddr, SocketAddr),
    /// Whether it was answered, and so ended with a reset.
    pub(super) answered: bool,
}

#[derive(Clone, Copy)]
struct Flight {
    id: u64,
    endpoint: SocketAddr,
    deadline: Instant,
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

    /// Sockets that are there, used or not.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.places.iter().filter(|place| place.socket.is_some()).count()
    }

    /// Probes that have ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// When the next probe's time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Sends a SYN. A report, where that already says it all.
    pub(super) fn start(&mut self, probe: Probe, now: Instant) -> Option<Report> {
        let outcome = match self.try_start(probe, now) {
            Ok(()) => return None,
            Err(outcome) => outcome,
        };
        Some(Report { id: probe.id, outcome })
    }

    fn try_start(&mut self, probe: Probe, now: Instant) -> Result<(), ProbeOutcome> {
        let family = match probe.endpoint {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let token = match probe.source.and_then(|source| self.bound(family, source)) {
            Some(token) => token,
            None => self
                .socket(Kind {
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
        let sent = socket.connect(probe.endpoint);
        let deadline = now + probe.timeout;
        let (id, endpoint) = (probe.id, probe.endpoint);
        place.flight = Some(Flight { id, endpoint, deadline });
        self.deadlines.insert((deadline, token));
        self.by_id.insert(probe.id, token);
        if sent.is_err() {
            self.end(token, false);
        }
        sent
    }

    fn socket(&mut self, kind: Kind) -> Result<usize, Errno> {
        match self.idle.get_mut(&kind).and_then(Vec::pop) {
            Some(token) => Ok(token),
            None => self.open(kind),
        }
    }

    /// A socket with that address, if the gateway has it. It is bound anew each time: the address may have gone since.
    fn bound(&mut self, family: Family, source: IpAddr) -> Option<usize> {
        let kind = Kind { family, is_bound: true };
        let token = self.socket(kind).ok()?;
        let place = self.places.get_mut(token)?;
        let Err(errno) = place.socket.as_ref()?.bind(source) else {
            return Some(token);
        };
        tracing::debug!(%source, %errno, "failed to probe from a source address: the route's is taken");
        place.socket = None;
        self.vacant.push(token);
        None
    }

    /// What an event of a socket means.
    pub(super) fn happened(&mut self, token: u64, events: EpollFlags) -> Option<Report> {
        let token = usize::try_from(token).ok()?;
        let place = self.places.get(token)?;
        // A socket that was just taken back has events, too.
        let (Some(socket), Some(flight)) = (&place.socket, place.flight) else {
            return None;
        };
        let outcome = socket.outcome(events)?;
        self.end(token, outcome == ProbeOutcome::Accepted);
        Some(Report { id: flight.id, outcome })
    }

    /// Those whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some((deadline, token)) = self.deadlines.first().copied()
            && deadline <= now
        {
            if let Some(flight) = self.end(token, false) {
                let outcome = ProbeOutcome::TimedOut;
                reports.push(Report { id: flight.id, outcome });
            }
            self.deadlines.remove(&(deadline, token));
        }
        reports
    }

    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(token) = self.by_id.get(&id) {
            self.end(*token, false);
        }
    }

    /// Takes a socket back from what it does.
    fn end(&mut self, token: usize, answered: bool) -> Option<Flight> {
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
        // Nothing more comes to a socket that is not connected, so that its queue is emptied after that.
        let is_free = ffi::disconnect(socket.fd.as_fd()).is_ok() && socket.forget_errors();
        if is_free && idle.len() < KEPT {
            idle.push(token);
        } else {
            place.socket = None;
            self.vacant.push(token);
        }
        Some(flight)
    }

    fn open(&mut self, kind: Kind) -> Result<usize, Errno> {
        let socket = Socket::open(kind)?;
        let token = self.vacant.last().copied().unwrap_or(self.places.len());
        let data = u64::try_from(token).map_err(|_| Errno::EMFILE)?;
        let event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, data);
        self.epoll.add(&socket.fd, event)?;
        if self.vacant.pop().is_none() {
            self.places.push(ProbePlace::default());
        }
        let place = self.places.get_mut(token).ok_or(Errno::EMFILE)?;
        place.socket = Some(socket);
        Ok(token)
    }
}

/// Gives the socket the priority by which the rules know probes, so that they leave nothing in conntrack. Without it
/// (it takes `CAP_NET_ADMIN`) they stay there as long as any other connection.
fn prioritize(fd: &OwnedFd) {
    let priority = i32::try_from(PROBE_PRIORITY).unwrap_or_default();
    if let Err(errno) = set_int(fd, nix::libc::SOL_SOCKET, nix::libc::SO_PRIORITY, priority) {
        tracing::debug!(%errno, "failed to set the priority of a probe's socket: probes stay in conntrack for a while");
    }
}

fn set_int(fd: &OwnedFd, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    ffi::set_int_option(fd.as_fd(), level, option, value)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

impl Socket {
    fn open(kind: Kind) -> Result<Self, Errno> {
        let domain = match kind.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(domain, SockType::Stream, flags, SockProtocol::Tcp)?;
        // For the day that this process is killed: the kernel closes its sockets, with a reset.
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&fd, sockopt::Linger, &linger)?;
        prioritize(&fd);
        if kind.is_bound {
            // A port of its own for each destination, chosen when it is known.
            set_int(&fd, nix::libc::IPPROTO_IP, nix::libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        Ok(Self { fd, kind })
    }

    fn bind(&self, source: IpAddr) -> Result<(), Errno> {
        bind(self.fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))
    }

    /// Where it is connected from.
    fn local(&self) -> Option<SocketAddr> {
        let at: SockaddrStorage = getsockname(self.fd.as_raw_fd()).ok()?;
        let v4 = at.as_sockaddr_in().map(|at| SocketAddr::from((at.ip(), at.port())));
        v4.or_else(|| at.as_sockaddr_in6().map(|at| SocketAddr::from((at.ip(), at.port()))))
    }

    fn connect(&self, endpoint: SocketAddr) -> Result<(), ProbeOutcome> {
        let quick = (nix::libc::IPPROTO_TCP, nix::libc::TCP_QUICKACK);
        // Held back for longer than it takes to send the reset. The kernel forgets it when the socket is taken back.
        set_int(&self.fd, quick.0, quick.1, 0).map_err(local)?;
        match connect(self.fd.as_raw_fd(), &SockaddrStorage::from(endpoint)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
            Err(errno) => Err(errno::of_connect(errno)),
        }
    }

    /// What became of its handshake, if that is over.
    fn outcome(&self, events: EpollFlags) -> Option<ProbeOutcome> {
        let has_ended = events.contains(EpollFlags::EPOLLHUP);
        if has_ended || events.contains(EpollFlags::EPOLLERR) {
            match getsockopt(&self.fd, sockopt::SocketError) {
                // There is something in the error queue, and that has not ended the handshake: an ICMP error that came while
                // the kernel was busy with the socket, say.
                Ok(0) if !has_ended => self.forget_errors(),
                Ok(0) => return Some(local(Errno::ECONNABORTED)),
                Ok(errno) => return Some(errno::of_answer(Errno::from_raw(errno))),
                Err(errno) => return Some(errno::of_answer(errno)),
            };
        }
        // It cannot be written to before it is connected.
        events.contains(EpollFlags::EPOLLOUT).then_some(ProbeOutcome::Accepted)
    }

    /// Empties the error queue. ICMP errors for a SYN are put there though nobody has asked for that (`IP_RECVERR`), stay
    /// when the socket is disconnected, and each later handshake would have them as its error. Says whether it is empty.
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
