//! History: what changed, when, and which process ordered it. Bounded: the oldest entries are removed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Transaction, params_from_iter};
use serde_json::value::RawValue;

use super::author::ChangeAuthor;
use super::error::Fault;
use super::head::StoreHead;
use super::history_bounds::HistoryBounds;
use super::integer::{counter, micros, number, time};
use super::seal::RowChecksum;
use tcpgw_core::model::{Service, parse_service};

const COLUMNS: &str = "id, revision, at, uid, pid, what, deploy, service, old, new, crc";

/// A change of one service.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// Id of the entry, which grows by one with each.
    pub id: u64,
    /// The store's revision that the change made; several services may change in one.
    pub revision: u64,
    /// Time of the change, since 1970.
    pub at: Duration,
    /// User id of the process that ordered it.
    pub uid: u32,
    /// Process id; 0 if unknown.
    pub pid: u32,
    /// Command that ordered it.
    pub what: String,
    /// The deploy that it was part of.
    pub deploy: Option<u64>,
    /// The service's name.
    pub service: String,
    /// Service before the change, as JSON; `None` if it did not exist.
    pub old: Option<Box<RawValue>>,
    /// Service after the change, as JSON; `None` if it was deleted.
    pub new: Option<Box<RawValue>>,
}

/// Conditions for entries of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Names of services; empty for all.
    pub services: Vec<String>,
    /// Earliest time, since 1970.
    pub since: Option<Duration>,
    /// Number of the deploy that the entries belong to.
    pub deploy: Option<u64>,
    /// Older than this entry: the id of the last one that was seen gives the next page.
    pub before: Option<u64>,
    /// Largest number of entries.
    pub limit: usize,
}

/// An entry to be noted.
pub(super) struct NewHistoryEntry<'e> {
    pub(super) revision: i64,
    pub(super) service: &'e str,
    pub(super) old: Option<&'e str>,
    pub(super) new: Option<&'e str>,
}

/// A change that is being written to the history.
pub(super) struct History<'t> {
    transaction: &'t Transaction<'t>,
    by: &'t ChangeAuthor,
    at: i64,
    deploy: Option<i64>,
    /// Number of the newest entry.
    last: i64,
}

impl<'t> History<'t> {
    pub(super) fn new(
        transaction: &'t Transaction<'t>,
        by: &'t ChangeAuthor,
        at: Duration,
        deploy: Option<u64>,
    ) -> Result<Self, Fault> {
        let query = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'history'), 0)";
        Ok(Self {
            transaction,
            by,
            at: micros(at),
            deploy: deploy.map(number),
            last: transaction.query_row(query, (), |row| row.get(0))?,
        })
    }

    pub(super) fn note(&mut self, entry: &NewHistoryEntry<'_>, head: &mut StoreHead) -> Result<(), Fault> {
        self.last = self.last.saturating_add(1);
        let bytes = [entry.old, entry.new]
            .into_iter()
            .flatten()
            .map(str::len)
            .sum::<usize>();
        let bytes = number(bytes as u64);
        let by = self.by;
        let crc = RowChecksum::new("history")
            .int(self.last)
            .int(entry.revision)
            .int(self.at)
            .int(by.uid.into())
            .int(by.pid.into())
            .text(&by.what)
            .maybe_int(self.deploy)
            .text(entry.service)
            .maybe_text(entry.old)
            .maybe_text(entry.new)
            .end();
        let query = "INSERT INTO history (id, revision, at, uid, pid, what, deploy, service, old, new, bytes, crc) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let values = (
            self.last,
            entry.revision,
            self.at,
            by.uid,
            by.pid,
            &*by.what,
            self.deploy,
            entry.service,
            entry.old,
            entry.new,
            bytes,
            crc,
        );
        self.transaction.execute(query, values)?;
        head.history_bytes = head.history_bytes.saturating_add(bytes);
        Ok(())
    }

    /// Forgets the oldest entries until what is left is within bounds. Ids have no gaps.
    pub(super) fn forget(self, head: &mut StoreHead, keep: &HistoryBounds) -> Result<(), Fault> {
        let query = "SELECT coalesce(min(id), 0) FROM history";
        let mut first: i64 = self.transaction.query_row(query, (), |row| row.get(0))?;
        let mut statement = self
            .transaction
            .prepare("DELETE FROM history WHERE id = ? RETURNING bytes")?;
        let is_too_much = |first: i64, head: &StoreHead| {
            self.last - first >= number(keep.entries) || head.history_bytes > number(keep.bytes)
        };
        while first < self.last && is_too_much(first, head) {
            let mut rows = statement.query([first])?;
            while let Some(row) = rows.next()? {
                head.history_bytes = head.history_bytes.saturating_sub(row.get(0)?);
            }
            first += 1;
        }
        Ok(())
    }
}

pub(super) fn read(connection: &Connection, filter: &HistoryFilter) -> Result<Vec<HistoryEntry>, Fault> {
    let mut query = format!("SELECT {COLUMNS} FROM history");
    let mut values: Vec<Sql> = Vec::new();
    let conditions = [
        ("at >=", filter.since.map(|since| Sql::from(micros(since)))),
        ("deploy =", filter.deploy.map(|id| Sql::from(number(id)))),
        ("id <", filter.before.map(|id| Sql::from(number(id)))),
    ];
    if !filter.services.is_empty() {
        let places = vec!["?"; filter.services.len()].join(", ");
        let _ = write!(query, " WHERE service IN ({places})");
        values.extend(filter.services.iter().cloned().map(Sql::from));
    }
    for (condition, value) in conditions {
        if let Some(value) = value {
            let joint = if values.is_empty() { "WHERE" } else { "AND" };
            let _ = write!(query, " {joint} {condition} ?");
            values.push(value);
        }
    }
    query.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(Sql::from(number(filter.limit as u64)));
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

/// Returns the services whose last change was their removal, as they were before.
pub(super) fn removed(connection: &Connection) -> Result<BTreeMap<Box<str>, Option<Service>>, Fault> {
    let query = format!(
        "SELECT {COLUMNS} FROM history WHERE new IS NULL AND id IN (SELECT max(id) FROM history GROUP BY service)"
    );
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query(())?;
    let mut removed = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        let was = entry.old.and_then(|old| parse_service(old.get().as_bytes()).ok());
        removed.insert(entry.service.into(), was);
    }
    Ok(removed)
}

fn entry(row: &rusqlite::Row<'_>) -> Result<HistoryEntry, Fault> {
    let (id, revision, at): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (uid, pid, what): (u32, u32, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let (deploy, service): (Option<i64>, String) = (row.get(6)?, row.get(7)?);
    let (old, new): (Option<String>, Option<String>) = (row.get(8)?, row.get(9)?);
    let seal = RowChecksum::new("history").int(id).int(revision).int(at);
    let seal = seal.int(uid.into()).int(pid.into()).text(&what).maybe_int(deploy);
    let seal = seal
        .text(&service)
        .maybe_text(old.as_deref())
        .maybe_text(new.as_deref());
    let wrong = || Fault::damage(format!("the checksum of history entry {id} is wrong"));
    if seal.end() != row.get::<_, i64>(10)? {
        return Err(wrong());
    }
    let json = |text: Option<String>| text.map(RawValue::from_string).transpose().map_err(|_| wrong());
    Ok(HistoryEntry {
        id: counter(id),
        revision: counter(revision),
        at: time(at),
        uid,
        pid,
        what,
        deploy: deploy.map(counter),
        service,
        old: json(old)?,
        new: json(new)?,
    })
}
