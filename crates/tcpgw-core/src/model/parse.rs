//! Conversion of JSON to a [`State`], or to the list of everything that is wrong with it.
//!
//! Services are converted one by one while the text is read, so that no tree of the whole document exists.

mod access;
mod backend;
mod fields;
mod health;
mod one;
mod service;
mod value;

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::claims::Claims;
use super::json::Json;
use super::problem::{InputProblems, JsonPath};
use super::{Service, State};

pub use self::access::MAX_SOURCE_ADDRESSES;
pub use self::backend::MAX_ACTIVE;
pub use self::one::{parse_service, parse_service_named, patch_service};
pub(super) use self::service::{DEFAULT_BURST_SECONDS, DEFAULT_MTU};
pub use self::service::{DRAIN_TIMEOUT, IDLE_TIMEOUTS, is_service_name};

/// Version of the format that is accepted.
pub const VERSION: u64 = 1;

/// Largest size of a text that is parsed, in bytes.
pub const MAX_STATE_BYTES: usize = 64 << 20;

const SMALLEST: &str = r#"the smallest state is {"version": 1, "services": []}"#;

/// Reads and validates a state. Accepts any bytes.
///
/// # Errors
///
/// Fails with all problems of the text (the first [`super::MAX_PROBLEMS`] in full).
pub fn parse(text: &[u8]) -> Result<State, InputProblems> {
    let text = check_text(text, SMALLEST)?;
    let mut draft = Draft::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = StateReader {
        level: Level::Document,
        draft: &mut draft,
    }
    .deserialize(&mut deserializer)
    .and_then(|()| deserializer.end());
    draft.finish(outcome.err())
}

#[derive(Default)]
struct Draft {
    services: Vec<Arc<Service>>,
    claims: Claims,
    problems: InputProblems,
    has_version: bool,
    has_services: bool,
    has_schema: bool,
}

impl Draft {
    fn finish(mut self, syntax: Option<serde_json::Error>) -> Result<State, InputProblems> {
        if let Some(error) = syntax {
            let (place, message) = describe(&error);
            self.problems.add_first(&place, message);
            return Err(self.problems);
        }
        self.claims.check(&mut self.problems);
        self.problems.into_result()?;
        Ok(State::from_valid(self.services))
    }
}

/// Nesting level of the reader: above the services, or in their list.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Document,
    Services,
}

struct StateReader<'d> {
    level: Level,
    draft: &'d mut Draft,
}

impl StateReader<'_> {
    fn wrong_kind(self, found: &Json) {
        let problems = &mut self.draft.problems;
        match self.level {
            Level::Document => {
                problems.add(
                    &JsonPath::Document,
                    format_args!("must be an object, not {found}; {SMALLEST}"),
                );
                // Missing members are not worth reporting then.
                (self.draft.has_version, self.draft.has_services) = (true, true);
            }
            Level::Services => {
                problems.add(
                    &JsonPath::Document.key("services"),
                    format_args!("must be a list, not {found}"),
                );
            }
        }
    }

    fn read_member<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let place = JsonPath::Document.key(key);
        let draft = &mut *self.draft;
        let seen = match key {
            "version" => &mut draft.has_version,
            "services" => &mut draft.has_services,
            "$schema" => &mut draft.has_schema,
            _ => {
                draft
                    .problems
                    .add(&place, "is unknown; known are version, services, $schema");
                return map.next_value::<IgnoredAny>().map(drop);
            }
        };
        if std::mem::replace(seen, true) {
            draft.problems.add(&place, "is given twice");
            return map.next_value::<IgnoredAny>().map(drop);
        }
        if key == "services" {
            return map.next_value_seed(StateReader {
                level: Level::Services,
                draft,
            });
        }
        let value = map.next_value()?;
        if key == "$schema" {
            check_schema(&value, &place, &mut draft.problems);
        } else {
            check_version(&value, &place, &mut draft.problems);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for StateReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StateReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a state")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if self.level == Level::Services {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            self.wrong_kind(&Json::Object(Vec::new()));
            return Ok(());
        }
        while let Some(key) = map.next_key::<String>()? {
            self.read_member(&key, &mut map)?;
        }
        let Draft {
            has_version,
            has_services,
            problems,
            ..
        } = self.draft;
        for (key, is_present) in [("version", *has_version), ("services", *has_services)] {
            if !is_present {
                problems.add(&JsonPath::Document.key(key), format_args!("is missing; {SMALLEST}"));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.level == Level::Document {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            self.wrong_kind(&Json::List(Vec::new()));
            return Ok(());
        }
        let Draft {
            services,
            claims,
            problems,
            ..
        } = self.draft;
        let list = JsonPath::Document.key("services");
        let mut index = 0;
        while let Some(json) = seq.next_element::<Json>()? {
            let service = service::read(&json, &list.index(index), &mut claims.service(index), problems);
            services.extend(service.filter(|_| problems.is_empty()).map(Arc::new));
            index += 1;
        }
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.wrong_kind(&Json::Null);
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.wrong_kind(&Json::Bool(value));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.wrong_kind(&Json::Unsigned(value));
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.wrong_kind(&Json::Negative(value));
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.wrong_kind(&Json::Float(value));
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.wrong_kind(&Json::String(value.to_owned()));
        Ok(())
    }
}

/// Checks the type of `$schema` only: it is for editors, and its value is not used.
fn check_schema(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) {
    if !matches!(json, Json::String(_)) {
        problems.add(
            place,
            format_args!("must be a string, the location of a JSON Schema for editors, not {json}"),
        );
    }
}

fn check_version(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) {
    match json {
        Json::Unsigned(VERSION) => {}
        Json::Unsigned(other) => problems.add(place, format_args!("is {other}; understood is {VERSION}")),
        other => problems.add(place, format_args!("must be the number {VERSION}, not {other}")),
    }
}

/// Checks size and encoding. `smallest` is the example of a document that an error for an empty text gives.
fn check_text<'t>(text: &'t [u8], smallest: &str) -> Result<&'t str, InputProblems> {
    let refuse = |place: String, message: &str| {
        let mut problems = InputProblems::default();
        problems.add(&place, message);
        Err(problems)
    };
    let document = JsonPath::Document.to_string();
    if text.len() > MAX_STATE_BYTES {
        return refuse(document, &format!("is larger than {} MiB", MAX_STATE_BYTES >> 20));
    }
    if text.starts_with(b"\xef\xbb\xbf") || text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return refuse(document, "starts with a byte order mark; must be UTF-8 without one");
    }
    if let Some(at) = text.iter().position(|byte| *byte == 0) {
        return refuse(line_and_column(text, at), "there is a NUL byte; must be JSON in UTF-8");
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return refuse(document, &format!("is empty; {smallest}"));
    }
    std::str::from_utf8(text).or_else(|error| {
        refuse(
            line_and_column(text, error.valid_up_to()),
            "there are bytes that are not UTF-8; must be JSON in UTF-8",
        )
    })
}

/// Returns line and column of a byte as `serde_json` counts them: from 1, columns in bytes.
fn line_and_column(text: &[u8], at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.split(|byte| *byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("line {line} column {column}")
}

fn describe(error: &serde_json::Error) -> (String, String) {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let message = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let what = if error.is_data() { "is refused" } else { "is not JSON" };
    (place, format!("{what}: {message}"))
}

#[cfg(test)]
mod tests;
