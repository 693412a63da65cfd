//! Requests to ctnetlink.
//!
//! Source: `net/netfilter/nf_conntrack_netlink.c`, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, SocketAddr};

use super::key::FlowKey;
use crate::netlink::tlv::{Header, NetfilterHeader, Writer};
use tcpgw_core::model::FlowMark;

/// `NFNL_SUBSYS_CTNETLINK << 8`, with `IPCTNL_MSG_CT_*`.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const STATS_CPU: u16 = 0x104;
const STATS: u16 = 0x105;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

pub(super) const TCP: u8 = 6;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_PROTOINFO: u16 = 4;
pub(super) const CTA_TIMEOUT: u16 = 7;
pub(super) const CTA_MARK: u16 = 8;
pub(super) const CTA_COUNTERS_ORIG: u16 = 9;
pub(super) const CTA_COUNTERS_REPLY: u16 = 10;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
pub(super) const CTA_TIMESTAMP: u16 = 20;
const CTA_MARK_MASK: u16 = 21;
const CTA_FILTER: u16 = 25;
const CTA_STATUS_MASK: u16 = 26;

pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
pub(super) const CTA_TUPLE_ZONE: u16 = 3;

pub(super) const CTA_IP_V4_SRC: u16 = 1;
pub(super) const CTA_IP_V4_DST: u16 = 2;
pub(super) const CTA_IP_V6_SRC: u16 = 3;
pub(super) const CTA_IP_V6_DST: u16 = 4;

pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;

pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
pub(super) const CTA_COUNTERS_PACKETS: u16 = 1;
pub(super) const CTA_COUNTERS_BYTES: u16 = 2;
pub(super) const CTA_TIMESTAMP_START: u16 = 1;
pub(super) const CTA_TIMESTAMP_STOP: u16 = 2;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

/// `CTA_STATS_GLOBAL_ENTRIES`
pub(super) const CTA_STATS_ENTRIES: u16 = 1;

// Counters of each CPU.
pub(super) const CTA_STATS_INVALID: u16 = 4;
pub(super) const CTA_STATS_INSERT_FAILED: u16 = 9;
pub(super) const CTA_STATS_DROP: u16 = 10;
pub(super) const CTA_STATS_EARLY_DROP: u16 = 11;
pub(super) const CTA_STATS_SEARCH_RESTART: u16 = 13;
pub(super) const CTA_STATS_CHAIN_TOOLONG: u16 = 15;

/// Requests the number of flows of all programs.
pub(super) fn stats(writer: &mut Writer, seq: u32) {
    let header = Header {
        kind: STATS,
        flags: REQUEST | ACK,
        seq,
    };
    writer.message(header, NetfilterHeader::default(), |_| {});
}

/// Requests the counters of each CPU.
pub(super) fn cpu_stats(writer: &mut Writer, seq: u32) {
    let header = Header {
        kind: STATS_CPU,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, NetfilterHeader::default(), |_| {});
}

/// Requests flows by a filter with flags that no kernel knows.
pub(super) fn senseless_filter(writer: &mut Writer, seq: u32) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    let family = family(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    writer.message(header, family, |w| {
        w.nest(CTA_FILTER, |w| w.ne32(CTA_FILTER_ORIG_FLAGS, 1 << 31));
    });
}

/// Requests all flows with the mark, of both families.
pub(super) fn dump(writer: &mut Writer, seq: u32, mark: FlowMark) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, NetfilterHeader::default(), |w| write_mark(w, mark));
}

/// Values that the masked bits of a flow's status must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusFilter {
    pub(super) value: u32,
    /// Bits to compare; not 0, which the kernel refuses.
    pub(super) mask: u32,
}

/// Requests all flows with the mark and that status, of both families.
pub(super) fn dump_status(writer: &mut Writer, seq: u32, mark: FlowMark, status: StatusFilter) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, NetfilterHeader::default(), |w| {
        write_mark(w, mark);
        w.be32(CTA_STATUS, status.value);
        w.be32(CTA_STATUS_MASK, status.mask);
    });
}

/// Asks for flows with a translated destination that do not bear the mark, or for more: for those that do, where it has several
/// bits; for all, before Linux 6.0.
pub(super) fn dump_unmarked(writer: &mut Writer, seq: u32, mark: FlowMark) {
    const DST_NAT: u32 = 1 << 5;
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, NetfilterHeader::default(), |w| {
        if mark.mask().is_power_of_two() {
            w.be32(CTA_MARK, mark.value() ^ mark.mask());
            w.be32(CTA_MARK_MASK, mark.mask());
        }
        w.be32(CTA_STATUS, DST_NAT);
        w.be32(CTA_STATUS_MASK, DST_NAT);
    });
}

/// Asks for the flows that pass a filter, or for more: of IPv6 for all addresses, since the kernel's filter takes exactly
/// the flows whose IPv6 address is another one (`ctnetlink_filter_match_tuple` uses `!ipv6_addr_cmp`; seen on 6.18).
///
/// Flags and values are written from the same parts, so that none lacks the other.
pub(super) fn dump_filtered(writer: &mut Writer, seq: u32, mark: FlowMark, filter: &Filter) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    let ways = [
        (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, filter.original.can_be_asked()),
        (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, filter.reply.can_be_asked()),
    ];
    writer.message(header, filter.family.header(), |w| {
        write_mark(w, mark);
        for (tuple, _, ends) in &ways {
            if !ends.is_empty() {
                w.nest(*tuple, |w| ends.write(w));
            }
        }
        if !filter.is_empty() {
            w.nest(CTA_FILTER, |w| {
                for (_, flags, ends) in ways.iter().filter(|(_, _, ends)| !ends.is_empty()) {
                    w.ne32(*flags, ends.flags());
                }
            });
        }
    });
}

/// Asks for the flow that a backend sees as coming from `seen_as`.
pub(super) fn get(writer: &mut Writer, seq: u32, backend: SocketAddr, seen_as: SocketAddr) {
    let header = Header {
        kind: GET,
        flags: REQUEST | ACK,
        seq,
    };
    writer.message(header, family(backend.ip()), |w| {
        tuple(w, CTA_TUPLE_REPLY, backend, seen_as);
    });
}

/// Deletes the one flow that `key` names. Without a tuple the kernel would delete all there are.
pub(super) fn delete(writer: &mut Writer, seq: u32, acked: bool, key: &FlowKey) {
    let header = Header {
        kind: DELETE,
        flags: if acked { REQUEST | ACK } else { REQUEST },
        seq,
    };
    writer.message(header, family(key.client.ip()), |w| {
        tuple(w, CTA_TUPLE_ORIG, key.client, key.public);
        w.be32(CTA_ID, key.id);
        if key.zone != 0 {
            w.be16(CTA_ZONE, key.zone);
        }
    });
}

/// End of a direction: its source or its destination.
#[derive(Clone, Copy, Debug)]
pub(super) enum TupleSide {
    Source,
    Destination,
}

pub(super) fn address(w: &mut Writer, ip: IpAddr, side: TupleSide) {
    match (ip, side) {
        (IpAddr::V4(ip), TupleSide::Source) => w.attr(CTA_IP_V4_SRC, &ip.octets()),
        (IpAddr::V4(ip), TupleSide::Destination) => w.attr(CTA_IP_V4_DST, &ip.octets()),
        (IpAddr::V6(ip), TupleSide::Source) => w.attr(CTA_IP_V6_SRC, &ip.octets()),
        (IpAddr::V6(ip), TupleSide::Destination) => w.attr(CTA_IP_V6_DST, &ip.octets()),
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the header with `AF_INET` or `AF_INET6`.
    fn header(self) -> NetfilterHeader {
        let family = match self {
            Self::V4 => 2,
            Self::V6 => 10,
        };
        NetfilterHeader {
            family,
            ..NetfilterHeader::default()
        }
    }
}

/// Addresses that flows are filtered by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// Address family of the flows: without one, the kernel filters by the mark alone (seen on 6.18).
    pub(super) family: Ip,
    pub(super) original: TupleEnds,
    pub(super) reply: TupleEnds,
}

impl Filter {
    /// Returns whether the kernel has nothing to filter by.
    pub(super) fn is_empty(&self) -> bool {
        self.original.can_be_asked().is_empty() && self.reply.can_be_asked().is_empty()
    }
}

/// Source and destination of a direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TupleEnds {
    pub(super) source: TupleEnd,
    pub(super) destination: TupleEnd,
}

/// Source or destination of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TupleEnd {
    pub(super) ip: Option<IpAddr>,
    pub(super) port: Option<u16>,
}

impl TupleEnds {
    /// Returns the ends without IPv6 addresses.
    fn can_be_asked(self) -> Self {
        let end = |end: TupleEnd| TupleEnd {
            ip: end.ip.filter(IpAddr::is_ipv4),
            ..end
        };
        Self {
            source: end(self.source),
            destination: end(self.destination),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.source == TupleEnd::default() && self.destination == TupleEnd::default()
    }

    /// Returns the filter's flags, in this machine's byte order. The kernel needs the protocol wherever it gets a port,
    /// and no flags at all would select all flows.
    fn flags(self) -> u32 {
        const PROTOCOL: u32 = 8;
        let bit = |is: bool, bit| if is { bit } else { 0 };
        PROTOCOL
            | bit(self.source.ip.is_some(), 1)
            | bit(self.destination.ip.is_some(), 2)
            | bit(self.source.port.is_some(), 16)
            | bit(self.destination.port.is_some(), 32)
    }

    fn write(self, w: &mut Writer) {
        if self.source.ip.is_some() || self.destination.ip.is_some() {
            w.nest(CTA_TUPLE_IP, |w| {
                for (ip, side) in [
                    (self.source.ip, TupleSide::Source),
                    (self.destination.ip, TupleSide::Destination),
                ] {
                    if let Some(ip) = ip {
                        address(w, ip, side);
                    }
                }
            });
        }
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.u8(CTA_PROTO_NUM, TCP);
            if let Some(port) = self.source.port {
                w.be16(CTA_PROTO_SRC_PORT, port);
            }
            if let Some(port) = self.destination.port {
                w.be16(CTA_PROTO_DST_PORT, port);
            }
        });
    }
}

fn write_mark(w: &mut Writer, mark: FlowMark) {
    w.be32(CTA_MARK, mark.value());
    w.be32(CTA_MARK_MASK, mark.mask());
}

fn tuple(w: &mut Writer, kind: u16, from: SocketAddr, to: SocketAddr) {
    w.nest(kind, |w| {
        w.nest(CTA_TUPLE_IP, |w| {
            address(w, from.ip(), TupleSide::Source);
            address(w, to.ip(), TupleSide::Destination);
        });
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.u8(CTA_PROTO_NUM, TCP);
            w.be16(CTA_PROTO_SRC_PORT, from.port());
            w.be16(CTA_PROTO_DST_PORT, to.port());
        });
    });
}

pub(super) fn family(ip: IpAddr) -> NetfilterHeader {
    Ip::of(ip).header()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tlv::Messages;

    #[test]
    fn a_filter_always_names_the_protocol_and_what_is_written() {
        let ip = Some("192.0.2.1".parse().unwrap());
        let six = Some("2001:db8::1".parse().unwrap());
        let ends = |source, destination| TupleEnds { source, destination }.can_be_asked();
        let end = |ip, port| TupleEnd { ip, port };
        let none = TupleEnd::default();
        assert_eq!(ends(end(ip, None), none).flags(), 8 | 1);
        assert_eq!(ends(none, end(ip, Some(0))).flags(), 8 | 2 | 32);
        assert_eq!(ends(end(six, Some(1)), none).flags(), 8 | 16, "no address of IPv6");
        assert!(ends(end(six, None), none).is_empty() && !ends(end(ip, None), none).is_empty());
        let mut writer = Writer::new();
        let filter = Filter {
            family: Ip::V6,
            original: ends(end(six, None), none),
            reply: TupleEnds::default(),
        };
        assert!(filter.is_empty());
        dump_filtered(&mut writer, 1, FlowMark::default(), &filter);
        let bytes = writer.finish().unwrap();
        let (_, attrs) = Messages::new(&bytes).next().unwrap().unwrap().family().unwrap();
        let kinds: Vec<_> = attrs.map(|attr| attr.unwrap().kind).collect();
        assert_eq!(kinds, [CTA_MARK, CTA_MARK_MASK], "nothing to filter by: no filter");
    }

    #[test]
    fn a_delete_always_has_tuple_and_id() {
        let (client, public) = ("[2001:db8::1]:5".parse().unwrap(), "[2001:db8::2]:6".parse().unwrap());
        for zone in [0, 9] {
            let mut writer = Writer::new();
            delete(
                &mut writer,
                1,
                false,
                &FlowKey {
                    client,
                    public,
                    zone,
                    id: 0,
                },
            );
            let bytes = writer.finish().unwrap();
            let message = Messages::new(&bytes).next().unwrap().unwrap();
            let (family, attrs) = message.family().unwrap();
            assert_eq!((family.family, family.version), (10, 0));
            let kinds: Vec<_> = attrs.map(|attr| attr.unwrap().kind).collect();
            let expected: &[u16] = if zone == 0 { &[1, 12] } else { &[1, 12, 18] };
            assert_eq!(kinds, expected);
        }
    }
}
