//! Parts of a snapshot: little to copy for the main loop, which has other work. They are put together elsewhere.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::ServicesView;
use super::snapshot::{DaemonView, DrainView, HealthView, Snapshot};
use crate::addon::ServiceState;
use crate::addon::id::PlatformId;
use tcpgw_core::model::{Backend, BackendState, Service};
use tcpgw_core::summary::Summary;

/// Parts of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct SnapshotParts {
    /// Desired services.
    pub wanted: Vec<WantedService>,
    /// Services in the kernel that are not desired any more.
    pub ghosts: Vec<Arc<Service>>,
    /// Facts about the table; the summary is left out.
    pub services: ServicesView,
    /// Results of probes in order of endpoint, also of endpoints that are not shown.
    pub health: Vec<(SocketAddr, HealthView)>,
    /// Backends of services that were added while another service has them, and have not answered since.
    pub unproven: BTreeSet<(Box<str>, SocketAddr)>,
    /// Draining backends.
    pub drains: Vec<DrainView>,
    /// State of the daemon itself.
    pub daemon: DaemonView,
    /// Numbers of handshakes that no backend answered in time, by service.
    pub unanswered: BTreeMap<Box<str>, u64>,
    /// Services of all providers, each with the provider's name.
    pub providers: Vec<(Arc<Service>, &'static str)>,
    /// States of the services of the add-on's resources, by name.
    pub addon: BTreeMap<Box<str>, ServiceState>,
    /// Apps of those services that belong, or belonged, to the add-on.
    pub apps: BTreeMap<Box<str>, PlatformId>,
}

/// A desired service.
#[derive(Debug, Clone)]
pub struct WantedService {
    /// The service as it is desired.
    pub service: Arc<Service>,
    /// The service as the kernel has it, if it is there.
    pub served: Option<Arc<Service>>,
}

impl SnapshotParts {
    /// Returns the snapshot. It takes tens of milliseconds where there are ten thousand services.
    pub fn assemble(&self) -> Snapshot {
        let shown: Vec<Cow<'_, Service>> = self.wanted.iter().map(WantedService::shown).collect();
        let ghosts = self.ghosts.iter().map(AsRef::as_ref);
        let summary: Summary = ghosts.chain(shown.iter().map(AsRef::as_ref)).collect();
        let probed = self.wanted.iter().flat_map(|of| &of.service.backends);
        let mut probed: Vec<SocketAddr> = probed.map(|backend| backend.endpoint.into()).collect();
        // Draining backends are probed until they are removed.
        probed.extend(self.drains.iter().map(|drain| drain.backend));
        probed.sort_unstable();
        let health = self.health.iter();
        let health = health.filter(|(endpoint, _)| probed.binary_search(endpoint).is_ok());
        let providers = self.providers.iter();
        Snapshot {
            services: ServicesView {
                summary,
                ..self.services.clone()
            },
            health: health.cloned().collect(),
            unproven: self.unproven.clone(),
            drains: self.drains.clone(),
            daemon: self.daemon.clone(),
            leaving: self.ghosts.iter().map(|service| service.name.clone()).collect(),
            unanswered: self.unanswered.clone(),
            providers: providers
                .map(|(service, provider)| (service.name.clone(), *provider))
                .collect(),
            addon: self.addon.clone(),
            apps: self.apps.clone(),
        }
    }
}

impl From<Arc<Service>> for WantedService {
    /// Returns a service that the kernel has as it is desired.
    fn from(service: Arc<Service>) -> Self {
        Self {
            served: Some(Arc::clone(&service)),
            service,
        }
    }
}

impl WantedService {
    /// Returns the service for display: a desired backend that gets no new connections is shown as desired, with its health.
    fn shown(&self) -> Cow<'_, Service> {
        let is_active = |backend: &&Backend| backend.state == BackendState::Active;
        let served = self.served.iter().flat_map(|served| &served.backends);
        let mut others = served.filter(|backend| {
            let mut active = self.service.backends.iter().filter(is_active);
            !active.any(|known| known.endpoint == backend.endpoint)
        });
        let first = others.next();
        if first.is_none() && self.service.backends.iter().all(|backend| is_active(&backend)) {
            return Cow::Borrowed(&self.service);
        }
        let backends = self.service.backends.iter().filter(is_active);
        let mut backends: Vec<Backend> = backends.chain(first).chain(others).copied().collect();
        backends.sort_unstable_by_key(|backend| backend.endpoint);
        Cow::Owned(Service {
            backends,
            ..Service::clone(&self.service)
        })
    }
}
