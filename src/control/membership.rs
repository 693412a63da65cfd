//! What the kernel should hold: out of what is desired, what probes say, and what is still leaving.
//!
//! Pure, and incremental: only services that something happened to are worked out anew. Owns which backend is in the
//! balance and which leaves; knows neither probes nor the kernel.

mod services;
mod settle;
mod wave;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::services::overlap;
use self::services::{Services, backend_of};
use super::request::PauseView;
use crate::config::daemon::AllFailed;
use crate::control::draining::{DrainingBackend, DrainingBackends, TimeLeft};
use tcpgw_core::drain::{Drain, Happens, Over};
use tcpgw_core::model::shared::{Terms, disagreement};
use tcpgw_core::model::{BackendState, Edits, Endpoint, Health, Listen, Problem, Problems, Service};
use tcpgw_kernel::conntrack::Pair;

/// A service's name.
pub type Name = Box<str>;

/// What probes say of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It may get new connections.
    pub good: bool,
    /// It can answer nobody any more, whatever it had.
    pub dead: bool,
    /// Nobody knows yet.
    pub open: bool,
    /// When it last left the balance because its probes failed.
    pub failed: Option<Instant>,
    /// When the last probe that was answered was sent.
    pub answered: Option<Instant>,
}

/// What happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A backend gets no new connections any more, and leaves.
    Draining(Name, Endpoint, Duration),
    /// One that was leaving serves again.
    Back(Name, Endpoint),
    /// It has left; flows at the last count.
    Retired(Name, Endpoint, Over, Option<u64>),
    /// No backend of a service is good, and so many stay in all the same.
    NoneGood(Name, usize),
}

/// What is to be done about the probes of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// It is probed in this way; what is known of it stays.
    With(Health),
    /// The same, and at once: a service that has it, too, waits for an answer.
    Again(Health),
    /// What is known of it is forgotten, and it is probed as a new one: another service has it now.
    Anew(Health),
    /// It is not probed any more.
    Stop,
}

/// From what the kernel was told to what it should be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MembershipChange {
    /// Services as they were; those that are not here are new.
    pub old: Vec<Arc<Service>>,
    /// Services as they shall be; those that are not here go.
    pub new: Vec<Arc<Service>>,
    /// Services that stay as they are and have some of the same endpoints: what belongs to these stays for them.
    pub beside: Vec<Arc<Service>>,
    /// What to say of it.
    pub notes: Vec<Note>,
    /// Who left the balance of a service: handshakes that they have not answered are to be forgotten.
    pub unbalanced: BTreeSet<Pair>,
}

impl MembershipChange {
    /// Whether the kernel has nothing to learn.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }
}

/// An endpoint in one of the services that have it.
type Member = (Endpoint, Name);

/// Who serves, who shall, and who leaves.
#[derive(Debug, Default)]
pub struct Membership {
    all_failed: AllFailed,
    wanted: Services,
    /// Number of the last change of `wanted`.
    revision: u64,
    serving: Services,
    draining_backends: DrainingBackends,
    /// Left for good; the kernel has not been told.
    retired: BTreeSet<Member>,
    /// Wanted as draining, and drained.
    drained: BTreeSet<Member>,
    /// Another service has the endpoint now, and likely another container: it serves on until another backend of its service is
    /// good, and then leaves without a drain.
    moved: BTreeSet<Member>,
    /// Who gets new connections, or would but for a pause.
    balanced: BTreeSet<Member>,
    /// Who came to a service at that time, and is one of another, too: it has to answer a later probe first.
    unproven: BTreeMap<Member, Instant>,
    /// Services none of whose backends is good.
    failed: BTreeSet<Name>,
    dirty: BTreeSet<Name>,
    probing: ProbingChanges,
    /// Instead of the service's own time, for those who begin to drain by what is desired now.
    drain_within: BTreeMap<Name, Duration>,
    /// Services that get no new connections for a time.
    paused: BTreeMap<Name, Pause>,
}

/// A pause of a service's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Time at which new connections are accepted again again.
    pub until: Instant,
    /// How long all of it is to last.
    pub time: Duration,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// The user who ordered it.
    pub uid: u32,
}

/// Endpoints about whose probes something may be otherwise.
#[derive(Debug, Default)]
struct ProbingChanges {
    /// Some service wants them.
    wanted: BTreeSet<Endpoint>,
    /// Some service has given them away.
    released: BTreeSet<Endpoint>,
    /// See [`Probing::Anew`].
    anew: BTreeSet<Endpoint>,
    /// See [`Probing::Again`].
    again: BTreeSet<Endpoint>,
}

impl Pause {
    /// Returns what is told of it.
    pub fn view(&self) -> PauseView {
        PauseView {
            since: self.since,
            until: self.since + self.time.as_secs(),
            uid: self.uid,
        }
    }
}

impl Membership {
    /// Nobody serves yet.
    pub fn new(all_failed: AllFailed) -> Self {
        Self {
            all_failed,
            ..Self::default()
        }
    }

    /// Takes over what is in the kernel, and how much time those that drain there have left.
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

    /// Whether those that were good last stay when all fail.
    pub fn set_all_failed(&mut self, all_failed: AllFailed) {
        if self.all_failed != all_failed {
            self.all_failed = all_failed;
            self.dirty.extend(self.failed.iter().cloned());
        }
    }

    /// All that is desired from now on.
    pub fn want_all(&mut self, services: &BTreeMap<Name, Arc<Service>>, now: Instant) {
        let wanted = &self.wanted.all;
        let gone = wanted.keys().filter(|name| !services.contains_key(*name));
        let put = services
            .values()
            .filter(|service| wanted.get(&service.name) != Some(*service));
        let edits = Edits {
            gone: gone.cloned().collect(),
            put: put.cloned().collect(),
        };
        self.edit(&edits, now);
    }

    /// Some services are desired otherwise from now on.
    pub fn edit(&mut self, edits: &Edits, now: Instant) {
        self.revision += 1;
        let before = self.members_before(&edits.put);
        for name in &edits.gone {
            self.want(name, None);
        }
        for service in &edits.put {
            self.want(&service.name, Some(Arc::clone(service)));
        }
        for endpoint in endpoints_of(&edits.put) {
            let leaving = self.draining_backends.of_endpoint(endpoint);
            self.dirty.extend(leaving.map(|leaving| leaving.service.clone()));
        }
        let mut keepers = BTreeMap::new();
        for service in &edits.put {
            self.welcome(service, &before, &mut keepers, now);
        }
    }

    /// The services that have had an endpoint of these.
    fn members_before(&self, services: &[Arc<Service>]) -> BTreeSet<Member> {
        let members = endpoints_of(services).into_iter().flat_map(|endpoint| {
            let names = self.wanted.of_endpoint(endpoint);
            names.map(move |name| (endpoint, name.clone()))
        });
        members.collect()
    }

    /// What is desired of one service from now on.
    fn want(&mut self, name: &Name, service: Option<Arc<Service>>) {
        self.dirty.insert(name.clone());
        let old = self.wanted.get(name).cloned();
        for backend in old.iter().flat_map(|old| &old.backends) {
            let endpoint = backend.endpoint;
            let member = (endpoint, name.clone());
            self.probing.released.insert(endpoint);
            let new = service.as_ref().and_then(|service| backend_of(service, endpoint));
            if new.is_none_or(|backend| backend.state == BackendState::Active) {
                self.drained.remove(&member);
            }
            if new.is_none() {
                self.unproven.remove(&member);
            }
        }
        let Some(service) = service else {
            self.wanted.remove(name);
            self.paused.remove(name);
            return;
        };
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let member = (endpoint, name.clone());
            self.retired.remove(&member);
            self.moved.remove(&member);
            self.probing.wanted.insert(endpoint);
        }
        // Who is gone, and listened there, leaves to this one what still drains.
        let before = self.serving.on_port(service.port);
        self.dirty.extend(before.map(|service| service.name.clone()));
        self.wanted.put(service);
    }

    /// An endpoint that comes to a service may be another container than the one that others knew: it has to answer first.
    /// In a service that only gets another name, nothing changes.
    ///
    /// One that no service keeps that had it has moved: nothing that is known of it holds, and flows of before are stale.
    ///
    /// `keepers`: for each endpoint, whether a service keeps it that had it, which is found out once, however many it comes to.
    fn welcome(
        &mut self,
        service: &Service,
        before: &BTreeSet<Member>,
        keepers: &mut BTreeMap<Endpoint, bool>,
        now: Instant,
    ) {
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let member = (endpoint, service.name.clone());
            // It is a keeper itself.
            if before.contains(&member) || self.serves_there(service, endpoint) {
                continue;
            }
            let is_kept = if let Some(is_kept) = keepers.get(&endpoint) {
                *is_kept
            } else {
                let is_kept = self.is_kept(endpoint, before);
                if !is_kept {
                    self.moves(endpoint, before);
                }
                keepers.insert(endpoint, is_kept);
                is_kept
            };
            if is_kept {
                self.unproven.insert(member, now);
                self.probing.again.insert(endpoint);
            }
        }
    }

    /// Whether a service that is wanted with an endpoint had it before.
    fn is_kept(&self, endpoint: Endpoint, before: &BTreeSet<Member>) -> bool {
        self.wanted.of_endpoint(endpoint).any(|name| {
            let service = self.wanted.get(name);
            before.contains(&(endpoint, name.clone()))
                || service.is_some_and(|service| self.serves_there(service, endpoint))
        })
    }

    /// Notes the services that an endpoint has left for others.
    fn moves(&mut self, endpoint: Endpoint, before: &BTreeSet<Member>) {
        let served = self.serving.of_endpoint(endpoint);
        let leaving = self
            .draining_backends
            .of_endpoint(endpoint)
            .map(|leaving| &leaving.service);
        let left = served.chain(leaving).filter(|name| !self.wanted.has(name, endpoint));
        let left: Vec<Member> = left.map(|name| (endpoint, name.clone())).collect();
        let was_wanted = before.range((endpoint, Name::default())..).next();
        if !left.is_empty() || was_wanted.is_some_and(|(of, _)| *of == endpoint) {
            self.probing.anew.insert(endpoint);
        }
        self.dirty.extend(left.iter().map(|(_, name)| name.clone()));
        self.moved.extend(left);
    }

    /// Whether the kernel has that endpoint as one of this service, under this name or another one.
    fn serves_there(&self, service: &Service, endpoint: Endpoint) -> bool {
        let there = self.serving.where_listens(service);
        let mut told = there.chain(self.serving.get(&service.name));
        told.any(|told| backend_of(told, endpoint).is_some())
    }

    /// What other services have that these edits claim: ports on the same address, endpoints on other terms. The edits are
    /// valid among themselves.
    pub fn clashes(&self, edits: &Edits) -> Problems {
        let mut problems = Vec::new();
        // Those who share an endpoint agree, so that one of them speaks for all.
        let speakers: BTreeMap<Endpoint, (&Name, Terms)> = endpoints_of(&edits.put)
            .into_iter()
            .filter_map(|endpoint| Some((endpoint, self.speaker(endpoint, edits)?)))
            .collect();
        for service in &edits.put {
            let others = self.wanted.where_listens(service);
            let others = others.filter(|other| !edits.touches(&other.name));
            problems.extend(others.take(1).map(|other| Problem {
                place: format!("service \"{}\", port", service.name),
                message: format!("{} is already taken by service \"{}\"", service.port, other.name),
            }));
            let terms = Terms::of(service);
            for backend in &service.backends {
                let endpoint = backend.endpoint;
                let differing = speakers
                    .get(&endpoint)
                    .and_then(|(name, others)| Some((name, terms.differences(others, endpoint)?)));
                problems.extend(differing.map(|(name, differing)| Problem {
                    place: format!("service \"{}\", backends", service.name),
                    message: disagreement(endpoint, &format!("a backend of service \"{name}\""), &differing),
                }));
            }
        }
        problems.into_iter().collect()
    }

    /// A service that these edits leave as it is and that says something about an endpoint, with what it says.
    fn speaker(&self, endpoint: Endpoint, edits: &Edits) -> Option<(&Name, Terms)> {
        let mut others = self.wanted.of_endpoint(endpoint).filter(|name| !edits.touches(name));
        others.find_map(|name| {
            let service = self.wanted.get(name)?;
            let is_active = backend_of(service, endpoint)?.state == BackendState::Active;
            is_active.then(|| (name, Terms::of(service)))
        })
    }

    /// Whether a service has that port which is desired, or which the kernel was told of last.
    pub fn has_port(&self, port: NonZeroU16) -> bool {
        self.wanted
            .on_port(port)
            .chain(self.serving.on_port(port))
            .next()
            .is_some()
    }

    /// Whether a service is wanted where this one is.
    pub fn is_known(&self, service: &Service) -> bool {
        let mut there = self.wanted.on_port(service.port);
        there.any(|known| known.listen == service.listen)
    }

    /// The service that the kernel was told of where this one listens.
    pub fn serving_at(&self, service: &Service) -> Option<&Arc<Service>> {
        let mut there = self.serving.on_port(service.port);
        there.find(|known| known.listen == service.listen)
    }

    /// Those of a service who begin to drain because of what is desired now have so much time, instead of what the service
    /// says.
    pub fn drain_within(&mut self, name: &str, time: Duration) {
        self.drain_within.insert(name.into(), time);
    }

    /// A service gets no new connections until then, whoever is good: they are dropped, so that clients try again. `None`:
    /// it gets them again. Whether anything is otherwise.
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

    /// Returns the pause of a service, if it gets no new connections now.
    pub fn pause_of(&self, name: &str) -> Option<Pause> {
        self.paused.get(name).copied()
    }

    /// Probes say something else of an endpoint.
    pub fn judged(&mut self, endpoint: Endpoint) {
        let names: Vec<Name> = self.services_of(endpoint).into_iter().cloned().collect();
        self.dirty.extend(names);
    }

    /// So many flows were found of those that leave, by a count that began after they left the balance.
    pub fn counted(&mut self, counts: &BTreeMap<(Name, Endpoint), u64>, now: Instant) -> Vec<Note> {
        let mut notes = Vec::new();
        for ((name, endpoint), flows) in counts {
            self.happens(name, *endpoint, Happens::Counted(*flows), now, &mut notes);
        }
        notes
    }

    /// Time has passed; whose pause is over.
    pub fn tick(&mut self, now: Instant) -> Vec<Name> {
        self.dirty.extend(self.draining_backends.late(now).cloned());
        // A handful: whoever pauses a service watches it.
        let over = self.paused.iter().filter(|(_, pause)| pause.until <= now);
        let over: Vec<Name> = over.map(|(name, _)| name.clone()).collect();
        for name in &over {
            self.pause(name, None);
        }
        over
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.paused.values().map(|pause| pause.until).min();
        self.draining_backends.next_deadline().into_iter().chain(pauses).min()
    }

    /// Whether something happened that was not worked out yet.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Endpoints that are to be probed from now on, and how; or no longer.
    pub fn take_probes(&mut self) -> BTreeMap<Endpoint, Probing> {
        let mut looked = std::mem::take(&mut self.probing.wanted);
        // Who leaves is known when what is desired has been worked out.
        let is_settled = self.dirty.is_empty();
        if is_settled {
            looked.append(&mut self.probing.released);
        }
        let mut probes = BTreeMap::new();
        for endpoint in looked {
            match self.probed_for(endpoint).map(|service| service.health) {
                Some(health) if self.probing.anew.remove(&endpoint) => probes.insert(endpoint, Probing::Anew(health)),
                Some(health) if self.probing.again.remove(&endpoint) => probes.insert(endpoint, Probing::Again(health)),
                Some(health) => probes.insert(endpoint, Probing::With(health)),
                None if is_settled => probes.insert(endpoint, Probing::Stop),
                None => continue,
            };
        }
        probes
    }

    /// The service that says how an endpoint is probed: one in which it is active, else one that it leaves.
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

    /// What the kernel was told last.
    pub fn serving(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.serving.all
    }

    /// Returns a number that becomes another one whenever what is desired does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What is desired.
    pub fn wanted(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.wanted.all
    }

    /// Services whose new connections are held back.
    pub fn paused(&self) -> impl Iterator<Item = (&Name, &Pause)> {
        self.paused.iter()
    }

    /// Who leaves.
    pub fn draining_backends(&self) -> &DrainingBackends {
        &self.draining_backends
    }

    /// The pairs by which flows of those that drain are known, with the service that they leave.
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

    /// Whether an endpoint has come to that service from others and has not answered since: it gets no new connections of it,
    /// whatever is known of it there.
    pub fn is_unproven(&self, name: &str, endpoint: Endpoint) -> bool {
        !self.unproven.is_empty() && self.unproven.contains_key(&(endpoint, name.into()))
    }

    /// Those of whom that is so.
    pub fn unproven(&self) -> impl Iterator<Item = (&Name, Endpoint)> {
        self.unproven.keys().map(|(endpoint, name)| (name, *endpoint))
    }

    /// Whether an endpoint gets new connections of some service, or would but for a pause.
    pub fn is_balanced(&self, endpoint: Endpoint) -> bool {
        let next = self.balanced.range((endpoint, Name::default())..).next();
        next.is_some_and(|(of, _)| *of == endpoint)
    }

    /// Whether the service of that pair sends new connections to its backend, or would but for a pause.
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

    /// The services that an endpoint belongs to, or leaves.
    pub fn services_of(&self, endpoint: Endpoint) -> BTreeSet<&Name> {
        let leaving = self
            .draining_backends
            .of_endpoint(endpoint)
            .map(|leaving| &leaving.service);
        self.wanted.of_endpoint(endpoint).chain(leaving).collect()
    }
}

/// The endpoints of some services, each once.
fn endpoints_of(services: &[Arc<Service>]) -> BTreeSet<Endpoint> {
    let backends = services.iter().flat_map(|service| &service.backends);
    backends.map(|backend| backend.endpoint).collect()
}

/// The pairs by which flows of an endpoint that came through a service are known.
fn pairs(service: &Service, endpoint: Endpoint) -> impl Iterator<Item = Pair> + '_ {
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

#[cfg(test)]
mod tests;
