//! Matches of iptables that `nf_tables` carries unchanged (`nft_compat`).
//!
//! Source: `include/uapi/linux/netfilter/xt_*.h`.

use super::stateful;
use super::{Load, Relation, RuleField, SetElement, Test, ct_state};

/// Returns the conditions of a match.
pub(super) fn matches(name: &str, revision: u32, info: &[u8]) -> Vec<Test> {
    let read = match (name, revision) {
        ("comment", _) => Some(Vec::new()),
        ("tcp" | "udp", 0) => ports(name, info),
        ("multiport", 1) => multiport(info),
        ("conntrack", 1..=3) => conntrack(revision, info),
        ("state", 0) => word(info, 0).map(|mask| vec![state(mask, false)]),
        ("connmark", 1) => mark(RuleField::CtMark, info),
        ("addrtype", 1) => address_type(info),
        ("mark", 1) => mark(RuleField::Mark, info),
        ("recent" | "connlimit" | "statistic" | "hashlimit", _) => stateful::matches(name, revision, info),
        ("icmp6", 0) => icmp6(info),
        ("pkttype", 0) => packet_type(info),
        ("ttl" | "hl", 0) => hop_limit(info),
        ("tcpmss", 0) => segment_size(info),
        ("set" | "geoip", _) => Some(vec![Test::Sometimes]),
        _ => None,
    };
    read.unwrap_or_else(|| vec![Test::Unknown(format!("-m {name}"))])
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    info.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn compare(field: RuleField, len: usize, relation: Relation, value: Vec<u8>) -> Test {
    Test::Compare {
        load: Load { field, len },
        mask: None,
        relation,
        value,
    }
}

/// Returns the condition for a range of ports, in this machine's byte order; `None` for the range of all ports.
pub(super) fn port_range(field: RuleField, from: u16, to: u16, negated: bool) -> Option<Test> {
    if (from, to, negated) == (0, u16::MAX, false) {
        return None;
    }
    Some(numbers(field, &[(from, to)], negated))
}

/// Returns the condition that a number of 16 bits, such as a port, is in one of these ranges.
pub(super) fn numbers(field: RuleField, ranges: &[(u16, u16)], negated: bool) -> Test {
    let element = |(from, to): &(u16, u16)| SetElement {
        from: from.to_be_bytes().to_vec(),
        to: to.to_be_bytes().to_vec(),
    };
    Test::In {
        key: vec![Load { field, len: 2 }],
        elements: Some(ranges.iter().map(element).collect()),
        negated,
    }
}

/// Decodes `struct xt_tcp` and `struct xt_udp`.
fn ports(protocol: &str, info: &[u8]) -> Option<Vec<Test>> {
    const UDP: u8 = 17;
    if protocol == "udp" {
        return Some(vec![compare(RuleField::Protocol, 1, Relation::Equal, vec![UDP])]);
    }
    let (option, mask, flags, inverted) = (*info.get(8)?, *info.get(9)?, *info.get(10)?, *info.get(11)?);
    let mut tests: Vec<Test> = [
        port_range(RuleField::SourcePort, half(info, 0)?, half(info, 2)?, inverted & 1 != 0),
        port_range(RuleField::DestPort, half(info, 4)?, half(info, 6)?, inverted & 2 != 0),
    ]
    .into_iter()
    .flatten()
    .collect();
    if mask != 0 || flags != 0 {
        tests.push(tcp_flags(mask, flags, inverted & 4 != 0));
    }
    if option != 0 {
        tests.push(Test::Unknown("a TCP option".into()));
    }
    Some(tests)
}

/// Decodes `struct ip6t_icmp`: the type, the first and last code, and flags.
fn icmp6(info: &[u8]) -> Option<Vec<Test>> {
    const INVERTED: u8 = 1;
    let (kind, flags) = (*info.first()?, *info.get(3)?);
    let relation = if flags & INVERTED == 0 {
        Relation::Equal
    } else {
        Relation::Differs
    };
    Some(vec![compare(RuleField::IcmpType, 1, relation, vec![kind])])
}

/// Decodes `struct xt_pkttype_info`: the type, and whether it must differ.
fn packet_type(info: &[u8]) -> Option<Vec<Test>> {
    let (kind, inverted) = (u8::try_from(word(info, 0)?).ok()?, word(info, 4)? != 0);
    let relation = if inverted { Relation::Differs } else { Relation::Equal };
    Some(vec![compare(RuleField::PacketType, 1, relation, vec![kind])])
}

/// Decodes `struct ipt_ttl_info` and `struct ip6t_hl_info`: the comparison, and the number.
fn hop_limit(info: &[u8]) -> Option<Vec<Test>> {
    let relation = match *info.first()? {
        0 => Relation::Equal,
        1 => Relation::Differs,
        2 => Relation::Less,
        3 => Relation::More,
        _ => return None,
    };
    Some(vec![compare(RuleField::HopLimit, 1, relation, vec![*info.get(1)?])])
}

/// Decodes `struct xt_tcpmss_match_info`: the smallest and the largest size, and whether it must be another.
fn segment_size(info: &[u8]) -> Option<Vec<Test>> {
    let (from, to, inverted) = (half(info, 0)?, half(info, 2)?, *info.get(4)? != 0);
    Some(vec![numbers(RuleField::SegmentSize, &[(from, to)], inverted)])
}

/// Returns the condition of `--tcp-flags`: of the flags of the mask exactly these are set.
pub(super) fn tcp_flags(mask: u8, flags: u8, negated: bool) -> Test {
    Test::Compare {
        load: Load {
            field: RuleField::TcpFlags,
            len: 1,
        },
        mask: Some(vec![mask]),
        relation: if negated { Relation::Differs } else { Relation::Equal },
        value: vec![flags],
    }
}

/// Decodes `struct xt_multiport_v1`: flags, count, 15 ports, for each whether it begins a range, invert.
fn multiport(info: &[u8]) -> Option<Vec<Test>> {
    const LIST: usize = 15;
    let (flags, count) = (*info.first()?, usize::from(*info.get(1)?));
    let begins = |at: usize| info.get(2 + 2 * LIST + at).is_some_and(|flag| *flag != 0);
    let negated = *info.get(2 + 3 * LIST)? != 0;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < count.min(LIST) {
        let from = half(info, 2 + 2 * at)?;
        at += usize::from(begins(at));
        ranges.push((from, half(info, 2 + 2 * at)?));
        at += 1;
    }
    let field = match flags {
        0 => RuleField::SourcePort,
        1 => RuleField::DestPort,
        _ => return None,
    };
    Some(vec![numbers(field, &ranges, negated)])
}

/// Decodes `struct xt_conntrack_mtinfo1` to `3`: eight addresses, two numbers, five of 16 bits, and the flags.
fn conntrack(revision: u32, info: &[u8]) -> Option<Vec<Test>> {
    const STATE: u16 = 1;
    const ALIAS: u16 = 1 << 13;
    const FLAGS: usize = 8 * 16 + 2 * 4 + 5 * 2;
    let (flags, inverted) = (half(info, FLAGS)?, half(info, FLAGS + 2)?);
    let mask = if revision == 1 {
        u16::from(*info.get(FLAGS + 4)?)
    } else {
        half(info, FLAGS + 4)?
    };
    let mut tests = Vec::new();
    if flags & STATE != 0 {
        tests.push(state(u32::from(mask), inverted & STATE != 0));
    }
    if flags & !(STATE | ALIAS) != 0 {
        tests.push(Test::Unknown("-m conntrack".into()));
    }
    Some(tests)
}

/// Returns the condition of `--ctstate` for any of these bits, the first four of which are equal to nft's.
pub(super) fn state(mask: u32, negated: bool) -> Test {
    const DNAT: u32 = 1 << 7;
    const UNTRACKED: u32 = 1 << 8;
    let mut bits = mask & 0xf;
    for (theirs, ours) in [(DNAT, ct_state::DNAT), (UNTRACKED, ct_state::UNTRACKED)] {
        if mask & theirs != 0 {
            bits |= ours;
        }
    }
    Test::Compare {
        load: Load {
            field: RuleField::CtState,
            len: 4,
        },
        mask: Some(bits.to_ne_bytes().to_vec()),
        relation: if negated { Relation::Equal } else { Relation::Differs },
        value: vec![0; 4],
    }
}

/// Decodes `struct xt_addrtype_info_v1`: the types of source and destination as bits, and flags.
fn address_type(info: &[u8]) -> Option<Vec<Test>> {
    const INVERT_SOURCE: u32 = 1;
    const INVERT_DEST: u32 = 2;
    let (source, dest, flags) = (half(info, 0)?, half(info, 2)?, word(info, 4)?);
    if flags & !(INVERT_SOURCE | INVERT_DEST) != 0 {
        return None;
    }
    let ends = [
        (RuleField::SourceType, source, INVERT_SOURCE),
        (RuleField::DestType, dest, INVERT_DEST),
    ];
    let asked = ends.into_iter().filter(|(_, types, _)| *types != 0);
    let test = |(field, bits, inverts): (_, u16, _)| {
        let types = (0..u16::BITS).filter(|kind| bits & (1 << kind) != 0);
        address_types(field, types, flags & inverts != 0)
    };
    Some(asked.map(test).collect())
}

/// Returns the condition that the route to the source or destination has one of these types.
pub(super) fn address_types(field: RuleField, types: impl Iterator<Item = u32>, negated: bool) -> Test {
    let element = |kind: u32| SetElement {
        from: kind.to_ne_bytes().to_vec(),
        to: kind.to_ne_bytes().to_vec(),
    };
    Test::In {
        key: vec![Load { field, len: 4 }],
        elements: Some(types.map(element).collect()),
        negated,
    }
}

/// Decodes `struct xt_mark_mtinfo1` and `struct xt_connmark_mtinfo1`.
fn mark(field: RuleField, info: &[u8]) -> Option<Vec<Test>> {
    let (value, mask, inverted) = (word(info, 0)?, word(info, 4)?, *info.get(8)? != 0);
    Some(vec![masked_mark(field, value, mask, inverted)])
}

pub(super) fn masked_mark(field: RuleField, value: u32, mask: u32, negated: bool) -> Test {
    Test::Compare {
        load: Load { field, len: 4 },
        mask: Some(mask.to_ne_bytes().to_vec()),
        relation: if negated { Relation::Differs } else { Relation::Equal },
        value: value.to_ne_bytes().to_vec(),
    }
}
