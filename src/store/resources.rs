//! The add-on's resources, and those that were removed.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Fault;
use super::integer::number;
use super::requested;
use super::seal::{RowChecksum, compare};
use crate::addon::{MAX_REMOVED, Removed, Resource, ResourceChange};

/// The add-on's data in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedResources {
    /// The resources, by id.
    pub resources: Vec<Resource>,
    /// Removed resources, in the order of their removal.
    pub removed: Vec<Removed>,
}

/// Number of resources and sum of their checksums, so that the loss of one is noticed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct ResourceHead {
    resources: i64,
    sum: i64,
}

impl ResourceHead {
    /// Reads the head; a store that never had a resource has none.
    fn read(connection: &Connection) -> Result<Self, Fault> {
        let query = "SELECT resources, sum, crc FROM resource_head";
        let row = connection.query_row(query, (), |row| {
            let head = Self {
                resources: row.get(0)?,
                sum: row.get(1)?,
            };
            Ok((head, row.get::<_, i64>(2)?))
        });
        match row.optional()? {
            None => Ok(Self::default()),
            Some((head, crc)) if crc == head.crc() => Ok(head),
            Some(_) => Err(Fault::damage("the checksum of the resources is wrong")),
        }
    }

    fn write(self, transaction: &Transaction<'_>) -> Result<(), Fault> {
        let query = "INSERT OR REPLACE INTO resource_head (id, resources, sum, crc) VALUES (1, ?, ?, ?)";
        transaction.execute(query, (self.resources, self.sum, self.crc()))?;
        Ok(())
    }

    fn crc(self) -> i64 {
        RowChecksum::new("resource head")
            .int(self.resources)
            .int(self.sum)
            .end()
    }

    fn without(self, crc: Option<i64>) -> Self {
        match crc {
            None => self,
            Some(crc) => Self {
                resources: self.resources - 1,
                sum: self.sum.wrapping_sub(crc),
            },
        }
    }

    fn with(self, crc: i64) -> Self {
        Self {
            resources: self.resources + 1,
            sum: self.sum.wrapping_add(crc),
        }
    }
}

/// Compares all resources with their checksums.
pub(super) fn verify(connection: &Connection) -> Result<(), Fault> {
    let head = ResourceHead::read(connection)?;
    let mut found = ResourceHead::default();
    let mut statement = connection.prepare("SELECT id, body, crc FROM resources")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
        found = found.with(checked("resource", &id, &body, row.get(2)?)?);
    }
    compare("resources", (found.resources, found.sum), (head.resources, head.sum))
}

pub(super) fn load(connection: &Connection) -> Result<LoadedResources, Fault> {
    let mut resources = read_all(
        connection,
        "resource",
        "SELECT id, body, crc FROM resources ORDER BY id",
    )?;
    requested::complete(connection, &mut resources)?;
    Ok(LoadedResources {
        resources,
        removed: read_all(
            connection,
            "removed resource",
            "SELECT id, body, crc FROM removed_resources ORDER BY at",
        )?,
    })
}

fn read_all<T: DeserializeOwned>(connection: &Connection, kind: &str, query: &str) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query(())?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
        checked(kind, &id, &body, row.get(2)?)?;
        let one = serde_json::from_str(&body).map_err(|error| Fault::damage(format!("{kind} {id:?}: {error}")))?;
        all.push(one);
    }
    Ok(all)
}

/// Returns the checksum, if it is the right one.
fn checked(kind: &str, id: &str, body: &str, crc: i64) -> Result<i64, Fault> {
    if crc == self::crc(kind, id, body) {
        Ok(crc)
    } else {
        Err(Fault::damage(format!("the checksum of {kind} {id:?} is wrong")))
    }
}

fn crc(kind: &str, id: &str, body: &str) -> i64 {
    RowChecksum::new(kind).text(id).text(body).end()
}

pub(super) fn commit(transaction: &Transaction<'_>, change: &ResourceChange) -> Result<(), Fault> {
    let id = change.id();
    let id = id.as_str();
    let old: Option<i64> = transaction
        .query_row("SELECT crc FROM resources WHERE id = ?", [id], |row| row.get(0))
        .optional()?;
    let mut head = ResourceHead::read(transaction)?.without(old);
    match change {
        ResourceChange::Put(resource) => {
            let body = text(&**resource)?;
            let crc = crc("resource", id, &body);
            let query = "INSERT OR REPLACE INTO resources (id, body, crc) VALUES (?, ?, ?)";
            transaction.execute(query, (id, &body, crc))?;
            requested::put(transaction, resource, crc)?;
            head = head.with(crc);
        }
        ResourceChange::Remove(removed) => {
            transaction.execute("DELETE FROM resources WHERE id = ?", [id])?;
            requested::remove(transaction, removed.id)?;
            let body = text(removed)?;
            let crc = crc("removed resource", id, &body);
            let query = "INSERT INTO removed_resources (id, body, crc) VALUES (?, ?, ?)";
            transaction.execute(query, (id, &body, crc))?;
            let query = "DELETE FROM removed_resources WHERE at <= ?";
            let last = transaction.last_insert_rowid();
            transaction.execute(query, [last.saturating_sub(number(MAX_REMOVED as u64))])?;
        }
    }
    head.write(transaction)
}

/// Writes other times for the rests of ports of removed resources. Those that the store does not remember any more are left out.
pub(super) fn rest(transaction: &Transaction<'_>, rests: &[Removed]) -> Result<(), Fault> {
    let rests: BTreeMap<&str, &Removed> = rests.iter().map(|removed| (removed.id.as_str(), removed)).collect();
    if rests.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare("SELECT at, id FROM removed_resources")?;
    let mut rows = statement.query(())?;
    let mut found: Vec<(i64, &Removed)> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(1)?;
        if let Some(removed) = rests.get(&*id) {
            found.push((row.get(0)?, removed));
        }
    }
    for (at, removed) in found {
        let body = text(removed)?;
        let crc = crc("removed resource", removed.id.as_str(), &body);
        let query = "UPDATE removed_resources SET body = ?, crc = ? WHERE at = ?";
        transaction.execute(query, (&body, crc, at))?;
    }
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::damage(error.to_string()))
}
