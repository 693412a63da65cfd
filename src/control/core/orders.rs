//! Processing of orders of the API one by one: they are judged, written to the store, and carried out.

use super::acceptance::{AcceptedChange, GatewayCheck, JudgementError, ProviderSize};
use super::deploys::PendingStep;
use super::group_commit::Together;
use super::obstacles::TAKE_OVER;
use super::order::{ApplyOrder, Order, Undecided, by};
use super::order_queue::{MOST_ORDERS, StoreKnowledge};
use super::pending::{NotInKernel, PendingReply, ReplyKind};
use super::pending_write::{OnWritten, PendingWrite};
use super::{Core, DaemonPhase, Now, Provider};
use crate::apply_report::DiffReport;
use crate::control::request::{Applied, ApplyOptions, Refused};
use crate::control::storage::{OrphanRemoval, Write, WriteResult};
use crate::reconcile::ReconcileReport;
use crate::store::last_services::LastServices;
use crate::store::{ChangeAuthor, CommittedChange, StoreError};
use crate::view::problems::some_of;
use tcpgw_core::diff::{ChangeCounts, Changes};
use tcpgw_core::model::{Edits, Service, State};
use tcpgw_core::problem::ProblemKind;

impl Core {
    /// Takes an order, or refuses it if too many wait or the daemon is to end.
    pub fn order(&mut self, order: Order) {
        if self.order_queue.ending {
            return order.refuse(Refused::Ending);
        }
        if self.order_queue.orders.len() < MOST_ORDERS {
            return self.order_queue.orders.push_back(order);
        }
        order.refuse(Refused::Busy(format!("{MOST_ORDERS} changes are waiting already")));
    }

    /// Returns the next write to the store. Waiting orders that are independent of each other are written together;
    /// all others one by one, so that each is judged by the results of those before it.
    pub fn next_write(&mut self, vet: &mut GatewayCheck<'_>, now: Now) -> Option<Write> {
        while self.order_queue.is_idle() {
            if self.due.take_store(now.instant) {
                self.order_queue.refreshing = true;
                return Some(Write::Refresh);
            }
            if self.knows_what_to_remember() && self.due.take_remember(now.instant) {
                (self.order_queue.refreshing, self.order_queue.remembering) = (true, true);
                return Some(self.remember_now(now));
            }
            if self.order_queue.ending {
                return None;
            }
            if let Some(write) = self.amend(now) {
                return Some(write);
            }
            if let Some(write) = self.next_step(now) {
                return Some(write);
            }
            if self.order_queue.reads_first() {
                self.order_queue.refreshing = true;
                return Some(Write::Refresh);
            }
            match self.take_together(vet, now) {
                Together::Taken(write) => return Some(write),
                Together::Pending => return None,
                Together::Singly => {}
            }
            let taken = match self.order_queue.orders.pop_front()? {
                Order::Apply(order) => self.take_apply(order, vet, now),
                Order::Edit(order, reply) => self.take_edit(order, reply, vet, now),
                Order::Batch(order, reply) => self.take_batch(order, reply, vet, now),
                Order::Deploy(order, reply) => self.take_deploy(order, reply, vet, now),
                Order::Undo(order, reply) => Ok(self.take_undo(&order, reply, now)),
                Order::Addon(order, reply) => self.take_addon(order, reply, vet, now),
            };
            match taken {
                Ok(write) => {
                    self.order_queue.grouping.is_taken();
                    if write.is_some() {
                        return write;
                    }
                }
                Err(Undecided(order)) => {
                    self.order_queue.orders.push_front(*order);
                    self.order_queue.grouping.take_singly(1);
                    return None;
                }
            }
        }
        None
    }

    /// Returns whether the store cannot be read.
    pub(super) fn is_store_lost(&self) -> bool {
        self.order_queue.lost
    }

    /// Fails when the resources are not known. Without the store, a resource that is not known may still exist.
    pub(super) fn knows_resources(&self) -> Result<(), Refused> {
        if self.order_queue.lost || self.order_queue.resources == StoreKnowledge::Unreadable {
            let why = self
                .problems
                .get(ProblemKind::Store)
                .map(|problem| problem.message.as_str());
            let why = why.unwrap_or("the store cannot be read");
            return Err(Refused::Store(why.to_owned()));
        }
        Ok(())
    }

    /// Fails while the daemon starts, when orders cannot be judged.
    pub(super) fn judges(&self) -> Result<(), Refused> {
        match self.phase {
            DaemonPhase::Waiting | DaemonPhase::Reading => Err(Refused::Busy("the daemon is starting".into())),
            DaemonPhase::Running | DaemonPhase::TornDown => Ok(()),
        }
    }

    /// Fails when a whole state cannot be taken. A dry run only needs a daemon that has started.
    fn judges_stored(&self, options: &ApplyOptions) -> Result<(), Refused> {
        if options.dry_run {
            self.judges()
        } else {
            self.judges_singly()
        }
    }

    /// Fails when single services cannot be changed, because the daemon starts or the store cannot be read.
    pub(super) fn judges_singly(&self) -> Result<(), Refused> {
        self.judges()?;
        match self.problems.get(ProblemKind::Store).filter(|_| self.order_queue.lost) {
            Some(problem) => Err(Refused::Store(problem.message.clone())),
            None => Ok(()),
        }
    }

    fn take_apply(
        &mut self,
        order: ApplyOrder,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let ApplyOrder { apply, state, reply } = order;
        let options = apply.options;
        let mut edits = self.api.edits_to(&state);
        self.keep_resources(&mut edits);
        if options.prune {
            self.prune(&mut edits);
        }
        self.add_held_back(&mut edits, &state);
        let size = ProviderSize {
            provider: Provider::Api,
            // Those of resources stay.
            before: self
                .api
                .services()
                .filter(|service| !self.is_of_resource(&service.name))
                .count(),
            after: state.services.len(),
        };
        let judged = self.judges_stored(&options).and_then(|()| self.judge_resources(&edits));
        let judged = judged.map_err(JudgementError::from);
        let judged = judged.and_then(|()| self.judge(&edits, size, options, vet));
        let AcceptedChange { warnings, obstacles } = match judged {
            Ok(judged) => judged,
            Err(JudgementError::Pending) => {
                return Err(Undecided(Box::new(Order::Apply(ApplyOrder { apply, state, reply }))));
            }
            // The client may have disconnected.
            Err(JudgementError::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let held = obstacles.values().flatten();
        let held = held.map(|obstacle| format!("held back: {}", obstacle.message_with(TAKE_OVER)));
        let emptied = self.emptied(&state, &edits, options.dry_run);
        let warnings: Vec<String> = warnings.into_iter().chain(held).chain(emptied).collect();
        if options.dry_run {
            let changes = self.differing(&state, &edits);
            drop(reply.send(Ok(diff(changes, warnings))));
            return Ok(None);
        }
        let by = by(apply.by, "apply");
        let accepted = PendingWrite {
            edits,
            cause: apply.origin,
            drain: options.drain,
            warnings,
            obstacles,
            then: OnWritten::Apply(reply),
        };
        Ok(self.write(accepted, by, now))
    }

    /// Returns a warning that a state without services removes all services of the API.
    fn emptied(&self, state: &State, edits: &Edits, is_dry_run: bool) -> Option<String> {
        let names = self.api.stored().map(|stored| &stored.service.name);
        let names: Vec<&str> = names
            .filter(|name| edits.gone.contains(name))
            .map(|name| &**name)
            .collect();
        let (removes, stay) = if is_dry_run {
            ("would remove", "would stay")
        } else {
            ("removes", "stay")
        };
        (state.services.is_empty() && !names.is_empty()).then(|| {
            format!(
                "a state without services {removes} what came in through the API, which is all of {}; the services of the state \
                 file {stay}",
                some_of(&names)
            )
        })
    }

    /// Returns the write of an accepted order; carries it out at once when there is nothing to write.
    pub(super) fn write(&mut self, accepted: PendingWrite, by: ChangeAuthor, now: Now) -> Option<Write> {
        let change = self.change_of(&accepted);
        if change.edits.is_empty() && change.resources.is_empty() {
            let nothing = self.api.unchanged();
            self.carry_out(accepted, &nothing, now);
            return None;
        }
        let orphans = self.orphans_removed_by(&accepted.edits);
        self.order_queue.accepted = vec![accepted];
        Some(if orphans.is_empty() {
            Write::Change(change, by, now.unix)
        } else {
            Write::RemoveOrphans(Box::new(OrphanRemoval {
                change,
                by,
                at: now.unix,
                path: LastServices::path(&self.settings.store),
                before: self.to_remember(now),
                orphans,
            }))
        })
    }

    /// Returns the change of the store for an accepted order.
    pub(super) fn change_of(&self, accepted: &PendingWrite) -> crate::store::StoreChange {
        let resources: Vec<_> = match &accepted.then {
            OnWritten::Addon(provisioned) => provisioned.change.clone().into_iter().collect(),
            OnWritten::Apply(_)
            | OnWritten::Edit(..)
            | OnWritten::Batch(..)
            | OnWritten::Deploy(_)
            | OnWritten::Amended(..) => Vec::new(),
        };
        crate::store::StoreChange {
            resources,
            ..self.api.change(&accepted.edits)
        }
    }

    /// Takes the result of a write to the store.
    pub fn written(&mut self, written: WriteResult, now: Now) {
        let written = match written {
            WriteResult::Refreshed(refreshed) => {
                self.order_queue.refreshing = false;
                return self.refreshed(refreshed, now);
            }
            WriteResult::Remembered(result, took) => {
                (self.order_queue.refreshing, self.order_queue.remembering) = (false, false);
                return self.remembered(result, took, now);
            }
            other => other,
        };
        let accepted = std::mem::take(&mut self.order_queue.accepted);
        let results = match written {
            WriteResult::Refreshed(_) | WriteResult::Remembered(..) => return,
            WriteResult::Together(results) => results,
            WriteResult::Changed(result) => vec![result],
            WriteResult::Began(result) => vec![result.map(|id| self.nothing_changed(Some(id)))],
            WriteResult::Stepped(result) => vec![result.map(|()| self.nothing_changed(None))],
        };
        debug_assert_eq!(accepted.len(), results.len(), "each has a result");
        for (accepted, result) in accepted.into_iter().zip(results) {
            self.write_ended(accepted, result, now);
        }
    }

    fn write_ended(&mut self, accepted: PendingWrite, result: Result<CommittedChange, StoreError>, now: Now) {
        match result {
            Ok(committed) => {
                self.addon.amendments.refused = None;
                self.store_trouble(None, now);
                if self.order_queue.resources != StoreKnowledge::Certain {
                    // A write that failed before may have been made all the same.
                    self.due.store = Some(now.instant);
                }
                self.carry_out(accepted, &committed, now);
            }
            Err(error) => {
                self.order_queue.resources = StoreKnowledge::Uncertain;
                if !self.orphans_removed_by(&accepted.edits).is_empty() {
                    self.due.remember_at_once(now.instant);
                }
                if matches!(accepted.then, OnWritten::Amended(..)) {
                    self.addon.amendments.are_refused(&error, now.instant);
                }
                if error.is_trouble() || matches!(error, StoreError::Moved { .. }) {
                    self.store_trouble(Some(&error), now);
                }
                if let Some(step) = accepted.refuse(&error) {
                    self.step_failed(step, &error, now);
                }
            }
        }
    }

    fn nothing_changed(&mut self, began: Option<u64>) -> CommittedChange {
        self.order_queue.began = began;
        self.api.unchanged()
    }

    fn carry_out(&mut self, accepted: PendingWrite, committed: &CommittedChange, now: Now) {
        let PendingWrite {
            edits,
            cause,
            drain,
            warnings,
            obstacles,
            then,
        } = accepted;
        let since = now.instant;
        let is_apply = matches!(then, OnWritten::Apply(_));
        // A deploy that is taken back is judged when it is served.
        let is_judged = !matches!(
            then,
            OnWritten::Deploy(PendingStep::Begin(..) | PendingStep::Restore(..) | PendingStep::End(..))
        );
        let wants = match then {
            OnWritten::Apply(reply) => {
                let (services, backends) = self.counts(&edits);
                Some(ReplyKind::Apply {
                    reply,
                    services,
                    backends,
                    warnings,
                })
            }
            OnWritten::Edit(name, reply) => {
                let edited = self.edited_of(&name, &edits, committed, warnings);
                Some(ReplyKind::Edit(reply, Box::new(edited)))
            }
            OnWritten::Batch(names, reply) => {
                let batch = self.edited_batch(names, &edits, committed, warnings);
                Some(ReplyKind::Batch(reply, Box::new(batch)))
            }
            OnWritten::Deploy(step) => self.stepped(step, now),
            OnWritten::Addon(provisioned) => Some(self.provisioned(provisioned, now)),
            OnWritten::Amended(changes, rests) => {
                let addon = &mut self.addon;
                addon.amendments.are_written(&changes, &rests, &addon.registry);
                None
            }
        };
        self.api.learn(&edits, committed);
        if is_judged {
            self.edited(&obstacles, now);
            self.decide(&edits, obstacles);
        }
        self.waiting.extend(wants.map(|wants| PendingReply { wants, since }));
        if let Some(time) = drain {
            let put = edits.put.iter().map(|service| &service.name);
            for name in put.chain(&edits.gone) {
                self.membership.drain_within(name, time);
            }
        }
        if !edits.is_empty() {
            self.docker.has_changed_last = false;
            self.wanted_instead(&cause, &edits, now);
        }
        if self.phase == DaemonPhase::TornDown {
            if is_apply {
                self.serve_again(&cause, now);
            } else {
                self.answer_torn_down(now);
            }
        }
    }

    /// Answers orders that wait for the kernel while the gateway is torn down: they are stored, but not served.
    pub(super) fn answer_torn_down(&mut self, now: Now) {
        for mut pending in std::mem::take(&mut self.waiting) {
            let warnings = match &mut pending.wants {
                ReplyKind::Edit(_, edited) => Some(&mut edited.warnings),
                ReplyKind::Batch(_, edited) => Some(&mut edited.warnings),
                ReplyKind::Addon(..) => None,
                _ => {
                    self.answer(pending, Err(NotInKernel::TornDown(super::TORN_DOWN)), now);
                    continue;
                }
            };
            if let Some(warnings) = warnings {
                warnings.push(format!("the change is stored, but not served: {}", super::TORN_DOWN));
            }
            self.answer(pending, Ok(&ReconcileReport::default()), now);
        }
    }

    /// Returns the numbers of services and backends that edits change. Services without an edit are not visited, since
    /// there may be 10,000.
    pub(super) fn counts(&self, edits: &Edits) -> (ChangeCounts, ChangeCounts) {
        let names = edits.put.iter().map(|service| &service.name).chain(&edits.gone);
        let old = names.filter_map(|name| {
            let orphan = || self.orphans.get(name).map(|orphan| &orphan.service);
            self.api.get(name).map(|stored| &stored.service).or_else(orphan)
        });
        let old: Vec<&Service> = old.map(AsRef::as_ref).collect();
        let new: Vec<&Service> = edits.put.iter().map(AsRef::as_ref).collect();
        Changes::of_services(&old, &new).counts()
    }
}

/// Returns the answer to a dry run.
pub(super) fn diff(changes: Changes, warnings: Vec<String>) -> Applied {
    let report = DiffReport {
        changed: !changes.is_empty(),
        rebuild: None,
        services: changes.services,
        flows: 0,
    };
    Applied {
        report: report.into(),
        warnings,
    }
}
