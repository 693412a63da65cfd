//! Reconciler of the daemon: it caches the contents of the kernel, so that the cost of a change depends on the
//! change alone, and reads the kernel only when another program may have written.
//!
//! After any error it drops the cache, and the next run is a full one.

mod cached;
mod change;
mod links_and_timeouts;
mod memo;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use self::cached::{CachedState, Surroundings, preserves};
pub use self::memo::ServicesByName;
pub use self::memo::{ChangeMemo, Memo};
use super::desired::Desired;
use super::error::ReconcileError;
use super::reconciler::Reconciler;
use super::report::{ReconcileOptions, ReconcileReport};
use super::sweep::is_over;
use super::{KnownContents, RecordedContents};
use crate::record::{RecordFile, TeardownNote};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::{Deletion, Pair, Selection};
use tcpgw_kernel::{Commit, Kernel, KernelError, TableProperties, reading};

/// Largest number of endpoints that are looked up one by one; for more, one pass over all flows is cheaper.
const FEW: usize = 3;

/// Numbers of flows by service and backend.
pub type FlowsOfMembers = BTreeMap<(Box<str>, SocketAddr), u64>;

/// Contents of the kernel before anything is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitialContents {
    /// Summary of the services.
    pub summary: Summary,
    /// Whether there is a table.
    pub has_table: bool,
    /// Contents of the record, if there is one of this boot.
    pub recorded: Option<RecordedContents>,
    /// The teardown that nothing has ended yet.
    pub torn_down: Option<TeardownNote>,
}

/// Result of a check of the whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableCheck {
    /// Whether the rules or elements were not as they had been left.
    pub drifted: bool,
    /// Result of the repair.
    pub report: ReconcileReport,
}

/// Keeps one kernel as it should be.
pub struct Engine<K: Kernel> {
    kernel: K,
    store: RecordFile,
    namespace: u64,
    mark: FlowMark,
    protect: bool,
    idle: Option<Duration>,
    links: Links,
    timeouts: KernelTimeouts,
    cached: Option<CachedState>,
    /// Links and timeouts that the table has when a change of them could not be written; `cached` is `None` then.
    left: Option<Surroundings>,
    found: Option<KnownContents>,
}

impl<K: Kernel> Engine<K> {
    /// Creates an engine for a kernel whose network namespace has this cookie.
    pub fn new(kernel: K, store: RecordFile, namespace: u64, mark: FlowMark) -> Self {
        Self {
            kernel,
            store,
            namespace,
            mark,
            protect: false,
            idle: None,
            links: Links::default(),
            timeouts: KernelTimeouts::default(),
            cached: None,
            left: None,
            found: None,
        }
    }

    /// Returns the engine with backends protected or not: whether new connections from outside reach them through
    /// services only.
    #[must_use]
    pub fn protecting(self, protect: bool) -> Self {
        Self { protect, ..self }
    }

    /// Returns the engine with this idle timeout for services without their own; `None` for that of conntrack's sysctl.
    #[must_use]
    pub fn idling(self, idle: Option<Duration>) -> Self {
        Self { idle, ..self }
    }

    /// Returns the kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Returns the kernel, for the next engine.
    pub fn into_kernel(self) -> K {
        self.kernel
    }

    fn reconciler(&mut self) -> Reconciler<'_, K> {
        Reconciler::new(&mut self.kernel, &self.store, self.namespace, self.mark)
    }

    /// Returns a reconciler that records this data for the next process, beside the services in effect.
    fn noting(&mut self, services: &ServicesByName, memo: Memo) -> Reconciler<'_, K> {
        let details = memo.details(services);
        self.reconciler()
            .signed(memo.applied)
            .draining_until(memo.drains)
            .pausing(memo.pauses)
            .detailed(details)
    }

    /// Reads the contents of the kernel before anything is changed. `guide` gives the names of services that only the
    /// kernel knows.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn read_contents(&mut self, guide: &Summary) -> Result<InitialContents, ReconcileError> {
        let mut reconciler = self.reconciler();
        let mut known = reconciler.read_contents(guide)?;
        reconciler.place(&mut known)?;
        let found = InitialContents {
            summary: known.summary.clone(),
            has_table: known.has_table(),
            recorded: known.recorded.clone(),
            torn_down: reconciler.torn_down().filter(|_| !known.has_table()),
        };
        self.found = Some(known);
        Ok(found)
    }

    /// Makes the kernel equal to these services, whatever it holds, and flushes stale flows.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses or cannot be read.
    pub fn apply_all(&mut self, services: &ServicesByName, memo: Memo) -> Result<ReconcileReport, ReconcileError> {
        self.cached = None;
        self.follow_timeouts();
        let desired = self.desired(services);
        let known = match self.found.take() {
            Some(known) if self.kernel.identity()? == known.identity() => known,
            _ => self.reconciler().read_contents(&desired.summary)?,
        };
        let report = self
            .noting(services, memo)
            .apply(known, &desired, &ReconcileOptions::default())?;
        self.believe(services, &desired)?;
        Ok(report)
    }

    /// Checks whether the kernel is as it was left, and repairs it. Costs little unless another program has written.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses or cannot be read.
    pub fn check(&mut self, services: &ServicesByName, memo: Memo) -> Result<TableCheck, ReconcileError> {
        self.follow_timeouts();
        let identity = self.kernel.identity()?;
        if self.cached.as_ref().is_some_and(|cached| cached.identity == identity) {
            return Ok(TableCheck::default());
        }
        let knew = self.cached.take().is_some();
        let left = self.left.take();
        let desired = self.desired(services);
        let known = self.reconciler().read(&desired.summary)?;
        let differs = Reconciler::<K>::differs(&known, &desired);
        let drifted = match left {
            // Another program has written if the table is neither as it was left nor as desired.
            Some(left) => differs && Reconciler::<K>::differs(&known, &self.desired_within(services, &left)),
            None => differs,
        };
        let report = if differs || !knew {
            let known = KnownContents {
                recorded: self.reconciler().recorded(known.generation),
                ..known
            };
            self.noting(services, memo)
                .apply(known, &desired, &ReconcileOptions::default())?
        } else {
            ReconcileReport::default()
        };
        self.believe(services, &desired)?;
        Ok(TableCheck { drifted, report })
    }

    fn desired(&self, services: &ServicesByName) -> Desired {
        self.desired_within(
            services,
            &Surroundings {
                links: self.links.clone(),
                timeouts: self.timeouts,
            },
        )
    }

    fn desired_within(&self, services: &ServicesByName, surroundings: &Surroundings) -> Desired {
        Desired::of(services.values().map(AsRef::as_ref).collect(), &surroundings.links)
            .protecting(self.protect)
            .with_timeouts(surroundings.timeouts)
    }

    fn believe(&mut self, services: &ServicesByName, desired: &Desired) -> Result<(), KernelError> {
        self.left = None;
        let identity = self.kernel.identity()?;
        let about = self.kernel.about()?;
        let comment = about.as_ref().and_then(|about| about.comment.as_deref());
        let room = comment
            .and_then(tcpgw_core::ruleset::skeleton::room_of)
            .unwrap_or_default();
        let mut cached = CachedState {
            identity,
            room,
            widths: BTreeMap::new(),
            elements: BTreeMap::new(),
            preserving: 0,
        };
        cached.count(&desired.ruleset, &Ruleset::default());
        cached.preserving = services.values().filter(|service| preserves(service)).count();
        self.cached = Some(cached);
        Ok(())
    }

    /// Deletes the flows that belong to none of these services, whatever the table holds.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses or cannot be read.
    pub fn flush_stale(&mut self, services: &ServicesByName) -> Result<ReconcileReport, ReconcileError> {
        let summary: Summary = services.values().map(AsRef::as_ref).collect();
        let mut report = ReconcileReport::default();
        let swept = self.reconciler().sweep(&summary, None, false, &mut report);
        swept.map_err(ReconcileError::Unswept)?;
        Ok(report)
    }

    /// Deletes the handshakes that these backends, which left the balance of a service, have not answered.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses or cannot be read.
    pub fn forget(&mut self, pairs: &BTreeSet<Pair>) -> Result<Deletion, KernelError> {
        self.kernel.sweep(self.mark, &mut |flow| {
            !flow.status.seen_reply() && Pair::any_of(pairs, flow)
        })
    }

    /// Returns the number of established flows of each of these backends through its service.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn count(&mut self, pairs: &BTreeMap<Pair, Box<str>>) -> Result<FlowsOfMembers, KernelError> {
        let Self { kernel, mark, .. } = self;
        let backends: BTreeSet<SocketAddr> = pairs.keys().map(|pair| pair.backend).collect();
        reading(|| {
            let members = pairs.iter().map(|(pair, service)| (service.clone(), pair.backend));
            let mut counts: FlowsOfMembers = members.map(|member| (member, 0)).collect();
            let mut count = |flow: &tcpgw_kernel::conntrack::Flow| {
                if flow.status.seen_reply()
                    && !is_over(flow)
                    && let Some(service) = Pair::of_flow(pairs, flow)
                    && let Some(count) = counts.get_mut(&(service.clone(), flow.backend))
                {
                    *count += 1;
                }
            };
            if backends.len() > FEW {
                kernel.flows(*mark, &mut count)?;
                return Ok(counts);
            }
            for backend in &backends {
                let selection = Selection {
                    backend: Some(*backend),
                    ..Selection::default()
                };
                kernel.select(*mark, &selection, &mut |flow| {
                    count(flow);
                    std::ops::ControlFlow::Continue(())
                })?;
            }
            Ok(counts)
        })
    }

    /// Removes the counters of services and backends that no longer exist.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses or cannot be read.
    pub fn tidy(&mut self, services: &ServicesByName) -> Result<(), ReconcileError> {
        let Some(mut cached) = self.cached.take() else {
            return Ok(());
        };
        let desired = self.desired(services);
        let orphans = self.reconciler().orphans(&desired.ruleset, true)?;
        if !orphans.is_empty() {
            let commit = Commit {
                generation: cached.identity.generation,
                mark: self.mark,
                build: None,
                step: &tcpgw_core::ruleset::step::PlanStep::default(),
                forget: &orphans,
            };
            cached.identity.generation = self.kernel.commit(&commit)?;
        }
        self.cached = Some(cached);
        Ok(())
    }

    /// Writes the record for the next process, or for the command line.
    pub fn record(&mut self, services: &ServicesByName, memo: Memo) {
        let Some(cached) = self.cached.clone() else { return };
        let Some(table) = cached.identity.table else { return };
        let desired = self.desired(services);
        let known = KnownContents::left(cached.identity.generation, table, cached.room);
        self.noting(services, memo).remember(&known, &desired, true);
    }

    /// Removes the table and all flows of tcpgw.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses, or another program owns the table.
    pub fn teardown(&mut self, by: &TeardownNote) -> Result<super::report::TeardownReport, ReconcileError> {
        self.cached = None;
        self.found = None;
        self.reconciler().teardown(Some(by))
    }

    /// Writes the note of the teardown again if it could not be written before.
    pub fn note_teardown(&self, by: &TeardownNote) {
        if let Err(error) = self.store.save_torn_down(by) {
            tracing::debug!(%error, "failed to write that the gateway is torn down");
        }
    }

    /// Returns what of the record, its journal and the note of a teardown could not be written the last time ([`RecordFile::trouble`]).
    pub fn record_trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Returns the properties of the table, and the generation.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn about(&mut self) -> Result<(Option<TableProperties>, u32), KernelError> {
        let identity = self.kernel.identity()?;
        Ok((self.kernel.about()?, identity.generation))
    }
}
