//! Identity of a store: a random number, made with the store, by which it is told from the store of another gateway. It is in a
//! table of its own, beside the versions of the schema, so that an earlier version of this program can use the store, too.

use std::fmt;

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::Fault;
use super::seal::RowChecksum;

/// Random number of a store. Copies of a store have the number of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StoreIdentity(u64);

impl StoreIdentity {
    /// Returns the identity in the store; `None` if an earlier version made the store, and it was not written since.
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, Fault> {
        let is_there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity'";
        if connection.query_row(is_there, (), |_| Ok(())).optional()?.is_none() {
            return Ok(None);
        }
        let query = "SELECT store, crc FROM identity";
        let row = connection.query_row(query, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let Some((store, crc)) = row.optional()? else {
            return Ok(None);
        };
        let identity = Self(store.cast_unsigned());
        if crc != identity.crc() {
            return Err(Fault::damage("the checksum of its identity is wrong"));
        }
        Ok(Some(identity))
    }

    /// Gives the store an identity if it has none. Where the system has no random numbers, the store stays without one.
    pub(super) fn ensure(connection: &Connection) -> Result<(), Fault> {
        if Self::read(connection)?.is_some() {
            return Ok(());
        }
        match getrandom::u64() {
            Ok(random) => Self(random).write(connection),
            Err(error) => {
                tracing::warn!("the store gets no identity: {error}");
                Ok(())
            }
        }
    }

    /// Writes this identity to the store, in place of another.
    pub(super) fn write(self, connection: &Connection) -> Result<(), Fault> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS identity (
                 id INTEGER PRIMARY KEY CHECK (id = 1), store INTEGER NOT NULL, crc INTEGER NOT NULL
             ) STRICT;",
        )?;
        let values = (self.0.cast_signed(), self.crc());
        connection.execute("INSERT OR REPLACE INTO identity VALUES (1, ?, ?)", values)?;
        Ok(())
    }

    fn crc(self) -> i64 {
        RowChecksum::new("identity").int(self.0.cast_signed()).end()
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
    fn it_is_read_as_it_was_written() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(StoreIdentity::read(&connection).unwrap(), None);
        for identity in [0, 7, u64::MAX].map(StoreIdentity) {
            identity.write(&connection).unwrap();
            assert_eq!(StoreIdentity::read(&connection).unwrap(), Some(identity));
            assert_eq!(StoreIdentity::try_from(identity.to_string()), Ok(identity));
        }
        StoreIdentity::ensure(&connection).unwrap();
        assert_eq!(StoreIdentity::read(&connection).unwrap(), Some(StoreIdentity(u64::MAX)));
        connection.execute("UPDATE identity SET store = 5", ()).unwrap();
        StoreIdentity::read(&connection).unwrap_err();
        connection.execute("DELETE FROM identity", ()).unwrap();
        StoreIdentity::ensure(&connection).unwrap();
        assert!(StoreIdentity::read(&connection).unwrap().is_some());
        for text in ["", "7", "+000000000000007", "000000000000000A", "00000000000000007"] {
            assert_eq!(StoreIdentity::try_from(text.to_owned()), Err(NotAnIdentity), "{text}");
        }
    }
}
