//! Resources of the add-on. A change of a resource and of its service is one change of the store.
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::amendments::Amendments;
use super::{Core, Now};
use crate::addon::id::{PlatformId, ResourceId};
use crate::addon::settings::{AddonSettings, MAX_QUARANTINE};
use crate::addon::{PortUse, Registry, Resource, ResourceStatus};
use crate::control::name::Name;
use crate::control::request::Refused;
use crate::store::LoadedResources;
use crate::store::last_services::{LastResources, LastServices, MOST_REMOVED};
use tcpgw_core::model::PortRange;
use tcpgw_core::model::{Edits, InputProblem, InputProblems, PacketRefusal, Service};
use tcpgw_core::problem::ProblemKind;
use tcpgw_core::words::count;

/// Beginning of what is said of resources whose add-on is off.
const NO_SECTION: &str = "the configuration has no [addon]";
/// Interval between checks whether ports run out.
const BETWEEN_PORTS: Duration = Duration::from_secs(2);

/// Ports on which a request found local programs count as theirs for so long, unless a later request finds otherwise.
const LISTENED: Duration = Duration::from_secs(3600);

/// Warning with a resource while the store cannot be read.
const OUTDATED_RESOURCES: &str = "the store cannot be read: the resources are as they were known last, so that one that was changed in the last \
                     second before may be other, and no change is taken; `tcpgw status` says what the store needs";

/// The resources, and their configuration.
#[derive(Debug)]
pub(super) struct Addon {
    /// Settings; `None`: the add-on is off. Existing resources keep their ports and services.
    pub(super) settings: Option<AddonSettings>,
    pub(super) registry: Registry,
    /// Services of suspended resources, as they are served meanwhile.
    suspended: BTreeMap<Name, Arc<Service>>,
    /// Apps of resources that the daemon before this one knew and that the store may not hold.
    known_last: BTreeMap<ResourceId, PlatformId>,
    /// Ports on which local programs listen, found by the request that is decided next.
    pub(super) skipped: BTreeSet<NonZeroU16>,
    /// Ports on which requests found local programs, and when they did last.
    listened: BTreeMap<NonZeroU16, Instant>,
    /// Time of the last check whether ports run out.
    ports_judged: Option<Instant>,
    /// Whether the resources come from the file of last services, because the store cannot be read.
    pub(super) is_copy: bool,
    /// Whether the resources were put into a new store from that file.
    pub(super) is_restored: bool,
    /// Changes of resources that no request ordered and that the store does not have yet.
    pub(super) amendments: Amendments,
}

impl Addon {
    pub(super) fn new(settings: Option<AddonSettings>) -> Self {
        let (range, quarantine) = Self::ports(settings.as_ref());
        Self {
            registry: Registry::new(range, quarantine, [], [], Duration::ZERO),
            suspended: BTreeMap::new(),
            known_last: BTreeMap::new(),
            skipped: BTreeSet::new(),
            listened: BTreeMap::new(),
            ports_judged: None,
            is_copy: false,
            is_restored: false,
            amendments: Amendments::default(),
            settings,
        }
    }

    /// Returns whether there are resources, and the configuration has no section for them.
    fn is_missed(&self) -> bool {
        self.settings.is_none() && self.registry.iter().len() > 0
    }

    /// Returns the range and the quarantine of ports. A port that is given back while the add-on is off is in
    /// quarantine for the time that is configured next.
    pub(super) fn ports(settings: Option<&AddonSettings>) -> (PortRange, Duration) {
        settings.map_or((PortRange::DEFAULT, MAX_QUARANTINE), |settings| {
            (settings.ports, settings.quarantine)
        })
    }

    pub(super) fn configure(&mut self, settings: Option<AddonSettings>, now: Now) {
        let (range, quarantine) = Self::ports(settings.as_ref());
        self.registry.configure(range, quarantine);
        self.settings = settings;
        self.name_plans(now);
    }

    /// Gives plans the names that the configuration has for them, and the ids of those of which resources know the name only, so that
    /// later changes of names find them.
    fn name_plans(&mut self, now: Now) {
        let Some(settings) = &self.settings else { return };
        for change in self.registry.with_plans_named(&settings.plans) {
            self.registry.commit(&change, now.unix);
            self.amendments.named.insert(change.id());
        }
    }

    /// Takes note of the ports that a request for any port has skipped because of local programs, and of the one that it got.
    pub(super) fn learn_listened(&mut self, skipped: &BTreeSet<NonZeroU16>, given: Option<NonZeroU16>, now: Now) {
        // Ports are tried in their order.
        if let Some(given) = given {
            self.listened = self.listened.split_off(&given);
            self.listened.remove(&given);
        }
        self.listened.extend(skipped.iter().map(|port| (*port, now.instant)));
    }

    /// Returns the ports that local programs have, as far as it is known.
    pub(super) fn listened(&self, now: Now) -> impl Iterator<Item = NonZeroU16> {
        let is_known = move |at: Instant| now.instant.saturating_duration_since(at) < LISTENED;
        let listened = self.listened.iter().filter(move |(_, at)| is_known(**at));
        listened.map(|(port, _)| *port)
    }

    /// Replaces the resources by those of the store. Returns the resources known before.
    pub(super) fn load(&mut self, loaded: LoadedResources, now: Now) -> Registry {
        let (range, quarantine) = Self::ports(self.settings.as_ref());
        let registry = Registry::new(range, quarantine, loaded.resources, loaded.removed, now.unix);
        let before = std::mem::replace(&mut self.registry, registry);
        self.amendments.named.clear();
        self.name_plans(now);
        before
    }

    /// Keeps the apps of resources that were known last, for services that stay without their resource.
    pub(super) fn remember_apps(&mut self, last: &LastServices) {
        let resources = last.resources.iter();
        let there = resources.clone().flat_map(|last| &last.resources);
        let there = there.map(|resource| (resource.id, resource.app.clone()));
        let removed = resources.flat_map(|last| &last.removed);
        let removed = removed.map(|removed| (removed.id, removed.app.clone()));
        self.known_last = last.apps.clone().into_iter().chain(removed).chain(there).collect();
    }

    /// Returns the app that a resource belongs to, or belonged to.
    pub(super) fn app_of(&self, id: ResourceId) -> Option<&PlatformId> {
        self.registry.app_of(id).or_else(|| self.known_last.get(&id))
    }

    pub(super) fn resource(&self, service: &str) -> Option<&Arc<Resource>> {
        self.registry.get(ResourceId::of_service(service)?)
    }

    /// Returns the service as it is served: one of a suspended resource resets new connections.
    pub(super) fn served<'s>(&'s self, service: &'s Arc<Service>) -> &'s Arc<Service> {
        self.suspended.get(&service.name).unwrap_or(service)
    }

    /// Updates the list of suspended services for changed services, before they are served.
    pub(super) fn learn<'s>(&mut self, put: impl IntoIterator<Item = &'s Arc<Service>>) {
        for service in put {
            let is_suspended = self
                .resource(&service.name)
                .is_some_and(|resource| resource.status == ResourceStatus::Suspended);
            if is_suspended {
                self.suspended
                    .insert(service.name.clone(), Arc::new(suspended(service)));
            } else {
                self.suspended.remove(&service.name);
            }
        }
    }

    /// Returns the names of services of suspended resources.
    pub(super) fn suspended_names(&self) -> impl Iterator<Item = &Name> {
        self.suspended.keys()
    }

    /// Returns whether the service belongs to a known resource.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.resource(service).is_some()
    }

    /// Returns whether the service is not served because its resource is suspended.
    pub(super) fn is_suspended(&self, name: &str) -> bool {
        self.suspended.contains_key(name)
    }

    pub(super) fn forget(&mut self, gone: &[Name]) {
        for name in gone {
            self.suspended.remove(name);
        }
    }
}

/// Returns the service of a suspended resource as it is served: new connections get a reset whatever `on_empty` says,
/// established ones drain. `source_addresses` are left out, so that one that the gateway does not have cannot prevent
/// this.
pub(super) fn suspended(service: &Service) -> Service {
    Service {
        backends: Vec::new(),
        source_addresses: BTreeSet::new(),
        on_empty: PacketRefusal::Reset,
        ..service.clone()
    }
}

impl Core {
    /// Returns the app that a service of the add-on belongs to, or belonged to.
    pub(super) fn app_of_service(&self, service: &str) -> Option<&PlatformId> {
        self.addon.app_of(ResourceId::of_service(service)?)
    }

    /// Returns a warning when the resources may be out of date; `None` when they are those of the store.
    ///
    /// # Errors
    /// Fails when no resources are known.
    pub(super) fn warning_about_resources(&self) -> Result<Option<String>, Refused> {
        match self.knows_resources() {
            Ok(()) => Ok(None),
            Err(refused) if self.is_store_lost() && !self.addon.is_copy => Err(refused),
            Err(_) => Ok(Some(OUTDATED_RESOURCES.to_owned())),
        }
    }

    /// Uses the resources of the file of last services, because the store cannot be read.
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

    /// Returns the resources to keep beside the store; `None` when they are not known.
    pub(super) fn resources_to_remember(&self) -> Option<LastResources> {
        let is_known = !self.is_store_lost() || self.addon.is_copy;
        is_known.then(|| LastResources {
            resources: self.resources(),
            removed: self.addon.registry.removed(MOST_REMOVED).cloned().collect(),
        })
    }

    /// Returns the apps of services whose resources are in no other place.
    pub(super) fn apps_to_remember(&self) -> BTreeMap<ResourceId, PlatformId> {
        let ids = self
            .defined()
            .filter_map(|service| ResourceId::of_service(&service.name))
            .filter(|id| self.addon.registry.app_of(*id).is_none());
        ids.filter_map(|id| Some((id, self.addon.known_last.get(&id)?.clone())))
            .collect()
    }

    /// Checks at intervals whether ports run out; some become free with time alone.
    pub(super) fn judge_ports(&mut self, now: Now) {
        let judged = self.addon.ports_judged;
        if judged.is_some_and(|at| now.instant.saturating_duration_since(at) < BETWEEN_PORTS) {
            return;
        }
        self.addon.ports_judged = Some(now.instant);
        if self.addon.settings.is_some() {
            let rests = self.addon.registry.limit_rests(now.unix);
            self.addon.amendments.rest(rests);
        }
        let usage = self.port_use(now).filter(|_| self.warning_about_resources().is_ok());
        match usage.filter(PortUse::is_scarce) {
            Some(usage) => self.report(ProblemKind::AddonPorts, usage.warning()),
            None => self.problems.resolve(ProblemKind::AddonPorts),
        }
    }

    /// Takes the configured section `[addon]` when the provider API is served by it. If it cannot be (`served`: why not), the section
    /// before stays in use as a whole, which is reported: what the provider API offers and what is decided here are of one section.
    pub fn provider_api(&mut self, served: Result<(), String>, now: Now) {
        match served {
            Ok(()) => {
                if self.addon.settings != self.config.addon {
                    self.addon.configure(self.config.addon.clone(), now);
                    // Services may be held back for the listener that was moved.
                    self.addresses_changed(now);
                }
                if !self.is_addon_missed() {
                    self.problems.resolve(ProblemKind::ProviderApi);
                }
            }
            Err(why) => {
                let stays = match &self.addon.settings {
                    settings if *settings == self.config.addon => "",
                    Some(_) => "; all of [addon] stays as it was before: plans, ports and host, too",
                    None => "; the add-on stays off",
                };
                let message = format!("the add-on's provider API is not served as configured: {why}{stays}");
                self.report_cause(ProblemKind::ProviderApi, message);
            }
        }
    }

    /// Returns whether there are resources, and neither the configuration nor what is in use has a section for them.
    fn is_addon_missed(&self) -> bool {
        self.addon.is_missed() && self.config.addon.is_none()
    }

    /// Reports resources whose add-on is off, which may be a configuration that was lost: platforms cannot ask about them.
    pub(super) fn judge_missed_addon(&mut self) {
        if self.is_addon_missed() {
            let resources = count(self.addon.registry.iter().len(), "resource");
            let message = format!(
                "{NO_SECTION}, and the store has {resources} of the add-on: platforms cannot manage them; put the \
                 section back and reload, or remove each with `tcpgw addon deprovision APP` (`tcpgw addon ls` lists them)"
            );
            self.report(ProblemKind::ProviderApi, message);
        } else {
            let reported = self.problems.get(ProblemKind::ProviderApi);
            if reported.is_some_and(|problem| problem.message.starts_with(NO_SECTION)) {
                self.problems.resolve(ProblemKind::ProviderApi);
            }
        }
    }

    /// Refuses edits by API or CLI that a resource's service does not allow: its port, limit and removal follow its
    /// plan.
    pub(super) fn judge_resources(&self, edits: &Edits) -> Result<(), Refused> {
        let mut problems = Vec::new();
        let mut refuse = |name: &str, message: String| {
            problems.push(InputProblem {
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
            .collect::<InputProblems>()
            .into_result()
            .map_err(Refused::Invalid)
    }

    /// Adds the services of resources that were suspended or resumed since `before` to the edits.
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

    /// Removes the deletion of resources' services from the edits: a state that does not name such a service does not remove it.
    pub(super) fn keep_resources(&self, edits: &mut Edits) {
        edits.gone.retain(|name| !self.is_of_resource(name));
    }

    /// Returns whether a service belongs to a resource.
    pub(super) fn is_of_resource(&self, name: &str) -> bool {
        self.addon.resource(name).is_some()
    }

    /// Fails when the resource of a service is suspended.
    pub(super) fn judge_suspended(&self, name: &str) -> Result<(), Refused> {
        match self.addon.resource(name) {
            Some(resource) if resource.status == ResourceStatus::Suspended => Err(Refused::Refused(format!(
                "the add-on of app {} is suspended; resume it first",
                resource.app
            ))),
            _ => Ok(()),
        }
    }
}
