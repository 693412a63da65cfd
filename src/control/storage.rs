//! Writes to the store and queries of it, with their results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::reply::ReplySender;
use crate::store::last_services::LastServices;
use crate::store::{
    ChangeAuthor, CommittedChange, FileId, HistoryEntry, HistoryFilter, LoadedResources, LoadedServices, NewDeploy,
    StoreChange, StoreEpoch, StoreError, StoreIdentity, StoredDeploy,
};
use tcpgw_core::model::{Endpoint, Service};

/// Largest number of waiting queries. Each holds a connection of the API.
pub const WAITING: usize = 64;

/// A write to the store.
#[derive(Debug)]
pub enum Write {
    /// Change services.
    Change(StoreChange, ChangeAuthor, Duration),
    /// Make several changes in one transaction; each is made or refused by itself.
    Together(Vec<(StoreChange, ChangeAuthor)>, Duration),
    /// Change services, and remove orphans with them.
    RemoveOrphans(Box<OrphanRemoval>),
    /// Record the start of a deploy.
    Begin(NewDeploy, ChangeAuthor, Duration),
    /// Record a further phase of a deploy.
    Step(crate::store::DeployStep, Duration),
    /// Write the desired services to the file of last services.
    Remember(PathBuf, Box<LastServices>),
    /// Read the store again after a failure, and find out whether it can be written.
    Refresh,
}

/// A change of services that also removes orphans. The store has no orphans: their removal is durable when the file of
/// last services does not have them, and the client is answered after that.
#[derive(Debug)]
pub struct OrphanRemoval {
    /// Change of the store; it may consist of the names of orphans only.
    pub change: StoreChange,
    /// Author.
    pub by: ChangeAuthor,
    /// Time since the Unix epoch.
    pub at: Duration,
    /// Path of the file of last services.
    pub path: PathBuf,
    /// Contents of that file if the change is not made.
    pub before: LastServices,
    /// Names of the orphans.
    pub orphans: BTreeSet<Box<str>>,
}

/// Result of a write.
#[derive(Debug)]
pub enum WriteResult {
    /// Result of [`Write::Change`] and [`Write::RemoveOrphans`].
    Changed(Result<CommittedChange, StoreError>),
    /// Results of [`Write::Together`], one for each change in the same order.
    Together(Vec<Result<CommittedChange, StoreError>>),
    /// Result of [`Write::Begin`]: the id of the deploy.
    Began(Result<u64, StoreError>),
    /// Result of [`Write::Step`].
    Stepped(Result<(), StoreError>),
    /// Result of [`Write::Remember`], and its duration.
    Remembered(Result<(), String>, Duration),
    /// Result of [`Write::Refresh`].
    Refreshed(Result<Opened, StoreError>),
}

/// Reason why a query was not answered.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum QueryError {
    /// Too many queries wait.
    #[error("the store is busy: {WAITING} requests wait for it already; try again later")]
    Busy,
    /// The thread that reads the store has ended.
    #[error("the thread that reads the store has ended: restart the daemon; this is a bug in tcpgw, please report it")]
    Gone,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A query of the store.
#[derive(Debug)]
pub enum Query {
    /// Return entries of the history.
    History(HistoryFilter, ReplySender<Result<Vec<HistoryEntry>, QueryError>>),
    /// Return one deploy.
    Deploy(u64, ReplySender<Result<Option<DeployRecord>, QueryError>>),
    /// Return deploys of a service, or of all, up to this number.
    Deploys(
        Option<String>,
        usize,
        ReplySender<Result<Vec<StoredDeploy>, QueryError>>,
    ),
}

impl Query {
    /// Returns whether no client waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::History(_, reply) => reply.is_closed(),
            Self::Deploy(_, reply) => reply.is_closed(),
            Self::Deploys(_, _, reply) => reply.is_closed(),
        }
    }

    /// Answers with an error. The client may have disconnected.
    pub fn refuse(self, error: QueryError) {
        match self {
            Self::History(_, reply) => drop(reply.send(Err(error))),
            Self::Deploy(_, reply) => drop(reply.send(Err(error))),
            Self::Deploys(_, _, reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A deploy as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployRecord {
    /// The deploy, as it was last written.
    pub deploy: StoredDeploy,
    /// Backends that its switch removed; empty before the switch, or where the history does not go back so far.
    pub old: Vec<Endpoint>,
}

/// Relation of a store to the one that was in use before. Only one that continues it tells which of the services that are served were
/// removed: another one may have had services of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The same store, perhaps with further changes.
    Continued,
    /// Another store or an older one, accepted because the file of last services was removed.
    Accepted,
    /// A store where nothing is known of the one before.
    Unknown,
}

/// Contents of an opened store.
#[derive(Debug)]
pub struct Opened {
    /// The services.
    pub loaded: LoadedServices,
    /// Services that were removed and not defined again, by name, as they were before.
    pub removed: BTreeMap<Box<str>, Option<Service>>,
    /// The resources of the add-on.
    pub resources: LoadedResources,
    /// Whether the resources were just taken from the file of last services, since the store is new.
    pub is_restored: bool,
    /// Deploys that an earlier daemon has not finished.
    pub unfinished: Vec<UnfinishedDeploy>,
    /// Identity of the opened file, if it could be determined.
    pub file: Option<FileId>,
    /// Identity of the store, if it has one.
    pub identity: Option<StoreIdentity>,
    /// Last epoch of the store, if it has one.
    pub epoch: Option<StoreEpoch>,
    /// Relation to the store that was in use before.
    pub continuity: Continuity,
    /// Error that prevents writes, if there is one.
    pub trouble: Option<StoreError>,
}

/// A deploy that has not ended.
#[derive(Debug)]
pub struct UnfinishedDeploy {
    /// The deploy, as it was last written.
    pub deploy: StoredDeploy,
    /// Service before the switch, if it was switched.
    pub before: Option<Service>,
}
