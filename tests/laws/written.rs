//! States as text: any order gives the same state, and the properties that fuzzing checks for any text hold for them.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use tcpgw_core::model::{self, Service, State, write};

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

    /// A written state or service is read as the same one, and has no field that could be left out.
    #[test]
    fn what_is_written_is_read_as_the_same(text in text()) {
        let state = parse(&text);
        let written = write::state_text(&state);
        prop_assert_eq!(&parse(&written), &state);
        let document: Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(model::parse(document.to_string().as_bytes()), Ok(state.clone()));
        for service in &state.services {
            let alone = write::service_text(service);
            prop_assert_eq!(model::parse_service(alone.as_bytes()), Ok(Service::clone(service)));
            prop_assert_eq!(model::patch_service(service, b"{}"), Ok(Service::clone(service)));
            let Value::Object(fields) = write::service_value(service) else { panic!("{alone}") };
            for field in fields.keys().filter(|field| !["name", "port", "backends"].contains(&field.as_str())) {
                let patch = format!(r#"{{"{field}":null}}"#);
                prop_assert_ne!(model::patch_service(service, patch.as_bytes()), Ok(Service::clone(service)), "{}", field);
            }
        }
        prop_assert_eq!(State::new(state.services.clone()), Ok(state));
    }

    /// A patch with every field of a service, and null for absent fields, turns any other service into it.
    #[test]
    fn a_patch_makes_any_service_of_any(text in text(), picks in any::<[Index; 2]>()) {
        let state = parse(&text);
        prop_assume!(!state.services.is_empty());
        let [one, other] = picks.map(|pick| &state.services[pick.index(state.services.len())]);
        let (Value::Object(one_fields), Value::Object(mut patch)) =
            (write::service_value(one), write::service_value(other)) else { panic!("no objects") };
        for (field, value) in one_fields {
            let absent = patch.entry(field).or_insert(Value::Null);
            if let (Value::Object(old), Value::Object(new)) = (value, absent) {
                for key in old.keys() {
                    new.entry(key).or_insert(Value::Null);
                }
            }
        }
        let patch = Value::Object(patch).to_string();
        prop_assert_eq!(model::patch_service(one, patch.as_bytes()), Ok(Service::clone(other)), "{}", patch);
    }

    /// The properties that fuzzing checks for any text hold for states, among them that the messages to the kernel have the right
    /// meaning and that the kernel in memory accepts them.
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
