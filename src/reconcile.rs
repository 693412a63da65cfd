//! Reconciliation of the kernel with the desired services: observe, plan, commit, sweep.
//!
//! What must be flushed follows from the desired state and the present flows, never from a memory of events: a run that
//! was interrupted is completed by the next one.

mod commit;
mod desired;
pub mod engine;
mod error;
mod known;
mod owner;
mod reading;
mod reconciler;
mod recording;
mod report;
mod retired_pairs;
mod sweep;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use self::commit::with_leaving;
pub use self::desired::Desired;
pub use self::error::ReconcileError;
use self::known::KnownTable;
pub use self::known::{KnownContents, RecordedContents};
pub use self::reconciler::Reconciler;
use self::recording::unannounced;
pub use self::report::{ReconcileOptions, ReconcileReport, TeardownReport};
use self::retired_pairs::{Leaves, few_retired};
use crate::denied::{DeniedFlows, DeniedFlushed, count_denied, flush_denied};
use crate::record::{ApplyNote, Deadline, RecordFile, RecordedPause, TeardownNote};
use tcpgw_core::diff::{ChangeCounts, Changes};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::AllDetails;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::{Kernel, KernelError, reading};

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
    pub fn signed(mut self, applied: ApplyNote) -> Self {
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
    fn pausing(mut self, pauses: Vec<RecordedPause>) -> Self {
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
    pub fn keeping(mut self, known: &KnownContents, stays: impl Fn(&str) -> bool) -> Self {
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
    pub fn diff(&mut self, known: &KnownContents, desired: &Desired) -> Result<(Changes, u64), ReconcileError> {
        let summary = &desired.summary;
        let mut flows: BTreeMap<(u16, SocketAddr), u64> = BTreeMap::new();
        reading(|| {
            flows.clear();
            self.kernel.flows(self.mark, &mut |flow| {
                if summary.verdict(flow.public, flow.backend) == FlowVerdict::Stale {
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
    pub fn differs(known: &KnownContents, desired: &Desired) -> bool {
        !matches!(known.table, KnownTable::Ours(_)) || known.ruleset != desired.ruleset
    }

    /// Makes the kernel equal to what is desired.
    ///
    /// # Errors
    ///
    /// Fails with [`ReconcileError`] when the kernel refuses, cannot be read, or belongs to another program. The kernel
    /// is then as before, or, with [`ReconcileError::Halfway`], as after one of the plan's transactions.
    pub fn apply(
        &mut self,
        known: KnownContents,
        desired: &Desired,
        options: &ReconcileOptions,
    ) -> Result<ReconcileReport, ReconcileError> {
        let generation = known.generation;
        let known = self.own(known)?;
        let (services, backends) = ChangeCounts::between(&known.summary, &desired.summary);
        let mut report = ReconcileReport {
            services,
            backends,
            rebuilt: known.rebuild(),
            ..ReconcileReport::default()
        };
        let trusted = known.trusted && known.swept;
        let quick = if trusted {
            few_retired(&known.summary, &desired.summary, Leaves::Balance)
        } else {
            None
        };
        let recorded =
            (trusted && known.summary == desired.summary && known.ruleset == desired.ruleset).then_some(generation);
        let recorded_details = known.recorded.as_ref().and_then(|recorded| recorded.details.as_ref());
        let same_owners = recorded_details == Some(&self.details);
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
    pub fn teardown(&mut self, by: Option<&TeardownNote>) -> Result<TeardownReport, ReconcileError> {
        let noted = by.map_or_else(|| self.store.forget_torn_down(), |by| self.store.save_torn_down(by));
        // The teardown is not refused for that: the caller reports that it does not last.
        let unwritten = noted.is_err().then(|| self.store.trouble()).flatten();
        let unwritten = unwritten.filter(|_| by.is_some());
        if let Some(error) = &unwritten {
            tracing::warn!(
                error,
                "failed to record the teardown: the next daemon that starts serves again"
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
        Ok(TeardownReport {
            table,
            flushed,
            failed,
            unwritten,
        })
    }
}
