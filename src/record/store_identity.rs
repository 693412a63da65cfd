//! Identity of a store: a random number, made with the store, by which it is told from the store of another gateway.

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
