//! Summary of the services of a state or a ruleset: small enough to keep beside the kernel, and sufficient to describe
//! and count changes and to judge flows.

mod kernel;
mod service;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::service::{ServiceSettings, ServiceSummary, balance_code, balance_name};
use crate::model::{Listen, Service, State};

/// All services, sorted by port and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Services, sorted by port and addresses.
    pub services: Vec<ServiceSummary>,
}

/// Verdict of a state on a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowVerdict {
    /// The flow's backend is active.
    Active,
    /// The flow's backend is draining.
    Draining,
    /// The service has no such backend, so the flow must be flushed.
    Stale,
}

impl From<&State> for Summary {
    fn from(state: &State) -> Self {
        state.services.iter().map(AsRef::as_ref).collect()
    }
}

impl<'a> FromIterator<&'a Service> for Summary {
    fn from_iter<I: IntoIterator<Item = &'a Service>>(services: I) -> Self {
        let mut services: Vec<_> = services.into_iter().map(ServiceSummary::from).collect();
        services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
        Self { services }
    }
}

impl Summary {
    /// Returns the verdict on a flow from the address `public` to `backend`.
    pub fn verdict(&self, public: SocketAddr, backend: SocketAddr) -> FlowVerdict {
        match self.service_at(public) {
            Some(service) if service.active.contains_key(&backend) => FlowVerdict::Active,
            Some(service) if service.draining.contains(&backend) => FlowVerdict::Draining,
            _ => FlowVerdict::Stale,
        }
    }

    /// Returns whether a service with the port and addresses of this one exists.
    pub fn has_listen_key(&self, service: &Service) -> bool {
        let nowhere = BTreeSet::new();
        let addresses = match &service.listen {
            Listen::Everywhere => &nowhere,
            Listen::At(addresses) => addresses,
        };
        let listen_key = (service.port.get(), addresses);
        self.services
            .binary_search_by(|known| known.listen_key().cmp(&listen_key))
            .is_ok()
    }

    /// Returns the first service that has this backend.
    pub fn service_of(&self, backend: SocketAddr) -> Option<&ServiceSummary> {
        self.services
            .iter()
            .find(|service| service.backends().any(|of| of == backend))
    }

    /// Returns the service that listens at this address and port.
    pub fn service_at(&self, public: SocketAddr) -> Option<&ServiceSummary> {
        self.position_at(public).map(|at| &self.services[at])
    }

    /// Returns the position of the service that listens at this address and port.
    pub fn position_at(&self, public: SocketAddr) -> Option<usize> {
        let from = self.services.partition_point(|service| service.port < public.port());
        self.services[from..]
            .iter()
            .take_while(|service| service.port == public.port())
            .position(|s| s.listens(public))
            .map(|at| from + at)
    }

    /// Adds the services of `other` whose names this summary does not have, and which do not listen where one of its
    /// services does.
    pub fn complete_from(&mut self, other: &Self) {
        let names: BTreeSet<Option<&str>> = self.services.iter().map(|service| service.name.as_deref()).collect();
        let is_new = |service: &&ServiceSummary| {
            let from = self.services.partition_point(|known| known.port < service.port);
            let mut there = self.services[from..]
                .iter()
                .take_while(|known| known.port == service.port);
            !names.contains(&service.name.as_deref()) && !there.any(|known| known.meets(service))
        };
        let new: Vec<ServiceSummary> = other.services.iter().filter(is_new).cloned().collect();
        self.services.extend(new);
        self.services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
    }

    /// Adds the services of `other` that do not listen where a service of this summary does, whatever their names are.
    pub fn complete_by_listen_keys(&mut self, other: &Self) {
        let is_new = |service: &&ServiceSummary| {
            let from = self.services.partition_point(|known| known.port < service.port);
            let there = self.services[from..].iter();
            let mut there = there.take_while(|known| known.port == service.port);
            !there.any(|known| known.meets(service))
        };
        let new: Vec<ServiceSummary> = other.services.iter().filter(is_new).cloned().collect();
        self.services.extend(new);
        self.services.sort_by(|a, b| a.listen_key().cmp(&b.listen_key()));
    }

    /// Removes the names of services that listen where one of `left` did, if another service has the same name.
    pub fn name_once(&mut self, left: &Self) {
        let of_left = |service: &ServiceSummary| left.has_listen_key_of(service);
        let names = self.services.iter().filter(|service| !of_left(service));
        let names: BTreeSet<Box<str>> = names.filter_map(|service| service.name.clone()).collect();
        for service in self.services.iter_mut().filter(|service| of_left(service)) {
            service.name.take_if(|name| names.contains(name));
        }
    }

    fn has_listen_key_of(&self, service: &ServiceSummary) -> bool {
        let listen_key = service.listen_key();
        self.services
            .binary_search_by(|known| known.listen_key().cmp(&listen_key))
            .is_ok()
    }
}
