//! A tracked TCP connection as ctnetlink reports it.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_common.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use super::key::FlowKey;
use super::tcp_state::TcpState;
use super::wire;
use crate::netlink::tlv::{Attr, Attrs, Malformed, Message};

/// A tracked TCP connection through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Client: the source of the original direction.
    pub client: SocketAddr,
    /// Address that the client connects to: the destination of the original direction.
    pub public: SocketAddr,
    /// Backend: the source of the reply direction.
    pub backend: SocketAddr,
    /// Client's address as the backend sees it: the destination of the reply direction.
    pub seen_as: SocketAddr,
    /// Id of the entry, which distinguishes it from a later one with the same addresses (`CTA_ID`).
    pub id: u32,
    /// The conntrack mark.
    pub mark: u32,
    /// Status bits of the entry.
    pub status: CtStatus,
    /// State of the TCP connection; `None` in answers without it.
    pub tcp_state: Option<TcpState>,
    /// The conntrack zone of the original direction.
    pub zone: u16,
    /// Number of seconds until conntrack forgets it if no packet comes.
    pub timeout: Option<u32>,
    /// Traffic, if `net.netfilter.nf_conntrack_acct` is on.
    pub counters: Option<Counters>,
    /// Time of the first packet in nanoseconds since 1970, if `net.netfilter.nf_conntrack_timestamp` is on.
    pub started: Option<u64>,
}

/// Traffic of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Traffic from the client to the backend.
    pub to: Traffic,
    /// Traffic from the backend to the client.
    pub from: Traffic,
}

/// Traffic of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of packets as conntrack saw them: a merged one (GRO) counts once.
    pub packets: u64,
    /// Number of bytes, IP headers included.
    pub bytes: u64,
}

/// Status bits of an entry: `IPS_*` of `nf_conntrack_common.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtStatus(pub u32);

impl CtStatus {
    /// Returns whether a packet of the reply direction was seen.
    pub const fn seen_reply(self) -> bool {
        self.0 & 2 != 0
    }

    /// Returns whether the handshake was completed, so that the flow is not dropped early when the table is full.
    pub const fn assured(self) -> bool {
        self.0 & 4 != 0
    }

    /// Returns whether the source is translated.
    pub const fn snat(self) -> bool {
        self.0 & 16 != 0
    }

    /// Returns whether the destination is translated.
    pub const fn dnat(self) -> bool {
        self.0 & 32 != 0
    }

    /// Returns whether the entry is being removed.
    pub const fn dying(self) -> bool {
        self.0 & 512 != 0
    }
}

impl Flow {
    /// Returns the identity of the flow.
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            client: self.client,
            public: self.public,
            zone: self.zone,
            id: self.id,
        }
    }

    /// Reads a ctnetlink message; `None` if it is not about TCP over IPv4 or IPv6.
    ///
    /// # Errors
    /// Fails with [`Malformed`] when an attribute that every entry has is missing or has a wrong form.
    pub fn decode(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        let (_, attrs) = message.family()?;
        let mut parts = FlowParts::default();
        for attr in attrs {
            parts.take(&attr?)?;
        }
        let (Some(orig), Some(reply)) = (parts.orig, parts.reply) else {
            return Ok(None);
        };
        let ends = [orig.from, orig.to, reply.from, reply.to].map(|end| end.is_ipv4());
        if ends != [ends[0]; 4] {
            return Err(Malformed::new("a flow between two families"));
        }
        Ok(Some(Self {
            client: orig.from,
            public: orig.to,
            backend: reply.from,
            seen_as: reply.to,
            id: parts.id.ok_or(Malformed::new("a flow without its id"))?,
            mark: parts.mark,
            status: parts.status.ok_or(Malformed::new("a flow without its status"))?,
            tcp_state: parts.tcp_state,
            zone: parts.zone.or(orig.zone).unwrap_or(0),
            timeout: parts.timeout,
            counters: parts.to.zip(parts.from).map(|(to, from)| Counters { to, from }),
            started: parts.started,
        }))
    }
}

#[derive(Default)]
struct FlowParts {
    orig: Option<Tuple>,
    reply: Option<Tuple>,
    id: Option<u32>,
    mark: u32,
    status: Option<CtStatus>,
    tcp_state: Option<TcpState>,
    zone: Option<u16>,
    timeout: Option<u32>,
    to: Option<Traffic>,
    from: Option<Traffic>,
    started: Option<u64>,
}

impl FlowParts {
    fn take(&mut self, attr: &Attr<'_>) -> Result<(), Malformed> {
        match attr.kind {
            wire::CTA_TUPLE_ORIG => self.orig = Tuple::decode(attr.nested())?,
            wire::CTA_TUPLE_REPLY => self.reply = Tuple::decode(attr.nested())?,
            wire::CTA_ID => self.id = Some(attr.be32()?),
            wire::CTA_MARK => self.mark = attr.be32()?,
            wire::CTA_STATUS => self.status = Some(CtStatus(attr.be32()?)),
            wire::CTA_PROTOINFO => self.tcp_state = tcp_state(attr.nested())?,
            wire::CTA_ZONE => self.zone = Some(attr.be16()?),
            wire::CTA_TIMEOUT => self.timeout = Some(attr.be32()?),
            wire::CTA_COUNTERS_ORIG => self.to = Some(traffic(attr.nested())?),
            wire::CTA_COUNTERS_REPLY => self.from = Some(traffic(attr.nested())?),
            wire::CTA_TIMESTAMP => {
                if let Some(start) = attr.nested().first(wire::CTA_TIMESTAMP_START)? {
                    self.started = Some(start.be64()?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

struct Tuple {
    from: SocketAddr,
    to: SocketAddr,
    zone: Option<u16>,
}

impl Tuple {
    /// Reads a tuple; `None` if it is of another protocol.
    fn decode(attrs: Attrs<'_>) -> Result<Option<Self>, Malformed> {
        let (mut ips, mut ports, mut zone) = ((None, None), None, None);
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                wire::CTA_TUPLE_IP => ips = addresses(attr.nested())?,
                wire::CTA_TUPLE_PROTO => ports = tcp_ports(attr.nested())?,
                wire::CTA_TUPLE_ZONE => zone = Some(attr.be16()?),
                _ => {}
            }
        }
        let ((Some(from), Some(to)), Some((from_port, to_port))) = (ips, ports) else {
            return Ok(None);
        };
        Ok(Some(Self {
            from: SocketAddr::new(from, from_port),
            to: SocketAddr::new(to, to_port),
            zone,
        }))
    }
}

fn addresses(attrs: Attrs<'_>) -> Result<(Option<IpAddr>, Option<IpAddr>), Malformed> {
    let (mut from, mut to) = (None, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            wire::CTA_IP_V4_SRC => from = Some(Ipv4Addr::from(attr.array::<4>()?).into()),
            wire::CTA_IP_V4_DST => to = Some(Ipv4Addr::from(attr.array::<4>()?).into()),
            wire::CTA_IP_V6_SRC => from = Some(Ipv6Addr::from(attr.array::<16>()?).into()),
            wire::CTA_IP_V6_DST => to = Some(Ipv6Addr::from(attr.array::<16>()?).into()),
            _ => {}
        }
    }
    Ok((from, to))
}

fn tcp_ports(attrs: Attrs<'_>) -> Result<Option<(u16, u16)>, Malformed> {
    let (mut protocol, mut from, mut to) = (0, None, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            wire::CTA_PROTO_NUM => protocol = attr.u8()?,
            wire::CTA_PROTO_SRC_PORT => from = Some(attr.be16()?),
            wire::CTA_PROTO_DST_PORT => to = Some(attr.be16()?),
            _ => {}
        }
    }
    Ok(if protocol == wire::TCP { from.zip(to) } else { None })
}

fn tcp_state(attrs: Attrs<'_>) -> Result<Option<TcpState>, Malformed> {
    let Some(tcp) = attrs.first(wire::CTA_PROTOINFO_TCP)? else {
        return Ok(None);
    };
    let state = tcp.nested().first(wire::CTA_PROTOINFO_TCP_STATE)?;
    state.map(|state| state.u8().map(TcpState::from)).transpose()
}

fn traffic(attrs: Attrs<'_>) -> Result<Traffic, Malformed> {
    let mut traffic = Traffic::default();
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            wire::CTA_COUNTERS_PACKETS => traffic.packets = attr.be64()?,
            wire::CTA_COUNTERS_BYTES => traffic.bytes = attr.be64()?,
            _ => {}
        }
    }
    Ok(traffic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::tlv::{Header, Messages, NetfilterHeader, Writer};

    #[test]
    fn a_full_entry_is_read() {
        let bytes = entry("198.51.100.7:4000", "10.2.0.11:3000", wire::TCP);
        let flow = decode(&bytes).unwrap().unwrap();
        assert_eq!(flow.client, "198.51.100.7:4000".parse().unwrap());
        assert_eq!(flow.public, "10.2.0.11:3000".parse().unwrap());
        assert_eq!(flow.backend, "10.2.0.11:3000".parse().unwrap());
        assert_eq!(flow.seen_as, "198.51.100.7:4000".parse().unwrap());
        assert_eq!(
            (flow.id, flow.mark, flow.zone, flow.timeout),
            (77, 0x80_0000, 5, Some(60))
        );
        assert!(flow.status.assured() && flow.status.seen_reply() && flow.status.dnat() && !flow.status.snat());
        assert_eq!(flow.tcp_state, Some(TcpState::Established));
        let traffic = Traffic { packets: 3, bytes: 4 };
        assert_eq!(
            flow.counters,
            Some(Counters {
                to: traffic,
                from: traffic
            })
        );
        assert_eq!(flow.started, Some(123));
        assert_eq!(
            flow.key(),
            FlowKey {
                client: flow.client,
                public: flow.public,
                zone: 5,
                id: 77
            }
        );
    }

    #[test]
    fn ipv6_is_read_and_udp_is_not_ours() {
        let bytes = entry("[2001:db8::1]:1", "[2001:db8::2]:2", wire::TCP);
        assert_eq!(
            decode(&bytes).unwrap().unwrap().client,
            "[2001:db8::1]:1".parse().unwrap()
        );
        assert_eq!(decode(&entry("192.0.2.1:1", "192.0.2.2:2", 17)), Ok(None));
    }

    #[test]
    fn a_flow_has_one_family() {
        let (four, six) = ("192.0.2.1:1", "[2001:db8::1]:1");
        for ends in [[four, four, four, six], [four, six, four, four], [four, four, six, six]] {
            let [a, b, c, d] = ends;
            assert!(decode(&entry_with([a, b], [c, d], wire::TCP)).is_err(), "{ends:?}");
            assert!(decode(&entry_with([d, c], [b, a], wire::TCP)).is_err(), "{ends:?}");
        }
    }

    #[test]
    fn truncations_are_errors_or_nothing() {
        let bytes = entry("198.51.100.7:4000", "10.2.0.11:3000", wire::TCP);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        for length in 0..message.payload.len() {
            let _ = Flow::decode(&Message {
                payload: &message.payload[..length],
                ..message
            });
        }
    }

    proptest! {
        #[test]
        fn decoding_is_total(payload: Vec<u8>) {
            let _ = Flow::decode(&Message { kind: 0x100, flags: 0, seq: 0, pid: 0, payload: &payload });
        }

        #[test]
        fn decoding_a_damaged_entry_is_total(at: prop::sample::Index, byte: u8) {
            let mut bytes = entry("198.51.100.7:4000", "10.2.0.11:3000", wire::TCP);
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Option<Flow>, Malformed> {
        Flow::decode(&Messages::new(bytes).next().unwrap().unwrap())
    }

    fn entry(from: &str, to: &str, protocol: u8) -> Vec<u8> {
        entry_with([from, to], [to, from], protocol)
    }

    fn entry_with(orig: [&str; 2], reply: [&str; 2], protocol: u8) -> Vec<u8> {
        let directions = [(wire::CTA_TUPLE_ORIG, orig), (wire::CTA_TUPLE_REPLY, reply)];
        let directions = directions.map(|(kind, ends)| (kind, ends.map(|end| end.parse::<SocketAddr>().unwrap())));
        let mut writer = Writer::new();
        writer.message(
            Header {
                kind: 0x100,
                ..Header::default()
            },
            NetfilterHeader::default(),
            |w| {
                for (kind, [from, to]) in directions {
                    w.nest(kind, |w| {
                        w.nest(wire::CTA_TUPLE_IP, |w| {
                            wire::address(w, from.ip(), wire::TupleSide::Source);
                            wire::address(w, to.ip(), wire::TupleSide::Destination);
                        });
                        w.nest(wire::CTA_TUPLE_PROTO, |w| {
                            w.u8(wire::CTA_PROTO_NUM, protocol);
                            w.be16(wire::CTA_PROTO_SRC_PORT, from.port());
                            w.be16(wire::CTA_PROTO_DST_PORT, to.port());
                        });
                    });
                }
                w.be32(wire::CTA_ID, 77);
                w.be32(wire::CTA_MARK, 0x80_0000);
                w.be32(wire::CTA_STATUS, 2 | 4 | 8 | 32);
                w.be16(wire::CTA_ZONE, 5);
                w.be32(wire::CTA_TIMEOUT, 60);
                w.nest(wire::CTA_PROTOINFO, |w| {
                    w.nest(wire::CTA_PROTOINFO_TCP, |w| w.u8(wire::CTA_PROTOINFO_TCP_STATE, 3));
                });
                for kind in [wire::CTA_COUNTERS_ORIG, wire::CTA_COUNTERS_REPLY] {
                    w.nest(kind, |w| {
                        w.be64(wire::CTA_COUNTERS_PACKETS, 3);
                        w.be64(wire::CTA_COUNTERS_BYTES, 4);
                    });
                }
                w.nest(wire::CTA_TIMESTAMP, |w| w.be64(wire::CTA_TIMESTAMP_START, 123));
            },
        );
        writer.finish().unwrap()
    }
}
