//! What the kernel is told: one job at a time, and what it came to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::membership::{MembershipChange, Name};
use crate::reconcile::engine::{ChangeMemo, Checked, Found, Memo, ServicesByName};
use crate::reconcile::{ReconcileError, Report, Torn};
use crate::record::TornDown;
use crate::view::Table;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::KernelError;
use tcpgw_kernel::conntrack::{Deletion, Pair};

/// One thing to do.
#[derive(Debug)]
pub enum Job {
    /// Look what is in the kernel.
    Look(Summary),
    /// Make the kernel equal to these services, whatever it holds.
    All(ServicesByName, Memo),
    /// Put some services in the place of others, with what is to be written down before.
    Change(MembershipChange, ChangeMemo),
    /// Delete the handshakes that these backends of services have not answered.
    Forget(BTreeSet<Pair>),
    /// Count the flows of these backends, each of the service that it leaves.
    Count(BTreeMap<Pair, Name>),
    /// See whether somebody else has written, and put it right.
    Check(ServicesByName, Memo),
    /// Delete the flows that none of these services explains, and look at nothing else.
    Flush(ServicesByName),
    /// Remove the counters of what is gone.
    Tidy(ServicesByName),
    /// Leave the record.
    Record(ServicesByName, Memo),
    /// Remove everything; by whom.
    Teardown(TornDown),
    /// Write again that everything was removed; by whom.
    NoteTeardown(TornDown),
}

/// What it came to.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Look`].
    Looked(Result<Found, ReconcileError>),
    /// Of [`Job::All`].
    All(Result<Report, ReconcileError>),
    /// Of [`Job::Change`]: `None` where a full run is due.
    Changed(Result<Option<Report>, ReconcileError>),
    /// Of [`Job::Forget`].
    Forgot(Result<Deletion, KernelError>),
    /// Of [`Job::Count`].
    Counted(Result<BTreeMap<(Name, SocketAddr), u64>, KernelError>),
    /// Of [`Job::Check`].
    Checked(Result<Checked, ReconcileError>),
    /// Of [`Job::Flush`].
    Flushed(Result<Report, ReconcileError>),
    /// Of [`Job::Tidy`].
    Tidied(Result<(), ReconcileError>),
    /// Of [`Job::Record`] and [`Job::NoteTeardown`].
    Recorded,
    /// Of [`Job::Teardown`].
    TornDown(Result<Torn, ReconcileError>, TornDown),
}

/// A job that was done.
#[derive(Debug)]
pub struct JobOutcome {
    /// What it came to.
    pub done: Done,
    /// When the kernel had been told; of a change, before its flows were swept.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// The table afterwards, where the job may have changed it.
    pub table: Option<Option<Table>>,
    /// What of the record could not be written the last time, and why.
    pub record_trouble: Option<String>,
}
