//! States as they are written: in any order they are the same, and what fuzzing asks of any text holds of them.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::fuzz;
use crate::states::{parse, text};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_order_in_a_document_does_not_matter(
        text in text(), picks in prop::collection::vec(any::<Index>(), 1..64),
    ) {
        let mut document = serde_json::from_str(&text).unwrap();
        shuffle(&mut document, &mut picks.iter().cycle());
        prop_assert_eq!(parse(&document.to_string()), parse(&text));
    }

    /// Among it: what is sent to the kernel is what was meant, and the kernel in memory takes it.
    #[test]
    fn what_holds_of_any_text_holds_of_states(text in text()) {
        fuzz::state::check(text.as_bytes());
    }
}

/// Brings the items of every list into another order. The members of objects are sorted by being read.
fn shuffle<'a>(json: &mut Value, picks: &mut impl Iterator<Item = &'a Index>) {
    match json {
        Value::Array(items) => {
            for at in (1..items.len()).rev() {
                let other = picks.next().map_or(0, |pick| pick.index(at + 1));
                items.swap(at, other);
            }
            for item in items {
                shuffle(item, picks);
            }
        }
        Value::Object(members) => {
            for member in members.values_mut() {
                shuffle(member, picks);
            }
        }
        _ => {}
    }
}
