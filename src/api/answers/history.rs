//! Answers about the history.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::seconds;
use crate::addon::id::PlatformId;
use crate::store::HistoryEntry;

/// The answer to `GET /v1/history`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryList {
    /// The entries, the newest first.
    pub entries: Vec<HistoryAnswer>,
}

/// One change of one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// Id of the entry, which grows by one with each.
    #[serde(default)]
    pub id: u64,
    /// Revision of the store that the change made; several services may change in one.
    pub revision: u64,
    /// Time at which it was made, in seconds since 1970.
    pub at: f64,
    /// User id of the peer that ordered it.
    pub uid: u32,
    /// Process id of the peer that ordered it; 0: unknown.
    #[serde(default)]
    pub pid: u32,
    /// Command that made it.
    pub what: String,
    /// The deploy that the change was part of.
    pub deploy: Option<u64>,
    /// The service's name.
    pub service: String,
    /// The app of the service, if that is, or was, of the add-on.
    #[serde(default)]
    pub app: Option<PlatformId>,
    /// The service before the change, as JSON of the state file; `None`: it did not exist.
    pub old: Option<Box<RawValue>>,
    /// The service after the change; `None`: it was deleted.
    pub new: Option<Box<RawValue>>,
}

impl HistoryAnswer {
    /// Creates the answer about an entry, with the app of its service.
    pub fn new(entry: HistoryEntry, app: Option<PlatformId>) -> Self {
        Self {
            id: entry.id,
            revision: entry.revision,
            at: seconds(entry.at),
            uid: entry.uid,
            pid: entry.pid,
            what: entry.what,
            deploy: entry.deploy,
            service: entry.service,
            app,
            old: entry.old,
            new: entry.new,
        }
    }
}
