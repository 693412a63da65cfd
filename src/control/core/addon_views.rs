//! Views of resources for the API and for the page of an app.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Core, DaemonPhase, Now};
use crate::addon::dialect::gateway::tcp_url;
use crate::addon::id::{PlanName, PlatformId, ResourceId, with_apps};
use crate::addon::{PortUse, Refusal, Resource, ResourceStatus, ResourceTarget, ServiceState};
use crate::control::name::Name;
use crate::control::request::{AddonRefused, AddonView, AppView, BindingView, ResourceList, ResourceView};
use tcpgw_core::model::{Backend, BackendState};
use tcpgw_core::problem::Severity;

/// Maximum number of former resources of one app that are searched.
const MOST_OF_APP: usize = 100;

impl Core {
    /// Returns a resource.
    ///
    /// # Errors
    /// Fails when there is no such resource, or when the resources are not known.
    pub fn resource(&self, target: &ResourceTarget) -> Result<Arc<Resource>, AddonRefused> {
        let warning = self.warning_about_resources().map_err(AddonRefused::Daemon)?;
        match self.addon.registry.find(target) {
            Ok(resource) => Ok(Arc::clone(resource)),
            Err(refusal) if warning.is_none() => Err(refusal.into()),
            // One that is not known may be there.
            Err(refusal) => self
                .knows_resources()
                .map_or_else(|why| Err(AddonRefused::Daemon(why)), |()| Err(refusal.into())),
        }
    }

    /// Returns the apps of those services that belong, or belonged, to the add-on.
    pub fn apps_of_services(&self, services: &BTreeSet<Name>) -> BTreeMap<Name, PlatformId> {
        self.apps_among(services)
    }

    /// Returns the apps of those of these services that belong, or belonged, to the add-on.
    pub(super) fn apps_among<'n>(&self, services: impl IntoIterator<Item = &'n Name>) -> BTreeMap<Name, PlatformId> {
        let services = services.into_iter();
        let known = services.filter_map(|service| Some((service.clone(), self.app_of_service(service)?.clone())));
        known.collect()
    }

    /// Returns the services of an app: that of its resource, and then those of its former resources, the newest first.
    ///
    /// # Errors
    /// Fails when there are none, or when the resources are not known.
    pub fn services_of_app(&self, app: &PlatformId) -> Result<Vec<Name>, AddonRefused> {
        let there = match self.resource(&ResourceTarget::Any(app.clone())) {
            Ok(resource) => Some(resource.id),
            Err(AddonRefused::Resource(Refusal::Gone)) => None,
            Err(refused) => return Err(refused),
        };
        let had = self.addon.registry.all_of_app(app, MOST_OF_APP);
        let had = had.into_iter().filter(|id| Some(*id) != there);
        Ok(there.into_iter().chain(had).map(|id| id.service().into()).collect())
    }

    /// Returns the problem with the names of apps added to services of the add-on in its message.
    pub(super) fn with_apps(&self, problem: tcpgw_core::problem::Problem) -> tcpgw_core::problem::Problem {
        let message = self.naming_apps(&problem.message);
        tcpgw_core::problem::Problem { message, ..problem }
    }

    /// Returns the text with the names of apps added to services of the add-on.
    pub(super) fn naming_apps(&self, text: &str) -> String {
        with_apps(text, |id| self.addon.app_of(id).cloned())
    }

    /// Returns the data of the page of a resource.
    ///
    /// # Errors
    /// Fails when there is no such resource, or when the resources are not known.
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
            is_torn_down: self.phase == DaemonPhase::TornDown,
            shared_backends: self.membership.shared_backends(&name),
            errors: errors.filter(concerns).map(|problem| problem.kind).collect(),
            mark: self.mark(),
        })
    }

    /// Returns all resources.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.addon.registry.iter().cloned().collect()
    }

    /// Returns a resource as the operator sees it.
    ///
    /// # Errors
    /// Fails when there is no such resource, or when the resources are not known.
    pub fn resource_view(&self, target: &ResourceTarget) -> Result<ResourceView, AddonRefused> {
        self.resource(target).map(|resource| self.view_of(&resource))
    }

    /// Returns all resources by id, as the operator sees them.
    ///
    /// # Errors
    /// Fails when the resources are not known.
    pub fn resource_list(&self, now: Now) -> Result<ResourceList, AddonRefused> {
        self.warning_about_resources().map_err(AddonRefused::Daemon)?;
        let resources = self.addon.registry.iter();
        Ok(ResourceList {
            resources: resources.map(|resource| self.view_of(resource)).collect(),
            ports: self.port_use(now),
        })
    }

    pub(super) fn port_use(&self, now: Now) -> Option<PortUse> {
        self.addon.settings.as_ref()?;
        let mut busy = self.ports_of_others();
        busy.others.extend(self.addon.listened(now));
        Some(self.addon.registry.port_use(&busy, now.unix))
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
            warning: self.warning_about_resources().ok().flatten(),
            bindings: bindings
                .map(|(id, binding)| BindingView {
                    id: id.clone(),
                    app: binding.app.clone(),
                })
                .collect(),
        }
    }

    /// Returns the state of a service that belongs to a resource.
    pub(super) fn addon_state(&self, service: &str) -> Option<ServiceState> {
        let resource = self.addon.resource(service)?;
        let stored = self.api.get(service);
        // The store has the ordered states, so a backend that fails its probes is active there.
        let is_to_serve = |backend: &Backend| backend.state == BackendState::Active;
        let has_backends = stored.is_some_and(|stored| stored.service.backends.iter().any(is_to_serve));
        Some(match resource.status {
            ResourceStatus::Suspended => ServiceState::Suspended,
            ResourceStatus::Active if has_backends => ServiceState::Active,
            ResourceStatus::Active => ServiceState::Waiting,
        })
    }

    pub(super) fn addon_states(&self) -> BTreeMap<Name, ServiceState> {
        let names = self.addon.registry.iter().map(|resource| resource.id.service());
        names
            .filter_map(|name| Some((name.as_str().into(), self.addon_state(&name)?)))
            .collect()
    }

    /// Returns the plans of the services of all resources.
    pub(super) fn addon_plans(&self) -> BTreeMap<Name, PlanName> {
        let resources = self.addon.registry.iter();
        let plans = resources.map(|resource| (resource.id.service().as_str().into(), resource.plan.clone()));
        plans.collect()
    }

    /// Returns the resource of a service for its view.
    pub(super) fn addon_view(&self, service: &str) -> Option<AddonView> {
        let resource = self.addon.resource(service)?;
        Some(AddonView {
            id: resource.id,
            app: resource.app.clone(),
            plan: resource.plan.clone(),
            state: self.addon_state(service)?,
        })
    }
}
