//! All resources, and what requests do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::compared_id::ComparedId;
use super::decision::{AddonOutcome, Decision, RegistryFacts, ResourceChange, edited, unchanged};
use super::fingerprint::Fingerprint;
use super::id::{PlatformId, ResourceId};
use super::lifecycle::{Existence, LifecycleEvent, LifecycleStep, Tombstones, step};
use super::plan::Plans;
use super::ports::{BusyPorts, PortPool, PortUse, Quarantined};
use super::refusal::Refusal;
use super::removed::{Removed, RemovedResources};
use super::request::{AddonRequest, Provision, ResourceTarget, WantedPlan};
use super::resource::{Binding, Dialect, MAX_BINDINGS, Resource, ResourceStatus};
use super::resource_index::ResourceIndex;
use tcpgw_core::model::PortRange;
use tcpgw_core::model::Word as _;

/// All resources, with indexes by app and binding.
#[derive(Debug, Clone)]
pub struct Registry {
    resources: BTreeMap<ResourceId, Arc<Resource>>,
    by_app: ResourceIndex,
    by_uuid: ResourceIndex,
    /// Apps that have bindings, and the resources that they are bound to.
    by_bound_app: BTreeMap<PlatformId, BTreeSet<ResourceId>>,
    removed: RemovedResources,
    ports: PortPool,
}

impl Registry {
    /// Creates the registry of these stored resources; `removed` is in the order of the removals.
    pub fn new(
        range: PortRange,
        quarantine: Duration,
        resources: impl IntoIterator<Item = Resource>,
        removed: impl IntoIterator<Item = Removed>,
        now: Duration,
    ) -> Self {
        let mut registry = Self {
            resources: BTreeMap::new(),
            by_app: ResourceIndex::default(),
            by_uuid: ResourceIndex::default(),
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

    /// Lets no port rest longer than the quarantine from now on, whatever the clock was when it was given back. Returns the removed
    /// resources whose ports count as given back now, so that this is written and does not begin anew.
    pub fn limit_rests(&mut self, now: Duration) -> Vec<Removed> {
        let limited = self.ports.limit_rests(now).into_iter();
        let mut limited: BTreeMap<NonZeroU16, Quarantined> = limited.map(|rest| (rest.port, rest)).collect();
        let mut rests = Vec::new();
        for removed in self.removed.order.iter_mut().rev() {
            if limited.is_empty() {
                break;
            }
            if let Some(rest) = limited.remove(&removed.port.port) {
                (removed.port, removed.at) = (rest, now);
                rests.push(removed.clone());
            }
        }
        rests
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
        let there = self.of_any(app).map(|resource| resource.id);
        let is_known = self.removed.has(&ResourceTarget::Any(app.clone()));
        let removed = self.removed.order.iter().rev().filter(|_| is_known);
        let removed = removed
            .filter(|removed| ComparedId::are_same(removed.dialect, &removed.app, app))
            .map(|removed| removed.id);
        there.into_iter().chain(removed).take(most).collect()
    }

    /// Returns the resource of a target.
    ///
    /// # Errors
    /// Fails with [`Refusal::NotFound`] or [`Refusal::Gone`] when the resource does not exist any more or never did,
    /// and with [`Refusal::Ambiguous`] when several resources have bindings of the app.
    pub fn find(&self, target: &ResourceTarget) -> Result<&Arc<Resource>, Refusal> {
        let found = match target {
            ResourceTarget::Id(dialect, id) => self.resources.get(id).filter(|one| one.dialect == *dialect),
            ResourceTarget::App(dialect, app) => self.of_dialect(*dialect, app),
            ResourceTarget::Any(app) => match self.of_app(app) {
                Some(resource) => Some(resource),
                None => self.of_bound_app(app)?.or_else(|| self.of_any(app)),
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
    /// Fails with [`Refusal`] when the rules of the add-on do not allow the request.
    pub fn decide(&self, request: &AddonRequest, facts: RegistryFacts<'_>) -> Result<Decision, Refusal> {
        let (event, target) = match request {
            AddonRequest::Provision(provision) => return self.provision(provision, facts),
            AddonRequest::ChangePlan(target, _) => (LifecycleEvent::ChangePlan, target),
            AddonRequest::Suspend(target) => (LifecycleEvent::Suspend, target),
            AddonRequest::Resume(target) => (LifecycleEvent::Resume, target),
            AddonRequest::Deprovision(target) => (LifecycleEvent::Deprovision, target),
            AddonRequest::Bind(target, ..) => (LifecycleEvent::Bind, target),
            AddonRequest::Unbind(target, _) => (LifecycleEvent::Unbind, target),
        };
        let resource = self.find(target)?;
        match (
            step(Existence::Known(resource.status), event, tombstones(resource.dialect)),
            request,
        ) {
            (LifecycleStep::SetPlan, AddonRequest::ChangePlan(_, plan)) if plan.leaves(resource, facts.plans) => {
                Ok(unchanged(resource))
            }
            (LifecycleStep::SetPlan, AddonRequest::ChangePlan(_, plan)) => {
                let plan = plan.to_give(facts.plans)?;
                Ok(edited(resource, |after| {
                    (after.plan, after.plan_id) = (plan.name.clone(), Some(plan.id.clone()));
                }))
            }
            (LifecycleStep::SetStatus(status), _) => Ok(edited(resource, |after| after.status = status)),
            (LifecycleStep::Remove, _) => Ok(self.remove(resource, facts.now)),
            (LifecycleStep::Bind, AddonRequest::Bind(_, _, plan @ WantedPlan::Id(_), _))
                if plan.to_give(facts.plans).is_err() && !plan.is_of(resource, facts.plans) =>
            {
                Err(Refusal::UnlistedPlan)
            }
            (LifecycleStep::Bind, AddonRequest::Bind(_, id, _, binding)) => bind(resource, id, binding),
            (LifecycleStep::Unbind, AddonRequest::Unbind(_, id)) if !resource.bindings.contains_key(id) => {
                Err(Refusal::NoBinding)
            }
            (LifecycleStep::Unbind, AddonRequest::Unbind(_, id)) => {
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
    pub fn with_status(resource: &Arc<Resource>, status: ResourceStatus) -> Option<ResourceChange> {
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
                self.by_app.insert(resource.dialect, &resource.app, resource.id);
                if let Some(uuid) = &resource.uuid {
                    self.by_uuid.insert(resource.dialect, uuid, resource.id);
                }
                for app in bound_apps(resource) {
                    self.by_bound_app.entry(app.clone()).or_default().insert(resource.id);
                }
                self.resources.insert(resource.id, Arc::clone(resource));
            }
            ResourceChange::Remove(removed) => {
                self.forget(removed.id);
                self.ports.take_back(removed.port, removed.at, now);
                self.removed.add(removed.clone());
            }
        }
    }

    fn forget(&mut self, id: ResourceId) {
        let Some(before) = self.resources.remove(&id) else {
            return;
        };
        self.by_app.remove(before.dialect, &before.app, id);
        if let Some(uuid) = &before.uuid {
            self.by_uuid.remove(before.dialect, uuid, id);
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

    /// Returns the resource of the app with these letters, of any dialect.
    fn of_app(&self, app: &PlatformId) -> Option<&Arc<Resource>> {
        self.resources.get(&self.by_app.exact(app)?)
    }

    /// Returns the resource of the app of this dialect.
    fn of_dialect(&self, dialect: Dialect, app: &PlatformId) -> Option<&Arc<Resource>> {
        let exact = self.of_app(app).filter(|one| one.dialect == dialect);
        exact.or_else(|| self.resources.get(&self.by_app.of_uuid(dialect, app)?))
    }

    /// Returns the resource of the app as an operator names it, whose letters may be those of a UUID in another case.
    fn of_any(&self, app: &PlatformId) -> Option<&Arc<Resource>> {
        let mut dialects = Dialect::WORDS.iter();
        self.of_app(app)
            .or_else(|| dialects.find_map(|(_, dialect)| self.of_dialect(*dialect, app)))
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

    fn provision(&self, wanted: &Provision, facts: RegistryFacts<'_>) -> Result<Decision, Refusal> {
        let by_uuid = wanted.uuid.as_ref().and_then(|uuid| {
            let exact = self.by_uuid.exact(uuid);
            exact.or_else(|| self.by_uuid.of_uuid(wanted.dialect, uuid))
        });
        let by_uuid = by_uuid.and_then(|id| self.resources.get(&id));
        let there = by_uuid
            .or_else(|| self.of_dialect(wanted.dialect, &wanted.app))
            .or_else(|| match wanted.dialect {
                Dialect::Local => self.of_any(&wanted.app),
                _ => self.of_app(&wanted.app),
            });
        let existence = match there {
            Some(resource) => Existence::Known(resource.status),
            None if self
                .removed
                .has(&ResourceTarget::App(wanted.dialect, wanted.app.clone())) =>
            {
                Existence::Removed
            }
            None => Existence::Unknown,
        };
        match (
            step(existence, LifecycleEvent::Provision, tombstones(wanted.dialect)),
            there,
        ) {
            (LifecycleStep::Compare, Some(resource)) => match difference(resource, wanted, facts.plans) {
                None => Ok(unchanged(resource)),
                Some(difference) => Err(Refusal::Conflict(difference)),
            },
            // One that an earlier version has made stays, and its repeated request is answered as before.
            (LifecycleStep::Create, _) if wanted.app.is_prefixed() => Err(Refusal::Prefixed),
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
                    status: ResourceStatus::Active,
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

fn bound_apps(resource: &Resource) -> impl Iterator<Item = &PlatformId> {
    resource.bindings.values().filter_map(|binding| binding.app.as_ref())
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
    let are_same = |one, other| ComparedId::are_same(there.dialect, one, other);
    let is_same_app = are_same(&there.app, &wanted.app);
    // As the request has written it.
    let app = if is_same_app { &wanted.app } else { &there.app };
    let plan = &there.plan;
    if of_other {
        return Some(format!(
            "app {app} has a resource already, provisioned through {}",
            there.dialect.word()
        ));
    }
    let is_other_uuid = wanted
        .uuid
        .as_ref()
        .is_some_and(|uuid| !there.uuid.as_ref().is_some_and(|there| are_same(there, uuid)));
    if !is_same_app || is_other_uuid {
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

#[cfg(test)]
mod tests;
