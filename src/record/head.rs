//! Contents of a record apart from the elements of the sets.

pub use super::notes::StoreRevision;
pub use super::notes::{ApplyNote, Deadline, RecordedPause};
use crate::record::JournalEntry;
use serde::{Deserialize, Serialize};
use tcpgw_core::owner::AllDetails;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::RulesetIdentity;

/// The part of a record that is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHead {
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
    /// Whether the flows were swept after the last transaction.
    pub swept: bool,
    /// Origin and time of the last apply; `None` in a record of an earlier build.
    #[serde(default)]
    pub applied: Option<ApplyNote>,
    /// Ends of drains. Only a daemon knows them.
    #[serde(default)]
    pub deadlines: Vec<Deadline>,
    /// Services whose new connections are held back. Only a daemon knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<RecordedPause>,
    /// Owners of the services, and what only their providers know; `None` in a record of an earlier build.
    #[serde(default)]
    pub details: Option<AllDetails>,
    /// Values of conntrack's sysctls that the objects with timeouts follow.
    #[serde(default)]
    pub timeouts: KernelTimeouts,
    /// Summary of the services.
    pub summary: Summary,
    /// Whether another user wrote it: it is used for the names of services, and not for the contents of the kernel.
    #[serde(skip)]
    pub is_hint: bool,
    /// The journal: changes since the record was written. [`RecordHead::at`] applies them.
    #[serde(skip)]
    pub changes: Vec<JournalEntry>,
    /// Services that were served before such a change, and no longer there after it. The kernel may hold them still.
    #[serde(skip)]
    pub left: Summary,
}

impl RecordHead {
    /// Returns whether the kernel is as it was left.
    pub fn holds(&self, identity: RulesetIdentity) -> bool {
        !self.is_hint && self.generation == identity.generation && Some(self.table) == identity.table
    }
}

/// A teardown after which nothing was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeardownNote {
    /// Time of the teardown, in seconds since 1970.
    pub at: u64,
    /// User id of the client that ordered it.
    pub uid: u32,
    /// The kernel's name for that boot: a machine that boots serves again.
    pub boot: String,
    /// Services whose new connections were held back: they still are when they are served again, for what is left of the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<RecordedPause>,
}
