//! Ids and names in the add-on. Each is checked once, where it comes in, and is then safe in paths, logs and pages.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Maximum length of an id that a platform chooses, in bytes. Scalingo's limit for ids is 255 characters.
pub const MAX_PLATFORM_ID: usize = 255;
/// Length of a resource's id, in characters.
pub const RESOURCE_ID_LENGTH: usize = 12;
/// Maximum length of a plan's name, in bytes.
pub const MAX_PLAN_NAME: usize = 63;

const RESOURCE_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Reason why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has too many bytes.
    #[error("must be {0} bytes at most")]
    TooLong(usize),
    /// The text has a character outside of the set for platforms' ids.
    #[error("must consist of letters, digits and - . _ ~ : @ only (ASCII)")]
    Character,
    /// The text is no id that tcpgw gives.
    #[error("must be {RESOURCE_ID_LENGTH} characters of a-z and 2-7")]
    Resource,
    /// The text is not the name of a plan.
    #[error("must be 1 to {MAX_PLAN_NAME} characters of a-z, 0-9 and - _ . and begin with a letter or digit")]
    Plan,
    /// The text is not a GUID.
    #[error("must be a GUID such as 5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11")]
    Guid,
}

/// The id that this program gives a resource. It is random, so that an id from a store that was lost names no other app's resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId([u8; RESOURCE_ID_LENGTH]);

impl ResourceId {
    /// Returns the id made of these random bits; the lowest 60 count.
    pub fn from_random(bits: u64) -> Self {
        let mut left = bits;
        let mut next = || {
            let digit = usize::try_from(left % 32).unwrap_or_default();
            left /= 32;
            RESOURCE_ALPHABET.get(digit).copied().unwrap_or(b'a')
        };
        Self(std::array::from_fn(|_| next()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the name of the resource's service.
    pub fn service(&self) -> String {
        format!("{SERVICE_PREFIX}{self}")
    }

    /// Returns the resource whose service has this name.
    pub fn of_service(name: &str) -> Option<Self> {
        name.strip_prefix(SERVICE_PREFIX)?.parse().ok()
    }
}

const SERVICE_PREFIX: &str = "addon-";

/// Returns whether a text names the service of a resource.
pub fn names_service(text: &str) -> bool {
    text.match_indices(SERVICE_PREFIX).any(|(at, prefix)| {
        let name = text.get(at..at + prefix.len() + RESOURCE_ID_LENGTH);
        name.and_then(ResourceId::of_service).is_some()
    })
}

/// Returns a text in which the first mention of each resource's service is followed by its app: `addon-... (app my-app)`. What
/// stands between backticks is a command, and stays as it is.
pub fn with_apps(text: &str, app_of: impl Fn(ResourceId) -> Option<PlatformId>) -> String {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let mut named = String::with_capacity(text.len());
    let mut distinct = BTreeSet::new();
    let mut is_command = false;
    let mut rest = text;
    while let Some(at) = rest.find(SERVICE_PREFIX) {
        let (before, from) = rest.split_at(at);
        named.push_str(before);
        is_command ^= before.bytes().filter(|byte| *byte == b'`').count() % 2 == 1;
        let begins = !named.bytes().last().is_some_and(is_name);
        let (name, after) = from
            .split_at_checked(SERVICE_PREFIX.len() + RESOURCE_ID_LENGTH)
            .unwrap_or((from, ""));
        let ends = !after.bytes().next().is_some_and(is_name);
        let id = ResourceId::of_service(name).filter(|_| begins && ends);
        let Some(id) = id.filter(|_| !is_command) else {
            named.push_str(SERVICE_PREFIX);
            rest = &from[SERVICE_PREFIX.len()..];
            continue;
        };
        named.push_str(name);
        rest = after;
        if distinct.insert(id)
            && !after.starts_with(" (app ")
            && let Some(app) = app_of(id)
        {
            let _ = write!(named, " (app {app})");
        }
    }
    named + rest
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ResourceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl FromStr for ResourceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes: [u8; RESOURCE_ID_LENGTH] = text.as_bytes().try_into().map_err(|_| IdError::Resource)?;
        let is_known = bytes.iter().all(|byte| RESOURCE_ALPHABET.contains(byte));
        is_known.then_some(Self(bytes)).ok_or(IdError::Resource)
    }
}

/// Declares a checked text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

text_id!(
    /// An id that a platform chose: of an app, an instance, a binding, an organization. 1 to 255 bytes that need no escaping in a path.
    PlatformId,
    check_platform_id
);

text_id!(
    /// The name of a plan: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
    PlanName,
    check_plan_name
);

text_id!(
    /// A GUID in its usual form, 8-4-4-4-12 hexadecimal digits.
    Guid,
    check_guid
);

/// Prefix of an app on a command line where a service is expected.
pub const APP_PREFIX: &str = "app:";

impl PlatformId {
    /// Returns how a command line names this app, in a form that can be pasted back: the id, which follows `app:` if it begins with that.
    pub fn on_command_line(&self) -> String {
        let prefix = if self.is_prefixed() { APP_PREFIX } else { "" };
        format!("{prefix}{self}")
    }

    /// Returns whether the id begins with `app:`, so that commands would take it for another app's.
    pub fn is_prefixed(&self) -> bool {
        self.as_str().starts_with(APP_PREFIX)
    }
}

impl Guid {
    /// Returns whether a text is this id; upper and lower case are the same.
    pub fn is(&self, id: &str) -> bool {
        self.as_str().eq_ignore_ascii_case(id)
    }
}

fn check_platform_id(text: &str) -> Result<(), IdError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    match text {
        "" => Err(IdError::Empty),
        _ if text.len() > MAX_PLATFORM_ID => Err(IdError::TooLong(MAX_PLATFORM_ID)),
        // As segments of a path they mean something else (RFC 3986, 5.2.4).
        "." | ".." => Err(IdError::Character),
        _ if text.bytes().all(is_plain) => Ok(()),
        _ => Err(IdError::Character),
    }
}

fn check_plan_name(text: &str) -> Result<(), IdError> {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins = text.bytes().next().is_some_and(is_first);
    let is_plain = text.bytes().all(|byte| is_first(byte) || b"-_.".contains(&byte));
    (begins && is_plain && text.len() <= MAX_PLAN_NAME)
        .then_some(())
        .ok_or(IdError::Plan)
}

fn check_guid(text: &str) -> Result<(), IdError> {
    let parts: Vec<&str> = text.split('-').collect();
    let has_shape = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    let is_hex = parts
        .iter()
        .all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (has_shape && is_hex).then_some(()).ok_or(IdError::Guid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_in_a_text_are_followed_by_their_apps() {
        let known: ResourceId = "aaaaaaaaaaaa".parse().expect("an id");
        let app_of = |id| (id == known).then(|| "my-app".parse().expect("an id"));
        let named = |text: &str| with_apps(text, app_of);
        for (text, told) in [
            ("addon-aaaaaaaaaaaa", "addon-aaaaaaaaaaaa (app my-app)"),
            (
                "addon-aaaaaaaaaaaa :20003 is paused; `tcpgw resume addon-aaaaaaaaaaaa` ends that",
                "addon-aaaaaaaaaaaa (app my-app) :20003 is paused; `tcpgw resume addon-aaaaaaaaaaaa` ends that",
            ),
            (
                "`tcpgw resume addon-aaaaaaaaaaaa`: addon-aaaaaaaaaaaa, addon-aaaaaaaaaaaa",
                "`tcpgw resume addon-aaaaaaaaaaaa`: addon-aaaaaaaaaaaa (app my-app), addon-aaaaaaaaaaaa",
            ),
            ("web, addon-bbbbbbbbbbbb", "web, addon-bbbbbbbbbbbb"),
        ] {
            assert_eq!(named(text), told);
            assert_eq!(named(told), told, "twice");
        }
        for other in [
            "",
            "addon-",
            "addon-aaaaaaaaaaaab",
            "my-addon-aaaaaaaaaaaa",
            "addon-a\u{fc}aaaaaaaaaaaa",
        ] {
            assert_eq!(named(other), other);
        }
    }

    #[test]
    fn platform_ids_are_safe_in_a_path() {
        for good in [
            "a",
            "5343eccd-646f-4140-8000-000000000000",
            "app_1.2~x:y@z",
            &"x".repeat(255),
        ] {
            assert_eq!(good.parse::<PlatformId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("".parse::<PlatformId>(), Err(IdError::Empty));
        assert_eq!("x".repeat(256).parse::<PlatformId>(), Err(IdError::TooLong(255)));
        for bad in [
            ".", "..", "a/b", "a\nb", "a b", "a%2f", "é", "a\0", "<b>", "a\\b", "a?b", "a#b", "\u{202e}",
        ] {
            assert_eq!(bad.parse::<PlatformId>(), Err(IdError::Character), "{bad:?}");
        }
    }

    #[test]
    fn a_command_line_names_each_app_in_one_way() {
        for (app, named) in [
            ("my-app", "my-app"),
            ("app:x", "app:app:x"),
            ("app", "app"),
            ("application", "application"),
        ] {
            let app: PlatformId = app.parse().expect("an id");
            assert_eq!(app.on_command_line(), named);
        }
    }

    #[test]
    fn resource_ids_are_read_as_they_are_written() {
        for bits in [0, 1, 31, 32, u64::MAX, 0x1234_5678_9abc_def0] {
            let id = ResourceId::from_random(bits);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(ResourceId::of_service(&id.service()), Some(id));
        }
        for bad in [
            "",
            "aaaaaaaaaaa",
            "aaaaaaaaaaaaa",
            "aaaaaaaaaaa1",
            "AAAAAAAAAAAA",
            "aaaaaaaaaaaé",
        ] {
            assert_eq!(bad.parse::<ResourceId>(), Err(IdError::Resource), "{bad:?}");
        }
        assert_eq!(ResourceId::of_service("mqtt"), None);
    }

    #[test]
    fn plans_and_guids_have_their_shape() {
        for good in ["free", "2k", "starter-512.v2_x"] {
            assert!(good.parse::<PlanName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "Free", "a b", &"x".repeat(64)] {
            assert_eq!(bad.parse::<PlanName>(), Err(IdError::Plan), "{bad:?}");
        }
        assert!("5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11".parse::<Guid>().is_ok());
        for bad in [
            "",
            "5f0e3bd28f0c4a5e9f6f0d2f6a4a1c11",
            "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c1g",
            "----",
        ] {
            assert_eq!(bad.parse::<Guid>(), Err(IdError::Guid), "{bad:?}");
        }
    }
}
