//! The services, and their changes.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::author::ChangeAuthor;
use super::error::{Fault, StoreError};
use super::head::StoreHead;
use super::history::{History, NewHistoryEntry};
use super::history_bounds::HistoryBounds;
use super::integer::{counter, number};
use super::seal::RowChecksum;
use super::stored_service::StoredService;
use super::{DeployStep, deploys, resources};
use crate::addon;
use tcpgw_core::model::{self, Service, write};

/// Services of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedServices {
    /// Revision of the last change; 0 in a store that was never changed.
    pub revision: u64,
    /// Sum of the services' checksums.
    pub contents: i64,
    /// The services, sorted by name.
    pub services: Vec<StoredService>,
}

/// A change, made as a whole or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreChange {
    /// Edits, in this order.
    pub edits: Vec<StoreEdit>,
    /// The revision of the whole store that this change was made for.
    pub expect: Option<u64>,
    /// The step of a deploy that this change is.
    pub deploy: Option<DeployStep>,
    /// Changes of resources that go with it.
    pub resources: Vec<crate::addon::ResourceChange>,
    /// Resources that were removed before, with other times for the rests of their ports.
    pub rests: Vec<crate::addon::Removed>,
}

/// Change of one service.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreEdit {
    /// Write this service.
    Put(Arc<Service>, Expect),
    /// Remove the service of this name.
    Delete(Box<str>, Expect),
}

/// Condition that a service must meet for a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expect {
    /// No condition.
    #[default]
    Anything,
    /// The service must not exist.
    Absent,
    /// The service must exist.
    Present,
    /// The service must have this revision.
    Revision(u64),
}

impl Expect {
    fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Revision(expected) => current == Some(expected),
        }
    }
}

/// Result of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedChange {
    /// Revision of the store after the change.
    pub revision: u64,
    /// Sum of the checksums of the services after the change.
    pub contents: i64,
    /// Services that are not as they were, each once, by name.
    pub changed: Vec<Box<str>>,
}

/// A service as it is in its table.
pub(super) struct ServiceRow {
    pub(super) name: String,
    pub(super) revision: i64,
    body: String,
}

impl ServiceRow {
    fn new(service: &Service, revision: i64) -> Self {
        Self {
            name: service.name.to_string(),
            revision,
            body: write::service_text(service),
        }
    }

    /// Reads name, revision, body and checksum.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> Result<Self, Fault> {
        let read = Self {
            name: row.get(0)?,
            revision: row.get(1)?,
            body: row.get(2)?,
        };
        if row.get::<_, i64>(3)? != read.crc() {
            return Err(Fault::damage(format!(
                "the checksum of service {:?} is wrong",
                read.name
            )));
        }
        Ok(read)
    }

    pub(super) fn crc(&self) -> i64 {
        let seal = RowChecksum::new("service").text(&self.name).int(self.revision);
        seal.text(&self.body).end()
    }

    fn stored(&self) -> Result<StoredService, Fault> {
        let service = model::parse_service(self.body.as_bytes())
            .map_err(|problems| Fault::damage(format!("service {:?}: {problems}", self.name)))?;
        if *service.name != *self.name {
            return Err(Fault::damage(format!(
                "service {:?} is in the place of {:?}",
                service.name, self.name
            )));
        }
        Ok(StoredService {
            service: Arc::new(service),
            revision: counter(self.revision),
        })
    }
}

pub(super) fn load(connection: &Connection) -> Result<LoadedServices, Fault> {
    let head = StoreHead::read(connection)?;
    let mut statement = connection.prepare("SELECT name, revision, body, crc FROM services ORDER BY name")?;
    let mut rows = statement.query(())?;
    let mut services = Vec::new();
    while let Some(row) = rows.next()? {
        services.push(ServiceRow::read(row)?.stored()?);
    }
    Ok(LoadedServices {
        revision: counter(head.revision),
        contents: head.sum,
        services,
    })
}

pub(super) fn commit(
    transaction: &Transaction<'_>,
    change: &StoreChange,
    by: &ChangeAuthor,
    at: Duration,
    keep: &HistoryBounds,
) -> Result<CommittedChange, Fault> {
    let mut head = StoreHead::read(transaction)?;
    if let Some(expected) = change.expect.filter(|expected| number(*expected) != head.revision) {
        return Err(StoreError::Behind {
            expected,
            current: counter(head.revision),
        }
        .into());
    }
    let revision = head.revision.saturating_add(1);
    let mut changes = ChangeTransaction {
        transaction,
        history: History::new(transaction, by, at, change.deploy.as_ref().map(|step| step.id))?,
        revision,
        changed: Vec::new(),
    };
    for edit in &change.edits {
        changes.edit(edit, &mut head)?;
    }
    let has_changed = !changes.changed.is_empty();
    if has_changed {
        head.revision = revision;
    }
    let mut is_noted = false;
    for resource in &change.resources {
        if let addon::ResourceChange::Put(resource) = resource {
            is_noted |= changes.note_resource(&resource.id.service(), &mut head)?;
        }
    }
    let ChangeTransaction {
        history, mut changed, ..
    } = changes;
    if has_changed || is_noted {
        history.forget(&mut head, keep)?;
        head.write(transaction)?;
    }
    if let Some(step) = &change.deploy {
        deploys::step(transaction, step, has_changed.then_some(revision), at)?;
    }
    for resource in &change.resources {
        resources::commit(transaction, resource)?;
    }
    resources::rest(transaction, &change.rests)?;
    changed.sort_unstable();
    changed.dedup();
    Ok(CommittedChange {
        revision: counter(head.revision),
        contents: head.sum,
        changed,
    })
}

struct ChangeTransaction<'t> {
    transaction: &'t Transaction<'t>,
    history: History<'t>,
    revision: i64,
    changed: Vec<Box<str>>,
}

impl ChangeTransaction<'_> {
    fn edit(&mut self, edit: &StoreEdit, head: &mut StoreHead) -> Result<(), Fault> {
        let (name, expect, new) = match edit {
            StoreEdit::Put(service, expect) => (&service.name, expect, Some(service)),
            StoreEdit::Delete(name, expect) => (name, expect, None),
        };
        let query = "SELECT name, revision, body, crc FROM services WHERE name = ?";
        let mut statement = self.transaction.prepare(query)?;
        let old = statement
            .query_row([&**name], |row| Ok(ServiceRow::read(row)))
            .optional()?;
        let old = old.transpose()?;
        let current = old.as_ref().map(ServiceRow::stored).transpose()?;
        if !expect.holds(current.as_ref().map(|stored| stored.revision)) {
            return Err(StoreError::Conflict {
                name: name.clone(),
                current: current.map(Box::new),
            }
            .into());
        }
        if current.as_ref().map(|stored| &stored.service) == new {
            return Ok(());
        }
        let new = new.map(|service| ServiceRow::new(service, self.revision));
        self.replace(name, old.as_ref(), new.as_ref(), head)?;
        self.changed.push(name.clone());
        let entry = NewHistoryEntry {
            revision: self.revision,
            service: name,
            old: old.as_ref().map(|row| &*row.body),
            new: new.as_ref().map(|row| &*row.body),
        };
        self.history.note(&entry, head)
    }

    /// Notes a change of a service's resource that changes nothing of the service itself, such as a suspension. Returns whether it did.
    fn note_resource(&mut self, name: &str, head: &mut StoreHead) -> Result<bool, Fault> {
        if self.changed.iter().any(|changed| **changed == *name) {
            return Ok(false);
        }
        let body = "SELECT body FROM services WHERE name = ?";
        let body = self.transaction.query_row(body, [name], |row| row.get::<_, String>(0));
        let Some(body) = body.optional()? else {
            return Ok(false);
        };
        let entry = NewHistoryEntry {
            revision: head.revision,
            service: name,
            old: Some(&body),
            new: Some(&body),
        };
        self.history.note(&entry, head)?;
        Ok(true)
    }

    fn replace(
        &self,
        name: &str,
        old: Option<&ServiceRow>,
        new: Option<&ServiceRow>,
        head: &mut StoreHead,
    ) -> Result<(), Fault> {
        if let Some(old) = old {
            head.sum = head.sum.wrapping_sub(old.crc());
            head.services -= 1;
        }
        if let Some(new) = new {
            head.sum = head.sum.wrapping_add(new.crc());
            head.services += 1;
            let query = "INSERT INTO services (name, revision, body, crc) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO \
                         UPDATE SET revision = excluded.revision, body = excluded.body, crc = excluded.crc";
            let values = (&*new.name, new.revision, &*new.body, new.crc());
            self.transaction.execute(query, values)?;
        } else {
            self.transaction
                .execute("DELETE FROM services WHERE name = ?", [name])?;
        }
        Ok(())
    }
}
