//! TCP segments that no honest stack would send, and a TCP client made of nothing else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Net;
use super::client::PATIENCE;
use super::wire::{ACK, Capture, Packet, RST, SYN, TCP};

/// A segment that is sent without changes.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// Returns a segment with these flags and without options or data.
    pub(crate) fn new(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self {
            src,
            dst,
            seq: 1_000_000,
            ack: 0,
            flags,
            payload: Vec::new(),
        }
    }

    pub(crate) fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    pub(crate) fn ack(self, ack: u32) -> Self {
        Self {
            ack,
            flags: self.flags | ACK,
            ..self
        }
    }

    pub(crate) fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// Returns the whole packet. The kernel fills in the IPv4 checksum.
    fn bytes(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let length = u16::try_from(tcp.len()).expect("a segment fits into a packet");
        let mut packet = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = vec![0x45, 0];
                header.extend((length + 20).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([TCP, 64]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header
            }
            _ => panic!("a segment from {} to {}", self.src, self.dst),
        };
        packet.extend(tcp);
        packet
    }

    /// Returns an ICMP error of the receiver, "port unreachable", that quotes this segment, in a packet of that many bytes.
    fn refusal(&self, size: usize) -> Vec<u8> {
        let (kind, protocol): ([u8; 2], u8) = if self.src.is_ipv4() { ([3, 3], 1) } else { ([1, 4], 58) };
        let header = if self.src.is_ipv4() { 20 } else { 40 };
        let mut icmp = [kind.as_slice(), &[0; 6], &self.bytes()].concat();
        icmp.resize(size - header, 0);
        let back = Self::new(self.dst, self.src, 0);
        let mut pseudo = back.pseudo_header(icmp.len());
        *pseudo.last_mut().expect("it ends with the protocol") = protocol;
        let sum = checksum(if self.src.is_ipv4() { &[] } else { &pseudo }, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = back.bytes();
        packet.truncate(header);
        let length = u16::try_from(icmp.len()).expect("it fits into a packet");
        if self.src.is_ipv4() {
            packet[2..4].copy_from_slice(&(length + 20).to_be_bytes());
            packet[9] = protocol;
        } else {
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet[6] = protocol;
        }
        packet.extend(icmp);
        packet
    }

    fn tcp(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(20 + self.payload.len());
        tcp.extend(self.src.port().to_be_bytes());
        tcp.extend(self.dst.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([0x50, self.flags]);
        tcp.extend(u16::MAX.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.payload);
        let sum = checksum(&self.pseudo_header(tcp.len()), &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        for address in [self.src.ip(), self.dst.ip()] {
            match address {
                IpAddr::V4(address) => pseudo.extend(address.octets()),
                IpAddr::V6(address) => pseudo.extend(address.octets()),
            }
        }
        // The IPv4 form has narrower fields, whose sum is the same.
        pseudo.extend(
            u32::try_from(length)
                .expect("a segment fits into a packet")
                .to_be_bytes(),
        );
        pseudo.extend([0, 0, 0, TCP]);
        pseudo
    }
}

/// Returns the checksum of RFC 1071 over two parts, of which the first has an even length.
fn checksum(first: &[u8], second: &[u8]) -> u16 {
    let words = first.chunks(2).chain(second.chunks(2));
    let sum = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u32::from(*byte)))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice, it fits")
}

/// Sender of segments from a host, with any source.
pub(crate) struct Forger {
    v4: Socket,
    v6: Socket,
}

impl Forger {
    /// Sends a segment. A segment that the host's own rules drop counts as sent.
    pub(crate) fn send(&self, segment: &Segment) -> io::Result<()> {
        self.send_packet(segment.dst.ip(), &segment.bytes())
    }

    /// Sends an ICMP error to the sender of such a segment, in a packet of that many bytes, which reports that the port is
    /// closed.
    pub(crate) fn refuse(&self, segment: &Segment, size: usize) -> io::Result<()> {
        self.send_packet(segment.src.ip(), &segment.refusal(size))
    }

    fn send_packet(&self, to: IpAddr, packet: &[u8]) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let to = SockAddr::from(SocketAddr::new(to, 0));
        match socket.send_to(packet, &to) {
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
            _ => Ok(()),
        }
    }

    /// Sends what `next` makes (of the running number) at a steady rate; how many that were.
    pub(crate) fn blast(&self, pps: u32, time: Duration, mut next: impl FnMut(u64) -> Segment) -> u64 {
        let since = Instant::now();
        // Waking up for nothing costs a slow machine more than packets do.
        let pause = Duration::from_millis(1).max(Duration::from_secs(1) / pps);
        let mut sent = 0;
        loop {
            let elapsed = since.elapsed().min(time);
            let due = u64::try_from(elapsed.as_micros() * u128::from(pps) / 1_000_000).expect("a sane number");
            while sent < due {
                self.send(&next(sent)).expect("failed to send a segment");
                sent += 1;
            }
            if elapsed == time {
                return sent;
            }
            thread::sleep(pause.min(time.saturating_sub(elapsed)));
        }
    }
}

/// One side of a TCP connection without a TCP stack. Its address belongs to no host, so no kernel interferes.
pub(crate) struct RawFlow {
    forger: Forger,
    arriving: Capture,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The next sequence number of each side.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

impl RawFlow {
    /// Returns a segment of this connection, from this side.
    pub(crate) fn segment(&self, flags: u8, payload: &[u8]) -> Segment {
        let segment = Segment::new(self.local, self.remote, flags)
            .seq(self.seq)
            .payload(payload);
        if flags == SYN { segment } else { segment.ack(self.ack) }
    }

    /// Sends payload, or with other flags whatever they mean; payload moves `seq` on.
    pub(crate) fn send(&mut self, flags: u8, payload: &[u8]) {
        self.forger
            .send(&self.segment(flags, payload))
            .expect("failed to send a segment");
        self.seq = self
            .seq
            .wrapping_add(u32::try_from(payload.len()).expect("a segment is short"));
    }

    /// Acknowledges what has arrived in order, so that `ack` is right again.
    pub(crate) fn acknowledge(&mut self) {
        for packet in self.arriving.so_far() {
            if packet.seq == self.ack {
                self.ack = self
                    .ack
                    .wrapping_add(u32::try_from(packet.payload).expect("a segment is short"));
            }
        }
        self.send(ACK, &[]);
    }

    /// Returns the capture of the packets that arrive for this side.
    pub(crate) fn arriving(&self) -> &Capture {
        &self.arriving
    }

    pub(crate) fn forger(&self) -> &Forger {
        &self.forger
    }
}

impl Net {
    pub(crate) fn forger(&self, host: &str) -> Forger {
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)));
        self.within(host, || Forger {
            v4: raw(Domain::IPV4).expect("failed to make a raw socket"),
            v6: raw(Domain::IPV6).expect("failed to make a raw socket"),
        })
    }

    /// Sends one segment from a host.
    pub(crate) fn forge(&self, host: &str, segment: &Segment) {
        self.forger(host)
            .send(segment)
            .unwrap_or_else(|e| panic!("failed to send {segment:?}: {e}"));
    }

    /// Begins a connection from `local`, an address that no host has, with only a SYN, sent from `host`.
    pub(crate) fn raw_syn(&self, host: &str, local: SocketAddr, remote: SocketAddr) -> RawFlow {
        let arriving = self.capture(host, move |packet: &Packet| !packet.outgoing && packet.dst == local);
        let flow = RawFlow {
            forger: self.forger(host),
            arriving,
            local,
            remote,
            seq: 1_000_000,
            ack: 0,
        };
        flow.forger.send(&flow.segment(SYN, &[])).expect("failed to send a SYN");
        flow
    }

    /// Opens a connection through the whole handshake, without a TCP stack on the client's side.
    #[track_caller]
    pub(crate) fn raw_connect(&self, host: &str, local: SocketAddr, remote: SocketAddr) -> RawFlow {
        let mut flow = self.raw_syn(host, local, remote);
        let answer = flow
            .arriving
            .wait_for(PATIENCE, |packet| packet.has(SYN | ACK) || packet.has(RST));
        assert!(answer.has(SYN), "refused: {answer}");
        flow.seq += 1;
        flow.ack = answer.seq.wrapping_add(1);
        flow.send(ACK, &[]);
        flow
    }
}

/// `IPPROTO_RAW`: the program supplies the IP header.
const RAW: i32 = 255;
