//! A parsed response of the daemon, together with the JSON text that it was parsed from.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A parsed answer together with its JSON. It is written as that JSON, including unknown fields, with the names of fields in
/// alphabetical order.
#[derive(Debug, Clone)]
pub struct AnswerWithJson<T> {
    answer: T,
    text: Box<RawValue>,
}

impl<T> Deref for AnswerWithJson<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.answer
    }
}

/// Reads only from JSON text: another format has no text to keep.
impl<'de, T: DeserializeOwned> Deserialize<'de> for AnswerWithJson<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let answer = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { answer, text })
    }
}

impl<T> Serialize for AnswerWithJson<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(self.text.get()).map_err(S::Error::custom)?;
        value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Known {
        id: u64,
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let text = r#"{"new": {"b": 1.50, "a": []}, "id": 7}"#;
        let reply: AnswerWithJson<Known> = serde_json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(reply.id, 7);
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            r#"{"id":7,"new":{"a":[],"b":1.5}}"#
        );
        assert!(serde_json::from_slice::<AnswerWithJson<Known>>(br#"{"id": "7"}"#).is_err());
    }
}
