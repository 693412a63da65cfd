//! The newest state of the store.

use rusqlite::Connection;

use super::error::Fault;
use super::seal::RowChecksum;

/// Values of the whole store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreHead {
    pub(super) revision: i64,
    /// Number of services.
    pub(super) services: i64,
    /// Sum of the services' checksums, so that the loss of one is noticed.
    pub(super) sum: i64,
    pub(super) history_bytes: i64,
}

impl StoreHead {
    pub(super) fn read(connection: &Connection) -> Result<Self, Fault> {
        let query = "SELECT revision, services, sum, history_bytes, crc FROM head";
        let (head, crc) = connection.query_row(query, (), |row| {
            let head = Self {
                revision: row.get(0)?,
                services: row.get(1)?,
                sum: row.get(2)?,
                history_bytes: row.get(3)?,
            };
            Ok((head, row.get::<_, i64>(4)?))
        })?;
        if crc != head.crc() {
            return Err(Fault::damage("the head's checksum is wrong"));
        }
        Ok(head)
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), Fault> {
        let query = "UPDATE head SET revision = ?, services = ?, sum = ?, history_bytes = ?, crc = ?";
        let values = (self.revision, self.services, self.sum, self.history_bytes, self.crc());
        connection.execute(query, values)?;
        Ok(())
    }

    fn crc(&self) -> i64 {
        let seal = RowChecksum::new("head").int(self.revision).int(self.services);
        seal.int(self.sum).int(self.history_bytes).end()
    }
}
