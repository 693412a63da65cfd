//! Identity of a store: a random number, made with the store, by which it is told from the store of another gateway; and its lineage,
//! by which it is told from its own copies that were used elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Random number of a store. Copies of a store have the number of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StoreIdentity(u64);

impl StoreIdentity {
    /// Creates the identity with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<StoreIdentity> for String {
    fn from(identity: StoreIdentity) -> Self {
        identity.to_string()
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the identity of a store has 16 hexadecimal digits")]
pub struct NotAnIdentity;

impl TryFrom<String> for StoreIdentity {
    type Error = NotAnIdentity;

    fn try_from(text: String) -> Result<Self, NotAnIdentity> {
        let identity = u64::from_str_radix(&text, 16).map(Self).map_err(|_| NotAnIdentity)?;
        (identity.to_string() == text).then_some(identity).ok_or(NotAnIdentity)
    }
}

/// Random number that a store gets at each start of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreEpoch(u64);

impl StoreEpoch {
    /// Creates the epoch with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Facts about a store, beside its identity and revision, by which it is told from a copy that was used elsewhere. Both are `None` if a
/// version that did not know them wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLineage {
    /// The last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<StoreEpoch>,
    /// Sum of the checksums of the services. At equal revisions, equal sums are equal services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<i64>,
}

impl StoreLineage {
    /// Returns whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_in_no_other_form() {
        for identity in [0, 7, u64::MAX].map(StoreIdentity) {
            assert_eq!(StoreIdentity::try_from(identity.to_string()), Ok(identity));
        }
        for text in ["", "7", "+000000000000007", "000000000000000A", "00000000000000007"] {
            assert_eq!(StoreIdentity::try_from(text.to_owned()), Err(NotAnIdentity), "{text}");
        }
    }
}
