//! Conditions of a rule, judged for a packet.

use super::condition_result::Holds;
use super::field_value::{FieldValue, are_all_among, compare_among, is_among};
use super::mark_bits::MarkBits;
use super::packet::Packet;
use super::spans::{compare_clients, covers};
use tcpgw_kernel::firewall::{Load, Relation, Rule, RuleField, RuleVerdict, SetElement, Test};

/// Returns whether all tests of a rule hold.
pub(super) fn all_hold(packet: &Packet, rule: &Rule) -> Holds {
    let mut holds = Holds::Yes;
    for test in &rule.tests {
        holds = holds.min(holds_for(packet, test));
        if holds == Holds::No {
            break;
        }
    }
    holds
}

pub(super) fn holds_for(packet: &Packet, test: &Test) -> Holds {
    match test {
        Test::Compare { load, .. } if packet.lacks(load.field) => Holds::No,
        Test::In { key, .. } if lacks_any(packet, key) => Holds::No,
        Test::Never => Holds::No,
        Test::Sometimes => Holds::SomeClients,
        Test::Exceeds | Test::Unknown(_) => Holds::Unknown,
        Test::Compare {
            load,
            mask,
            relation,
            value,
        } => compare(packet, *load, mask.as_deref(), *relation, value),
        Test::In {
            key,
            elements: Some(elements),
            negated,
        } => negate(is_in(packet, key, elements, *negated), *negated),
        Test::In {
            key, elements: None, ..
        } => match key_value(packet, key) {
            Err(Holds::SomeClients) => Holds::SomeClients,
            _ => Holds::Unknown,
        },
    }
}

/// Returns whether the packet lacks a field of a key, so that the rule ends there.
pub(super) fn lacks_any(packet: &Packet, key: &[Load]) -> bool {
    key.iter().any(|load| packet.lacks(load.field))
}

const fn negate(holds: Holds, negated: bool) -> Holds {
    match (holds, negated) {
        (Holds::Yes, true) => Holds::No,
        (Holds::No, true) => Holds::Yes,
        (holds, _) => holds,
    }
}

/// Returns whether a comparison with a ct mark surely fails, because bits of tcpgw's mark differ.
fn is_another_mark(packet: &Packet, load: Load, mask: Option<&[u8]>, value: &[u8]) -> bool {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    match (packet.ours, number(value)) {
        (Some(ours), Some(value)) if load.field == RuleField::CtMark => {
            let own_bits = mask.and_then(number).unwrap_or(u32::MAX) & ours.mask();
            (value ^ ours.value()) & own_bits != 0
        }
        _ => false,
    }
}

pub(super) fn compare(packet: &Packet, load: Load, mask: Option<&[u8]>, relation: Relation, value: &[u8]) -> Holds {
    // A mask without bits compares nothing: nft writes an address with the prefix length 0 this way.
    if mask.is_some_and(|mask| !mask.is_empty() && mask.iter().all(|byte| *byte == 0)) {
        let is_zero = value.iter().all(|byte| *byte == 0);
        match relation {
            Relation::Equal | Relation::Differs if is_zero == (relation == Relation::Equal) => return Holds::Yes,
            Relation::Equal | Relation::Differs => return Holds::No,
            _ => {}
        }
    }
    match relation {
        Relation::Equal if is_another_mark(packet, load, mask, value) => return Holds::No,
        Relation::Differs if is_another_mark(packet, load, mask, value) => return Holds::Yes,
        _ => {}
    }
    // If other rules mark packets, unmarked packets are those that no rule matched, and a rule may be about these.
    let bits = mask.map(|mask| mask.first_chunk().map_or(u32::MAX, |bits| u32::from_ne_bytes(*bits)));
    if load.field == RuleField::Mark && packet.mark.of(bits).is_none() {
        let unmarked = Packet {
            mark: MarkBits::ZERO,
            ..packet.clone()
        };
        return match compare(&unmarked, load, mask, relation, value) {
            Holds::Yes | Holds::Unknown => Holds::Unknown,
            Holds::No | Holds::SomeClients => Holds::SomeClients,
        };
    }
    let mut bytes = match packet.value(load, mask) {
        FieldValue::Is(bytes) => bytes,
        FieldValue::Among(ranges) => return compare_among(&ranges, load, mask, relation, value),
        FieldValue::Differs => return compare_clients(load, packet.client_ports(), mask, relation, value),
        FieldValue::Unknown => return Holds::Unknown,
    };
    for (byte, mask) in bytes.iter_mut().zip(mask.unwrap_or_default()) {
        *byte &= mask;
    }
    // A name may be compared by its prefix.
    let length = value.len().min(bytes.len());
    let order = bytes[..length].cmp(&value[..length]);
    let is_native = matches!(
        load.field,
        RuleField::CtState | RuleField::CtStatus | RuleField::CtMark | RuleField::Mark
    );
    let holds = match relation {
        Relation::Equal => order.is_eq(),
        Relation::Differs => order.is_ne(),
        _ if is_native => return Holds::Unknown,
        Relation::Less => order.is_lt(),
        Relation::AtMost => order.is_le(),
        Relation::More => order.is_gt(),
        Relation::AtLeast => order.is_ge(),
    };
    if holds { Holds::Yes } else { Holds::No }
}

/// Returns the bytes of a key, field by field.
///
/// # Errors
/// Fails with the certainty that follows when a field is unknown or differs between clients.
pub(super) fn key_value(packet: &Packet, key: &[Load]) -> Result<Vec<Vec<u8>>, Holds> {
    let mut unknown = None;
    let mut parts = Vec::new();
    for load in key {
        match packet.value(*load, None) {
            FieldValue::Is(bytes) => parts.push(bytes),
            FieldValue::Differs => return Err(Holds::SomeClients),
            FieldValue::Among(_) | FieldValue::Unknown => unknown = Some(Holds::Unknown),
        }
    }
    unknown.map_or(Ok(parts), Err)
}

/// Returns whether one of the elements matches. Elements for some clients together match all if they cover all
/// possible values. If nearly all clients match, the result is uncertain, unless the few others are the point
/// (`spared`).
pub(super) fn is_in(packet: &Packet, key: &[Load], elements: &[SetElement], spared: bool) -> Holds {
    let covers = |field, ranges: &[_]| match covers(field, packet.client_ports(), ranges) {
        Holds::Unknown if spared => Holds::SomeClients,
        holds => holds,
    };
    let mut parts = Vec::with_capacity(key.len());
    let mut at = 0;
    for load in key {
        let value = packet.value(*load, None);
        let length = match &value {
            FieldValue::Is(bytes) => bytes.len(),
            _ => load.len,
        };
        parts.push((load.field, value, at..at + length));
        at += load.len.max(length).next_multiple_of(4).max(4);
    }
    let mut differ = parts.iter().filter(|(_, value, _)| *value == FieldValue::Differs);
    let differs = differ.next().filter(|_| differ.next().is_none());
    let mut best = Holds::No;
    // Ranges that elements cover of the only part in which clients differ, if all other parts match.
    let mut covered = Vec::new();
    for element in elements {
        let mut holds = Holds::Yes;
        for (field, value, span) in &parts {
            let range = element.from.get(span.clone()).zip(element.to.get(span.clone()));
            holds = holds.min(match (value, range) {
                (FieldValue::Unknown, _) | (FieldValue::Among(_), None) => Holds::Unknown,
                (FieldValue::Among(ranges), Some(range)) => is_among(ranges, *field, range),
                (FieldValue::Is(bytes), Some((from, to))) if from <= bytes.as_slice() && bytes.as_slice() <= to => {
                    Holds::Yes
                }
                (FieldValue::Is(_), _) => Holds::No,
                (FieldValue::Differs, Some(range)) => covers(*field, &[range]),
                (FieldValue::Differs, None) => Holds::SomeClients,
            });
        }
        if holds == Holds::SomeClients
            && let Some((_, _, span)) = differs
        {
            covered.extend(element.from.get(span.clone()).zip(element.to.get(span.clone())));
        }
        best = best.max(holds);
    }
    if let [(field, FieldValue::Among(ranges), span)] = parts.as_slice() {
        let spans = elements
            .iter()
            .filter_map(|of| of.from.get(span.clone()).zip(of.to.get(span.clone())));
        if are_all_among(ranges, *field, &spans) {
            return Holds::Yes;
        }
    }
    match differs {
        Some((field, ..)) if best == Holds::SomeClients => covers(*field, &covered),
        _ => best,
    }
}

/// Returns whether a rule tests such a field.
pub(super) fn tests(rule: &Rule, is_such: impl Fn(RuleField) -> bool) -> bool {
    let any = |key: &[Load]| key.iter().any(|load| is_such(load.field));
    let in_map = matches!(&rule.verdict, RuleVerdict::Map(key, _) if any(key));
    in_map
        || rule.tests.iter().any(|test| match test {
            Test::Compare { load, .. } => is_such(load.field),
            Test::In { key, .. } => any(key),
            _ => false,
        })
}
