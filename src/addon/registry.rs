//! All resources, and what requests do to them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::fingerprint::Fingerprint;
use super::id::{Guid, PlanName, PlatformId, ResourceId};
use super::lifecycle::{Event, Existence, LifecycleStep, Tombstones, step};
use super::plan::{Plan, Plans};
use super::ports::{BusyPorts, PortPool, PortRefusal, PortUse, Quarantined};
use super::resource::{Binding, Dialect, MAX_BINDINGS, Owner, Resource, Status};
use tcpgw_core::model::PortRange;
use tcpgw_core::model::Word as _;

/// Maximum number of resources that are remembered after they were deprovisioned; the oldest are forgotten first.
pub const MAX_REMOVED: usize = 50_000;

/// A resource to provision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// Provider API of the request.
    pub dialect: Dialect,
    /// The platform's id of the app.
    pub app: PlatformId,
    /// Scalingo's `uuid`.
    pub uuid: Option<PlatformId>,
    /// Organization and space that the instance belongs to (OSB).
    pub owner: Option<Owner>,
    /// The plan.
    pub plan: WantedPlan,
    /// Requested port; `None`: any.
    pub port: Option<NonZeroU16>,
    /// The parameters (OSB); `None`: not to be compared.
    pub asked: Option<Fingerprint>,
}

/// The plan that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPlan {
    /// The plan of this name.
    Named(PlanName),
    /// The plan of this id (OSB), which can be a plan that is no longer in the catalog and that existing instances keep.
    /// `None`: the request has a text that is no plan's id.
    Id(Option<Guid>),
}

impl From<PlanName> for WantedPlan {
    fn from(name: PlanName) -> Self {
        Self::Named(name)
    }
}

impl WantedPlan {
    /// Returns whether this names the plan that a resource has. A name means the plan that has this name now.
    fn is_of(&self, resource: &Resource, plans: &Plans) -> bool {
        match (self, &resource.plan_id) {
            (Self::Named(name), _) => *name == resource.plan,
            (Self::Id(Some(id)), Some(of)) => id.is(of.as_str()),
            (Self::Id(None), Some(_)) => false,
            // A plan of which only the name is known has left the catalog, or is the one of that name.
            (Self::Id(id), None) => {
                let listed = |id: &Guid| plans.by_id(id.as_str()).map(|plan| &plan.name);
                let there = plans.by_name(resource.plan.as_str()).map(|plan| &plan.name);
                id.as_ref().and_then(listed) == there
            }
        }
    }

    /// Returns the plan, or the error if it cannot be given to a resource.
    fn to_give<'p>(&self, plans: &'p Plans) -> Result<&'p Plan, Refusal> {
        match self {
            Self::Named(name) => plans.by_name(name.as_str()).ok_or_else(|| Refusal::UnknownPlan {
                name: name.to_string(),
                known: plans.names(),
            }),
            Self::Id(id) => {
                let plan = id.as_ref().and_then(|id| plans.by_id(id.as_str()));
                plan.ok_or(Refusal::UnlistedPlan)
            }
        }
    }

    /// Returns whether a change to this plan leaves a resource as it is. The plan that it has may have left the configuration: it stays
    /// with those who have it.
    fn leaves(&self, resource: &Resource, plans: &Plans) -> bool {
        match self.to_give(plans) {
            Ok(plan) => plans.of(resource).is_some_and(|there| there.id == plan.id),
            Err(_) => self.is_of(resource, plans),
        }
    }
}

/// Resource that a request is about. A provider API has access to its own resources only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The resource with this id, which tcpgw has given.
    Id(Dialect, ResourceId),
    /// The resource of the app with this id, which the platform has given.
    App(Dialect, PlatformId),
    /// The resource of the app or of the binding with this id, of any provider API (the command line).
    Any(PlatformId),
}

/// A request about a resource, with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A new resource.
    Provision(Provision),
    /// A change of the plan.
    ChangePlan(Target, WantedPlan),
    /// A suspension: new connections shall be reset.
    Suspend(Target),
    /// The end of a suspension.
    Resume(Target),
    /// A removal of the resource.
    Deprovision(Target),
    /// A binding of this id, to a resource of this plan.
    Bind(Target, PlatformId, WantedPlan, Binding),
    /// The end of the binding of this id.
    Unbind(Target, PlatformId),
}

impl Request {
    /// Returns whether it can be carried out where no plans are configured.
    pub fn needs_no_plan(&self) -> bool {
        match self {
            Self::Suspend(_) | Self::Resume(_) | Self::Deprovision(_) | Self::Unbind(..) => true,
            Self::Provision(_) | Self::ChangePlan(..) | Self::Bind(..) => false,
        }
    }
}

/// Facts besides the resources that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// The plans.
    pub plans: &'f Plans,
    /// Ports that other services or local programs have.
    pub busy: &'f dyn BusyPorts,
    /// Random bits for a new id.
    pub random: u64,
    /// Time since 1970.
    pub now: Duration,
}

/// Change that has to be durable before a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceChange {
    /// A resource is new or other than before.
    Put(Arc<Resource>),
    /// A resource is removed.
    Remove(Removed),
}

/// A resource that was deprovisioned. Its JSON is what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The id that the resource had.
    pub id: ResourceId,
    /// Provider API that the resource was made by.
    pub dialect: Dialect,
    /// The platform's id of the app.
    pub app: PlatformId,
    /// Port of the resource, and the end of its quarantine.
    pub port: Quarantined,
    /// Time at which it was deprovisioned, since 1970.
    pub at: Duration,
}

/// Outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonOutcome {
    /// The resource or the binding is new.
    Created(Arc<Resource>),
    /// The resource was changed.
    Changed(Arc<Resource>),
    /// The resource was already as requested.
    Unchanged(Arc<Resource>),
    /// The resource was removed; the value is its last state.
    Removed(Arc<Resource>),
}

impl AddonOutcome {
    /// Returns the resource.
    pub fn resource(&self) -> &Arc<Resource> {
        match self {
            Self::Created(resource) | Self::Changed(resource) | Self::Unchanged(resource) | Self::Removed(resource) => {
                resource
            }
        }
    }
}

/// Decision about a request: the change to write, and the answer that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Change that has to be durable and committed before the answer.
    pub change: Option<ResourceChange>,
    /// Outcome to answer with.
    pub outcome: AddonOutcome,
}

/// Reason why a request is refused. A refused request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No plan has this name.
    #[error("there is no plan {name:?}; the plans are {known}")]
    UnknownPlan {
        /// Name in the request.
        name: String,
        /// Names of the plans that exist.
        known: String,
    },
    /// No plan of the catalog has this id.
    #[error("plan_id is not that of a plan in the catalog")]
    UnlistedPlan,
    /// The resource does not exist.
    #[error("there is no such resource")]
    NotFound,
    /// The resource was deprovisioned.
    #[error("the resource was deprovisioned")]
    Gone,
    /// The binding does not exist.
    #[error("there is no such binding")]
    NoBinding,
    /// The same id with other values.
    #[error("{0}")]
    Conflict(String),
    /// No port can be given.
    #[error(transparent)]
    Port(#[from] PortRefusal),
    /// The resource has as many bindings as it may.
    #[error("a resource has at most {MAX_BINDINGS} bindings")]
    TooManyBindings,
    /// Several resources have bindings of this app.
    #[error("several resources are bound to app {0}: name one of them by its own id")]
    Ambiguous(PlatformId),
}

impl Refusal {
    /// Returns the message for a platform, whose users read it.
    pub fn for_platform(&self) -> String {
        match self {
            Self::Port(refusal) => refusal.for_platform(),
            other => other.to_string(),
        }
    }
}

/// All resources, with indexes by app and binding.
#[derive(Debug, Clone)]
pub struct Registry {
    resources: BTreeMap<ResourceId, Arc<Resource>>,
    by_app: BTreeMap<PlatformId, ResourceId>,
    by_uuid: BTreeMap<PlatformId, ResourceId>,
    /// Apps that have bindings, and the resources that they are bound to.
    by_bound_app: BTreeMap<PlatformId, BTreeSet<ResourceId>>,
    removed: RemovedResources,
    ports: PortPool,
}

impl Registry {
    /// Returns the registry of these durable resources: `removed` in the order of the removals.
    pub fn new(
        range: PortRange,
        quarantine: Duration,
        resources: impl IntoIterator<Item = Resource>,
        removed: impl IntoIterator<Item = Removed>,
        now: Duration,
    ) -> Self {
        let mut registry = Self {
            resources: BTreeMap::new(),
            by_app: BTreeMap::new(),
            by_uuid: BTreeMap::new(),
            by_bound_app: BTreeMap::new(),
            removed: RemovedResources::default(),
            ports: PortPool::new(range, quarantine),
        };
        for one in removed {
            registry.commit(&ResourceChange::Remove(one), now);
        }
        for one in resources {
            registry.commit(&ResourceChange::Put(Arc::new(one)), now);
        }
        registry
    }

    /// Changes the range of ports and the quarantine. Ports that were given stay given.
    pub fn configure(&mut self, range: PortRange, quarantine: Duration) {
        self.ports.configure(range, quarantine);
    }

    /// Lets no port rest longer than the quarantine from now on, whatever the clock was when it was given back.
    pub fn limit_rests(&mut self, now: Duration) {
        self.ports.limit_rests(now);
    }

    /// Returns the use of the port range; `busy` are ports of others.
    pub fn port_use(&self, busy: &dyn BusyPorts, now: Duration) -> PortUse {
        self.ports.usage(busy, now)
    }

    /// Returns the resources, sorted by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Returns a resource by its id.
    pub fn get(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(&id)
    }

    /// Returns the last deprovisioned resources, at most `most`, in the order of the removals.
    pub fn removed(&self, most: usize) -> impl Iterator<Item = &Removed> {
        let order = &self.removed.order;
        order.range(order.len().saturating_sub(most)..)
    }

    /// Returns the app that a resource is for, or was for before it was deprovisioned.
    pub fn app_of(&self, id: ResourceId) -> Option<&PlatformId> {
        let there = self.resources.get(&id).map(|resource| &resource.app);
        there.or_else(|| {
            self.removed.ids.get(&id)?;
            let mut latest = self.removed.order.iter().rev();
            latest.find(|removed| removed.id == id).map(|removed| &removed.app)
        })
    }

    /// Returns the present and former resources of an app, at most `most`: the present one, then the others from the latest
    /// removal on.
    pub fn all_of_app(&self, app: &PlatformId, most: usize) -> Vec<ResourceId> {
        let there = self.by_app.get(app).copied();
        let is_known = self.removed.has(&Target::Any(app.clone()));
        let removed = self.removed.order.iter().rev().filter(|_| is_known);
        let removed = removed.filter(|removed| removed.app == *app).map(|removed| removed.id);
        there.into_iter().chain(removed).take(most).collect()
    }

    /// Returns the resource of a target.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Gone`], [`Refusal::Ambiguous`].
    pub fn find(&self, target: &Target) -> Result<&Arc<Resource>, Refusal> {
        let found = match target {
            Target::Id(dialect, id) => self.resources.get(id).filter(|one| one.dialect == *dialect),
            Target::App(dialect, app) => self.of_app(app).filter(|one| one.dialect == *dialect),
            Target::Any(app) => match self.of_app(app) {
                Some(resource) => Some(resource),
                None => self.of_bound_app(app)?,
            },
        };
        found.ok_or_else(|| {
            if self.removed.has(target) {
                Refusal::Gone
            } else {
                Refusal::NotFound
            }
        })
    }

    /// Returns the decision about a request. Changes nothing: the caller makes the change durable, and then commits it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn decide(&self, request: &Request, facts: Facts<'_>) -> Result<Decision, Refusal> {
        let (event, target) = match request {
            Request::Provision(provision) => return self.provision(provision, facts),
            Request::ChangePlan(target, _) => (Event::ChangePlan, target),
            Request::Suspend(target) => (Event::Suspend, target),
            Request::Resume(target) => (Event::Resume, target),
            Request::Deprovision(target) => (Event::Deprovision, target),
            Request::Bind(target, ..) => (Event::Bind, target),
            Request::Unbind(target, _) => (Event::Unbind, target),
        };
        let resource = self.find(target)?;
        match (
            step(Existence::Known(resource.status), event, tombstones(resource.dialect)),
            request,
        ) {
            (LifecycleStep::SetPlan, Request::ChangePlan(_, plan)) if plan.leaves(resource, facts.plans) => {
                Ok(unchanged(resource))
            }
            (LifecycleStep::SetPlan, Request::ChangePlan(_, plan)) => {
                let plan = plan.to_give(facts.plans)?;
                Ok(edited(resource, |after| {
                    (after.plan, after.plan_id) = (plan.name.clone(), Some(plan.id.clone()));
                }))
            }
            (LifecycleStep::SetStatus(status), _) => Ok(edited(resource, |after| after.status = status)),
            (LifecycleStep::Remove, _) => Ok(self.remove(resource, facts.now)),
            (LifecycleStep::Bind, Request::Bind(_, _, plan @ WantedPlan::Id(_), _))
                if plan.to_give(facts.plans).is_err() && !plan.is_of(resource, facts.plans) =>
            {
                Err(Refusal::UnlistedPlan)
            }
            (LifecycleStep::Bind, Request::Bind(_, id, _, binding)) => bind(resource, id, binding),
            (LifecycleStep::Unbind, Request::Unbind(_, id)) if !resource.bindings.contains_key(id) => {
                Err(Refusal::NoBinding)
            }
            (LifecycleStep::Unbind, Request::Unbind(_, id)) => {
                Ok(edited(resource, |after| drop(after.bindings.remove(id))))
            }
            _ => Ok(unchanged(resource)),
        }
    }

    /// Returns the change by which a resource is deprovisioned.
    pub fn deprovisioned(&self, resource: &Arc<Resource>, now: Duration) -> Option<ResourceChange> {
        self.remove(resource, now).change
    }

    /// Returns the change by which a resource is suspended or resumed.
    pub fn with_status(resource: &Arc<Resource>, status: Status) -> Option<ResourceChange> {
        edited(resource, |after| after.status = status).change
    }

    /// Returns the resources whose plan has another name in the configuration now, with that name, and those of whose plan only
    /// the name was known, with its id.
    pub fn with_plans_named(&self, plans: &Plans) -> Vec<ResourceChange> {
        let renamed = self.resources.values().filter_map(|resource| {
            let plan = plans.of(resource)?;
            let named = edited(resource, |after| {
                after.plan = plan.name.clone();
                after.plan_id.get_or_insert_with(|| plan.id.clone());
            });
            named.change
        });
        renamed.collect()
    }

    /// Applies a change that is durable.
    pub fn commit(&mut self, change: &ResourceChange, now: Duration) {
        match change {
            ResourceChange::Put(resource) => {
                self.forget(resource.id);
                self.ports.give(resource.port);
                self.by_app.insert(resource.app.clone(), resource.id);
                if let Some(uuid) = &resource.uuid {
                    self.by_uuid.insert(uuid.clone(), resource.id);
                }
                for app in bound_apps(resource) {
                    self.by_bound_app.entry(app.clone()).or_default().insert(resource.id);
                }
                self.resources.insert(resource.id, Arc::clone(resource));
            }
            ResourceChange::Remove(removed) => {
                self.forget(removed.id);
                self.ports.take_back(removed.port, now);
                self.removed.add(removed.clone());
            }
        }
    }

    fn forget(&mut self, id: ResourceId) {
        let Some(before) = self.resources.remove(&id) else {
            return;
        };
        self.by_app.remove(&before.app);
        if let Some(uuid) = &before.uuid {
            self.by_uuid.remove(uuid);
        }
        for app in bound_apps(&before) {
            if let Some(bound) = self.by_bound_app.get_mut(app) {
                bound.remove(&id);
                if bound.is_empty() {
                    self.by_bound_app.remove(app);
                }
            }
        }
    }

    fn of_app(&self, app: &PlatformId) -> Option<&Arc<Resource>> {
        self.resources.get(self.by_app.get(app)?)
    }

    fn of_bound_app(&self, app: &PlatformId) -> Result<Option<&Arc<Resource>>, Refusal> {
        let Some(bound) = self.by_bound_app.get(app) else {
            return Ok(None);
        };
        match bound.len() {
            1 => Ok(bound.first().and_then(|id| self.resources.get(id))),
            _ => Err(Refusal::Ambiguous(app.clone())),
        }
    }

    fn provision(&self, wanted: &Provision, facts: Facts<'_>) -> Result<Decision, Refusal> {
        let by_uuid = wanted.uuid.as_ref().and_then(|uuid| self.by_uuid.get(uuid));
        let by_uuid = by_uuid.and_then(|id| self.resources.get(id));
        let there = by_uuid.or_else(|| self.of_app(&wanted.app));
        let existence = match there {
            Some(resource) => Existence::Known(resource.status),
            None if self.removed.has(&Target::App(wanted.dialect, wanted.app.clone())) => Existence::Removed,
            None => Existence::Unknown,
        };
        match (step(existence, Event::Provision, tombstones(wanted.dialect)), there) {
            (LifecycleStep::Compare, Some(resource)) => match difference(resource, wanted, facts.plans) {
                None => Ok(unchanged(resource)),
                Some(difference) => Err(Refusal::Conflict(difference)),
            },
            (LifecycleStep::Create, _) => {
                let plan = wanted.plan.to_give(facts.plans)?;
                let port = self.ports.choose(wanted.port, facts.busy, facts.now)?;
                let resource = Arc::new(Resource {
                    id: self.fresh_id(facts.random),
                    dialect: wanted.dialect,
                    app: wanted.app.clone(),
                    uuid: wanted.uuid.clone(),
                    owner: wanted.owner.clone(),
                    plan: plan.name.clone(),
                    plan_id: Some(plan.id.clone()),
                    port,
                    status: Status::Active,
                    bindings: BTreeMap::new(),
                    created: facts.now,
                    asked: wanted.asked.clone(),
                });
                Ok(Decision {
                    change: Some(ResourceChange::Put(Arc::clone(&resource))),
                    outcome: AddonOutcome::Created(resource),
                })
            }
            _ => Err(Refusal::Gone),
        }
    }

    /// Returns an id that no resource has or had, as far as removed ones are remembered.
    fn fresh_id(&self, random: u64) -> ResourceId {
        let ids = (0..=u64::MAX).map(|step| ResourceId::from_random(random.wrapping_add(step)));
        let mut unused = ids.filter(|id| !self.resources.contains_key(id) && !self.removed.has_id(*id));
        unused.next().unwrap_or_else(|| ResourceId::from_random(random))
    }

    fn remove(&self, resource: &Arc<Resource>, now: Duration) -> Decision {
        let removed = Removed {
            id: resource.id,
            dialect: resource.dialect,
            app: resource.app.clone(),
            port: Quarantined {
                port: resource.port,
                until: self.ports.rest_until(now),
            },
            at: now,
        };
        Decision {
            change: Some(ResourceChange::Remove(removed)),
            outcome: AddonOutcome::Removed(Arc::clone(resource)),
        }
    }
}

fn bind(resource: &Arc<Resource>, id: &PlatformId, binding: &Binding) -> Result<Decision, Refusal> {
    match resource.bindings.get(id) {
        Some(there) if there.app == binding.app => {
            return if is_other(there.asked.as_ref(), binding.asked.as_ref()) {
                let text = format!("binding {id} exists, with another plan_id or other parameters");
                Err(Refusal::Conflict(text))
            } else {
                Ok(unchanged(resource))
            };
        }
        Some(_) => return Err(Refusal::Conflict(format!("binding {id} exists, for another app"))),
        None if resource.bindings.len() >= MAX_BINDINGS => return Err(Refusal::TooManyBindings),
        None => {}
    }
    let mut after = Resource::clone(resource);
    after.bindings.insert(id.clone(), binding.clone());
    let after = Arc::new(after);
    Ok(Decision {
        change: Some(ResourceChange::Put(Arc::clone(&after))),
        outcome: AddonOutcome::Created(after),
    })
}

/// Returns whether both are known and differ.
fn is_other(there: Option<&Fingerprint>, wanted: Option<&Fingerprint>) -> bool {
    there.zip(wanted).is_some_and(|(there, wanted)| there != wanted)
}

fn edited(before: &Arc<Resource>, edit: impl FnOnce(&mut Resource)) -> Decision {
    let mut after = Resource::clone(before);
    edit(&mut after);
    if after == **before {
        return unchanged(before);
    }
    let after = Arc::new(after);
    Decision {
        change: Some(ResourceChange::Put(Arc::clone(&after))),
        outcome: AddonOutcome::Changed(after),
    }
}

fn bound_apps(resource: &Resource) -> impl Iterator<Item = &PlatformId> {
    resource.bindings.values().filter_map(|binding| binding.app.as_ref())
}

fn unchanged(resource: &Arc<Resource>) -> Decision {
    Decision {
        change: None,
        outcome: AddonOutcome::Unchanged(Arc::clone(resource)),
    }
}

fn tombstones(dialect: Dialect) -> Tombstones {
    match dialect {
        Dialect::Heroku => Tombstones::Kept,
        Dialect::Osb | Dialect::Scalingo | Dialect::CleverCloud | Dialect::Local => Tombstones::Free,
    }
}

/// Returns the difference between a resource and a repeated request for it; `None`: they agree.
fn difference(there: &Resource, wanted: &Provision, plans: &Plans) -> Option<String> {
    let of_other = there.dialect != wanted.dialect;
    let (app, plan) = (&there.app, &there.plan);
    if of_other {
        return Some(format!(
            "app {app} has a resource already, provisioned through {}",
            there.dialect.word()
        ));
    }
    if there.app != wanted.app || wanted.uuid.is_some() && there.uuid != wanted.uuid {
        return Some(format!(
            "app {app} has a resource already, provisioned by another request"
        ));
    }
    if there.owner != wanted.owner {
        return Some("an instance of this id exists, in another organization or space".into());
    }
    if !wanted.plan.is_of(there, plans) {
        return Some(format!(
            "the resource exists, with plan {plan}; change its plan instead"
        ));
    }
    let other_port = wanted.port.is_some_and(|port| port != there.port);
    if other_port {
        return Some(format!("the resource exists, with port {}", there.port));
    }
    is_other(there.asked.as_ref(), wanted.asked.as_ref())
        .then(|| "the instance exists, provisioned with other parameters".into())
}

/// The last [`MAX_REMOVED`] resources that were deprovisioned.
#[derive(Debug, Clone, Default)]
struct RemovedResources {
    order: VecDeque<Removed>,
    ids: BTreeMap<ResourceId, Dialect>,
    /// Number of entries in `order` for each app.
    apps: BTreeMap<(Dialect, PlatformId), usize>,
}

impl RemovedResources {
    fn has_id(&self, id: ResourceId) -> bool {
        self.ids.contains_key(&id)
    }

    fn has(&self, target: &Target) -> bool {
        let has_app = |dialect: Dialect, app: &PlatformId| self.apps.contains_key(&(dialect, app.clone()));
        match target {
            Target::Id(dialect, id) => self.ids.get(id) == Some(dialect),
            Target::App(dialect, app) => has_app(*dialect, app),
            Target::Any(app) => Dialect::WORDS.iter().any(|(_, dialect)| has_app(*dialect, app)),
        }
    }

    fn add(&mut self, removed: Removed) {
        self.ids.insert(removed.id, removed.dialect);
        *self.apps.entry((removed.dialect, removed.app.clone())).or_default() += 1;
        self.order.push_back(removed);
        while self.order.len() > MAX_REMOVED {
            if let Some(oldest) = self.order.pop_front() {
                self.forget(oldest);
            }
        }
    }

    fn forget(&mut self, removed: Removed) {
        self.ids.remove(&removed.id);
        if let Entry::Occupied(mut count) = self.apps.entry((removed.dialect, removed.app)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests;
