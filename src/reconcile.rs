//! Reconciliation of the kernel with the desired services: observe, plan, commit, sweep.
//!
//! What must be flushed follows from the desired state and the present flows, never from a memory of events: a run that
//! was interrupted is completed by the next one.

mod commit;
pub mod engine;
mod known;
mod owner;
mod retired;
mod sweep;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use self::commit::{ATTEMPTS, with_leaving};
pub use self::known::{Known, Recorded};
use self::known::{Table, unannounced};
use self::retired::{Leaves, few_retired};
use crate::denied::{DeniedFlows, DeniedFlushed, count_denied, flush_denied};
use crate::record::{Applied, Deadline, Pause, RecordFile, TornDown};
use tcpgw_core::diff::{ChangeCounts, Changes};
use tcpgw_core::model::{FlowMark, Service, State};
use tcpgw_core::owner::AllDetails;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile_services;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::{Kernel, KernelError, reading};

/// Desired contents of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Summary of the services.
    pub summary: Summary,
    /// Elements of the sets.
    pub ruleset: Ruleset,
}

impl Desired {
    /// Creates the desired contents for a state, on a gateway with these links.
    pub fn new(state: &State, links: &Links) -> Self {
        Self::of(state.services.iter().map(AsRef::as_ref).collect(), links)
    }

    /// Returns the contents with every backend protected from connections that bypass the services, or with none.
    #[must_use]
    pub fn protecting(self, protect: bool) -> Self {
        Self {
            ruleset: self.ruleset.protecting(protect),
            ..self
        }
    }

    /// Creates the desired contents for some services.
    pub fn of(services: Vec<&Service>, links: &Links) -> Self {
        Self {
            summary: services.iter().copied().collect(),
            ruleset: compile_services(services, links),
        }
    }

    /// Returns the contents with these values of conntrack's sysctls.
    #[must_use]
    pub fn with_timeouts(self, timeouts: KernelTimeouts) -> Self {
        Self {
            ruleset: self.ruleset.with_timeouts(timeouts),
            ..self
        }
    }
}

/// Options of an apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Time for which flows of removed backends may continue.
    pub drain: Duration,
}

/// Result of an apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
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
pub struct Torn {
    /// Whether the table existed.
    pub table: bool,
    /// Number of flows that were deleted.
    pub flushed: u64,
    /// Number of flows that could not be deleted.
    pub failed: u64,
    /// Reason why the note of the teardown could not be written: without it the next daemon serves again.
    pub unwritten: Option<String>,
}

/// Reason why the kernel could not be reconciled.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The kernel did not carry out a request.
    #[error("{}{source}", owner.as_ref().map(|owner| format!("service {owner}: ")).unwrap_or_default())]
    Kernel {
        /// Name of the service that it concerns.
        owner: Option<String>,
        /// Error of the kernel.
        source: KernelError,
    },
    /// Some transactions of a change were committed, and then one failed.
    #[error("stopped between two transactions: clients are served, but not yet as desired; run again: {0}")]
    Halfway(#[source] KernelError),
    /// The rules are as desired, but not all flows were checked.
    #[error("applied; stale flows may be left: {0}; run again")]
    Unswept(#[source] KernelError),
    /// Other programs wrote to the kernel during every attempt.
    #[error("others changed the ruleset during each of {ATTEMPTS} attempts; no change is incomplete, run again")]
    Busy,
    /// Only its owner may write to the table.
    #[error(
        "the table inet tcpgw is owned by another program (netlink port {0}, mostly that process' number): nobody else can \
         change it; end that program first"
    )]
    Foreign(u32),
    /// The note that keeps removed services from coming back cannot be written.
    #[error(
        "failed to write {0}, which has to say that services no provider defines were removed; nothing was changed; make it writable, then try \
         again"
    )]
    Unrecorded(String),
    /// The flows in the kernel have another mark.
    #[error(
        "the table in the kernel marks its flows with {theirs}, the configuration says {ours}: put `flow_mark = \"{theirs}\"` back into the \
         configuration. Only if {ours} is meant, run `tcpgw teardown` first, which ends every service and its connections"
    )]
    OtherMark {
        /// Mark in the table.
        theirs: FlowMark,
        /// Mark in the configuration.
        ours: FlowMark,
    },
}

impl From<KernelError> for ReconcileError {
    fn from(source: KernelError) -> Self {
        Self::Kernel { owner: None, source }
    }
}

/// Reconciles a kernel with the desired services, and keeps a record of it.
pub struct Reconciler<'a, K: Kernel> {
    kernel: &'a mut K,
    store: &'a RecordFile,
    namespace: u64,
    mark: FlowMark,
    applied: Option<Applied>,
    drains: Vec<Deadline>,
    pauses: Vec<Pause>,
    details: AllDetails,
    /// Whether the record could not be written before; this is reported once.
    had_trouble: bool,
    must_record: bool,
}

impl<'a, K: Kernel> Reconciler<'a, K> {
    /// Creates a reconciler for a kernel whose network namespace has this cookie.
    pub fn new(kernel: &'a mut K, store: &'a RecordFile, namespace: u64, mark: FlowMark) -> Self {
        Self {
            kernel,
            store,
            namespace,
            mark,
            applied: None,
            drains: Vec::new(),
            pauses: Vec::new(),
            details: AllDetails::new(),
            had_trouble: store.trouble().is_some(),
            must_record: false,
        }
    }

    /// Returns the reconciler with the rule that each change is recorded before it is made. With `must`, a change that
    /// cannot be recorded is not made, since what it removes would come back otherwise.
    #[must_use]
    pub fn recording_first(self, must: bool) -> Self {
        Self {
            must_record: must,
            ..self
        }
    }

    /// Returns the reconciler with the origin of the next apply, for the record.
    #[must_use]
    pub fn signed(mut self, applied: Applied) -> Self {
        self.applied = Some(applied);
        self
    }

    /// Returns the reconciler with the ends of drains, for the record.
    #[must_use]
    fn draining_until(mut self, drains: Vec<Deadline>) -> Self {
        self.drains = drains;
        self
    }

    /// Returns the reconciler with the paused services, for the record.
    #[must_use]
    fn pausing(mut self, pauses: Vec<Pause>) -> Self {
        self.pauses = pauses;
        self
    }

    /// Returns the reconciler with the owners of services, for the record. A service without an entry belongs to a
    /// file.
    #[must_use]
    pub fn detailed(mut self, details: AllDetails) -> Self {
        self.details = details;
        self
    }

    /// Leaves in the record what `known` has of services that stay as they are, the pauses and the ends of drains, and of the store.
    #[must_use]
    pub fn keeping(mut self, known: &Known, stays: impl Fn(&str) -> bool) -> Self {
        if let Some(recorded) = &known.recorded {
            let drains = recorded.deadlines.iter().filter(|drain| stays(&drain.service));
            self.drains = drains.cloned().collect();
            let pauses = recorded.pauses.iter().filter(|pause| stays(&pause.service));
            self.pauses = pauses.cloned().collect();
            let before = recorded.applied.as_ref();
            if let Some(applied) = &mut self.applied {
                applied.store = before.and_then(|before| before.store.clone());
            }
        }
        self
    }

    /// Returns what would change, and how many flows would be flushed.
    ///
    /// # Errors
    ///
    /// Fails when the kernel or the record cannot be read.
    pub fn diff(&mut self, known: &Known, desired: &Desired) -> Result<(Changes, u64), ReconcileError> {
        let standings = &desired.summary;
        let mut flows: BTreeMap<(u16, SocketAddr), u64> = BTreeMap::new();
        reading(|| {
            flows.clear();
            self.kernel.flows(self.mark, &mut |flow| {
                if standings.standing(flow.public, flow.backend) == FlowVerdict::Stale {
                    *flows.entry((flow.public.port(), flow.backend)).or_default() += 1;
                }
            })
        })?;
        let total = flows.values().sum();
        Ok((Changes::between(&known.summary, &desired.summary, &flows), total))
    }

    /// Counts the established flows of clients that these services deny.
    ///
    /// # Errors
    ///
    /// Fails as [`count_denied`] does.
    pub fn denied(&mut self, summary: &Summary) -> Result<DeniedFlows, KernelError> {
        count_denied(self.kernel, self.mark, summary, None)
    }

    /// Deletes the flows of clients that these services deny.
    ///
    /// # Errors
    ///
    /// Fails as [`flush_denied`] does.
    pub fn flush_denied(&mut self, summary: &Summary) -> Result<DeniedFlushed, KernelError> {
        flush_denied(self.kernel, self.mark, summary, None)
    }

    /// Returns whether the kernel's rules differ from what is desired, flows aside.
    pub fn differs(known: &Known, desired: &Desired) -> bool {
        !matches!(known.table, Table::Ours(_)) || known.ruleset != desired.ruleset
    }

    /// Makes the kernel equal to what is desired.
    ///
    /// # Errors
    ///
    /// Fails with [`ReconcileError`]; the kernel is then as before, or, with [`ReconcileError::Halfway`], as after one
    /// of the plan's transactions.
    pub fn apply(&mut self, known: Known, desired: &Desired, options: &Options) -> Result<Report, ReconcileError> {
        let looked = known.generation;
        let known = self.own(known)?;
        let (services, backends) = ChangeCounts::between(&known.summary, &desired.summary);
        let mut report = Report {
            services,
            backends,
            rebuilt: known.rebuild(),
            ..Report::default()
        };
        let trusted = known.trusted && known.swept;
        let quick = if trusted {
            few_retired(&known.summary, &desired.summary, Leaves::Balance)
        } else {
            None
        };
        let recorded =
            (trusted && known.summary == desired.summary && known.ruleset == desired.ruleset).then_some(looked);
        let said = known.recorded.as_ref().and_then(|recorded| recorded.details.as_ref());
        let same_owners = said == Some(&self.details);
        if let Err(error) = self.announce(&known, desired) {
            if self.must_record {
                let trouble = self.store.trouble();
                return Err(ReconcileError::Unrecorded(trouble.unwrap_or_else(|| error.to_string())));
            }
            unannounced(&error);
        }
        let mut known = known;
        if !options.drain.is_zero() {
            let meanwhile = Desired {
                summary: desired.summary.clone(),
                ruleset: with_leaving(&known.ruleset, desired),
            };
            known = self.commit(known, &meanwhile, &mut report)?;
            let drained = self.drain(&desired.summary, options.drain, &mut report);
            drained.map_err(ReconcileError::Unswept)?;
        }
        let known = self.commit(known, desired, &mut report)?;
        // A program that wrote at the same time may have sent clients to any backend.
        let quick = quick.filter(|_| known.trusted);
        // A run that died before it swept may have changed the rules a moment ago.
        let changed = report.retired || !trusted;
        let begin = self.kernel.now();
        let swept = self.sweep(&desired.summary, quick.as_deref(), changed, &mut report);
        report.flushing = self.kernel.now() - begin;
        let complete = swept.is_ok() && report.failed == 0;
        if recorded != Some(known.generation) || !complete || !same_owners {
            self.remember(&known, desired, complete);
        }
        swept.map_err(ReconcileError::Unswept)?;
        Ok(report)
    }

    /// Removes the table, then all flows of tcpgw. `by` is the note for the next daemon, which then does not serve by
    /// itself; `None` without a daemon: one that starts serves.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses, or another program owns the table.
    pub fn teardown(&mut self, by: Option<&TornDown>) -> Result<Torn, ReconcileError> {
        let noted = by.map_or_else(|| self.store.forget_torn_down(), |by| self.store.save_torn_down(by));
        // The teardown is not refused for that: the caller reports that it does not last.
        let unwritten = noted.is_err().then(|| self.store.trouble()).flatten();
        let unwritten = unwritten.filter(|_| by.is_some());
        if let Some(error) = &unwritten {
            tracing::warn!(
                error,
                "failed to write that the gateway is torn down; a daemon that starts serves again"
            );
        }
        if let Some(mark) = self.mark_in_kernel()? {
            self.mark = mark;
        }
        let table = self.kernel.remove().inspect_err(|_| {
            let _ = self.store.forget_torn_down();
        })?;
        let (flushed, failed) = self.sweep_all()?;
        if let Err(error) = self.store.remove() {
            tracing::warn!(%error, "failed to remove the record; the next run will find it outdated");
        }
        Ok(Torn {
            table,
            flushed,
            failed,
            unwritten,
        })
    }
}
