//! Desired contents of the kernel, from the desired services, the results of probes, and the draining backends.
//!
//! It is pure and incremental: only services to which something happened are worked out again. It owns which backend
//! gets new connections and which one drains; it knows neither probes nor the kernel.

mod change;
mod pause;
mod probing;
mod services;
mod settle;
mod wanted;
mod wave;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::change::{BackendVerdict, MembershipChange, Note};
pub use self::pause::Pause;
pub use self::probing::Probing;
use self::probing::ProbingChanges;
pub(super) use self::services::overlap;
use self::services::{Member, Services, backend_of, endpoints_of, pairs};
use super::name::Name;
use crate::config::daemon::AllFailed;
use crate::control::draining::{DrainingBackend, DrainingBackends, TimeLeft};
use tcpgw_core::drain::{Drain, DrainEvent};
use tcpgw_core::model::shared::{Terms, disagreement};
use tcpgw_core::model::{BackendState, Edits, Endpoint, InputProblem, InputProblems, Listen, Service};
use tcpgw_kernel::conntrack::Pair;

/// Desired services, services in the kernel, and draining backends.
#[derive(Debug, Default)]
pub struct Membership {
    all_failed: AllFailed,
    wanted: Services,
    /// Number of the last change of `wanted`.
    revision: u64,
    serving: Services,
    draining_backends: DrainingBackends,
    /// Members that have drained, before the kernel is changed.
    retired: BTreeSet<Member>,
    /// Members that are defined as draining, and have drained.
    drained: BTreeSet<Member>,
    /// Members whose endpoint belongs to another service now, and likely to another container: such a one gets
    /// connections until another backend of its service is healthy, and is then removed without a drain.
    moved: BTreeSet<Member>,
    /// Members that get new connections, or would if their service were not paused.
    balanced: BTreeSet<Member>,
    /// Members that have to answer a probe after this time first: another service has the endpoint, too, or another container has it
    /// now.
    unproven: BTreeMap<Member, Instant>,
    /// Members whose container is known to have ended, until their services are worked out.
    ended: BTreeSet<Member>,
    /// Services that have had no backend for new connections since they are desired, with the time of their beginning.
    unserved: BTreeMap<Name, Instant>,
    /// Services none of whose backends is good.
    failed: BTreeSet<Name>,
    dirty: BTreeSet<Name>,
    probing: ProbingChanges,
    /// Drain times that replace those of the services, for backends that begin to drain by the present change.
    drain_within: BTreeMap<Name, Duration>,
    /// Services that get no new connections for a time.
    paused: BTreeMap<Name, Pause>,
}

impl Membership {
    /// Creates a membership without services.
    pub fn new(all_failed: AllFailed) -> Self {
        Self {
            all_failed,
            ..Self::default()
        }
    }

    /// Takes over the services in the kernel, with the times left for backends that drain there.
    pub fn adopt(&mut self, services: Vec<Service>, left: &BTreeMap<(Endpoint, Name), TimeLeft>, now: Instant) {
        for service in services {
            for backend in &service.backends {
                let member = (backend.endpoint, service.name.clone());
                if backend.state == BackendState::Active {
                    self.balanced.insert(member);
                    continue;
                }
                let time = left.get(&member).copied().unwrap_or(TimeLeft {
                    left: service.drain_timeout,
                    whole: service.drain_timeout,
                });
                self.draining_backends.put(DrainingBackend {
                    service: service.name.clone(),
                    of: service.name.clone(),
                    backend: *backend,
                    drain: Drain::draining(time.left, now),
                    time: time.whole,
                });
                self.probing.released.insert(backend.endpoint);
            }
            self.dirty.insert(service.name.clone());
            self.serving.put(Arc::new(service));
        }
    }

    /// Sets whether the last healthy backends stay in use when all fail.
    pub fn set_all_failed(&mut self, all_failed: AllFailed) {
        if self.all_failed != all_failed {
            self.all_failed = all_failed;
            self.dirty.extend(self.failed.iter().cloned());
        }
    }

    /// Returns the conflicts of edits with other services: ports on the same address, endpoints with other settings.
    /// The edits are valid among themselves.
    pub fn clashes(&self, edits: &Edits) -> InputProblems {
        let mut problems = Vec::new();
        // Services that share an endpoint agree, so that one of them is compared.
        let speakers: BTreeMap<Endpoint, (&Name, Terms)> = endpoints_of(&edits.put)
            .into_iter()
            .filter_map(|endpoint| Some((endpoint, self.speaker(endpoint, edits)?)))
            .collect();
        for service in &edits.put {
            let others = self.wanted.where_listens(service);
            let others = others.filter(|other| !edits.touches(&other.name));
            problems.extend(others.take(1).map(|other| InputProblem {
                place: format!("service \"{}\", port", service.name),
                message: format!("{} is already taken by service \"{}\"", service.port, other.name),
            }));
            let terms = Terms::of(service);
            for backend in &service.backends {
                let endpoint = backend.endpoint;
                let differing = speakers
                    .get(&endpoint)
                    .and_then(|(name, others)| Some((name, terms.differences(others, endpoint)?)));
                problems.extend(differing.map(|(name, differing)| InputProblem {
                    place: format!("service \"{}\", backends", service.name),
                    message: disagreement(endpoint, &format!("a backend of service \"{name}\""), &differing),
                }));
            }
        }
        problems.into_iter().collect()
    }

    /// Returns a service that the edits do not change and in which the endpoint is active, with its settings for the
    /// endpoint.
    fn speaker(&self, endpoint: Endpoint, edits: &Edits) -> Option<(&Name, Terms)> {
        let mut others = self.wanted.of_endpoint(endpoint).filter(|name| !edits.touches(name));
        others.find_map(|name| {
            let service = self.wanted.get(name)?;
            let is_active = backend_of(service, endpoint)?.state == BackendState::Active;
            is_active.then(|| (name, Terms::of(service)))
        })
    }

    /// Returns whether a desired service, or one in the kernel, has this port.
    pub fn has_port(&self, port: NonZeroU16) -> bool {
        self.wanted
            .on_port(port)
            .chain(self.serving.on_port(port))
            .next()
            .is_some()
    }

    /// Returns whether a desired service has the port and addresses of this one.
    pub fn is_known(&self, service: &Service) -> bool {
        let mut there = self.wanted.on_port(service.port);
        there.any(|known| known.listen == service.listen)
    }

    /// Returns the service in the kernel that has the port and addresses of this one.
    pub fn serving_at(&self, service: &Service) -> Option<&Arc<Service>> {
        let mut there = self.serving.on_port(service.port);
        there.find(|known| known.listen == service.listen)
    }

    /// Sets the drain time of a service's backends that begin to drain by the present change, in place of the
    /// service's own.
    pub fn drain_within(&mut self, name: &str, time: Duration) {
        self.drain_within.insert(name.into(), time);
    }

    /// Pauses a service until the given time: its new connections are dropped, so that clients try again; or ends the
    /// pause (`None`). Returns whether anything changed.
    pub fn pause(&mut self, name: &str, pause: Option<Pause>) -> bool {
        let before = match pause {
            Some(pause) => self.paused.insert(name.into(), pause),
            None => self.paused.remove(name),
        };
        if before.is_some() != pause.is_some() {
            self.dirty.insert(name.into());
        }
        before != pause
    }

    /// Returns the pause of a service, if it is paused.
    pub fn pause_of(&self, name: &str) -> Option<Pause> {
        self.paused.get(name).copied()
    }

    /// Has an endpoint answer a probe before it gets new connections of the service: another container has it now, or the same one was
    /// started again.
    pub fn prove_again(&mut self, name: &Name, endpoint: Endpoint, now: Instant) {
        if self.wanted.has(name, endpoint) {
            self.unproven.insert((endpoint, name.clone()), now);
            self.probing.wanted.insert(endpoint);
            self.probing.again.insert(endpoint);
            self.dirty.insert(name.clone());
        }
    }

    /// Notes that the container of an endpoint has ended: those services do not fall back on it for which `is_of` holds.
    pub fn ended(&mut self, endpoint: Endpoint, is_of: impl Fn(&Name) -> bool) {
        let members = self.balanced.range((endpoint, Name::default())..);
        let members = members.take_while(|(of, _)| *of == endpoint);
        let members: Vec<Member> = members.filter(|(_, name)| is_of(name)).cloned().collect();
        self.dirty.extend(members.iter().map(|(_, name)| name.clone()));
        self.ended.extend(members);
    }

    /// Returns the time since which a desired service is there, if it has had no backend for new connections since.
    pub fn unserved_since(&self, name: &str) -> Option<Instant> {
        self.unserved.get(name).copied()
    }

    /// Marks the services of an endpoint for recomputation, since the result of its probes changed.
    pub fn judged(&mut self, endpoint: Endpoint) {
        let names: Vec<Name> = self.services_of(endpoint).into_iter().cloned().collect();
        self.dirty.extend(names);
    }

    /// Takes counts of flows of draining backends, from a count that began after they stopped getting new connections.
    pub fn counted(&mut self, counts: &BTreeMap<(Name, Endpoint), u64>, now: Instant) -> Vec<Note> {
        let mut notes = Vec::new();
        for ((name, endpoint), flows) in counts {
            self.drain_event(name, *endpoint, DrainEvent::Counted(*flows), now, &mut notes);
        }
        notes
    }

    /// Handles deadlines. Returns the services whose pause has ended.
    pub fn tick(&mut self, now: Instant) -> Vec<Name> {
        self.dirty.extend(self.draining_backends.late(now).cloned());
        // Few services are paused at a time.
        let over = self.paused.iter().filter(|(_, pause)| pause.until <= now);
        let over: Vec<Name> = over.map(|(name, _)| name.clone()).collect();
        for name in &over {
            self.pause(name, None);
        }
        over
    }

    /// Returns the time at which [`Self::tick`] has work.
    pub fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.paused.values().map(|pause| pause.until).min();
        self.draining_backends.next_deadline().into_iter().chain(pauses).min()
    }

    /// Returns whether services have to be worked out again.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Returns the changes of probes since the last call.
    pub fn take_probes(&mut self) -> BTreeMap<Endpoint, Probing> {
        let mut changed = std::mem::take(&mut self.probing.wanted);
        // Draining backends are known when the desired state has been worked out.
        let is_settled = self.dirty.is_empty();
        if is_settled {
            changed.append(&mut self.probing.released);
        }
        let mut probes = BTreeMap::new();
        for endpoint in changed {
            match self.probed_for(endpoint).map(|service| service.health.clone()) {
                Some(health) if self.probing.anew.remove(&endpoint) => probes.insert(endpoint, Probing::Anew(health)),
                Some(health) if self.probing.again.remove(&endpoint) => probes.insert(endpoint, Probing::Again(health)),
                Some(health) => probes.insert(endpoint, Probing::With(health)),
                None if is_settled => probes.insert(endpoint, Probing::Stop),
                None => continue,
            };
        }
        probes
    }

    /// Returns the service whose settings an endpoint is probed with: one in which it is active, else one that has it
    /// or that it leaves.
    pub fn probed_for(&self, endpoint: Endpoint) -> Option<&Arc<Service>> {
        let wanted = self
            .wanted
            .of_endpoint(endpoint)
            .filter_map(|name| self.wanted.get(name));
        let active = |service: &&Arc<Service>| {
            let backend = backend_of(service, endpoint);
            backend.is_some_and(|backend| backend.state == BackendState::Active)
        };
        let leaves = || {
            let mut leaving = self.draining_backends.of_endpoint(endpoint);
            leaving.find_map(|leaving| {
                let wanted = self.wanted.get(&leaving.service);
                wanted.or_else(|| self.serving.get(&leaving.service))
            })
        };
        let decides = wanted.clone().find(active).or_else(|| wanted.clone().next());
        decides.or_else(leaves)
    }

    /// Returns the services in the kernel.
    pub fn serving(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.serving.all
    }

    /// Returns a number that changes with the desired services.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the desired services.
    pub fn wanted(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.wanted.all
    }

    /// Returns the paused services.
    pub fn paused(&self) -> impl Iterator<Item = (&Name, &Pause)> {
        self.paused.iter()
    }

    /// Returns the draining backends.
    pub fn draining_backends(&self) -> &DrainingBackends {
        &self.draining_backends
    }

    /// Returns the pairs that identify flows of draining backends, with the service that they leave.
    pub fn draining_pairs(&self) -> BTreeMap<Pair, Name> {
        let draining = self
            .draining_backends
            .iter()
            .filter(|leaving| leaving.drain.deadline().is_some());
        let pairs = draining.flat_map(|leaving| {
            let service = self.serving.get(&leaving.service).into_iter();
            let pairs = service.flat_map(|service| pairs(service, leaving.backend.endpoint));
            pairs.map(|pair| (pair, leaving.service.clone()))
        });
        pairs.collect()
    }

    /// Returns whether an endpoint was added to the service while another one has it, and has not answered since: it
    /// gets no new connections of this service.
    pub fn is_unproven(&self, name: &str, endpoint: Endpoint) -> bool {
        !self.unproven.is_empty() && self.unproven.contains_key(&(endpoint, name.into()))
    }

    /// Returns all endpoints of which [`Self::is_unproven`] holds.
    pub fn unproven(&self) -> impl Iterator<Item = (&Name, Endpoint)> {
        self.unproven.keys().map(|(endpoint, name)| (name, *endpoint))
    }

    /// Returns whether an endpoint gets new connections of some service, or would if it were not paused.
    pub fn is_balanced(&self, endpoint: Endpoint) -> bool {
        let next = self.balanced.range((endpoint, Name::default())..).next();
        next.is_some_and(|(of, _)| *of == endpoint)
    }

    /// Returns whether the service of the pair sends new connections to its backend, or would if it were not paused.
    pub fn is_balanced_there(&self, pair: &Pair) -> bool {
        let (Some(port), Ok(endpoint)) = (pair.public_port.try_into().ok(), Endpoint::try_from(pair.backend)) else {
            return false;
        };
        let mut there = self
            .serving
            .on_port(port)
            .filter(|service| match (&service.listen, pair.public) {
                (Listen::At(addresses), Some(address)) => addresses.contains(&address),
                _ => true,
            });
        there.any(|service| self.balanced.contains(&(endpoint, service.name.clone())))
    }

    /// Returns the services that an endpoint belongs to, or leaves.
    pub fn services_of(&self, endpoint: Endpoint) -> BTreeSet<&Name> {
        let leaving = self
            .draining_backends
            .of_endpoint(endpoint)
            .map(|leaving| &leaving.service);
        self.wanted.of_endpoint(endpoint).chain(leaving).collect()
    }

    /// Returns the backends of a service that other services have as well, or from which they are being drained.
    pub fn shared_backends(&self, name: &str) -> BTreeSet<SocketAddr> {
        let wanted = self.wanted.get(name);
        let backends = wanted.iter().flat_map(|service| &service.backends);
        let is_shared = |endpoint: &Endpoint| self.services_of(*endpoint).iter().any(|of| &***of != name);
        let shared = backends.map(|backend| backend.endpoint).filter(is_shared);
        shared.map(SocketAddr::from).collect()
    }
}

#[cfg(test)]
mod tests;
