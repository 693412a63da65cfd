//! The identity in a store. It is in a table of its own, beside the versions of the schema, so that an earlier version of this program
//! can use the store, too.

use rusqlite::{Connection, OptionalExtension as _};

use super::error::Fault;
use super::seal::RowChecksum;
use crate::record::StoreIdentity;

/// Returns the identity in the store; `None` if an earlier version made the store, and it was not written since.
pub(super) fn read(connection: &Connection) -> Result<Option<StoreIdentity>, Fault> {
    let is_there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity'";
    if connection.query_row(is_there, (), |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let query = "SELECT store, crc FROM identity";
    let row = connection.query_row(query, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let Some((store, crc)) = row.optional()? else {
        return Ok(None);
    };
    if crc != checksum(store) {
        return Err(Fault::damage("the checksum of its identity is wrong"));
    }
    Ok(Some(StoreIdentity::new(store.cast_unsigned())))
}

/// Gives the store an identity if it has none. Where the system has no random numbers, the store stays without one.
pub(super) fn ensure(connection: &Connection) -> Result<(), Fault> {
    if read(connection)?.is_some() {
        return Ok(());
    }
    match getrandom::u64() {
        Ok(random) => write(connection, StoreIdentity::new(random)),
        Err(error) => {
            tracing::warn!("the store gets no identity: {error}");
            Ok(())
        }
    }
}

/// Writes an identity to the store, in place of another.
pub(super) fn write(connection: &Connection, identity: StoreIdentity) -> Result<(), Fault> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS identity (
             id INTEGER PRIMARY KEY CHECK (id = 1), store INTEGER NOT NULL, crc INTEGER NOT NULL
         ) STRICT;",
    )?;
    let number = identity.number().cast_signed();
    let values = (number, checksum(number));
    connection.execute("INSERT OR REPLACE INTO identity VALUES (1, ?, ?)", values)?;
    Ok(())
}

fn checksum(number: i64) -> i64 {
    RowChecksum::new("identity").int(number).end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(read(&connection).unwrap(), None);
        for identity in [0, 7, u64::MAX].map(StoreIdentity::new) {
            write(&connection, identity).unwrap();
            assert_eq!(read(&connection).unwrap(), Some(identity));
        }
        ensure(&connection).unwrap();
        assert_eq!(read(&connection).unwrap(), Some(StoreIdentity::new(u64::MAX)));
        connection.execute("UPDATE identity SET store = 5", ()).unwrap();
        read(&connection).unwrap_err();
        connection.execute("DELETE FROM identity", ()).unwrap();
        ensure(&connection).unwrap();
        assert!(read(&connection).unwrap().is_some());
    }
}
