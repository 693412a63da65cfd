//! Clients that a rule matches: all of them, if its conditions cover every value that a client may have.

use super::judge::{Holds, holds_for};
use super::packet::{Packet, Value};
use tcpgw_kernel::firewall::{Load, Relation, Rule, RuleField, Test};

/// A range of values, in network byte order.
type Range<'a> = (&'a [u8], &'a [u8]);
/// A range as numbers: the first and the last one.
pub(super) type Span = (u128, u128);

/// Returns whether ranges of a field in which clients differ include the values of all clients.
pub(super) fn covers(field: RuleField, ranges: &[Range<'_>]) -> Holds {
    let length = ranges.first().map_or(0, |(from, _)| from.len());
    let fits = |(from, to): &Range<'_>| from.len() == length && to.len() == length && from <= to;
    if length == 0 || length > 16 || !ranges.iter().all(fits) {
        return Holds::SomeClients;
    }
    let ranges: Vec<Span> = ranges.iter().map(|(from, to)| (number(from), number(to))).collect();
    covers_of_length(field, length, &ranges)
}

/// Returns the same as [`covers`] for whole addresses and ports.
pub(super) fn spans_cover(field: RuleField, ranges: &[Span]) -> Holds {
    covers_of_length(field, length_of(field), ranges)
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

fn covers_of_length(field: RuleField, length: usize, ranges: &[Span]) -> Holds {
    let bits = 8 * u32::try_from(length).unwrap_or(16);
    let last = u128::MAX >> (128 - bits);
    let (first, last) = match (field, length) {
        // 0.0.0.0/8, addresses above multicast and port 0 belong to no client.
        (RuleField::Source4 | RuleField::Dest4, 4) => (1 << 24, 0xdfff_ffff),
        (RuleField::Source6 | RuleField::Dest6, 16) => (1, (0xff_u128 << 120) - 1),
        (RuleField::SourcePort | RuleField::DestPort, 2) => (1, last),
        _ => (0, last),
    };
    if cover(ranges, first, last) {
        return Holds::Yes;
    }
    // Nearly all clients use a port above 1023, and an address of the Internet.
    let most = match (field, length) {
        (RuleField::SourcePort | RuleField::DestPort, 2) => cover(ranges, 1024, last),
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

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Returns whether a comparison of a field in which clients differ holds for all of them.
pub(super) fn compare_clients(load: Load, mask: Option<&[u8]>, relation: Relation, value: &[u8]) -> Holds {
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
    covers(load.field, &ranges)
}

/// Clients that a rule matches.
pub(super) struct About {
    pub(super) field: RuleField,
    /// Whether all other conditions surely hold.
    pub(super) sure: bool,
    pub(super) spans: Vec<Span>,
}

/// Returns the clients that a rule matches, if one list or network of clients is the only condition that clients
/// differ in.
pub(super) fn ranges_of(packet: &Packet, rule: &Rule) -> Option<About> {
    /// Maximum length of the list; a longer one is meant for single clients.
    const MOST: usize = 100;
    let of = |holds: Holds| rule.tests.iter().filter(move |test| holds_for(packet, test) == holds);
    let mut some = of(Holds::SomeClients);
    let (test, None) = (some.next()?, some.next()) else {
        return None;
    };
    let (load, spans) = match test {
        Test::In {
            key,
            elements: Some(elements),
            negated: false,
        } if elements.len() <= MOST => match key.as_slice() {
            [load] => {
                let spans = elements.iter().map(|of| network(*load, None, &of.from, &of.to));
                (load, spans.collect::<Option<Vec<Span>>>()?)
            }
            _ => return None,
        },
        Test::Compare {
            load,
            mask,
            relation: Relation::Equal,
            value,
        } => (load, vec![network(*load, mask.as_deref(), value, value)?]),
        _ => return None,
    };
    (packet.value(*load, None) == Value::Differs).then(|| About {
        field: load.field,
        sure: of(Holds::Unknown).next().is_none(),
        spans,
    })
}

/// Returns whether one list or network of excluded clients is the only condition that clients differ in, and includes
/// few of them.
pub(super) fn spares_few(packet: &Packet, rule: &Rule) -> bool {
    /// Divisor of all values that gives the maximum size of such a list.
    const FEW: u128 = 16;
    let mut some = rule
        .tests
        .iter()
        .filter(|test| holds_for(packet, test) == Holds::SomeClients);
    let (Some(test), None) = (some.next(), some.next()) else {
        return false;
    };
    let (load, spans) = match test {
        Test::In {
            key,
            elements: Some(elements),
            negated: true,
        } => match key.as_slice() {
            [load] => {
                let spans = elements.iter().map(|of| network(*load, None, &of.from, &of.to));
                (*load, spans.collect::<Option<Vec<Span>>>())
            }
            _ => return false,
        },
        Test::Compare {
            load,
            mask,
            relation: Relation::Differs,
            value,
        } => (
            *load,
            network(*load, mask.as_deref(), value, value).map(|span| vec![span]),
        ),
        _ => return false,
    };
    let all = match load.field {
        // Addresses of the Internet are an eighth of all.
        RuleField::Source6 | RuleField::Dest6 => u128::MAX / 8,
        RuleField::SourcePort | RuleField::DestPort => u16::MAX.into(),
        _ => u32::MAX.into(),
    };
    let spared = spans.filter(|_| packet.value(load, None) == Value::Differs);
    spared.is_some_and(|spans| {
        let size = spans.iter().fold(0_u128, |size, (from, to)| {
            size.saturating_add((to - from).saturating_add(1))
        });
        size <= all / FEW
    })
}

/// Returns the numbers that begin with some bytes, or have them under the mask of a network.
fn network(load: Load, mask: Option<&[u8]>, from: &[u8], to: &[u8]) -> Option<Span> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ranges: &[([u8; 4], [u8; 4])]) -> Holds {
        let ranges: Vec<Range<'_>> = ranges.iter().map(|(from, to)| (&from[..], &to[..])).collect();
        covers(RuleField::Source4, &ranges)
    }

    #[test]
    fn what_all_clients_have_is_covered() {
        assert_eq!(v4(&[([0; 4], [255; 4])]), Holds::Yes);
        assert_eq!(
            v4(&[([128, 0, 0, 0], [255; 4]), ([0; 4], [127, 255, 255, 255])]),
            Holds::Yes
        );
        assert_eq!(v4(&[([1, 0, 0, 0], [223, 255, 255, 255])]), Holds::Yes);
        assert_eq!(
            v4(&[([128, 0, 0, 0], [255; 4]), ([0; 4], [127, 255, 255, 254])]),
            Holds::SomeClients
        );
        assert_eq!(
            v4(&[([128, 0, 0, 0], [255; 4]), ([128, 0, 0, 0], [255; 4])]),
            Holds::SomeClients
        );
        assert_eq!(v4(&[]), Holds::SomeClients);
        let (low, high) = ([0; 16], [255; 16]);
        assert_eq!(covers(RuleField::Source6, &[(&low, &high)]), Holds::Yes);
        let (low, high) = (1024_u16.to_be_bytes(), [255; 2]);
        assert_eq!(covers(RuleField::SourcePort, &[(&low, &high)]), Holds::Unknown);
    }

    #[test]
    fn networks_are_ranges() {
        let load = |len| Load {
            field: RuleField::Source4,
            len,
        };
        assert_eq!(
            network(load(4), None, &[10, 0, 0, 1], &[10, 0, 0, 1]),
            Some((0x0a00_0001, 0x0a00_0001))
        );
        assert_eq!(network(load(1), None, &[10], &[10]), Some((0x0a00_0000, 0x0aff_ffff)));
        let half = [0x80, 0, 0, 0];
        assert_eq!(
            network(load(4), Some(&half), &half, &half),
            Some((0x8000_0000, 0xffff_ffff))
        );
        assert_eq!(network(load(4), Some(&[0, 0, 0, 1]), &[0; 4], &[0; 4]), None);
        assert_eq!(network(load(4), None, &[0; 5], &[0; 5]), None);
    }

    #[test]
    fn comparisons_are_ranges() {
        let source = Load {
            field: RuleField::Source4,
            len: 4,
        };
        let holds = |relation, value: [u8; 4]| compare_clients(source, None, relation, &value);
        assert_eq!(holds(Relation::Differs, [0; 4]), Holds::Yes);
        assert_eq!(holds(Relation::Differs, [10, 0, 0, 1]), Holds::SomeClients);
        assert_eq!(holds(Relation::AtLeast, [0; 4]), Holds::Yes);
        assert_eq!(holds(Relation::AtMost, [255; 4]), Holds::Yes);
        assert_eq!(holds(Relation::More, [255; 4]), Holds::SomeClients);
        assert_eq!(holds(Relation::Less, [0; 4]), Holds::SomeClients);
        assert_eq!(holds(Relation::Equal, [0; 4]), Holds::SomeClients);
    }
}
