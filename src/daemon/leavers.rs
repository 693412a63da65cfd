//! The backends that leave, found by endpoint, by service and by deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::roster::Name;
use crate::drain::Drain;
use crate::model::{Backend, Endpoint};

/// A backend on its way out of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The service that its flows came through.
    pub service: Name,
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
pub struct Leavers {
    all: BTreeMap<Endpoint, Leaving>,
    of: BTreeMap<Name, BTreeSet<Endpoint>>,
    deadlines: BTreeSet<(Instant, Endpoint)>,
}

impl Leavers {
    /// One of them.
    pub fn get(&self, endpoint: Endpoint) -> Option<&Leaving> {
        self.all.get(&endpoint)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Leaving> {
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
    pub fn any_serving(&self, service: &str) -> bool {
        let of = self.of.get(service).into_iter().flatten();
        of.filter_map(|endpoint| self.all.get(endpoint))
            .any(|leaving| leaving.drain == Drain::Serving)
    }

    /// Notes one, in place of what was known of it.
    pub fn put(&mut self, leaving: Leaving) {
        let endpoint = leaving.backend.endpoint;
        self.remove(endpoint);
        self.of.entry(leaving.service.clone()).or_default().insert(endpoint);
        if let Some(deadline) = leaving.drain.deadline() {
            self.deadlines.insert((deadline, endpoint));
        }
        self.all.insert(endpoint, leaving);
    }

    /// Forgets one.
    pub fn remove(&mut self, endpoint: Endpoint) -> Option<Leaving> {
        let leaving = self.all.remove(&endpoint)?;
        if let Some(of) = self.of.get_mut(&leaving.service) {
            of.remove(&endpoint);
            if of.is_empty() {
                self.of.remove(&leaving.service);
            }
        }
        if let Some(deadline) = leaving.drain.deadline() {
            self.deadlines.remove(&(deadline, endpoint));
        }
        Some(leaving)
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Those whose deadline has passed.
    pub fn late(&self, now: Instant) -> impl Iterator<Item = &Leaving> {
        let late = self.deadlines.iter().take_while(move |(deadline, _)| *deadline <= now);
        late.filter_map(|(_, endpoint)| self.all.get(endpoint))
    }
}
