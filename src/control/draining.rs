//! Draining backends, found by service and endpoint, by service, and by deadline. An endpoint may drain in one service
//! and be active in another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::name::Name;
use tcpgw_core::drain::Drain;
use tcpgw_core::model::{Backend, Endpoint};

/// A backend that is being removed from a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainingBackend {
    /// The service that its flows came through, or the one that listens there now.
    pub service: Name,
    /// The service that it was a backend of, which events name.
    pub of: Name,
    /// The backend as it was.
    pub backend: Backend,
    /// State of the drain.
    pub drain: Drain,
    /// Maximum duration of the drain from its beginning.
    pub time: Duration,
}

/// Time left for a drain that another process has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    /// Time until its flows are flushed.
    pub left: Duration,
    /// Maximum duration of the whole drain.
    pub whole: Duration,
}

/// The draining backends of all services.
#[derive(Debug, Default)]
pub struct DrainingBackends {
    all: BTreeMap<(Endpoint, Name), DrainingBackend>,
    of: BTreeMap<Name, BTreeSet<Endpoint>>,
    deadlines: BTreeSet<(Instant, Endpoint, Name)>,
}

impl DrainingBackends {
    /// Returns the draining backend of a service.
    pub fn get(&self, service: &Name, endpoint: Endpoint) -> Option<&DrainingBackend> {
        self.all.get(&(endpoint, service.clone()))
    }

    /// Returns the draining backends with an endpoint, which may drain in several services.
    pub fn of_endpoint(&self, endpoint: Endpoint) -> impl Iterator<Item = &DrainingBackend> {
        let from = self.all.range((endpoint, Name::default())..);
        from.take_while(move |((of, _), _)| *of == endpoint)
            .map(|(_, leaving)| leaving)
    }

    /// Returns all draining backends, by endpoint and service.
    pub fn iter(&self) -> impl Iterator<Item = &DrainingBackend> {
        self.all.values()
    }

    /// Returns the number of draining backends.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns whether no backend drains.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns the endpoints that drain in a service.
    pub fn of(&self, service: &str) -> Vec<Endpoint> {
        self.of
            .get(service)
            .map(|of| of.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Returns whether a backend that is being removed from a service still gets new connections.
    pub fn any_serving(&self, service: &Name) -> bool {
        let of = self.of.get(service).into_iter().flatten();
        of.filter_map(|endpoint| self.get(service, *endpoint))
            .any(|leaving| leaving.drain == Drain::Serving)
    }

    /// Adds a draining backend, or replaces it.
    pub fn put(&mut self, leaving: DrainingBackend) {
        let endpoint = leaving.backend.endpoint;
        self.remove(&leaving.service, endpoint);
        self.of.entry(leaving.service.clone()).or_default().insert(endpoint);
        if let Some(deadline) = leaving.drain.deadline() {
            self.deadlines.insert((deadline, endpoint, leaving.service.clone()));
        }
        self.all.insert((endpoint, leaving.service.clone()), leaving);
    }

    /// Removes a draining backend.
    pub fn remove(&mut self, service: &Name, endpoint: Endpoint) -> Option<DrainingBackend> {
        let leaving = self.all.remove(&(endpoint, service.clone()))?;
        if let Some(of) = self.of.get_mut(service) {
            of.remove(&endpoint);
            if of.is_empty() {
                self.of.remove(service);
            }
        }
        if let Some(deadline) = leaving.drain.deadline() {
            self.deadlines.remove(&(deadline, endpoint, service.clone()));
        }
        Some(leaving)
    }

    /// Returns the next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Returns the services of backends whose deadline has passed.
    pub fn late(&self, now: Instant) -> impl Iterator<Item = &Name> {
        let late = self.deadlines.iter().take_while(move |(deadline, ..)| *deadline <= now);
        late.map(|(.., service)| service)
    }
}
