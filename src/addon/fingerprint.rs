//! Fingerprint of a platform's request, of fixed length: tells whether a repeated request asks for the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use super::digest::hex;
use super::id::{IdError, PlatformId};

/// The SHA-256 of a JSON value, as 64 hexadecimal digits. The order of an object's members does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Returns the fingerprint of a value.
    pub fn of(value: &Value) -> Self {
        let mut text = String::new();
        write_sorted(value, &mut text);
        Self(hex::<Sha256>(&text))
    }
}

/// Returns the replacement of a text which is no [`PlatformId`] itself: `sha256:` and 64 digits.
///
/// # Errors
/// Never fails: the text has the form of an id.
pub(super) fn stand_in(text: &str) -> Result<PlatformId, IdError> {
    format!("sha256:{}", hex::<Sha256>(text)).parse()
}

/// Writes JSON with sorted members, whatever order the parser keeps. Values are nested 128 deep at most: the parser's limit.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (name, value) in sorted {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_sorted(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_differ_and_the_order_of_members_does_not_count() {
        let of = |text: &str| Fingerprint::of(&serde_json::from_str(text).unwrap());
        assert_eq!(
            of(r#"{"a": 1, "b": {"c": [1], "d": 2}}"#),
            of(r#"{"b":{"d":2,"c":[1]},"a":1}"#)
        );
        let different = [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":{}}"#,
            r#"["a"]"#,
            r#"["a","b"]"#,
            r#"["a,b"]"#,
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(of(one), of(other), "{one} {other}");
            }
        }
        assert_eq!(Fingerprint::of(&json!({"x": "x".repeat(1 << 20)})).0.len(), 64);
    }

    #[test]
    fn a_stand_in_is_an_id_of_fixed_length() {
        let (one, other) = (stand_in("org name").unwrap(), stand_in("s/1").unwrap());
        assert_ne!(one, other);
        assert_eq!(
            stand_in(&"x".repeat(1 << 20)).unwrap().as_str().len(),
            one.as_str().len()
        );
    }
}
