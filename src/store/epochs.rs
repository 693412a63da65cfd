//! The epochs of a store: random numbers, of which each start of a daemon adds one. A copy that was used elsewhere lacks those that the
//! original got since, so that it is no continuation of the original.
//!
//! They are in a table of their own, beside the versions of the schema, so that an earlier version of this program can use the store, too.

use rusqlite::{Connection, OptionalExtension as _};

use super::error::Fault;
use super::seal::RowChecksum;
use crate::record::StoreEpoch;

/// Number of epochs that are kept. A record of another network namespace may know an old one.
pub const MOST_EPOCHS: usize = 100;

/// Returns the epochs in the store, the newest first; none if only an earlier version used it, or it is new.
pub(super) fn read(connection: &Connection) -> Result<Vec<StoreEpoch>, Fault> {
    let is_there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'epochs'";
    if connection.query_row(is_there, (), |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT id, epoch, crc FROM epochs ORDER BY id DESC")?;
    let mut rows = statement.query(())?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, epoch, crc): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if crc != checksum(id, epoch) {
            return Err(Fault::damage("the checksum of one of its epochs is wrong"));
        }
        epochs.push(StoreEpoch::new(epoch.cast_unsigned()));
    }
    Ok(epochs)
}

/// Replaces the epochs by these, the newest first. Of too many, the oldest are left out.
pub(super) fn write(connection: &Connection, epochs: &[StoreEpoch]) -> Result<(), Fault> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS epochs (
             id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, crc INTEGER NOT NULL
         ) STRICT;
         DELETE FROM epochs;",
    )?;
    let mut statement = connection.prepare("INSERT INTO epochs VALUES (?, ?, ?)")?;
    for (id, epoch) in (1_i64..).zip(epochs.iter().take(MOST_EPOCHS).rev()) {
        let epoch = epoch.number().cast_signed();
        statement.execute((id, epoch, checksum(id, epoch)))?;
    }
    Ok(())
}

fn checksum(id: i64, epoch: i64) -> i64 {
    RowChecksum::new("epoch").int(id).int(epoch).end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_were_written_and_the_oldest_are_left_out() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(read(&connection).unwrap(), []);
        let epochs: Vec<StoreEpoch> = (0..110).map(|number| StoreEpoch::new(u64::MAX - number)).collect();
        for number in [0, 3, 110] {
            write(&connection, &epochs[..number]).unwrap();
            assert_eq!(read(&connection).unwrap(), epochs[..number.min(MOST_EPOCHS)]);
        }
        connection
            .execute("UPDATE epochs SET epoch = 5 WHERE id = 7", ())
            .unwrap();
        read(&connection).unwrap_err();
    }
}
