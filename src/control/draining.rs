//! The backends that leave, found by service and endpoint, by service, and by deadline. An endpoint may leave one service
//! and go on in another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::membership::Name;
use tcpgw_core::drain::Drain;
use tcpgw_core::model::{Backend, Endpoint};

/// A backend on its way out of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainingBackend {
    /// The service that its flows came through, or the one that listens there now.
    pub service: Name,
    /// The service that it was a backend of, which events name.
    pub of: Name,
    /// As it was.
    pub backend: Backend,
    /// How far it is.
    pub drain: Drain,
    /// How long the whole drain may take, once it has begun.
    pub time: Duration,
}

/// How much time a drain has that another process has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    /// Until its flows are flushed.
    pub left: Duration,
    /// How long the whole drain may take.
    pub whole: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub struct DrainingBackends {
    all: BTreeMap<(Endpoint, Name), DrainingBackend>,
    of: BTreeMap<Name, BTreeSet<Endpoint>>,
    deadlines: BTreeSet<(Instant, Endpoint, Name)>,
}

impl DrainingBackends {
    /// That of a service.
    pub fn get(&self, service: &Name, endpoint: Endpoint) -> Option<&DrainingBackend> {
        self.all.get(&(endpoint, service.clone()))
    }

    /// Those of an endpoint: it may leave several services.
    pub fn of_endpoint(&self, endpoint: Endpoint) -> impl Iterator<Item = &DrainingBackend> {
        let from = self.all.range((endpoint, Name::default())..);
        from.take_while(move |((of, _), _)| *of == endpoint)
            .map(|(_, leaving)| leaving)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &DrainingBackend> {
        self.all.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those of a service.
    pub fn of(&self, service: &str) -> Vec<Endpoint> {
        self.of
            .get(service)
            .map(|of| of.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Whether one of a service still gets new connections.
    pub fn any_serving(&self, service: &Name) -> bool {
        let of = self.of.get(service).into_iter().flatten();
        of.filter_map(|endpoint| self.get(service, *endpoint))
            .any(|leaving| leaving.drain == Drain::Serving)
    }

    /// Notes one, in place of what was known of it.
    pub fn put(&mut self, leaving: DrainingBackend) {
        let endpoint = leaving.backend.endpoint;
        self.remove(&leaving.service, endpoint);
        self.of.entry(leaving.service.clone()).or_default().insert(endpoint);
        if let Some(deadline) = leaving.drain.deadline() {
            self.deadlines.insert((deadline, endpoint, leaving.service.clone()));
        }
        self.all.insert((endpoint, leaving.service.clone()), leaving);
    }

    /// Forgets one.
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

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// The services of those whose deadline has passed.
    pub fn late(&self, now: Instant) -> impl Iterator<Item = &Name> {
        let late = self.deadlines.iter().take_while(move |(deadline, ..)| *deadline <= now);
        late.map(|(.., service)| service)
    }
}
