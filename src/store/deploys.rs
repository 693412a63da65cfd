//! Deploys: each has an id, a phase, and an end that a crash cannot take away.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Params, Transaction};
use serde_json::Value;

use super::author::ChangeAuthor;
use super::error::{Fault, StoreError};
use super::history_bounds::HistoryBounds;
use super::integer::{counter, micros, number, time};
use super::phase::DeployPhase;
use super::seal::RowChecksum;
use tcpgw_core::model::{Endpoint, Word as _};

const COLUMNS: &str = "id, service, targets, details, uid, pid, what, phase, reason, began, updated, revision, crc";

/// A deploy that is to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDeploy {
    /// Name of the service.
    pub service: Box<str>,
    /// The new backends.
    pub targets: Vec<Endpoint>,
    /// Further data for the process that continues the deploy; stored unchanged.
    pub details: Value,
    /// Ends of earlier deploys that could not be written so far; written together with this one.
    pub ends: Vec<DeployStep>,
    /// Earlier deploys of the service that end as undone, superseded by this one; written together with it.
    pub supersedes: Vec<u64>,
}

/// Returns the reason of a deploy that another one superseded.
pub fn superseded_by(id: u64) -> String {
    format!("superseded by deploy {id}; nothing was switched")
}

/// Next step of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployStep {
    /// Number of the deploy.
    pub id: u64,
    /// Phase from now on.
    pub phase: DeployPhase,
    /// Reason, for people; `None` keeps the present one.
    pub reason: Option<String>,
}

/// A deploy as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDeploy {
    /// Number of the deploy, never used twice.
    pub id: u64,
    /// Name of the service.
    pub service: String,
    /// The new backends.
    pub targets: Vec<Endpoint>,
    /// Further data, as given in [`NewDeploy::details`].
    pub details: Value,
    /// User id of the process that ordered it.
    pub uid: u32,
    /// Process id; 0 if unknown.
    pub pid: u32,
    /// Command that ordered it.
    pub what: String,
    /// Phase of the deploy.
    pub phase: DeployPhase,
    /// Reason for the phase, for people.
    pub reason: Option<String>,
    /// Time at which it began, since 1970.
    pub began: Duration,
    /// Time of the last step, since 1970.
    pub updated: Duration,
    /// The store's revision that its last change of the service made.
    pub revision: Option<u64>,
}

impl StoredDeploy {
    fn targets_text(&self) -> String {
        let texts: Vec<String> = self.targets.iter().map(Endpoint::to_string).collect();
        texts.join(" ")
    }

    fn crc(&self) -> i64 {
        let seal = RowChecksum::new("deploy").int(number(self.id)).text(&self.service);
        let seal = seal.text(&self.targets_text()).text(&self.details.to_string());
        let seal = seal.int(self.uid.into()).int(self.pid.into()).text(&self.what);
        let seal = seal.text(self.phase.word()).maybe_text(self.reason.as_deref());
        let seal = seal.int(micros(self.began)).int(micros(self.updated));
        seal.maybe_int(self.revision.map(number)).end()
    }

    fn read(row: &rusqlite::Row<'_>) -> Result<Self, Fault> {
        let id: i64 = row.get(0)?;
        let wrong = || Fault::damage(format!("deploy {id} is not what was written"));
        let (targets, details, phase): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(7)?);
        let targets = targets.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let found = DeployPhase::WORDS.iter().find(|(word, _)| *word == phase);
        let deploy = Self {
            id: counter(id),
            service: row.get(1)?,
            targets: targets.map_err(|_| wrong())?,
            details: serde_json::from_str(&details).map_err(|_| wrong())?,
            uid: row.get(4)?,
            pid: row.get(5)?,
            what: row.get(6)?,
            phase: found.ok_or_else(wrong)?.1,
            reason: row.get(8)?,
            began: time(row.get(9)?),
            updated: time(row.get(10)?),
            revision: row.get::<_, Option<i64>>(11)?.map(counter),
        };
        if deploy.crc() == row.get::<_, i64>(12)? {
            Ok(deploy)
        } else {
            Err(wrong())
        }
    }

    fn write(&self, connection: &Connection) -> Result<(), Fault> {
        let query =
            format!("INSERT OR REPLACE INTO deploys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let values = (
            number(self.id),
            &self.service,
            self.targets_text(),
            self.details.to_string(),
            self.uid,
            self.pid,
            &self.what,
            self.phase.word(),
            &self.reason,
            micros(self.began),
            micros(self.updated),
            self.revision.map(number),
            self.crc(),
        );
        connection.execute(&query, values)?;
        Ok(())
    }
}

fn select(connection: &Connection, rest: &str, values: impl Params) -> Result<Vec<StoredDeploy>, Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM deploys {rest}"))?;
    let mut rows = statement.query(values)?;
    let mut deploys = Vec::new();
    while let Some(row) = rows.next()? {
        deploys.push(StoredDeploy::read(row)?);
    }
    Ok(deploys)
}

pub(super) fn one(connection: &Connection, id: u64) -> Result<Option<StoredDeploy>, Fault> {
    Ok(select(connection, "WHERE id = ?", [number(id)])?.pop())
}

pub(super) fn list(connection: &Connection, service: Option<&str>, limit: usize) -> Result<Vec<StoredDeploy>, Fault> {
    let limit = number(limit as u64);
    match service {
        Some(service) => select(
            connection,
            "WHERE service = ? ORDER BY id DESC LIMIT ?",
            (service, limit),
        ),
        None => select(connection, "ORDER BY id DESC LIMIT ?", [limit]),
    }
}

pub(super) fn unfinished(connection: &Connection) -> Result<Vec<StoredDeploy>, Fault> {
    // All are read and compared with their checksums: by a damaged phase one would not be found.
    let mut deploys = select(connection, "ORDER BY id", ())?;
    deploys.retain(|deploy| !deploy.phase.is_over());
    Ok(deploys)
}

pub(super) fn begin(
    transaction: &Transaction<'_>,
    new: &NewDeploy,
    by: &ChangeAuthor,
    at: Duration,
    keep: &HistoryBounds,
) -> Result<u64, Fault> {
    for end in &new.ends {
        // A write that failed may have been made nevertheless.
        if one(transaction, end.id)?.is_some_and(|deploy| deploy.phase.may_become(end.phase)) {
            step(transaction, end, None, at)?;
        }
    }
    let query = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'deploys'), 0)";
    let last: i64 = transaction.query_row(query, (), |row| row.get(0))?;
    let id = counter(last.saturating_add(1));
    for earlier in &new.supersedes {
        let is_probing = one(transaction, *earlier)?.is_some_and(|deploy| deploy.phase == DeployPhase::Probing);
        if is_probing {
            let end = DeployStep {
                id: *earlier,
                phase: DeployPhase::Undone,
                reason: Some(superseded_by(id)),
            };
            step(transaction, &end, None, at)?;
        }
    }
    let query = "SELECT id FROM deploys WHERE service = ? AND phase = 'probing'";
    let other = transaction
        .query_row(query, [&*new.service], |row| row.get(0))
        .optional()?;
    if let Some(id) = other {
        return Err(StoreError::Deploying {
            service: new.service.clone(),
            id: counter(id),
        }
        .into());
    }
    let deploy = StoredDeploy {
        id,
        service: new.service.to_string(),
        targets: new.targets.clone(),
        details: new.details.clone(),
        uid: by.uid,
        pid: by.pid,
        what: by.what.clone(),
        phase: DeployPhase::Probing,
        reason: None,
        began: at,
        updated: at,
        revision: None,
    };
    deploy.write(transaction)?;
    let query = "DELETE FROM deploys WHERE phase NOT IN ('probing', 'switched') AND id <= ?";
    transaction.execute(query, [last.saturating_add(1).saturating_sub(number(keep.deploys))])?;
    Ok(deploy.id)
}

/// Writes a step, with the revision of the change that belongs to it, if any.
pub(super) fn step(
    transaction: &Transaction<'_>,
    step: &DeployStep,
    revision: Option<i64>,
    at: Duration,
) -> Result<(), Fault> {
    let mut deploy = one(transaction, step.id)?.ok_or(StoreError::NoDeploy(step.id))?;
    if !deploy.phase.may_become(step.phase) {
        return Err(StoreError::Phase {
            id: step.id,
            from: deploy.phase,
            to: step.phase,
        }
        .into());
    }
    deploy.phase = step.phase;
    deploy.reason = step.reason.clone().or(deploy.reason);
    deploy.updated = at;
    deploy.revision = revision.map(counter).or(deploy.revision);
    deploy.write(transaction)
}
