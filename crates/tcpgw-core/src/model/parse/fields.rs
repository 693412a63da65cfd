//! Members of an object, checked for unknown and repeated keys.

use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};

/// An object whose keys are among `N` known ones.
pub(super) struct Fields<'a, const N: usize> {
    place: &'a JsonPath<'a>,
    known: &'static [&'static str; N],
    values: [Option<&'a Json>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads the members of an object. Returns `None` when the value is not an object.
    pub(super) fn of(
        json: &'a Json,
        place: &'a JsonPath<'a>,
        known: &'static [&'static str; N],
        problems: &mut InputProblems,
    ) -> Option<Self> {
        let Json::Object(members) = json else {
            problems.add(
                place,
                format_args!("must be an object with {}, not {json}", known.join(", ")),
            );
            return None;
        };
        let mut values = [None; N];
        for (key, value) in members {
            match known.iter().position(|name| name == key) {
                None => problems.add(
                    &place.key(key),
                    format_args!("is unknown; known are {}", known.join(", ")),
                ),
                Some(i) if values[i].is_some() => problems.add(&place.key(key), "is given twice"),
                Some(i) => values[i] = Some(value),
            }
        }
        Some(Self { place, known, values })
    }

    /// Reads a required field. Returns `None` when there was a problem.
    pub(super) fn required<T>(
        &self,
        key: &str,
        problems: &mut InputProblems,
        read: impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<T>,
    ) -> Option<T> {
        let place = self.place.key(key);
        if let Some(json) = self.get(key) {
            return read(json, &place, problems);
        }
        problems.add(&place, "is missing");
        None
    }

    /// Reads an optional field. Returns `None` when there was a problem.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        problems: &mut InputProblems,
        read: impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(json) => read(json, &self.place.key(key), problems),
            None => Some(default),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Json> {
        let i = self.known.iter().position(|name| *name == key);
        debug_assert!(i.is_some(), "{key} is not among the known fields");
        self.values[i?]
    }
}
