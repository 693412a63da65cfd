//! Clients that a rule matches: all of them, if its conditions cover every value that a client may have.

use super::condition_result::Holds;
use super::conditions::holds_for;
use super::field_value::FieldValue;
use super::packet::Packet;
use super::spans::{Span, network};
use tcpgw_kernel::firewall::{Relation, Rule, RuleField, Test};

/// Clients that a rule matches.
pub(super) struct MatchedClients {
    pub(super) field: RuleField,
    /// Whether all other conditions surely hold.
    pub(super) sure: bool,
    pub(super) spans: Vec<Span>,
}

/// Returns the clients that a rule matches, if one list or network of clients is the only condition that clients
/// differ in.
pub(super) fn ranges_of(packet: &Packet, rule: &Rule) -> Option<MatchedClients> {
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
    (packet.value(*load, None) == FieldValue::Differs).then(|| MatchedClients {
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
    let spared = spans.filter(|_| packet.value(load, None) == FieldValue::Differs);
    spared.is_some_and(|spans| {
        let size = spans.iter().fold(0_u128, |size, (from, to)| {
            size.saturating_add((to - from).saturating_add(1))
        });
        size <= all / FEW
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::spans::{Range, compare_clients, covers};
    use tcpgw_kernel::firewall::Load;

    fn v4(ranges: &[([u8; 4], [u8; 4])]) -> Holds {
        let ranges: Vec<Range<'_>> = ranges.iter().map(|(from, to)| (&from[..], &to[..])).collect();
        covers(RuleField::Source4, None, &ranges)
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
        assert_eq!(covers(RuleField::Source6, None, &[(&low, &high)]), Holds::Yes);
        let (low, high) = (1024_u16.to_be_bytes(), [255; 2]);
        assert_eq!(covers(RuleField::SourcePort, None, &[(&low, &high)]), Holds::Unknown);
        let (low, high) = (32768_u16.to_be_bytes(), 60999_u16.to_be_bytes());
        let of_linux = |ports| covers(RuleField::SourcePort, ports, &[(&low, &high)]);
        assert_eq!(of_linux(None), Holds::Unknown);
        assert_eq!(of_linux(Some((32768, 60999))), Holds::Yes);
        assert_eq!(of_linux(Some((49152, 65535))), Holds::SomeClients);
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
        let holds = |relation, value: [u8; 4]| compare_clients(source, None, None, relation, &value);
        assert_eq!(holds(Relation::Differs, [0; 4]), Holds::Yes);
        assert_eq!(holds(Relation::Differs, [10, 0, 0, 1]), Holds::SomeClients);
        assert_eq!(holds(Relation::AtLeast, [0; 4]), Holds::Yes);
        assert_eq!(holds(Relation::AtMost, [255; 4]), Holds::Yes);
        assert_eq!(holds(Relation::More, [255; 4]), Holds::SomeClients);
        assert_eq!(holds(Relation::Less, [0; 4]), Holds::SomeClients);
        assert_eq!(holds(Relation::Equal, [0; 4]), Holds::SomeClients);
    }
}
