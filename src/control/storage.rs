//! What is asked of the store, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::request::Reply;
use crate::store::last::Last;
use crate::store::{
    By, Change, Committed, Deploy, FileId, HistoryEntry, HistoryFilter, Loaded, LoadedResources, NewDeploy, StoreError,
};
use tcpgw_core::model::{Endpoint, Service};

/// Number of questions that may wait. Each holds a connection of the API.
pub const WAITING: usize = 64;

/// One thing to do.
#[derive(Debug)]
pub enum Write {
    /// Change services.
    Change(Change, By, Duration),
    /// Change services several times, in one transaction: each change is made, or refused, by itself.
    Together(Vec<(Change, By)>, Duration),
    /// Change services, and remove orphans with them.
    RemoveOrphans(Box<OrphanRemoval>),
    /// Note that a deploy begins.
    Begin(NewDeploy, By, Duration),
    /// Note how a deploy goes on.
    Step(crate::store::DeployStep, Duration),
    /// Keep what is desired in the file of last services.
    Remember(PathBuf, Box<Last>),
    /// After a failure: see whether it can be written again, and what it holds.
    Refresh,
}

/// A change of services that removes orphans, too. The store knows no orphans: that they are removed is durable when the file of
/// last services does not have them, and nobody is answered before.
#[derive(Debug)]
pub struct OrphanRemoval {
    /// What the store is to change; it may be nothing but the names of orphans.
    pub change: Change,
    /// Who wants it.
    pub by: By,
    /// When, since 1970.
    pub at: Duration,
    /// The file of last services.
    pub path: PathBuf,
    /// What that file is to say if the change is not made.
    pub before: Last,
    /// The orphans.
    pub orphans: BTreeSet<Box<str>>,
}

/// What it came to.
#[derive(Debug)]
pub enum Written {
    /// Of [`Write::Change`] and [`Write::RemoveOrphans`].
    Changed(Result<Committed, StoreError>),
    /// Of [`Write::Together`]: of each change, in the same order.
    Together(Vec<Result<Committed, StoreError>>),
    /// Of [`Write::Begin`]: its id.
    Began(Result<u64, StoreError>),
    /// Of [`Write::Step`].
    Stepped(Result<(), StoreError>),
    /// Of [`Write::Remember`], and how long it took.
    Remembered(Result<(), String>, Duration),
    /// Of [`Write::Refresh`].
    Refreshed(Result<Opened, StoreError>),
}

/// Why a question was not answered.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum QueryError {
    /// Too many others wait.
    #[error("{WAITING} requests to the store are waiting already")]
    Busy,
    /// The thread has ended.
    #[error("the thread that reads the store has ended")]
    Gone,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is only read.
#[derive(Debug)]
pub enum Query {
    /// What changed.
    History(HistoryFilter, Reply<Result<Vec<HistoryEntry>, QueryError>>),
    /// One deploy.
    Deploy(u64, Reply<Result<Option<Recorded>, QueryError>>),
    /// Deploys of a service, or all; so many at most.
    Deploys(Option<String>, usize, Reply<Result<Vec<Deploy>, QueryError>>),
}

impl Query {
    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::History(_, reply) => reply.is_closed(),
            Self::Deploy(_, reply) => reply.is_closed(),
            Self::Deploys(_, _, reply) => reply.is_closed(),
        }
    }

    /// Answers with an error. Whoever asked may be gone.
    pub fn refuse(self, error: QueryError) {
        match self {
            Self::History(_, reply) => drop(reply.send(Err(error))),
            Self::Deploy(_, reply) => drop(reply.send(Err(error))),
            Self::Deploys(_, _, reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A deploy as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The deploy, as it was last written.
    pub deploy: Deploy,
    /// Backends that its switch took away; none before that, or where the history does not go back so far.
    pub old: Vec<Endpoint>,
}

/// What a store holds that could be opened.
#[derive(Debug)]
pub struct Opened {
    /// The services.
    pub loaded: Loaded,
    /// Services that somebody removed and nobody made again, by name, as they were before.
    pub removed: BTreeMap<Box<str>, Option<Service>>,
    /// The resources of the add-on.
    pub resources: LoadedResources,
    /// They were taken from the file of last services a moment ago, since the store is new.
    pub is_restored: bool,
    /// Deploys that a daemon before this one has not finished.
    pub unfinished: Vec<Unfinished>,
    /// The file that was opened, as far as that could be found out.
    pub file: Option<FileId>,
    /// Why nothing can be written, if so.
    pub trouble: Option<StoreError>,
}

/// A deploy that is not over.
#[derive(Debug)]
pub struct Unfinished {
    /// The deploy, as it was last written.
    pub deploy: Deploy,
    /// Its service before it was switched, if it was.
    pub before: Option<Service>,
}
