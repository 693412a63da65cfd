//! Services by name, found by port and by endpoint, too.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::control::name::Name;
use std::net::SocketAddr;
use tcpgw_core::model::{Backend, Endpoint, Listen, Service};
use tcpgw_kernel::conntrack::Pair;

#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) all: BTreeMap<Name, Arc<Service>>,
    by_port: BTreeSet<(NonZeroU16, Name)>,
    by_endpoint: BTreeSet<(Endpoint, Name)>,
}

impl Services {
    pub(super) fn put(&mut self, service: Arc<Service>) {
        self.remove(&service.name);
        self.by_port.insert((service.port, service.name.clone()));
        let rows = service
            .backends
            .iter()
            .map(|backend| (backend.endpoint, service.name.clone()));
        self.by_endpoint.extend(rows);
        self.all.insert(service.name.clone(), service);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let Some(service) = self.all.remove(name) else { return };
        for backend in &service.backends {
            self.by_endpoint.remove(&(backend.endpoint, name.clone()));
        }
        self.by_port.remove(&(service.port, name.clone()));
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.all.get(name)
    }

    pub(super) fn on_port(&self, port: NonZeroU16) -> impl Iterator<Item = &Arc<Service>> {
        let from = self.by_port.range((port, Name::default())..);
        let there = from.take_while(move |(of, _)| *of == port);
        there.filter_map(|(_, name)| self.all.get(name))
    }

    /// Returns the services that share the port and an address with this one.
    pub(super) fn where_listens<'s>(&'s self, service: &'s Service) -> impl Iterator<Item = &'s Arc<Service>> {
        let there = self.on_port(service.port);
        there.filter(|other| overlap(&other.listen, &service.listen))
    }

    /// Returns the names of the services that have the endpoint.
    pub(super) fn of_endpoint(&self, endpoint: Endpoint) -> impl Iterator<Item = &Name> + Clone {
        let from = self.by_endpoint.range((endpoint, Name::default())..);
        from.take_while(move |(of, _)| *of == endpoint).map(|(_, name)| {
            #[cfg(test)]
            visits::count();
            name
        })
    }

    pub(super) fn has(&self, name: &Name, endpoint: Endpoint) -> bool {
        self.by_endpoint.contains(&(endpoint, name.clone()))
    }
}

/// Returns the backend of a service with this endpoint.
pub(super) fn backend_of(service: &Service, endpoint: Endpoint) -> Option<&Backend> {
    service.backends.iter().find(|backend| backend.endpoint == endpoint)
}

/// Returns whether both include a common address.
pub(in crate::control) fn overlap(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::At(a), Listen::At(b)) => !a.is_disjoint(b),
        _ => true,
    }
}

/// An endpoint in one of the services that have it.
pub(super) type Member = (Endpoint, Name);

/// Returns the endpoints of the services, each once.
pub(super) fn endpoints_of(services: &[Arc<Service>]) -> BTreeSet<Endpoint> {
    let backends = services.iter().flat_map(|service| &service.backends);
    backends.map(|backend| backend.endpoint).collect()
}

/// Returns the pairs that identify flows of an endpoint that came through a service.
pub(super) fn pairs(service: &Service, endpoint: Endpoint) -> impl Iterator<Item = Pair> + '_ {
    let (public_port, backend) = (service.port.get(), SocketAddr::from(endpoint));
    let addresses = match &service.listen {
        Listen::Everywhere => vec![None],
        Listen::At(addresses) => addresses.iter().copied().map(Some).collect(),
    };
    addresses.into_iter().map(move |public| Pair {
        public,
        public_port,
        backend,
    })
}

/// Counter of services that are visited because they have an endpoint; it shows how the work grows with the number of
/// services that share one.
#[cfg(test)]
pub(super) mod visits {
    use std::cell::Cell;

    thread_local! {
        static VISITS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        VISITS.with(|visits| visits.set(visits.get() + 1));
    }

    /// Returns the number since the last call, in this thread.
    pub(in crate::control::membership) fn take() -> usize {
        VISITS.with(Cell::take)
    }
}
