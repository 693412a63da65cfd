//! What a record says besides the elements of the sets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::record::Entry;
use serde::{Deserialize, Serialize};
use tcpgw_core::owner::AllDetails;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Identity;

/// The part of a record that is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The versions of the program and of its rules.
    pub program: String,
    /// The kernel's name for this boot.
    pub boot: String,
    /// The cookie of the network namespace.
    pub namespace: u64,
    /// The generation after the last transaction.
    pub generation: u32,
    /// The table's number.
    pub table: u64,
    /// The room of its sets, as text.
    pub room: String,
    /// The flow mark, as text.
    pub mark: String,
    /// Whether the flows were swept after it.
    pub swept: bool,
    /// Who wrote it, and when; `None` in a record of an earlier build.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// Until when backends drain. Only a daemon knows.
    #[serde(default)]
    pub deadlines: Vec<Deadline>,
    /// Services whose new connections are held back. Only a daemon knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// Whose the services are, and what only their providers know; `None` in a record of an earlier build.
    #[serde(default)]
    pub details: Option<AllDetails>,
    /// What the objects with timeouts follow.
    #[serde(default)]
    pub timeouts: KernelTimeouts,
    /// The services.
    pub summary: Summary,
    /// Whether another user wrote it: it names services, and says nothing of what the kernel holds.
    #[serde(skip)]
    pub is_hint: bool,
    /// The journal: what was to be changed since. [`Head::at`] puts it into the rest.
    #[serde(skip)]
    pub changes: Vec<Entry>,
    /// Services that were served before such a change, and no longer there after it. The kernel may hold them still.
    #[serde(skip)]
    pub left: Summary,
}

impl Head {
    /// Whether the kernel is as it was left.
    pub fn holds(&self, identity: Identity) -> bool {
        !self.is_hint && self.generation == identity.generation && Some(self.table) == identity.table
    }
}

/// A teardown that nothing has ended yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Seconds since 1970.
    pub at: u64,
    /// The user who did it.
    pub uid: u32,
    /// The kernel's name for that boot: a machine that boots serves again.
    pub boot: String,
    /// Services whose new connections were held back: they still are when they are served again, for what is left of the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
}

/// An apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Seconds since 1970, at its begin.
    pub at: u64,
    /// Where the state came from: a file, or `-` for standard input.
    pub origin: String,
    /// When what is written beside this was so, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    #[serde(default)]
    pub known: Duration,
    /// The daemon's store at that time; `None` in what an earlier build wrote, or who knows no store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreRevision>,
}

/// How far a store had got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRevision {
    /// Where it is. What is not UTF-8 in its path is replaced.
    pub path: String,
    /// Its revision.
    pub revision: u64,
}

impl StoreRevision {
    /// Of the store at that path.
    pub fn new(path: &Path, revision: u64) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            revision,
        }
    }
}

/// The end of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The service, as the summary beside it calls it.
    pub service: Box<str>,
    /// The backend.
    pub backend: SocketAddr,
    /// When its flows are flushed, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`), which nobody can
    /// set. A record of another boot is not read.
    pub until: Duration,
    /// How long the whole drain may take.
    pub time: Duration,
}

impl Deadline {
    /// What is left of it at that time, since the machine's start: never more than the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The service.
    pub service: Box<str>,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// The user who ordered it.
    pub uid: u32,
    /// When it ends, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    pub until: Duration,
    /// How long all of it was to last.
    pub time: Duration,
}

impl Pause {
    /// What is left of it at that time, since the machine's start: never more than the whole.
    pub fn left(&self, boot: Duration) -> Duration {
        self.until.saturating_sub(boot).min(self.time)
    }
}
