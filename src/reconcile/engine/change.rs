//! Changes of some services without reading the kernel.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cached::preserves;
use crate::reconcile::commit::full;
use crate::reconcile::desired::Desired;
use crate::reconcile::engine::Engine;
use crate::reconcile::engine::memo::ChangeMemo;
use crate::reconcile::error::ReconcileError;
use crate::reconcile::recording::unannounced;
use crate::reconcile::report::ReconcileReport;
use crate::reconcile::retired_pairs::{Leaves, few_retired};
use crate::record::JournalEntry;
use tcpgw_core::diff::ChangeCounts;
use tcpgw_core::model::Service;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::skeleton::OptionalSets;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::{Commit, Kernel, KernelError};

impl<K: Kernel> Engine<K> {
    /// Replaces some services, and flushes the flows of backends that are removed. `beside`: services that stay and
    /// share endpoints with these. `memo` is recorded first. Returns `Ok(None)` if the contents of the kernel are not
    /// known, or the change does not fit into its sets: a full run is due then.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the change, or it cannot be recorded; a full run is due then, too.
    pub fn change(
        &mut self,
        old: &[Arc<Service>],
        new: &[Arc<Service>],
        beside: &[Arc<Service>],
        memo: ChangeMemo,
    ) -> Result<Option<ReconcileReport>, ReconcileError> {
        if old.is_empty() && new.is_empty() {
            self.announce(&memo.entry(None));
            return Ok(Some(ReconcileReport::default()));
        }
        let Some(mut cached) = self.cached.take() else {
            return Ok(None);
        };
        let (old, new) = (|| old.iter().chain(beside), || new.iter().chain(beside));
        let of = |services: Vec<&Service>| {
            let desired = Desired::of(services, &self.links).protecting(self.protect);
            desired.with_timeouts(self.timeouts)
        };
        let have = of(old().map(AsRef::as_ref).collect());
        let want = of(new().map(AsRef::as_ref).collect());
        let (services, backends) = ChangeCounts::between(&have.summary, &want.summary);
        let mut report = ReconcileReport {
            services,
            backends,
            ..ReconcileReport::default()
        };
        let old_preserving = old().filter(|service| preserves(service)).count();
        let others_preserve = cached.preserving > old_preserving;
        let others = cached.widths_without(&have.ruleset);
        let among = |ruleset: &Ruleset, asked: &OptionalSets| {
            let ruleset = if others_preserve {
                without_links(ruleset)
            } else {
                ruleset.clone()
            };
            ruleset.among(&others, &BTreeSet::new(), asked)
        };
        let (asked, elements) = (cached.asked(), cached.elements.clone());
        cached.count(&want.ruleset, &have.ruleset);
        let had = among(&have.ruleset, &asked);
        let wanted = among(&want.ruleset, &cached.asked());
        let steps = plan(&had, &wanted).steps;
        if let Some(step) = steps.first()
            && full(cached.room, |name| elements.get(&name).copied().unwrap_or(0), step).is_some()
        {
            return Ok(None);
        }
        self.announce(&memo.entry((!steps.is_empty()).then_some(cached.identity.generation)));
        for (at, step) in steps.iter().enumerate() {
            let commit = Commit {
                generation: cached.identity.generation,
                mark: self.mark,
                build: None,
                step,
                forget: &[],
            };
            let begin = self.kernel.now();
            match self.kernel.commit(&commit) {
                Ok(generation) => cached.identity.generation = generation,
                // The other program may have written to the table: the full run finds out.
                Err(KernelError::Outdated | KernelError::Unknown(_)) => return Ok(None),
                Err(source) if at > 0 => return Err(ReconcileError::Halfway(source)),
                Err(source) => {
                    let owner = crate::reconcile::owner::owner(&source, &want.summary);
                    return Err(ReconcileError::Kernel { owner, source });
                }
            }
            report.committing += self.kernel.now() - begin;
            report.transactions += 1;
            report.elements += step.elements();
        }
        report.retired = !steps.is_empty();
        cached.preserving = cached.preserving - old_preserving + new().filter(|s| preserves(s)).count();
        self.cached = Some(cached);
        let begin = self.kernel.now();
        let swept = self.flush(&have.summary, &want.summary, &mut report);
        report.flushing = self.kernel.now() - begin;
        swept.map_err(ReconcileError::Unswept)?;
        Ok(Some(report))
    }

    fn announce(&self, entry: &JournalEntry) {
        if entry.services.is_empty() {
            return;
        }
        if let Err(error) = self.store.append(entry) {
            unannounced(&error);
        }
    }

    /// Deletes the flows of what the change has removed.
    fn flush(&mut self, old: &Summary, new: &Summary, report: &mut ReconcileReport) -> Result<(), KernelError> {
        let mark = self.mark;
        let few = if old == new {
            Some(Vec::new())
        } else {
            few_retired(old, new, Leaves::Service)
        };
        if few.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let changed = report.retired;
        self.reconciler().until_none(changed, |this| {
            let deletion = match &few {
                Some(pairs) => this.kernel.flush_pairs(mark, pairs)?,
                None => this.kernel.sweep(mark, &mut |flow| {
                    old.verdict(flow.public, flow.backend) != FlowVerdict::Stale
                        && new.verdict(flow.public, flow.backend) == FlowVerdict::Stale
                })?,
            };
            report.flushed += deletion.deleted;
            report.failed = deletion.failed;
            Ok(deletion)
        })
    }
}

/// Returns the rules without those for links, which all preserving services share.
fn without_links(ruleset: &Ruleset) -> Ruleset {
    let mut sets = ruleset.sets().clone();
    sets.remove(&SetName::SameLink);
    Ruleset::new(sets, ruleset.round_robin_services().clone()).with_timeouts(*ruleset.timeouts())
}
