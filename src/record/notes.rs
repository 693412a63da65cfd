//! Notes of a record besides the services: who applied them, what drains, and what is paused.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// A pause of a service's new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPause {
    /// Name of the service.
    pub service: Box<str>,
    /// Time of its beginning, in seconds since 1970.
    pub since: u64,
    /// The user who ordered it.
    pub uid: u32,
    /// Time of its end, since the machine's start (`CLOCK_BOOTTIME`).
    pub until: Duration,
    /// Length of the whole pause.
    pub time: Duration,
}

impl RecordedPause {
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
}

impl StoreRevision {
    /// Creates the revision of the store at this path.
    pub fn new(path: &Path, revision: u64) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            revision,
        }
    }
}
