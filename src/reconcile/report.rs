//! Options and results of a reconciliation.

use std::time::Duration;

use tcpgw_core::diff::ChangeCounts;

/// Options of an apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReconcileOptions {
    /// Time for which flows of removed backends may continue.
    pub drain: Duration,
}

/// Result of an apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcileReport {
    /// Numbers of changed services.
    pub services: ChangeCounts,
    /// Numbers of changed backends.
    pub backends: ChangeCounts,
    /// Number of elements added and deleted.
    pub elements: usize,
    /// Number of transactions.
    pub transactions: usize,
    /// Number of established flows that were deleted.
    pub flushed: u64,
    /// Number of unanswered handshakes that were deleted.
    pub forgotten: u64,
    /// Number of flows that could not be deleted.
    pub failed: u64,
    /// Reason why the table was created again.
    pub rebuilt: Option<String>,
    /// Whether something was changed that a SYN in the stack may have read before.
    pub retired: bool,
    /// Time spent on sending transactions.
    pub committing: Duration,
    /// Time spent on waiting for packets in the stack and on deleting flows.
    pub flushing: Duration,
}

/// Result of a teardown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeardownReport {
    /// Whether the table existed.
    pub table: bool,
    /// Number of flows that were deleted.
    pub flushed: u64,
    /// Number of flows that could not be deleted.
    pub failed: u64,
    /// Reason why the note of the teardown could not be written: without it the next daemon serves again.
    pub unwritten: Option<String>,
}
