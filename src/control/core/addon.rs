//! The add-on's resources: what a request changes of one is one change of the store, together with its service.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::input::{Judged, ProviderSize, Unjudged, Vet};
use super::orders::{OnWritten, Order, PendingWrite, Undecided, by, refused};
use super::{Core, Now, Phase, Provider, ReplyKind};
use crate::addon::dialect::tcp_url;
use crate::addon::id::{PlanName, PlatformId, ResourceId, with_apps};
use crate::addon::settings::AddonSettings;
use crate::addon::{
    AddonOutcome, BusyPorts, Decision, Facts, PortRefusal, PortSet, PortUse, Refusal, Registry, Request, Resource,
    ResourceChange, ServiceState, Status, Target,
};
use crate::control::membership::{Membership, Name};
use crate::control::obstacle::ObstacleKind;
use crate::control::request::{
    AddonOrder, AddonRefused, AddonView, AppView, ApplyOptions, BindingView, Refused, Reply, ResourceList, ResourceView,
};
use crate::control::storage::Write;
use crate::store::last::{Last, LastResources, MOST_REMOVED};
use crate::store::{By, LoadedResources, StoreError};
use tcpgw_core::model::PortRange;
use tcpgw_core::model::{self, Backend, BackendState, Edits, Problem, Problems, Refusal as OnEmpty, Service};
use tcpgw_core::problem::{Kind, Severity};

/// Between two looks whether ports run out.
const BETWEEN_PORTS: Duration = Duration::from_secs(2);
/// Resources of one app that are looked for in what is past.
const MOST_OF_APP: usize = 100;
/// Ports on which local programs turn out to listen that one request skips.
const MOST_SKIPPED: usize = 64;

/// What is said of a resource while the store cannot be read.
const DOUBT: &str = "the store cannot be read: the resources are as they were known last, so that one that was changed in the last \
                     second before may be other, and no change is taken; `tcpgw status` says what the store needs";

/// The resources, and what is configured for them.
#[derive(Debug)]
pub(super) struct Addon {
    /// `None`: the add-on is off. Resources that there are keep their ports and services.
    settings: Option<AddonSettings>,
    pub(super) registry: Registry,
    /// Services of suspended resources, as they are served meanwhile.
    suspended: BTreeMap<Name, Arc<Service>>,
    /// Apps of resources that were known when the daemon before this one ended, which the store may not hold.
    known_last: BTreeMap<ResourceId, PlatformId>,
    /// Ports on which local programs listen, as the request found that is decided next.
    skipped: BTreeSet<NonZeroU16>,
    /// When it was judged whether ports run out.
    ports_judged: Option<Instant>,
    /// The resources are those of the file of last services, because the store cannot be read.
    pub(super) is_copy: bool,
    /// They were put into a new store from that file.
    pub(super) is_restored: bool,
    /// Changes of them that the record tells of, and that new store does not.
    pub(super) unsaved: Vec<ResourceChange>,
}

/// What an accepted request makes, and who waits for it.
pub(super) struct Provisioned {
    pub(super) change: Option<ResourceChange>,
    outcome: AddonOutcome,
    reply: Reply<Result<AddonOutcome, AddonRefused>>,
}

impl Addon {
    pub(super) fn new(settings: Option<AddonSettings>) -> Self {
        let (range, quarantine) = Self::ports(settings.as_ref());
        Self {
            registry: Registry::new(range, quarantine, [], [], std::time::Duration::ZERO),
            suspended: BTreeMap::new(),
            known_last: BTreeMap::new(),
            skipped: BTreeSet::new(),
            ports_judged: None,
            is_copy: false,
            is_restored: false,
            unsaved: Vec::new(),
            settings,
        }
    }

    fn ports(settings: Option<&AddonSettings>) -> (PortRange, std::time::Duration) {
        settings.map_or((PortRange::DEFAULT, std::time::Duration::ZERO), |settings| {
            (settings.ports, settings.quarantine)
        })
    }

    pub(super) fn configure(&mut self, settings: Option<AddonSettings>) {
        let (range, quarantine) = Self::ports(settings.as_ref());
        self.registry.configure(range, quarantine);
        self.settings = settings;
    }

    /// What the store holds. Returns what was known before.
    pub(super) fn load(&mut self, loaded: LoadedResources, now: Now) -> Registry {
        let (range, quarantine) = Self::ports(self.settings.as_ref());
        let registry = Registry::new(range, quarantine, loaded.resources, loaded.removed, now.unix);
        std::mem::replace(&mut self.registry, registry)
    }

    /// Keeps the apps of resources that were known last, for services that stay without their resource.
    pub(super) fn remember_apps(&mut self, last: &Last) {
        let resources = last.resources.iter();
        let there = resources.clone().flat_map(|last| &last.resources);
        let there = there.map(|resource| (resource.id, resource.app.clone()));
        let removed = resources.flat_map(|last| &last.removed);
        let removed = removed.map(|removed| (removed.id, removed.app.clone()));
        self.known_last = last.apps.clone().into_iter().chain(removed).chain(there).collect();
    }

    /// The app that a resource is for, or was for.
    fn app_of(&self, id: ResourceId) -> Option<&PlatformId> {
        self.registry.app_of(id).or_else(|| self.known_last.get(&id))
    }

    fn resource(&self, service: &str) -> Option<&Arc<Resource>> {
        self.registry.get(ResourceId::of_service(service)?)
    }

    /// The service as it is served: new connections of a suspended one are reset.
    pub(super) fn served<'s>(&'s self, service: &'s Arc<Service>) -> &'s Arc<Service> {
        self.suspended.get(&service.name).unwrap_or(service)
    }

    /// Learns how services are now, before they are served.
    pub(super) fn learn<'s>(&mut self, put: impl IntoIterator<Item = &'s Arc<Service>>) {
        for service in put {
            let is_suspended = self
                .resource(&service.name)
                .is_some_and(|resource| resource.status == Status::Suspended);
            if is_suspended {
                self.suspended
                    .insert(service.name.clone(), Arc::new(suspended(service)));
            } else {
                self.suspended.remove(&service.name);
            }
        }
    }

    /// Services of suspended resources.
    pub(super) fn suspended_names(&self) -> impl Iterator<Item = &Name> {
        self.suspended.keys()
    }

    /// Whether the resource of a service is known.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.resource(service).is_some()
    }

    /// Whether a service is not served because its resource is suspended.
    pub(super) fn is_suspended(&self, name: &str) -> bool {
        self.suspended.contains_key(name)
    }

    pub(super) fn forget(&mut self, gone: &[Name]) {
        for name in gone {
            self.suspended.remove(name);
        }
    }
}

/// New connections get a reset whatever `on_empty` says; established ones drain. Nobody is shown an address of the gateway, so
/// that one that it does not have is no part of what is served.
fn suspended(service: &Service) -> Service {
    Service {
        backends: Vec::new(),
        source_addresses: BTreeSet::new(),
        on_empty: OnEmpty::Reset,
        ..service.clone()
    }
}

impl Core {
    /// Returns a resource.
    ///
    /// # Errors
    /// [`AddonRefused`]: there is none, or nobody knows.
    pub fn resource(&self, target: &Target) -> Result<Arc<Resource>, AddonRefused> {
        let doubt = self.doubt_about_resources().map_err(AddonRefused::Daemon)?;
        match self.addon.registry.find(target) {
            Ok(resource) => Ok(Arc::clone(resource)),
            Err(refusal) if doubt.is_none() => Err(refusal.into()),
            // One that is not known may be there.
            Err(refusal) => self
                .knows_resources()
                .map_or_else(|why| Err(AddonRefused::Daemon(why)), |()| Err(refusal.into())),
        }
    }

    /// Returns the app that a service of the add-on belongs to, or belonged to.
    pub(super) fn app_of_service(&self, service: &str) -> Option<&PlatformId> {
        self.addon.app_of(ResourceId::of_service(service)?)
    }

    /// Returns the apps of those of these services that are, or were, of the add-on.
    pub fn apps_of_services(&self, services: &BTreeSet<Name>) -> BTreeMap<Name, PlatformId> {
        let known = services
            .iter()
            .filter_map(|service| Some((service.clone(), self.app_of_service(service)?.clone())));
        known.collect()
    }

    /// Returns the services of an app: that of its resource, and then those of the resources that it had, the newest first.
    ///
    /// # Errors
    /// [`AddonRefused`]: there are none, or nobody knows.
    pub fn services_of_app(&self, app: &PlatformId) -> Result<Vec<Name>, AddonRefused> {
        let there = match self.resource(&Target::Any(app.clone())) {
            Ok(resource) => Some(resource.id),
            Err(AddonRefused::Resource(Refusal::Gone)) => None,
            Err(refused) => return Err(refused),
        };
        let had = self.addon.registry.all_of_app(app, MOST_OF_APP);
        let had = had.into_iter().filter(|id| Some(*id) != there);
        Ok(there.into_iter().chain(had).map(|id| id.service().into()).collect())
    }

    /// Returns a problem whose words say of which apps the add-on's services are.
    pub(super) fn with_apps(&self, problem: tcpgw_core::problem::Problem) -> tcpgw_core::problem::Problem {
        let message = self.naming_apps(&problem.message);
        tcpgw_core::problem::Problem { message, ..problem }
    }

    /// Returns a text that says of which apps the add-on's services in it are.
    pub(super) fn naming_apps(&self, text: &str) -> String {
        with_apps(text, |id| self.addon.app_of(id).cloned())
    }

    /// Why what is known of resources may be out of date; `None` where it is what the store holds.
    ///
    /// # Errors
    /// Nothing is known of them.
    fn doubt_about_resources(&self) -> Result<Option<String>, Refused> {
        match self.knows_resources() {
            Ok(()) => Ok(None),
            Err(refused) if self.is_store_lost() && !self.addon.is_copy => Err(refused),
            Err(_) => Ok(Some(DOUBT.to_owned())),
        }
    }

    /// The store cannot be read: its resources are known from the file of last services.
    pub(super) fn copy_resources(&mut self, copy: &LastResources, now: Now) {
        let loaded = LoadedResources {
            resources: copy
                .resources
                .iter()
                .map(|resource| Resource::clone(resource))
                .collect(),
            removed: copy.removed.clone(),
        };
        drop(self.addon.load(loaded, now));
        self.addon.is_copy = true;
    }

    /// What is to be kept beside the store; `None` where it is not known.
    pub(super) fn resources_to_remember(&self) -> Option<LastResources> {
        let is_known = !self.is_store_lost() || self.addon.is_copy;
        is_known.then(|| LastResources {
            resources: self.resources(),
            removed: self.addon.registry.removed(MOST_REMOVED).cloned().collect(),
        })
    }

    /// Returns the apps of services whose resources nothing else keeps.
    pub(super) fn apps_to_remember(&self) -> BTreeMap<ResourceId, PlatformId> {
        let ids = self
            .said()
            .filter_map(|service| ResourceId::of_service(&service.name))
            .filter(|id| self.addon.registry.app_of(*id).is_none());
        ids.filter_map(|id| Some((id, self.addon.known_last.get(&id)?.clone())))
            .collect()
    }

    /// Returns what the page of a resource shows.
    ///
    /// # Errors
    /// [`AddonRefused`]: there is none, or nobody knows.
    pub fn app(&self, id: ResourceId, now: Now) -> Result<AppView, AddonRefused> {
        self.knows_resources().map_err(AddonRefused::Daemon)?;
        let resource = self.addon.registry.get(id).cloned().ok_or(Refusal::NotFound)?;
        let name = id.service();
        let concerns =
            |problem: &&tcpgw_core::problem::Problem| problem.service.as_ref().is_none_or(|service| *service == name);
        let errors = self
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        Ok(AppView {
            resource,
            service: self.service(&name, now),
            served: self.membership.serving().get(name.as_str()).cloned(),
            is_torn_down: self.phase == Phase::TornDown,
            errors: errors.filter(concerns).map(|problem| problem.kind).collect(),
            mark: self.mark(),
        })
    }

    /// Returns all resources.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.addon.registry.iter().cloned().collect()
    }

    /// Returns a resource, as the operator sees it.
    ///
    /// # Errors
    /// [`AddonRefused`]: there is none, or nobody knows.
    pub fn resource_view(&self, target: &Target) -> Result<ResourceView, AddonRefused> {
        self.resource(target).map(|resource| self.view_of(&resource))
    }

    /// Returns all resources by id, as the operator sees them.
    ///
    /// # Errors
    /// [`AddonRefused`]: nobody knows.
    pub fn resource_list(&self, now: Now) -> Result<ResourceList, AddonRefused> {
        self.doubt_about_resources().map_err(AddonRefused::Daemon)?;
        let resources = self.addon.registry.iter();
        Ok(ResourceList {
            resources: resources.map(|resource| self.view_of(resource)).collect(),
            ports: self.port_use(now),
        })
    }

    fn port_use(&self, now: Now) -> Option<PortUse> {
        self.addon.settings.as_ref()?;
        Some(self.addon.registry.port_use(&self.ports_of_others(), now.unix))
    }

    /// Judges from time to time whether ports run out: some come back with time alone.
    pub(super) fn judge_ports(&mut self, now: Now) {
        let judged = self.addon.ports_judged;
        if judged.is_some_and(|at| now.instant.saturating_duration_since(at) < BETWEEN_PORTS) {
            return;
        }
        self.addon.ports_judged = Some(now.instant);
        let usage = self.port_use(now).filter(|_| self.doubt_about_resources().is_ok());
        match usage.filter(PortUse::is_scarce) {
            Some(usage) => self.report(Kind::AddonPorts, usage.warning()),
            None => self.problems.resolve(Kind::AddonPorts),
        }
    }

    fn view_of(&self, resource: &Resource) -> ResourceView {
        let settings = self.addon.settings.as_ref();
        let service = resource.id.service();
        let bindings = resource.bindings.iter();
        ResourceView {
            id: resource.id,
            app: resource.app.clone(),
            dialect: resource.dialect,
            plan: resource.plan.clone(),
            port: resource.port,
            url: settings.map(|settings| tcp_url(&settings.host, resource.port)),
            state: self.addon_state(&service).unwrap_or(ServiceState::Waiting),
            service,
            created: resource.created.as_secs(),
            warning: self.doubt_about_resources().ok().flatten(),
            bindings: bindings
                .map(|(id, binding)| BindingView {
                    id: id.clone(),
                    app: binding.app.clone(),
                })
                .collect(),
        }
    }

    /// Returns how a service is that belongs to a resource.
    pub(super) fn addon_state(&self, service: &str) -> Option<ServiceState> {
        let resource = self.addon.resource(service)?;
        let stored = self.api.get(service);
        // What is stored is what was ordered: a backend that fails its probes is active there.
        let is_to_serve = |backend: &Backend| backend.state == BackendState::Active;
        let has_backends = stored.is_some_and(|stored| stored.service.backends.iter().any(is_to_serve));
        Some(match resource.status {
            Status::Suspended => ServiceState::Suspended,
            Status::Active if has_backends => ServiceState::Active,
            Status::Active => ServiceState::Waiting,
        })
    }

    pub(super) fn addon_states(&self) -> BTreeMap<Name, ServiceState> {
        let names = self.addon.registry.iter().map(|resource| resource.id.service());
        names
            .filter_map(|name| Some((name.as_str().into(), self.addon_state(&name)?)))
            .collect()
    }

    /// Returns the resource that a service belongs to.
    pub(super) fn addon_view(&self, service: &str) -> Option<AddonView> {
        let resource = self.addon.resource(service)?;
        Some(AddonView {
            id: resource.id,
            app: resource.app.clone(),
            plan: resource.plan.clone(),
            state: self.addon_state(service)?,
        })
    }

    /// Whether the provider API is served as it should be; else why not.
    pub fn provider_api(&mut self, trouble: Option<String>) {
        match trouble {
            Some(why) => self.report(
                Kind::ProviderApi,
                format!("the add-on's provider API is not served as configured: {why}"),
            ),
            None => self.problems.resolve(Kind::ProviderApi),
        }
    }

    pub(super) fn take_addon(
        &mut self,
        order: AddonOrder,
        reply: Reply<Result<AddonOutcome, AddonRefused>>,
        vet: &mut Vet<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let mut skipped = std::mem::take(&mut self.addon.skipped);
        let known = self.judges_singly().and_then(|()| self.knows_resources());
        let decided = known.map_err(|refused| Undone::Refused(AddonRefused::Daemon(refused)));
        let decided = decided.and_then(|()| self.decide_addon(&order, &mut skipped, vet, now));
        let (decision, edits, judged) = match decided {
            Ok(decided) => decided,
            Err(Undone::Pending) => {
                self.addon.skipped = skipped;
                return Err(Undecided(Box::new(Order::Addon(order, reply))));
            }
            Err(Undone::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let (accepted, by) = PendingWrite::of_addon(&order, decision, edits, judged, reply);
        Ok(self.write(accepted, by, now))
    }

    /// What a request comes to without a look at the gateway, beside others that have these ports. `None`: it is refused, or changes
    /// nothing.
    pub(super) fn decide_beside(
        &self,
        order: &AddonOrder,
        others: impl Iterator<Item = NonZeroU16>,
        now: Now,
    ) -> Option<(Decision, Edits)> {
        let settings = self.addon.settings.as_ref()?;
        let mut busy = self.ports_of_others();
        busy.others.extend(others);
        let facts = Facts {
            plans: &settings.plans,
            busy: &busy,
            random: order.random,
            now: now.unix,
        };
        let decision = self.addon.registry.decide(&order.request, facts).ok()?;
        let edits = self.edits_of(Some(decision.change.as_ref()?), settings).ok()?;
        Some((decision, edits))
    }

    fn decide_addon(
        &self,
        order: &AddonOrder,
        skipped: &mut BTreeSet<NonZeroU16>,
        vet: &mut Vet<'_>,
        now: Now,
    ) -> Result<(Decision, Edits, Judged), Undone> {
        let settings = self.addon.settings.as_ref().ok_or(AddonRefused::Off)?;
        let takes_port = matches!(order.request, Request::Provision(_));
        let mut busy = takes_port.then(|| self.ports_of_others());
        let nothing = PortSet::default();
        while skipped.len() <= MOST_SKIPPED {
            if let Some(busy) = &mut busy {
                busy.others.extend(skipped.iter().copied());
            }
            let facts = Facts {
                plans: &settings.plans,
                busy: busy.as_ref().map_or(&nothing as &dyn BusyPorts, |busy| busy),
                random: order.random,
                now: now.unix,
            };
            let decision = self.addon.registry.decide(&order.request, facts)?;
            let edits = self.edits_of(decision.change.as_ref(), settings)?;
            let judged = self.judge_resource(&edits, vet)?;
            let (Some(ResourceChange::Put(resource)), Request::Provision(_)) = (&decision.change, &order.request)
            else {
                return Ok((decision, edits, judged));
            };
            let mut obstacles = judged.obstacles.values().flatten();
            match obstacles.next() {
                None => return Ok((decision, edits, judged)),
                Some(obstacle) if obstacle.kind == ObstacleKind::PortTaken => skipped.insert(resource.port),
                // What is not served is not provisioned.
                Some(obstacle) => return Err(AddonRefused::Daemon(Refused::Refused(obstacle.reason())).into()),
            };
        }
        Err(AddonRefused::from(PortRefusal::Listening(MOST_SKIPPED)).into())
    }

    /// Ports that services have which are no resources', and those that are about to be free.
    fn ports_of_others(&self) -> PortsOfOthers<'_> {
        // While it is in use the membership has all that is said, but for what is held back.
        let is_in_use = self.phase == Phase::Running;
        let others = (!is_in_use || !self.held_back.is_empty()).then(|| {
            let others = self.said();
            others.filter(|service| !is_in_use || self.held_back.contains(&service.name))
        });
        PortsOfOthers {
            membership: &self.membership,
            others: others.into_iter().flatten().map(|service| service.port).collect(),
        }
    }

    fn judge_resource(&self, edits: &Edits, vet: &mut Vet<'_>) -> Result<Judged, Undone> {
        if edits.is_empty() {
            return Ok(Judged::default());
        }
        let standing = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: 1,
        };
        let options = ApplyOptions {
            allow_empty: true,
            hold_back: true,
            ..ApplyOptions::default()
        };
        self.judge(edits, standing, options, vet)
            .map_err(|unjudged| match unjudged {
                Unjudged::Pending => Undone::Pending,
                Unjudged::Refused(refused) => AddonRefused::Daemon(refused).into(),
            })
    }

    /// What a change of a resource is for its service.
    fn edits_of(&self, change: Option<&ResourceChange>, settings: &AddonSettings) -> Result<Edits, AddonRefused> {
        let mut edits = Edits::default();
        match change {
            None => {}
            Some(ResourceChange::Remove(removed)) => {
                let name: Name = removed.id.service().into();
                if self.api.get(&name).is_some() {
                    edits.gone.push(name);
                }
            }
            Some(ResourceChange::Put(resource)) => {
                let name = resource.id.service();
                let before = self.addon.registry.get(resource.id);
                let there = self.api.get(&name).map(|stored| &*stored.service);
                let is_same =
                    before.is_some_and(|before| before.plan == resource.plan && before.status == resource.status);
                if is_same && there.is_some() {
                    return Ok(edits);
                }
                let plan = |plan: &PlanName| settings.plans.by_name(plan.as_str());
                // A plan that was taken out of the configuration stays what it was for those who have it.
                let limit = plan(&resource.plan).map(|plan| plan.limit);
                let service = if let Some(there) = there {
                    Service {
                        limit: limit.or(there.limit),
                        ..there.clone()
                    }
                } else {
                    let text = json!({"name": name, "port": resource.port, "backends": []}).to_string();
                    let service = model::parse_service(text.as_bytes());
                    let service = service.map_err(|problems| AddonRefused::Daemon(Refused::Invalid(problems)))?;
                    Service { limit, ..service }
                };
                edits.put.push(Arc::new(service));
            }
        }
        Ok(edits)
    }

    /// The change of a resource is on the disk.
    pub(super) fn provisioned(&mut self, provisioned: Provisioned, now: Now) -> ReplyKind {
        let Provisioned { change, outcome, reply } = provisioned;
        if let Some(change) = &change {
            self.addon.registry.commit(change, now.unix);
            if let ResourceChange::Put(resource) = change {
                self.deploys.look_at(&resource.id.service());
            }
            self.due.remember(now.instant);
        }
        ReplyKind::Addon(reply, Box::new(outcome))
    }

    /// Whether somebody may edit services in that way: the port, the limit and the end of a resource's are its plan's.
    pub(super) fn judge_resources(&self, edits: &Edits) -> Result<(), Refused> {
        let mut problems = Vec::new();
        let mut refuse = |name: &str, message: String| {
            problems.push(Problem {
                place: format!("service \"{name}\""),
                message,
            });
        };
        for name in &edits.gone {
            if let Some(resource) = self.addon.resource(name) {
                let app = &resource.app;
                refuse(
                    name,
                    format!("belongs to the add-on of app {app}: `tcpgw addon deprovision {app}` removes both"),
                );
            }
        }
        for service in &edits.put {
            let Some(resource) = self.addon.resource(&service.name) else {
                continue;
            };
            let there = self.api.get(&service.name).map(|stored| &stored.service);
            let keeps = there.is_none_or(|there| {
                there.limit == service.limit && there.port == service.port && there.listen == service.listen
            });
            if !keeps {
                let app = &resource.app;
                refuse(
                    &service.name,
                    format!(
                        "belongs to the add-on of app {app}: its port, addresses and limit follow the plan; `tcpgw addon plan {app} PLAN` changes that"
                    ),
                );
            }
        }
        problems
            .into_iter()
            .collect::<Problems>()
            .into_result()
            .map_err(Refused::Invalid)
    }

    /// Adds to edits the services of resources that are suspended, or resumed, since `before`.
    pub(super) fn put_resumed(&self, edits: &mut Edits, before: &Registry) {
        let status = |registry: &Registry, id| registry.get(id).map(|resource| resource.status);
        let resources = self.addon.registry.iter();
        let other = resources.filter(|resource| status(before, resource.id) != Some(resource.status));
        for resource in other {
            let name = resource.id.service();
            let is_there = edits.put.iter().any(|service| *service.name == *name);
            if let Some(stored) = self.api.get(&name).filter(|_| !is_there) {
                edits.put.push(Arc::clone(&stored.service));
            }
        }
    }

    /// Leaves out of edits what resources' services would lose by a state that does not name them.
    pub(super) fn keep_resources(&self, edits: &mut Edits) {
        edits.gone.retain(|name| self.addon.resource(name).is_none());
    }

    /// Whether a service's resource is suspended.
    pub(super) fn judge_suspended(&self, name: &str) -> Result<(), Refused> {
        match self.addon.resource(name) {
            Some(resource) if resource.status == Status::Suspended => Err(Refused::Refused(format!(
                "the add-on of app {} is suspended; resume it first",
                resource.app
            ))),
            _ => Ok(()),
        }
    }
}

/// Ports that services have which are no resources', asked one by one: there may be ten thousand services.
#[derive(Debug)]
struct PortsOfOthers<'c> {
    membership: &'c Membership,
    /// Ports that the membership does not know.
    others: PortSet,
}

impl BusyPorts for PortsOfOthers<'_> {
    fn has(&self, port: NonZeroU16) -> bool {
        self.others.contains(port) || self.membership.has_port(port)
    }
}

/// Why a request is not carried out.
enum Undone {
    /// The gateway is being looked at: it is decided later.
    Pending,
    /// It is refused.
    Refused(AddonRefused),
}

impl<R: Into<AddonRefused>> From<R> for Undone {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

impl PendingWrite {
    /// What a request about a resource comes to, and whose it is.
    pub(super) fn of_addon(
        order: &AddonOrder,
        decision: Decision,
        edits: Edits,
        judged: Judged,
        reply: Reply<Result<AddonOutcome, AddonRefused>>,
    ) -> (Self, By) {
        let Decision { change, outcome } = decision;
        let accepted = Self {
            edits,
            cause: format!(
                "{} of app {} (uid {})",
                order.what(),
                outcome.resource().app,
                order.by.uid
            ),
            drain: None,
            warnings: judged.warnings,
            obstacles: judged.obstacles,
            then: OnWritten::Addon(Provisioned { change, outcome, reply }),
        };
        (accepted, by(order.by, &order.what()))
    }
}

impl Provisioned {
    pub(super) fn refuse(self, error: &StoreError) {
        drop(self.reply.send(Err(AddonRefused::Daemon(refused(error)))));
    }
}

impl From<Refusal> for AddonRefused {
    fn from(refusal: Refusal) -> Self {
        Self::Resource(refusal)
    }
}

impl From<PortRefusal> for AddonRefused {
    fn from(refusal: PortRefusal) -> Self {
        Self::Resource(refusal.into())
    }
}
