//! Notes of a record besides the services: who applied them, what drains, and what is paused.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store_identity::{StoreIdentity, StoreLineage};

/// Origin and time of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyNote {
    /// Time at which it began, in seconds since 1970.
    pub at: u64,
    /// Origin of the state: a file, or `-` for standard input.
    pub origin: String,
    /// Time since the machine's start (`CLOCK_BOOTTIME`) at which the contents of the record were current.
    #[serde(default)]
    pub known: Duration,
    /// The daemon's store at that time; `None` in what an earlier build wrote, or who knows no store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreRevision>,
    /// Name of the provider that asked for the last change, if it was neither the state file nor the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Box<str>>,
}

impl ApplyNote {
    /// Returns the origin of the last change for people: a file, `-` for standard input, or the name of a provider.
    pub fn shown_origin(&self) -> &str {
        self.provider.as_deref().unwrap_or(&self.origin)
    }
}

/// The end of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Name of the service in the summary beside it.
    pub service: Box<str>,
    /// Address and port of the backend.
    pub backend: SocketAddr,
    /// Time since the machine's start (`CLOCK_BOOTTIME`) at which the flows are flushed. A record of another boot is
    /// not read.
    pub until: Duration,
    /// Length of the whole drain.
    pub time: Duration,
}

impl Deadline {
    /// Returns the time that is left of it at `boot`, the time since the machine's start: at most the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}

/// Returns the author of an order, for people. What is ordered through the dashboard has the daemon's user id, which ordered
/// nothing.
pub fn author(uid: u32, browser: Option<IpAddr>) -> String {
    match browser {
        Some(address) => format!("web ({address})"),
        None => format!("uid {uid}"),
    }
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPause {
    /// Name of the service.
    pub service: Box<str>,
    /// Time of its beginning, in seconds since 1970.
    pub since: u64,
    /// The user who ordered it.
    pub uid: u32,
    /// Address of the browser, if it was ordered through the dashboard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<IpAddr>,
    /// Time of its end, since the machine's start (`CLOCK_BOOTTIME`).
    pub until: Duration,
    /// Length of the whole pause.
    pub time: Duration,
}

impl RecordedPause {
    /// Returns who ordered it, for people: `uid 0`, `web (192.0.2.7)`.
    pub fn author(&self) -> String {
        author(self.uid, self.browser)
    }

    /// Returns the time of its end by the clock at which it began, in seconds since 1970.
    pub fn ends(&self) -> u64 {
        self.since.saturating_add(self.time.as_secs())
    }

    /// Returns the time that is left of it at `boot`, the time since the machine's start: at most the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}

/// Revision of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRevision {
    /// Path of the store; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Revision of the store.
    pub revision: u64,
    /// Identity of the store, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<StoreIdentity>,
    /// Its lineage, as far as it is known.
    #[serde(default, skip_serializing_if = "StoreLineage::is_unknown")]
    pub lineage: Box<StoreLineage>,
}

impl StoreRevision {
    /// Creates the revision of the store at this path.
    pub fn new(path: &Path, revision: u64, identity: Option<StoreIdentity>, lineage: StoreLineage) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            revision,
            identity,
            lineage: Box::new(lineage),
        }
    }
}

/// Facts about a store that are in the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordedStore {
    /// Highest revision; 0 if it knows none.
    pub revision: u64,
    /// Identity of the store, if it is known.
    pub identity: Option<StoreIdentity>,
    /// Lineage of the store at that revision, as far as it is known.
    pub lineage: StoreLineage,
    /// Time since the machine's start (`CLOCK_BOOTTIME`) at which the identity was current.
    pub known: Duration,
}
