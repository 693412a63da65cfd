//! Packets as they are on a host's interfaces.
//!
//! A packet socket rather than tcpdump: it captures from the moment it exists, and what was on the wire before
//! [`Capture::stop`] is in its result.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt::RcvBufForce,
};

use super::{Net, wait_until};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const ICMPV6: u8 = 58;

/// A captured packet; with offloads on it may stand for many on a real wire.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) at: Instant,
    /// True when the host sends the packet, false when it receives it.
    pub(crate) outgoing: bool,
    pub(crate) protocol: u8,
    /// Source address. The ports of source and destination are 0 when the packet is not TCP.
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    /// TCP flags; 0 when it is not TCP.
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Bytes of TCP payload.
    pub(crate) payload: usize,
    /// Bytes with the IP header.
    pub(crate) length: usize,
    /// Type and code; 0 when it is not ICMP.
    pub(crate) icmp: (u8, u8),
}

impl Packet {
    /// Returns true when the packet is TCP and has all of these flags.
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.protocol == TCP && self.flags & flags == flags
    }

    /// Returns true when the packet is the SYN that opens a connection.
    pub(crate) fn opens(&self) -> bool {
        self.has(SYN) && !self.has(ACK)
    }

    /// Returns true when the packet goes from one of these addresses to the other, in either direction.
    pub(crate) fn between(&self, one: SocketAddr, other: SocketAddr) -> bool {
        (self.src, self.dst) == (one, other) || (self.src, self.dst) == (other, one)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            src,
            dst,
            seq,
            ack,
            payload,
            length,
            ..
        } = self;
        let way = if self.outgoing { "out" } else { "in" };
        match self.protocol {
            TCP => {
                let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, '.')];
                let flags: String = names
                    .iter()
                    .filter(|(bit, _)| self.has(*bit))
                    .map(|(_, name)| *name)
                    .collect();
                write!(f, "{way} {src} > {dst} [{flags}] seq {seq} ack {ack} payload {payload}")
            }
            ICMP | ICMPV6 => write!(
                f,
                "{way} {} > {} icmp {}/{}",
                src.ip(),
                dst.ip(),
                self.icmp.0,
                self.icmp.1
            ),
            other => write!(f, "{way} {} > {} protocol {other} length {length}", src.ip(), dst.ip()),
        }
    }
}

/// Packets being captured.
pub(crate) struct Capture {
    seen: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Returns the packets captured so far.
    pub(crate) fn so_far(&self) -> Vec<Packet> {
        self.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Waits until it has a packet like this.
    #[track_caller]
    pub(crate) fn wait_for(&self, timeout: Duration, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let mut found = None;
        wait_until(timeout, || {
            found = self.lock().iter().find(|packet| wanted(packet)).cloned();
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no such packet among\n{}", lines(&self.lock())))
    }

    /// Ends, with all that had passed until now.
    pub(crate) fn stop(mut self) -> Vec<Packet> {
        self.end();
        std::mem::take(&mut *self.lock())
    }

    fn end(&mut self) {
        self.stop.write(1).expect("an eventfd takes a one");
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a capture panicked");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Packet>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a line for each packet, for messages.
pub(crate) fn lines(packets: &[Packet]) -> String {
    packets.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Net {
    /// Captures what the filter picks on all interfaces of a host; a bridge shows a packet twice.
    pub(crate) fn capture(&self, host: &str, filter: impl Fn(&Packet) -> bool + Send + 'static) -> Capture {
        self.capture_on(host, None, filter)
    }

    /// Captures on one interface of a host, or on all.
    pub(crate) fn capture_on(
        &self,
        host: &str,
        interface: Option<&str>,
        filter: impl Fn(&Packet) -> bool + Send + 'static,
    ) -> Capture {
        let (socket, index) = self.within(host, || {
            let index = interface.map(|name| if_nametoindex(name).unwrap_or_else(|e| panic!("{name}: {e}")));
            (packet_socket().expect("failed to make a packet socket"), index)
        });
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("failed to make an eventfd"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (its_stop, its_seen) = (Arc::clone(&stop), Arc::clone(&seen));
        let wanted = move |on: usize, packet: &Packet| index.is_none_or(|i| i as usize == on) && filter(packet);
        let thread = thread::spawn(move || read_until(&its_stop, &socket, &its_seen, wanted));
        Capture {
            seen,
            stop,
            thread: Some(thread),
        }
    }
}

fn packet_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    // Datagram: without link headers.
    let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, RcvBufForce, &(64 << 20))?;
    Ok(socket)
}

fn read_until(stop: &EventFd, socket: &OwnedFd, seen: &Mutex<Vec<Packet>>, wanted: impl Fn(usize, &Packet) -> bool) {
    loop {
        let mut fds = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("failed to wait for packets: {e}"),
        }
        let stopping = fds[0].any().unwrap_or(false);
        drain(socket, seen, &wanted);
        if stopping {
            return;
        }
    }
}

fn drain(socket: &OwnedFd, seen: &Mutex<Vec<Packet>>, wanted: &impl Fn(usize, &Packet) -> bool) {
    let mut head = [0; 256];
    loop {
        let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut head) {
            Ok((length, Some(from))) => (length, from),
            Err(Errno::EAGAIN) => return,
            // The interface went down.
            Ok((_, None)) | Err(Errno::ENETDOWN | Errno::EINTR) => continue,
            Err(e) => panic!("failed to read a packet: {e}"),
        };
        if let Some(packet) = parse(&head[..length], from.pkttype() == PACKET_OUTGOING)
            && wanted(from.ifindex(), &packet)
        {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
        }
    }
}

/// `linux/if_packet.h`
const PACKET_OUTGOING: u8 = 4;

/// Reads the headers; `None` when it is not IP, or an IPv6 packet with extension headers cut short.
fn parse(bytes: &[u8], outgoing: bool) -> Option<Packet> {
    let (header, length, protocol, src, dst) = match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 0xf) * 4;
            let src = IpAddr::V4(Ipv4Addr::from(array::<4>(bytes, 12)?));
            let dst = IpAddr::V4(Ipv4Addr::from(array::<4>(bytes, 16)?));
            (header, usize::from(u16_at(bytes, 2)?), *bytes.get(9)?, src, dst)
        }
        6 => {
            let src = IpAddr::V6(Ipv6Addr::from(array::<16>(bytes, 8)?));
            let dst = IpAddr::V6(Ipv6Addr::from(array::<16>(bytes, 24)?));
            (40, 40 + usize::from(u16_at(bytes, 4)?), *bytes.get(6)?, src, dst)
        }
        _ => return None,
    };
    let body = bytes.get(header..)?;
    let mut packet = Packet {
        at: Instant::now(),
        outgoing,
        protocol,
        src: SocketAddr::new(src, 0),
        dst: SocketAddr::new(dst, 0),
        flags: 0,
        seq: 0,
        ack: 0,
        payload: 0,
        length,
        icmp: (0, 0),
    };
    match protocol {
        TCP => {
            packet.src.set_port(u16_at(body, 0)?);
            packet.dst.set_port(u16_at(body, 2)?);
            packet.seq = u32::from_be_bytes(array(body, 4)?);
            packet.ack = u32::from_be_bytes(array(body, 8)?);
            packet.flags = *body.get(13)?;
            packet.payload = length.saturating_sub(header + usize::from(body[12] >> 4) * 4);
        }
        ICMP | ICMPV6 => packet.icmp = (*body.first()?, *body.get(1)?),
        _ => {}
    }
    Some(packet)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
