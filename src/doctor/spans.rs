//! Ranges of clients' addresses and ports.

use super::condition_result::Holds;
use tcpgw_kernel::firewall::{Load, Relation, RuleField};

/// A range of values, in network byte order.
pub(super) type Range<'a> = (&'a [u8], &'a [u8]);

/// A range as numbers: the first and the last one.
pub(super) type Span = (u128, u128);

/// Ports of clients that run Linux (`ip_local_port_range`), unless they are configured otherwise.
pub(super) const LINUX_PORTS: (u16, u16) = (32768, 60999);

/// Returns whether ranges of a field in which clients differ include the values of all clients. `ports`: those of the
/// client, if it is known.
pub(super) fn covers(field: RuleField, ports: Option<(u16, u16)>, ranges: &[Range<'_>]) -> Holds {
    let length = ranges.first().map_or(0, |(from, _)| from.len());
    let fits = |(from, to): &Range<'_>| from.len() == length && to.len() == length && from <= to;
    if length == 0 || length > 16 || !ranges.iter().all(fits) {
        return Holds::SomeClients;
    }
    let ranges: Vec<Span> = ranges.iter().map(|(from, to)| (number(from), number(to))).collect();
    covers_of_length(field, ports, length, &ranges)
}

/// Returns the same as [`covers`] for whole addresses and ports.
pub(super) fn spans_cover(field: RuleField, ports: Option<(u16, u16)>, ranges: &[Span]) -> Holds {
    covers_of_length(field, ports, length_of(field), ranges)
}

/// Returns whether the field is an address or a port, whose values are numbers in network byte order.
const fn is_number(field: RuleField) -> bool {
    matches!(
        field,
        RuleField::Source4
            | RuleField::Dest4
            | RuleField::Source6
            | RuleField::Dest6
            | RuleField::SourcePort
            | RuleField::DestPort
    )
}

const fn length_of(field: RuleField) -> usize {
    match field {
        RuleField::Source6 | RuleField::Dest6 => 16,
        RuleField::SourcePort | RuleField::DestPort => 2,
        _ => 4,
    }
}

fn covers_of_length(field: RuleField, ports: Option<(u16, u16)>, length: usize, ranges: &[Span]) -> Holds {
    let bits = 8 * u32::try_from(length).unwrap_or(16);
    let last = u128::MAX >> (128 - bits);
    let (first, last) = match (field, length) {
        // 0.0.0.0/8, addresses above multicast and port 0 belong to no client.
        (RuleField::Source4 | RuleField::Dest4, 4) => (1 << 24, 0xdfff_ffff),
        (RuleField::Source6 | RuleField::Dest6, 16) => (1, (0xff_u128 << 120) - 1),
        (RuleField::SourcePort | RuleField::DestPort, 2) => {
            ports.map_or((1, last), |(from, to)| (from.into(), to.into()))
        }
        _ => (0, last),
    };
    if cover(ranges, first, last) {
        return Holds::Yes;
    }
    // Nearly all clients use a port above 1023, most of them one of Linux, and an address of the Internet.
    let most = match (field, length) {
        (RuleField::SourcePort | RuleField::DestPort, 2) if ports.is_none() => {
            let (from, to) = LINUX_PORTS;
            cover(ranges, 1024, last) || cover(ranges, from.into(), to.into())
        }
        (RuleField::Source6 | RuleField::Dest6, 16) => cover(ranges, 2 << 124, (4 << 124) - 1),
        _ => false,
    };
    if most { Holds::Unknown } else { Holds::SomeClients }
}

/// Returns whether ranges include all numbers from one to another.
fn cover(ranges: &[Span], first: u128, last: u128) -> bool {
    // Most lists are far too small, so they need not be sorted.
    let size = ranges.iter().fold(0_u128, |size, (from, to)| {
        size.saturating_add((to - from).saturating_add(1))
    });
    if size < last - first {
        return false;
    }
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut next = first;
    for (from, to) in sorted {
        if from > next {
            return false;
        }
        if to >= last {
            return true;
        }
        next = next.max(to + 1);
    }
    false
}

pub(super) fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Returns whether a comparison of a field in which clients differ holds for all of them.
pub(super) fn compare_clients(
    load: Load,
    ports: Option<(u16, u16)>,
    mask: Option<&[u8]>,
    relation: Relation,
    value: &[u8],
) -> Holds {
    if !is_number(load.field) || mask.is_some() || value.is_empty() || value.len() > 16 {
        return Holds::SomeClients;
    }
    let bytes = |number: u128| number.to_be_bytes()[16 - value.len()..].to_vec();
    let (lowest, highest) = (vec![0; value.len()], vec![0xff; value.len()]);
    let number = number(value);
    let below = number.checked_sub(1).map(|below| (lowest.clone(), bytes(below)));
    let above = (value < highest.as_slice()).then(|| (bytes(number + 1), highest.clone()));
    let ranges: Vec<(Vec<u8>, Vec<u8>)> = match relation {
        Relation::Equal => return Holds::SomeClients,
        Relation::Differs => below.into_iter().chain(above).collect(),
        Relation::Less => below.into_iter().collect(),
        Relation::AtMost => vec![(lowest, value.to_vec())],
        Relation::More => above.into_iter().collect(),
        Relation::AtLeast => vec![(value.to_vec(), highest)],
    };
    let ranges: Vec<Range<'_>> = ranges
        .iter()
        .map(|(from, to)| (from.as_slice(), to.as_slice()))
        .collect();
    covers(load.field, ports, &ranges)
}

/// Returns the numbers that begin with some bytes, or have them under the mask of a network.
pub(super) fn network(load: Load, mask: Option<&[u8]>, from: &[u8], to: &[u8]) -> Option<Span> {
    let length = length_of(load.field);
    let free = length
        .checked_sub(from.len())
        .filter(|_| is_number(load.field) && from.len() == to.len())?;
    let rest = match mask {
        Some(mask) if mask.len() == from.len() => {
            let bits = u32::try_from(8 * mask.len()).ok()?;
            // The bits of a network's mask come first.
            let hosts = !number(mask) & (u128::MAX >> (128 - bits));
            (hosts & hosts.wrapping_add(1) == 0).then_some(hosts)?
        }
        Some(_) => return None,
        None => 0,
    };
    let shifted = |number: u128| number.checked_shl(u32::try_from(8 * free).ok()?);
    let below = shifted(1).map_or(u128::MAX, |number| number - 1);
    Some((shifted(number(from))?, shifted(number(to) | rest)? | below))
}
