//! What is ordered through the API: judged, written to the store, and done, one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addon::Provisioned;
use super::api_services::Held;
use super::deploys::PendingStep;
use super::input::{Judged, ProviderSize, Unjudged, Vet};
use super::surroundings::{Obstacles, TAKE_OVER};
use super::together::{Grouping, Together};
use super::{Core, Name, Now, PendingReply, Phase, Provider, ReplyKind, Unheld};
use crate::addon::AddonOutcome;
use crate::control::request::{
    AddonOrder, AddonRefused, Applied, Apply, ApplyOptions, BatchOrder, DeployOrder, EditOrder, Edited, EditedBatch,
    Refused, Reply, ServiceEdit, UndoOrder,
};
use crate::control::storage::{Opened, OrphanRemoval, Write, Written};
use crate::reconcile::Report;
use crate::report::DiffReport;
use crate::store::last::Last;
use crate::store::{By, Committed, Expect, Loaded, StoreError, StoredService};
use crate::view::problems::some_of;
use tcpgw_core::diff::{ChangeCounts, Changes};
use tcpgw_core::model::{self, Backend, BackendState, Edits, Endpoint, Problem, Problems, Service, State};
use tcpgw_core::problem::Kind;

/// After a failure of the store it is tried again so often.
const REFRESH: Duration = Duration::from_secs(5);

/// Number of orders that may wait: more than the API has connections, so that only those are refused who order and do not wait for
/// the answer.
pub const MOST_ORDERS: usize = 256;

/// What may be ordered.
pub enum Order {
    /// All services of the API shall be these.
    Apply(ApplyOrder),
    /// One service shall be otherwise.
    Edit(EditOrder, Reply<Result<Edited, Refused>>),
    /// Several services shall be otherwise, all or none.
    Batch(BatchOrder, Reply<Result<EditedBatch, Refused>>),
    /// A deploy.
    Deploy(DeployOrder, Reply<Result<u64, Refused>>),
    /// A deploy shall end, or be taken back.
    Undo(UndoOrder, Reply<Result<u64, Refused>>),
    /// A request about a resource of the add-on.
    Addon(AddonOrder, Reply<Result<AddonOutcome, AddonRefused>>),
}

impl Order {
    /// Whoever asked may be gone.
    fn refuse(self, why: Refused) {
        match self {
            Self::Apply(order) => drop(order.reply.send(Err(why))),
            Self::Edit(_, reply) => drop(reply.send(Err(why))),
            Self::Batch(_, reply) => drop(reply.send(Err(why))),
            Self::Deploy(_, reply) | Self::Undo(_, reply) => drop(reply.send(Err(why))),
            Self::Addon(_, reply) => drop(reply.send(Err(AddonRefused::Daemon(why)))),
        }
    }
}

/// An `apply` whose text has been read.
pub struct ApplyOrder {
    /// As it was asked for.
    pub apply: Apply,
    /// What its text says.
    pub state: State,
    /// Who waits for it.
    pub reply: Reply<Result<Applied, Refused>>,
}

/// An order of which nothing is decided, since the gateway is being looked at. It stays the first.
pub(super) struct Undecided(pub(super) Box<Order>);

/// What goes on between orders and the store.
#[derive(Default)]
pub(super) struct OrderQueue {
    /// Not looked at yet.
    pub(super) orders: VecDeque<Order>,
    /// What is being written: one thing, or several that are one transaction.
    pub(super) accepted: Vec<PendingWrite>,
    /// How far orders are taken together.
    pub(super) grouping: Grouping,
    /// The store is looked at anew, or the file of last services is written.
    refreshing: bool,
    /// The file of last services is being written.
    remembering: bool,
    /// Nobody knows what it held.
    pub(super) lost: bool,
    /// Whether what is known of resources is what the store holds.
    resources: Knowledge,
    /// The id of a deploy that was just begun.
    pub(super) began: Option<u64>,
}

/// Whether something is known. A write that failed may have been made all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Knowledge {
    #[default]
    Certain,
    /// The store is to be read before anything is decided.
    Doubtful,
    /// The store was to be read, and could not be.
    Unreadable,
}

impl OrderQueue {
    /// Whether a resource is to be changed next, and the store has to be read before.
    fn reads_first(&self) -> bool {
        let is_next = matches!(self.orders.front(), Some(Order::Addon(..)));
        is_next && self.resources == Knowledge::Doubtful && !self.lost
    }

    /// Whether what is known of resources is what the store holds.
    pub(super) fn is_certain_of_resources(&self) -> bool {
        self.resources == Knowledge::Certain && !self.lost
    }

    /// Whether nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.accepted.is_empty() && !self.refreshing
    }
}

/// What was accepted, and is being written.
pub(super) struct PendingWrite {
    pub(super) edits: Edits,
    /// Why the kernel changes, for people.
    pub(super) cause: String,
    /// For those who begin to drain by it.
    pub(super) drain: Option<Duration>,
    pub(super) warnings: Vec<String>,
    /// What keeps services of it from being served here now.
    pub(super) obstacles: Obstacles,
    pub(super) then: OnWritten,
}

/// What follows when it is written.
pub(super) enum OnWritten {
    Apply(Reply<Result<Applied, Refused>>),
    Edit(Box<str>, Reply<Result<Edited, Refused>>),
    Batch(Vec<Box<str>>, Reply<Result<EditedBatch, Refused>>),
    Deploy(PendingStep),
    Addon(Provisioned),
    /// Resources are in the store as the record tells.
    Corrected,
}

impl PendingWrite {
    /// What an edit of a service comes to, and whose it is.
    pub(super) fn of_edit(
        order: EditOrder,
        edits: Edits,
        judged: Judged,
        reply: Reply<Result<Edited, Refused>>,
    ) -> (Self, By) {
        let what = order.edit.name();
        let accepted = Self {
            edits,
            cause: format!("{what} {} (uid {})", order.name, order.by.uid),
            drain: order.drain,
            warnings: judged.warnings,
            obstacles: judged.obstacles,
            then: OnWritten::Edit(order.name, reply),
        };
        (accepted, by(order.by, what))
    }

    /// A step of a deploy that changes no service.
    pub(super) fn step(step: PendingStep) -> Self {
        Self::of_nobody(OnWritten::Deploy(step))
    }

    /// What changes no service by itself.
    pub(super) fn of_nobody(then: OnWritten) -> Self {
        Self {
            edits: Edits::default(),
            cause: String::new(),
            drain: None,
            warnings: Vec::new(),
            obstacles: Obstacles::new(),
            then,
        }
    }

    fn refuse(self, error: &StoreError) -> Option<PendingStep> {
        let refused = || refused(error);
        match self.then {
            OnWritten::Apply(reply) => drop(reply.send(Err(refused()))),
            OnWritten::Edit(_, reply) => drop(reply.send(Err(refused()))),
            OnWritten::Batch(_, reply) => drop(reply.send(Err(refused()))),
            OnWritten::Deploy(step) => return Some(step),
            OnWritten::Addon(provisioned) => provisioned.refuse(error),
            OnWritten::Corrected => {}
        }
        None
    }
}

/// What the store said, for whoever asked.
pub(super) fn refused(error: &StoreError) -> Refused {
    match error {
        StoreError::Conflict { current, .. } => Refused::Conflict(error.to_string(), current.clone()),
        StoreError::Deploying { .. } => Refused::Refused(error.to_string()),
        _ => Refused::Store(error.to_string()),
    }
}

impl Core {
    /// What the store holds, before anything is wanted. Without it, what the API's services were is taken for them still: a store
    /// that is lost must not end what is served.
    pub fn opened(&mut self, opened: Result<Opened, StoreError>, now: Now) {
        match opened {
            Ok(opened) => {
                self.observing.store_file = opened.file;
                let (held, problems) = compatible(opened.loaded);
                if !problems.is_empty() {
                    self.reject("api", problems, now);
                }
                self.api = held;
                self.addon.is_restored = opened.is_restored;
                drop(self.addon.load(opened.resources, now));
                self.addon.learn(self.api.services());
                self.removed = opened.removed;
                self.take_up(opened.unfinished, now);
                self.store_trouble(opened.trouble.as_ref(), now);
            }
            Err(error) => {
                tracing::error!("{error}; services of the API cannot be changed");
                self.order_queue.lost = true;
                self.store_trouble(Some(&error), now);
            }
        }
    }

    fn remembered(&mut self, result: Result<(), String>, took: Duration, now: Now) {
        self.due.remembered(took);
        self.last_trouble.unwritten = result.err().map(|error| {
            format!("{error}: a machine that boots with a lost file or store would not know these services")
        });
        if self.last_trouble.unwritten.is_some() {
            self.due.remember(now.instant + REFRESH);
        }
        self.judge_last();
    }

    /// Whether a teardown has to wait: it leaves neither table nor record, so that a daemon that dies afterwards has told nobody of what
    /// was served but by the file of last services.
    pub(super) fn remembers_first(&mut self, now: Instant) -> bool {
        let until = self.due.wait_for_last(now);
        let is_next = self.due.has_to_remember() && self.order_queue.is_idle() && self.last_trouble.unwritten.is_none();
        let waits = until > now && (is_next || self.order_queue.remembering);
        if !waits {
            self.due.teardown = None;
        } else if is_next {
            self.due.remember_at_once(now);
        }
        waits
    }

    fn store_trouble(&mut self, trouble: Option<&StoreError>, now: Now) {
        self.due.store = trouble.map(|_| now.instant + REFRESH);
        if let Some(error) = trouble {
            self.report(Kind::Store, format!("the store refuses changes: {error}"));
        } else {
            self.problems.resolve(Kind::Store);
        }
    }

    /// After a failure of the store: what it holds, and whether it can be written again.
    fn refreshed(&mut self, refreshed: Result<Opened, StoreError>, now: Now) {
        let opened = match refreshed {
            Ok(opened) => opened,
            Err(error) => {
                if self.order_queue.resources == Knowledge::Doubtful {
                    self.order_queue.resources = Knowledge::Unreadable;
                }
                return self.store_trouble(Some(&error), now);
            }
        };
        self.order_queue.resources = Knowledge::Certain;
        self.observing.store_file = opened.file;
        if self.order_queue.lost {
            return self.found_again(opened, now);
        }
        self.store_trouble(opened.trouble.as_ref(), now);
        let (held, problems) = compatible(opened.loaded);
        if problems.is_empty() {
            self.problems.resolve(Kind::RejectedStore);
        } else if problems != self.api.reasons() {
            self.reject("api", problems, now);
        }
        let services = held.services().cloned();
        // A change that failed may have been made all the same.
        let mut edits = self.api.edits_to(&State::from_valid(services.collect()));
        self.api = held;
        let before = self.addon.load(opened.resources, now);
        self.put_resumed(&mut edits, &before);
        self.compare_deploys(opened.unfinished, now);
        if !edits.is_empty() {
            self.wanted_instead("the store", &edits, now);
        }
    }

    /// A store that could not be opened at the start can be read now. What was taken for services of the API meanwhile is judged as
    /// at a start: what the store does not know goes on as an orphan, unless the store knows that somebody removed it.
    fn found_again(&mut self, opened: Opened, now: Now) {
        tracing::info!("the store can be read: services of the API can be changed");
        self.order_queue.lost = false;
        self.addon.is_copy = false;
        if matches!(self.phase, Phase::Waiting | Phase::Looking) {
            return self.opened(Ok(opened), now);
        }
        self.store_trouble(opened.trouble.as_ref(), now);
        let (held, problems) = compatible(opened.loaded);
        if !problems.is_empty() {
            self.reject("api", problems, now);
        }
        let presumed = std::mem::replace(&mut self.api, held);
        let services = self.api.services().cloned();
        let mut edits = presumed.edits_to(&State::from_valid(services.collect()));
        let before = self.addon.load(opened.resources, now);
        self.put_resumed(&mut edits, &before);
        self.removed = opened.removed;
        self.leave_out_claimed(&mut edits);
        let gone = std::mem::take(&mut edits.gone);
        let (removed, unknown): (Vec<_>, Vec<_>) = gone.into_iter().partition(|name| self.removed.contains_key(name));
        edits.gone = removed;
        let unknown = unknown.iter().filter_map(|name| presumed.get(name));
        let unknown: Vec<Arc<Service>> = unknown.map(|stored| Arc::clone(&stored.service)).collect();
        let orphans = unknown.iter().map(|service| (Service::clone(service), true));
        self.orphan_found(orphans.collect(), now);
        for service in unknown {
            match self.orphans.get(&service.name).map(|orphan| &orphan.service) {
                None => edits.gone.push(service.name.clone()),
                Some(left) if *left != service => edits.put.push(Arc::clone(left)),
                Some(_) => {}
            }
        }
        self.compare_deploys(opened.unfinished, now);
        self.wanted_instead("the store can be read again", &edits, now);
        self.addresses_changed(now);
        self.due.remember(now.instant);
    }

    /// Leaves out of the store's services what others have taken while it could not be read, with the reason.
    fn leave_out_claimed(&mut self, edits: &mut Edits) {
        let put = std::mem::take(&mut edits.put);
        for service in put {
            let alone = Edits {
                put: vec![Arc::clone(&service)],
                ..Edits::default()
            };
            match self.judge_books(&alone, Provider::Api) {
                Ok(()) => edits.put.push(service),
                Err(refused) => {
                    let reason = left_out(&service.name, &refused.lines().join("; "));
                    self.api.judged(&service.name, Some(reason));
                }
            }
        }
        let reasons = self.api.reasons();
        if !reasons.is_empty() {
            self.report_rejected(Provider::Api.name(), &reasons);
        }
    }

    /// Takes an order, or refuses it if too many wait.
    pub fn order(&mut self, order: Order) {
        if self.order_queue.orders.len() < MOST_ORDERS {
            return self.order_queue.orders.push_back(order);
        }
        order.refuse(Refused::Busy(format!("{MOST_ORDERS} changes are waiting already")));
    }

    /// What is to be written to the store now. Orders that wait at the same time and have nothing to do with each other are written together;
    /// all others one after the other, so that each is judged by what those before it have made.
    pub fn next_write(&mut self, vet: &mut Vet<'_>, now: Now) -> Option<Write> {
        while self.order_queue.is_idle() {
            if self.due.take_store(now.instant) {
                self.order_queue.refreshing = true;
                return Some(Write::Refresh);
            }
            if self.knows_what_to_remember() && self.due.take_remember(now.instant) {
                (self.order_queue.refreshing, self.order_queue.remembering) = (true, true);
                return Some(self.remember_now(now));
            }
            if let Some(write) = self.save_corrections(now) {
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

    /// Whether the store cannot be read.
    pub(super) fn is_store_lost(&self) -> bool {
        self.order_queue.lost
    }

    /// Whether it is known which resources there are. Without the store an unknown one is not one that there is not.
    pub(super) fn knows_resources(&self) -> Result<(), Refused> {
        if self.order_queue.lost || self.order_queue.resources == Knowledge::Unreadable {
            let why = self.problems.get(Kind::Store).map(|problem| problem.message.as_str());
            let why = why.unwrap_or("the store cannot be read");
            return Err(Refused::Store(why.to_owned()));
        }
        Ok(())
    }

    /// Whether orders can be judged.
    pub(super) fn judges(&self) -> Result<(), Refused> {
        match self.phase {
            Phase::Waiting | Phase::Looking => Err(Refused::Busy("the daemon is starting".into())),
            Phase::Running | Phase::TornDown => Ok(()),
        }
    }

    /// Whether a whole state can be taken: what is not known of the store cannot be said to be in it already.
    fn judges_stored(&self, options: &ApplyOptions) -> Result<(), Refused> {
        if options.dry_run {
            self.judges()
        } else {
            self.judges_singly()
        }
    }

    /// Whether single services can be changed: what is not known of the store cannot be said to be anybody's.
    pub(super) fn judges_singly(&self) -> Result<(), Refused> {
        self.judges()?;
        match self.problems.get(Kind::Store).filter(|_| self.order_queue.lost) {
            Some(problem) => Err(Refused::Store(problem.message.clone())),
            None => Ok(()),
        }
    }

    fn take_apply(&mut self, order: ApplyOrder, vet: &mut Vet<'_>, now: Now) -> Result<Option<Write>, Undecided> {
        let ApplyOrder { apply, state, reply } = order;
        let options = apply.options;
        let mut edits = self.api.edits_to(&state);
        self.keep_resources(&mut edits);
        if options.prune {
            self.prune(&mut edits);
        }
        self.add_held_back(&mut edits, &state);
        let standing = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: state.services.len(),
        };
        let judged = self.judges_stored(&options).and_then(|()| self.judge_resources(&edits));
        let judged = judged.map_err(Unjudged::from);
        let judged = judged.and_then(|()| self.judge(&edits, standing, options, vet));
        let Judged { warnings, obstacles } = match judged {
            Ok(judged) => judged,
            Err(Unjudged::Pending) => {
                return Err(Undecided(Box::new(Order::Apply(ApplyOrder { apply, state, reply }))));
            }
            // Whoever asked may be gone.
            Err(Unjudged::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let held = obstacles.values().flatten();
        let held = held.map(|obstacle| format!("held back: {}", obstacle.told_with(TAKE_OVER)));
        let emptied = self.emptied(&state, options.dry_run);
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

    /// Says which services a state without any takes away.
    fn emptied(&self, state: &State, is_dry_run: bool) -> Option<String> {
        let names: Vec<&str> = self.api.stored().map(|stored| &*stored.service.name).collect();
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

    /// Has it written, if there is anything to be written.
    pub(super) fn write(&mut self, accepted: PendingWrite, by: By, now: Now) -> Option<Write> {
        let change = self.change_of(&accepted);
        if change.edits.is_empty() && change.resources.is_empty() {
            let nothing = Committed {
                revision: self.api.revision(),
                changed: Vec::new(),
            };
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
                path: Last::path(&self.settings.store),
                before: self.to_remember(now),
                orphans,
            }))
        })
    }

    /// What the store is to change for it.
    pub(super) fn change_of(&self, accepted: &PendingWrite) -> crate::store::Change {
        let resources: Vec<_> = match &accepted.then {
            OnWritten::Addon(provisioned) => provisioned.change.clone().into_iter().collect(),
            OnWritten::Apply(_)
            | OnWritten::Edit(..)
            | OnWritten::Batch(..)
            | OnWritten::Deploy(_)
            | OnWritten::Corrected => Vec::new(),
        };
        crate::store::Change {
            resources,
            ..self.api.change(&accepted.edits)
        }
    }

    fn take_edit(
        &mut self,
        order: EditOrder,
        reply: Reply<Result<Edited, Refused>>,
        vet: &mut Vet<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let judged = self.judges_singly().map_err(Unjudged::from);
        let (edits, judged) = match judged.and_then(|()| self.judge_edit(&order, vet)) {
            Ok(judged) => judged,
            Err(Unjudged::Pending) => return Err(Undecided(Box::new(Order::Edit(order, reply)))),
            Err(Unjudged::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let (accepted, by) = PendingWrite::of_edit(order, edits, judged, reply);
        Ok(self.write(accepted, by, now))
    }

    /// What a change of one service comes to, judged by what is known of that service alone.
    pub(super) fn edits_of_service(&self, name: &Name, edit: &ServiceEdit, expect: Expect) -> Result<Edits, Refused> {
        self.judge_owner(name, Provider::Api)?;
        let current = self.api.get(name);
        let orphan = self.orphans.get(name).map(|orphan| &orphan.service);
        // What is not there cannot be changed, whatever was expected of it (RFC 9110, 13.2.1).
        let is_there = current.is_some() || orphan.is_some();
        if !is_there && !matches!(edit, ServiceEdit::Put(_)) {
            return Err(missing(name));
        }
        if !expected(expect, current) || expect == Expect::Present && !is_there {
            return Err(Refused::Conflict(
                not_as_expected(name, expect, current),
                current.cloned().map(Box::new),
            ));
        }
        // Whoever changes an orphan defines it anew.
        let there = || {
            let current = current.map(|current| &current.service).or(orphan);
            current.ok_or_else(|| missing(name))
        };
        let put = match edit {
            ServiceEdit::Put(text) => Some(model::parse_service(text).map_err(Refused::Invalid)?),
            ServiceEdit::Patch(text) => Some(model::patch_service(there()?, text).map_err(Refused::Invalid)?),
            ServiceEdit::Delete => {
                there()?;
                None
            }
            ServiceEdit::Drain(which) => Some(with_state(there()?, which, BackendState::Draining)?),
            ServiceEdit::Undrain(which) => Some(with_state(there()?, which, BackendState::Active)?),
        };
        let mut edits = Edits::default();
        match put {
            Some(service) if service.name != *name => {
                let problem = Problem {
                    place: "name".into(),
                    message: format!("is \"{}\"; the service is \"{name}\", and keeps its name", service.name),
                };
                return Err(Refused::Invalid([problem].into_iter().collect()));
            }
            // One that is held back is judged anew.
            Some(service)
                if current.is_some_and(|current| *current.service == service) && !self.held_back.contains(name) => {}
            Some(service) => edits.put.push(Arc::new(service)),
            None => edits.gone.push(name.clone()),
        }
        Ok(edits)
    }

    fn judge_edit(&self, order: &EditOrder, vet: &mut Vet<'_>) -> Result<(Edits, Judged), Unjudged> {
        let edits = self.edits_of_service(&order.name, &order.edit, order.expect)?;
        let judged = self.judge_edits(&edits, order.take_over, 1, vet)?;
        Ok((edits, judged))
    }

    /// Judges changes of so many services together with all others.
    pub(super) fn judge_edits(
        &self,
        edits: &Edits,
        take_over: bool,
        count: usize,
        vet: &mut Vet<'_>,
    ) -> Result<Judged, Unjudged> {
        self.judge_resources(edits)?;
        let options = ApplyOptions {
            take_over,
            // Whoever deletes the last one by its name means it.
            allow_empty: true,
            ..ApplyOptions::default()
        };
        let standing = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: count,
        };
        self.judge(edits, standing, options, vet)
    }

    /// The store has done what it was told.
    pub fn written(&mut self, written: Written, now: Now) {
        let written = match written {
            Written::Refreshed(refreshed) => {
                self.order_queue.refreshing = false;
                return self.refreshed(refreshed, now);
            }
            Written::Remembered(result, took) => {
                (self.order_queue.refreshing, self.order_queue.remembering) = (false, false);
                return self.remembered(result, took, now);
            }
            other => other,
        };
        let accepted = std::mem::take(&mut self.order_queue.accepted);
        let results = match written {
            Written::Refreshed(_) | Written::Remembered(..) => return,
            Written::Together(results) => results,
            Written::Changed(result) => vec![result],
            Written::Began(result) => vec![result.map(|id| self.nothing_changed(Some(id)))],
            Written::Stepped(result) => vec![result.map(|()| self.nothing_changed(None))],
        };
        debug_assert_eq!(accepted.len(), results.len(), "each has a result");
        for (accepted, result) in accepted.into_iter().zip(results) {
            self.write_ended(accepted, result, now);
        }
    }

    fn write_ended(&mut self, accepted: PendingWrite, result: Result<Committed, StoreError>, now: Now) {
        match result {
            Ok(committed) => {
                self.store_trouble(None, now);
                if self.order_queue.resources != Knowledge::Certain {
                    // What failed before may have been made all the same.
                    self.due.store = Some(now.instant);
                }
                self.carry_out(accepted, &committed, now);
            }
            Err(error) => {
                self.order_queue.resources = Knowledge::Doubtful;
                if !self.orphans_removed_by(&accepted.edits).is_empty() {
                    self.due.remember_at_once(now.instant);
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

    fn nothing_changed(&mut self, began: Option<u64>) -> Committed {
        self.order_queue.began = began;
        Committed {
            revision: self.api.revision(),
            changed: Vec::new(),
        }
    }

    fn carry_out(&mut self, accepted: PendingWrite, committed: &Committed, now: Now) {
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
        // One that is taken back is judged when it is served.
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
            OnWritten::Corrected => None,
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
            self.wanted_instead(&cause, &edits, now);
        }
        if self.phase == Phase::TornDown {
            if is_apply {
                self.serve_again(&cause, now);
            } else {
                self.answer_torn_down(now);
            }
        }
    }

    /// What waits for the kernel is stored, and waits no longer: nothing is served.
    pub(super) fn answer_torn_down(&mut self, now: Now) {
        for mut pending in std::mem::take(&mut self.waiting) {
            if matches!(pending.wants, ReplyKind::Addon(..)) {
                self.answer(pending, Ok(&Report::default()), now);
            } else if let ReplyKind::Edit(_, edited) = &mut pending.wants {
                edited
                    .warnings
                    .push(format!("stored, but not served: {}", super::TORN_DOWN));
                self.answer(pending, Ok(&Report::default()), now);
            } else if let ReplyKind::Batch(_, edited) = &mut pending.wants {
                edited
                    .warnings
                    .push(format!("stored, and not served: {}", super::TORN_DOWN));
                self.answer(pending, Ok(&Report::default()), now);
            } else {
                self.answer(pending, Err(Unheld::TornDown(super::TORN_DOWN)), now);
            }
        }
    }

    /// What edits of the API's services come to. What is not edited counts for nothing, and there may be ten thousand of it.
    fn counts(&self, edits: &Edits) -> (ChangeCounts, ChangeCounts) {
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

impl ServiceEdit {
    /// The command, as the history names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "service put",
            Self::Patch(_) => "service set",
            Self::Delete => "service rm",
            Self::Drain(_) => "drain",
            Self::Undrain(_) => "undrain",
        }
    }
}

/// The services that go together by the rules of this version, and what speaks against the others. Those that were there
/// first stay.
fn compatible(loaded: Loaded) -> (Held, Vec<String>) {
    let mut order: Vec<&StoredService> = loaded.services.iter().collect();
    order.sort_by(|a, b| (a.revision, &a.service.name).cmp(&(b.revision, &b.service.name)));
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    admit(&mut kept, &order, &mut refused);
    let refused: BTreeMap<Box<str>, String> = refused
        .into_iter()
        .map(|(name, why)| {
            let why = left_out(&name, &why);
            (name, why)
        })
        .collect();
    let problems = refused.values().cloned().collect();
    (Held::new(loaded, refused), problems)
}

/// Why a stored service is not served.
pub(super) fn left_out(name: &str, why: &impl std::fmt::Display) -> String {
    format!(
        "service \"{name}\" of the store is left out: {why}; change it, or remove it with `tcpgw service rm {name}`"
    )
}

/// Adds to `kept` what goes together with it, and to `refused` what does not: few tries where little does not.
fn admit(kept: &mut Vec<Arc<Service>>, batch: &[&StoredService], refused: &mut Vec<(Box<str>, Problems)>) {
    let with = batch.iter().map(|stored| Arc::clone(&stored.service));
    let Err(problems) = State::new(kept.iter().cloned().chain(with.clone())) else {
        return kept.extend(with);
    };
    if let [one] = batch {
        return refused.push((one.service.name.clone(), problems));
    }
    let (first, second) = batch.split_at(batch.len() / 2);
    admit(kept, first, refused);
    admit(kept, second, refused);
}

/// Who wants something, for the history.
pub(super) fn by(peer: crate::control::request::Peer, what: &str) -> By {
    By {
        uid: peer.uid,
        pid: peer.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        what: what.into(),
    }
}

/// There is nothing of that name.
pub(super) fn missing(name: &str) -> Refused {
    Refused::Missing(format!("there is no service \"{name}\"; `tcpgw service ls` lists them"))
}

fn expected(expect: Expect, current: Option<&StoredService>) -> bool {
    match expect {
        // Whether there is one at all is known to those who know of orphans, too.
        Expect::Anything | Expect::Present => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|current| current.revision == revision),
    }
}

fn not_as_expected(name: &str, expect: Expect, current: Option<&StoredService>) -> String {
    match current {
        Some(current) if expect == Expect::Absent => format!(
            "service \"{name}\" is there already, at revision {}; nothing was changed",
            current.revision
        ),
        Some(current) => format!(
            "service \"{name}\" is at revision {}, not as expected; nothing was changed",
            current.revision
        ),
        None => format!("service \"{name}\" is not there; nothing was changed"),
    }
}

/// The service with some of its backends, or all, in that state.
fn with_state(service: &Service, which: &[Endpoint], state: BackendState) -> Result<Service, Refused> {
    let known = |endpoint: &Endpoint| service.backends.iter().any(|backend| backend.endpoint == *endpoint);
    if let Some(stranger) = which.iter().find(|endpoint| !known(endpoint)) {
        return Err(Refused::Missing(format!(
            "{stranger} is no backend of service \"{}\"; nothing was changed",
            service.name
        )));
    }
    let is_meant = |backend: &Backend| which.is_empty() || which.contains(&backend.endpoint);
    let backends = service.backends.iter().map(|backend| Backend {
        state: if is_meant(backend) { state } else { backend.state },
        ..*backend
    });
    Ok(Service {
        backends: backends.collect(),
        ..service.clone()
    })
}

/// What `tcpgw diff` would say.
fn diff(changes: Changes, warnings: Vec<String>) -> Applied {
    let mut text = String::new();
    for change in &changes.services {
        let _ = writeln!(text, "{change}");
    }
    let report = DiffReport {
        changed: !changes.is_empty(),
        rebuild: None,
        services: changes.services,
        flows: 0,
    };
    Applied {
        report: report.into(),
        text,
        warnings,
    }
}
