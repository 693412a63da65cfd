//! The requests that are sent to ctnetlink.
//!
//! Source: `net/netfilter/nf_conntrack_netlink.c`, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::{FlowKey, Pair};
use crate::kernel::tlv::{Family, Header, Writer};
use crate::model::FlowMark;

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

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

/// `CTA_STATS_GLOBAL_ENTRIES`
pub(super) const CTA_STATS_ENTRIES: u16 = 1;

// Of each CPU.
pub(super) const CTA_STATS_INVALID: u16 = 4;
pub(super) const CTA_STATS_INSERT_FAILED: u16 = 9;
pub(super) const CTA_STATS_DROP: u16 = 10;
pub(super) const CTA_STATS_EARLY_DROP: u16 = 11;
pub(super) const CTA_STATS_SEARCH_RESTART: u16 = 13;
pub(super) const CTA_STATS_CHAIN_TOOLONG: u16 = 15;

/// Asks how many flows there are, of anyone.
pub(super) fn stats(writer: &mut Writer, seq: u32) {
    let header = Header {
        kind: STATS,
        flags: REQUEST | ACK,
        seq,
    };
    writer.message(header, Family::default(), |_| {});
}

/// Asks for the counters of each CPU.
pub(super) fn cpu_stats(writer: &mut Writer, seq: u32) {
    let header = Header {
        kind: STATS_CPU,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, Family::default(), |_| {});
}

/// Asks for flows by a filter with flags that no kernel knows.
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

/// Asks for all flows with the mark, of both families.
pub(super) fn dump(writer: &mut Writer, seq: u32, mark: FlowMark) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    writer.message(header, Family::default(), |w| write_mark(w, mark));
}

/// Asks for the flows of one pair, or of more: of IPv6 for all addresses, since the kernel's filter takes exactly the
/// flows whose IPv6 address is another one (`ctnetlink_filter_match_tuple` uses `!ipv6_addr_cmp`; seen on 6.18).
///
/// Flags and values are written from the same parts, so that none lacks the other.
pub(super) fn dump_pair(writer: &mut Writer, seq: u32, mark: FlowMark, pair: &Pair) {
    let header = Header {
        kind: GET,
        flags: REQUEST | DUMP,
        seq,
    };
    let public = Ends {
        side: Side::Destination,
        ip: pair.public.filter(IpAddr::is_ipv4),
        port: pair.public_port,
    };
    let ip = Some(pair.backend.ip()).filter(IpAddr::is_ipv4);
    let backend = Ends {
        side: Side::Source,
        ip,
        port: pair.backend.port(),
    };
    writer.message(header, family(pair.backend.ip()), |w| {
        write_mark(w, mark);
        w.nest(CTA_TUPLE_ORIG, |w| public.write(w));
        w.nest(CTA_TUPLE_REPLY, |w| backend.write(w));
        w.nest(CTA_FILTER, |w| {
            w.ne32(CTA_FILTER_ORIG_FLAGS, public.flags().get());
            w.ne32(CTA_FILTER_REPLY_FLAGS, backend.flags().get());
        });
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

/// Which end of a direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Source,
    Destination,
}

pub(super) fn address(w: &mut Writer, ip: IpAddr, side: Side) {
    match (ip, side) {
        (IpAddr::V4(ip), Side::Source) => w.attr(CTA_IP_V4_SRC, &ip.octets()),
        (IpAddr::V4(ip), Side::Destination) => w.attr(CTA_IP_V4_DST, &ip.octets()),
        (IpAddr::V6(ip), Side::Source) => w.attr(CTA_IP_V6_SRC, &ip.octets()),
        (IpAddr::V6(ip), Side::Destination) => w.attr(CTA_IP_V6_DST, &ip.octets()),
    }
}

/// One end of one direction, to filter by: always a TCP port, mostly an address.
struct Ends {
    side: Side,
    ip: Option<IpAddr>,
    port: u16,
}

impl Ends {
    /// In this machine's byte order; the kernel wants the protocol wherever it gets a port.
    fn flags(&self) -> NonZeroU32 {
        const PROTOCOL: NonZeroU32 = NonZeroU32::new(8).unwrap();
        let (ip, port) = match self.side {
            Side::Source => (1, 16),
            Side::Destination => (2, 32),
        };
        PROTOCOL | port | if self.ip.is_some() { ip } else { 0 }
    }

    fn write(&self, w: &mut Writer) {
        if let Some(ip) = self.ip {
            w.nest(CTA_TUPLE_IP, |w| address(w, ip, self.side));
        }
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.u8(CTA_PROTO_NUM, TCP);
            match self.side {
                Side::Source => w.be16(CTA_PROTO_SRC_PORT, self.port),
                Side::Destination => w.be16(CTA_PROTO_DST_PORT, self.port),
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
            address(w, from.ip(), Side::Source);
            address(w, to.ip(), Side::Destination);
        });
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.u8(CTA_PROTO_NUM, TCP);
            w.be16(CTA_PROTO_SRC_PORT, from.port());
            w.be16(CTA_PROTO_DST_PORT, to.port());
        });
    });
}

fn family(ip: IpAddr) -> Family {
    let family = match ip {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    };
    Family {
        family,
        ..Family::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tlv::Messages;

    #[test]
    fn a_filter_always_names_protocol_and_port() {
        for ip in [None, Some("192.0.2.1".parse().unwrap())] {
            for (side, port) in [(Side::Source, 16), (Side::Destination, 32)] {
                let flags = Ends { side, ip, port: 0 }.flags().get();
                assert_eq!(flags & (8 | port), 8 | port);
                assert_eq!(flags & 3 != 0, ip.is_some());
            }
        }
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
