//! Checksums of rows: SQLite has none, and a flipped bit may turn one valid port into another.

use crc32fast::Hasher;

use super::error::Fault;

/// Compares the number of rows and the sum of their checksums with those that the head has.
///
/// # Errors
/// Fails when they differ: rows were added, removed or changed by hand.
pub(super) fn compare(what: &str, found: (i64, i64), written: (i64, i64)) -> Result<(), Fault> {
    if found == written {
        return Ok(());
    }
    Err(Fault::damage(if found.0 == written.0 {
        format!("{what} in it were changed by another program, though each agrees with its checksum")
    } else {
        format!(
            "it has {} {what}, of those that were written it should have {}",
            found.0, written.0
        )
    }))
}

/// Checksum over fields, each with its length, so that no two rows of other fields are the same.
pub(super) struct RowChecksum(Hasher);

impl RowChecksum {
    pub(super) fn new(kind: &str) -> Self {
        Self(Hasher::new()).text(kind)
    }

    pub(super) fn int(mut self, value: i64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    pub(super) fn text(mut self, value: &str) -> Self {
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value.as_bytes());
        self
    }

    pub(super) fn maybe_int(self, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.int(1).int(value),
            None => self.int(0),
        }
    }

    pub(super) fn maybe_text(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.int(1).text(value),
            None => self.int(0),
        }
    }

    pub(super) fn end(self) -> i64 {
        i64::from(self.0.finalize())
    }
}
