//! The add-on's resources: what a request changes of one is one change of the store, together with its service.
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Core, Now};
use crate::addon::id::{PlatformId, ResourceId};
use crate::addon::settings::AddonSettings;
use crate::addon::{PortUse, Registry, Resource, ResourceChange, Status};
use crate::control::membership::Name;
use crate::control::request::Refused;
use crate::store::LoadedResources;
use crate::store::last::{Last, LastResources, MOST_REMOVED};
use tcpgw_core::model::PortRange;
use tcpgw_core::model::{Edits, Problem, Problems, Refusal as OnEmpty, Service};
use tcpgw_core::problem::Kind;

/// Between two looks whether ports run out.
const BETWEEN_PORTS: Duration = Duration::from_secs(2);

/// What is said of a resource while the store cannot be read.
const DOUBT: &str = "the store cannot be read: the resources are as they were known last, so that one that was changed in the last \
                     second before may be other, and no change is taken; `tcpgw status` says what the store needs";

/// The resources, and what is configured for them.
#[derive(Debug)]
pub(super) struct Addon {
    /// `None`: the add-on is off. Resources that there are keep their ports and services.
    pub(super) settings: Option<AddonSettings>,
    pub(super) registry: Registry,
    /// Services of suspended resources, as they are served meanwhile.
    suspended: BTreeMap<Name, Arc<Service>>,
    /// Apps of resources that were known when the daemon before this one ended, which the store may not hold.
    known_last: BTreeMap<ResourceId, PlatformId>,
    /// Ports on which local programs listen, as the request found that is decided next.
    pub(super) skipped: BTreeSet<NonZeroU16>,
    /// When it was judged whether ports run out.
    ports_judged: Option<Instant>,
    /// The resources are those of the file of last services, because the store cannot be read.
    pub(super) is_copy: bool,
    /// They were put into a new store from that file.
    pub(super) is_restored: bool,
    /// Changes of them that the record tells of, and that new store does not.
    pub(super) unsaved: Vec<ResourceChange>,
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

    pub(super) fn ports(settings: Option<&AddonSettings>) -> (PortRange, std::time::Duration) {
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
    pub(super) fn app_of(&self, id: ResourceId) -> Option<&PlatformId> {
        self.registry.app_of(id).or_else(|| self.known_last.get(&id))
    }

    pub(super) fn resource(&self, service: &str) -> Option<&Arc<Resource>> {
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
pub(super) fn suspended(service: &Service) -> Service {
    Service {
        backends: Vec::new(),
        source_addresses: BTreeSet::new(),
        on_empty: OnEmpty::Reset,
        ..service.clone()
    }
}

impl Core {
    /// Returns the app that a service of the add-on belongs to, or belonged to.
    pub(super) fn app_of_service(&self, service: &str) -> Option<&PlatformId> {
        self.addon.app_of(ResourceId::of_service(service)?)
    }

    /// Why what is known of resources may be out of date; `None` where it is what the store holds.
    ///
    /// # Errors
    /// Nothing is known of them.
    pub(super) fn doubt_about_resources(&self) -> Result<Option<String>, Refused> {
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
