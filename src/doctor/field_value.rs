//! Value of a field that rules look at, as far as it is known.

use super::condition_result::Holds;
use tcpgw_kernel::firewall::{Load, Relation, RuleField};

/// Value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldValue {
    Is(Vec<u8>),
    /// One of the numbers of these ranges, each with its first and last one.
    Among(Vec<(u32, u32)>),
    /// The value differs between clients, or between programs' rules.
    Differs,
    Unknown,
}

/// Maximum number of values that are compared one by one.
const MOST_VALUES: u32 = 256;

/// Returns whether a comparison holds for all numbers of these ranges, or for none.
pub(super) fn compare_among(
    ranges: &[(u32, u32)],
    load: Load,
    mask: Option<&[u8]>,
    relation: Relation,
    value: &[u8],
) -> Holds {
    let is_order = !matches!(relation, Relation::Equal | Relation::Differs);
    // The bytes of such numbers are not in the order in which they are compared.
    if is_order && is_native(load.field) {
        return Holds::Unknown;
    }
    let Some(number) = number(load.field, value).filter(|_| value.len() == load.len) else {
        return Holds::Unknown;
    };
    let mask = mask.filter(|mask| !mask.iter().all(|byte| *byte == 0xff));
    let Some(mask) = mask else {
        return together(ranges.iter().map(|range| compare_range(*range, relation, number)));
    };
    let bits = self::number(load.field, mask).filter(|_| size(ranges) <= MOST_VALUES);
    bits.map_or(Holds::Unknown, |bits| {
        let values = ranges
            .iter()
            .flat_map(|(from, to)| *from..=*to)
            .map(|value| value & bits);
        together(values.map(|value| compare_range((value, value), relation, number)))
    })
}

/// Returns whether all numbers of these ranges are in some range of an element's bytes, or none is.
pub(super) fn is_among(ranges: &[(u32, u32)], field: RuleField, (from, to): (&[u8], &[u8])) -> Holds {
    if is_native(field) && from != to {
        return Holds::Unknown;
    }
    let (Some(from), Some(to)) = (number(field, from), number(field, to)) else {
        return Holds::Unknown;
    };
    together(ranges.iter().map(|range| {
        let below = compare_range(*range, Relation::Less, from);
        let above = compare_range(*range, Relation::More, to);
        match (below, above) {
            (Holds::Yes, _) | (_, Holds::Yes) => Holds::No,
            (Holds::No, Holds::No) => Holds::Yes,
            _ => Holds::Unknown,
        }
    }))
}

/// Returns whether each number of these ranges is in the range of one of several elements, if the numbers are few.
pub(super) fn are_all_among<'e>(
    ranges: &[(u32, u32)],
    field: RuleField,
    elements: &(impl Iterator<Item = (&'e [u8], &'e [u8])> + Clone),
) -> bool {
    let is_in = |value: u32| {
        elements
            .clone()
            .any(|element| is_among(&[(value, value)], field, element) == Holds::Yes)
    };
    size(ranges) <= MOST_VALUES && ranges.iter().flat_map(|(from, to)| *from..=*to).all(is_in)
}

fn size(ranges: &[(u32, u32)]) -> u32 {
    ranges.iter().fold(0, |size: u32, (from, to)| {
        size.saturating_add((to - from).saturating_add(1))
    })
}

/// Returns whether a comparison holds for all numbers of a range, or for none.
fn compare_range((from, to): (u32, u32), relation: Relation, number: u32) -> Holds {
    let (all, none) = match relation {
        Relation::Equal => ((from, to) == (number, number), number < from || to < number),
        Relation::Differs => (number < from || to < number, (from, to) == (number, number)),
        Relation::Less => (to < number, number <= from),
        Relation::AtMost => (to <= number, number < from),
        Relation::More => (number < from, to <= number),
        Relation::AtLeast => (number <= from, to < number),
    };
    match (all, none) {
        (true, _) => Holds::Yes,
        (_, true) => Holds::No,
        _ => Holds::Unknown,
    }
}

/// Returns what is common to some parts of all values.
fn together(parts: impl Iterator<Item = Holds>) -> Holds {
    parts
        .reduce(|all, one| if all == one { all } else { Holds::Unknown })
        .unwrap_or(Holds::Unknown)
}

/// Returns whether the bytes of a field are in this machine's order.
const fn is_native(field: RuleField) -> bool {
    matches!(
        field,
        RuleField::DestType | RuleField::SourceType | RuleField::Length | RuleField::Generated { .. }
    )
}

fn number(field: RuleField, bytes: &[u8]) -> Option<u32> {
    if is_native(field) {
        return bytes.try_into().ok().map(u32::from_ne_bytes);
    }
    (1..=4)
        .contains(&bytes.len())
        .then(|| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_all_values_or_none_is_sure() {
        let load = Load {
            field: RuleField::HopLimit,
            len: 1,
        };
        let compare = |relation, value: u8| compare_among(&[(24, 64), (215, 255)], load, None, relation, &[value]);
        for (relation, value, holds) in [
            (Relation::Equal, 0, Holds::No),
            (Relation::Equal, 64, Holds::Unknown),
            (Relation::Equal, 100, Holds::No),
            (Relation::Differs, 100, Holds::Yes),
            (Relation::Differs, 64, Holds::Unknown),
            (Relation::Less, 24, Holds::No),
            (Relation::Less, 25, Holds::Unknown),
            (Relation::AtMost, 255, Holds::Yes),
            (Relation::AtMost, 254, Holds::Unknown),
            (Relation::More, 0, Holds::Yes),
            (Relation::More, 255, Holds::No),
            (Relation::AtLeast, 24, Holds::Yes),
            (Relation::AtLeast, 100, Holds::Unknown),
        ] {
            assert_eq!(compare(relation, value), holds, "{relation:?} {value}");
        }
        let masked =
            |mask: u8, value: u8| compare_among(&[(0x50, 0x5f)], load, Some(&[mask]), Relation::Equal, &[value]);
        assert_eq!(masked(0xf0, 0x50), Holds::Yes);
        assert_eq!(masked(0xf0, 0x40), Holds::No);
        assert_eq!(masked(0x0f, 0x05), Holds::Unknown);
    }

    #[test]
    fn elements_are_compared_with_all_values() {
        let among = |from: u32, to: u32| {
            let (from, to) = (from.to_ne_bytes(), to.to_ne_bytes());
            is_among(&[(1, 2)], RuleField::DestType, (&from, &to))
        };
        assert_eq!(among(3, 3), Holds::No);
        assert_eq!(among(1, 1), Holds::Unknown);
        let limits = |from: u8, to: u8| is_among(&[(24, 64)], RuleField::HopLimit, (&[from], &[to]));
        assert_eq!(limits(0, 23), Holds::No);
        assert_eq!(limits(24, 64), Holds::Yes);
        assert_eq!(limits(30, 255), Holds::Unknown);
        let types = [1_u32, 2].map(u32::to_ne_bytes);
        let elements = types.iter().map(|kind| (&kind[..], &kind[..]));
        assert!(are_all_among(&[(1, 2)], RuleField::DestType, &elements.clone()));
        assert!(!are_all_among(&[(1, 2)], RuleField::DestType, &elements.take(1)));
    }
}
