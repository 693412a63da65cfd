//! A JSON tree that keeps what a typed one loses: duplicate keys, the order of members, the kind of a number.
//!
//! Holds one service at a time, of [`MAX_VALUES`] values at most: a value takes many times the memory of its text. The
//! depth is bounded by `serde_json`'s recursion limit, which also bounds the drop.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::Quoted;

/// Largest number of values in a tree.
pub(crate) const MAX_VALUES: usize = 1 << 20;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    String(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Names a value in a message: short, escaped, with its kind.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Unsigned(value) => write!(f, "{value}"),
            Json::Negative(value) => write!(f, "{value}"),
            Json::Float(value) => write!(f, "{value:?}"),
            Json::String(value) => write!(f, "the string {}", Quoted(value)),
            Json::List(_) => f.write_str("a list"),
            Json::Object(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        JsonPart {
            left: &Cell::new(MAX_VALUES),
        }
        .deserialize(deserializer)
    }
}

/// A tree or a part of one; all parts draw on the same number of values.
#[derive(Clone, Copy)]
struct JsonPart<'n> {
    left: &'n Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for JsonPart<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!(
                "more than {MAX_VALUES} values in one service"
            )));
        };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonPart<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key()? {
            members.push((key, map.next_value_seed(self)?));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_order_are_kept() {
        let json: Json = serde_json::from_str(r#"{"b": 1, "a": [null, true], "b": -2, "c": 3.0, "d": "x"}"#).unwrap();
        let key = str::to_owned;
        assert_eq!(
            json,
            Json::Object(vec![
                (key("b"), Json::Unsigned(1)),
                (key("a"), Json::List(vec![Json::Null, Json::Bool(true)])),
                (key("b"), Json::Negative(-2)),
                (key("c"), Json::Float(3.0)),
                (key("d"), Json::String(key("x"))),
            ])
        );
    }

    #[test]
    fn depth_is_an_error_not_a_crash() {
        let error = serde_json::from_str::<Json>(&"[".repeat(100_000)).unwrap_err();
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(serde_json::from_str::<Json>(&list(MAX_VALUES - 1)).is_ok());
        let error = serde_json::from_str::<Json>(&list(MAX_VALUES)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("more than 1048576 values in one service at line 1"),
            "{error}"
        );
    }

    #[test]
    fn values_name_themselves() {
        let name = |text: &str| serde_json::from_str::<Json>(text).unwrap().to_string();
        assert_eq!(name("null"), "null");
        assert_eq!(name("3000.0"), "3000.0");
        assert_eq!(name("99999999999999999999"), "1e20");
        assert_eq!(name("-1"), "-1");
        assert_eq!(name(r#""a\u001b\"""#), r#"the string "a\u{1b}\"""#);
        assert_eq!(name("[1]"), "a list");
        assert_eq!(name("{}"), "an object");
    }
}
