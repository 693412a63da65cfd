//! Jobs for the kernel, of which one runs at a time, and their results.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::membership::MembershipChange;
use super::name::Name;
use crate::reconcile::engine::{ChangeMemo, InitialContents, Memo, ServicesByName, TableCheck};
use crate::reconcile::{ReconcileError, ReconcileReport, TeardownReport};
use crate::record::TeardownNote;
use crate::view::TableView;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::KernelError;
use tcpgw_kernel::conntrack::{Deletion, Pair};

/// A job for the kernel.
#[derive(Debug)]
pub enum Job {
    /// Read the state of the kernel.
    ReadContents(Summary),
    /// Make the kernel equal to these services, whatever it holds.
    All(ServicesByName, Memo),
    /// Replace some services by others; the memo is written to the record before.
    Change(MembershipChange, ChangeMemo),
    /// Delete handshakes that these backends of services have not answered.
    Forget(BTreeSet<Pair>),
    /// Count the flows of these backends, each with the service that it leaves.
    Count(BTreeMap<Pair, Name>),
    /// Find changes by other programs, and restore the table.
    Check(ServicesByName, Memo),
    /// Delete the flows that belong to none of these services, without other checks.
    Flush(ServicesByName),
    /// Remove the counters of removed services and backends.
    Tidy(ServicesByName),
    /// Write the record.
    Record(ServicesByName, Memo),
    /// Remove everything, with this note of the teardown.
    Teardown(TeardownNote),
    /// Write the note of the teardown again.
    NoteTeardown(TeardownNote),
}

/// Result of a job.
#[derive(Debug)]
pub enum JobResult {
    /// Result of [`Job::ReadContents`].
    ContentsRead(Result<InitialContents, ReconcileError>),
    /// Result of [`Job::All`].
    All(Result<ReconcileReport, ReconcileError>),
    /// Result of [`Job::Change`]; `None`: a full run is needed.
    Changed(Result<Option<ReconcileReport>, ReconcileError>),
    /// Result of [`Job::Forget`].
    Forgot(Result<Deletion, KernelError>),
    /// Result of [`Job::Count`].
    Counted(Result<BTreeMap<(Name, SocketAddr), u64>, KernelError>),
    /// Result of [`Job::Check`].
    Checked(Result<TableCheck, ReconcileError>),
    /// Result of [`Job::Flush`].
    Flushed(Result<ReconcileReport, ReconcileError>),
    /// Result of [`Job::Tidy`].
    Tidied(Result<(), ReconcileError>),
    /// Result of [`Job::Record`] and [`Job::NoteTeardown`].
    Recorded,
    /// Result of [`Job::Teardown`].
    TornDown(Result<TeardownReport, ReconcileError>, TeardownNote),
}

/// A job that has ended.
#[derive(Debug)]
pub struct JobOutcome {
    /// Result of the job.
    pub done: JobResult,
    /// Time at which the kernel had been changed, before its flows were deleted.
    pub at: Instant,
    /// Duration of the job.
    pub took: Duration,
    /// The table afterwards, if the job may have changed it.
    pub table: Option<Option<TableView>>,
    /// Error of the last write of the record, if it failed.
    pub record_trouble: Option<String>,
}
