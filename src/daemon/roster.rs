//! What the kernel should hold: out of what is desired, what probes say, and what is still leaving.
//!
//! Pure, and incremental: only services that something happened to are worked out anew. Owns which backend is in the
//! balance and which leaves; knows neither probes nor the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::wave::last_wave;
use super::leavers::{Leavers, Leaving, TimeLeft};
use super::settings::AllFailed;
use crate::drain::{Drain, Happens, Over};
use crate::health::longest_fall;
use crate::model::{Backend, BackendState, Edits, Endpoint, Health, Listen, Problem, Problems, Refusal, Service};
use crate::ruleset::name::Family;

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
    /// What is known of it is forgotten, and it is probed as a new one: another service has it now.
    Anew(Health),
    /// It is not probed any more.
    Stop,
}

/// From what the kernel was told to what it should be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Services as they were; those that are not here are new.
    pub old: Vec<Arc<Service>>,
    /// Services as they shall be; those that are not here go.
    pub new: Vec<Arc<Service>>,
    /// What to say of it.
    pub notes: Vec<Note>,
    /// Who left the balance: handshakes that they have not answered are to be forgotten.
    pub unbalanced: BTreeSet<Endpoint>,
}

impl Change {
    /// Whether the kernel has nothing to learn.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }
}

/// Who serves, who shall, and who leaves.
#[derive(Debug, Default)]
pub struct Roster {
    all_failed: AllFailed,
    wanted: Services,
    serving: Services,
    leavers: Leavers,
    /// Left for good; the kernel has not been told.
    retired: BTreeSet<Endpoint>,
    /// Wanted as draining, and drained.
    drained: BTreeSet<Endpoint>,
    /// Which service wants an endpoint.
    owners: BTreeMap<Endpoint, Name>,
    /// Who gets new connections, or would but for a pause.
    balanced: BTreeSet<Endpoint>,
    /// Services none of whose backends is good.
    failed: BTreeSet<Name>,
    dirty: BTreeSet<Name>,
    probes: BTreeMap<Endpoint, Probing>,
    /// Whether these are to be probed has to be looked at.
    released: BTreeSet<Endpoint>,
    /// Instead of the service's own time, for those who begin to drain by what is desired now.
    drain_within: BTreeMap<Name, Duration>,
    /// Services that get no new connections for a time.
    paused: BTreeMap<Name, Instant>,
}

/// Services by name, found by port, too.
#[derive(Debug, Default)]
struct Services {
    all: BTreeMap<Name, Arc<Service>>,
    by_port: BTreeMap<NonZeroU16, BTreeSet<Name>>,
}

impl Services {
    fn put(&mut self, service: Arc<Service>) {
        self.remove(&service.name);
        self.by_port
            .entry(service.port)
            .or_default()
            .insert(service.name.clone());
        self.all.insert(service.name.clone(), service);
    }

    fn remove(&mut self, name: &str) {
        let Some(service) = self.all.remove(name) else { return };
        if let Some(names) = self.by_port.get_mut(&service.port) {
            names.remove(name);
            if names.is_empty() {
                self.by_port.remove(&service.port);
            }
        }
    }

    fn on_port(&self, port: NonZeroU16) -> impl Iterator<Item = &Arc<Service>> {
        let names = self.by_port.get(&port).into_iter().flatten();
        names.filter_map(|name| self.all.get(name))
    }
}

impl Roster {
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
                if backend.state == BackendState::Active {
                    self.balanced.insert(backend.endpoint);
                    continue;
                }
                let time = left.get(&(backend.endpoint, service.name.clone())).copied();
                let time = time.unwrap_or(TimeLeft {
                    left: service.drain_timeout,
                    whole: service.drain_timeout,
                });
                self.leavers.put(Leaving {
                    service: service.name.clone(),
                    backend: *backend,
                    drain: Drain::draining(time.left, now),
                    time: time.whole,
                });
                self.released.insert(backend.endpoint);
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
    pub fn want_all(&mut self, services: &BTreeMap<Name, Arc<Service>>) {
        let wanted = &self.wanted.all;
        let gone = wanted.keys().filter(|name| !services.contains_key(*name));
        let put = services
            .values()
            .filter(|service| wanted.get(&service.name) != Some(*service));
        let edits = Edits {
            gone: gone.cloned().collect(),
            put: put.cloned().collect(),
        };
        self.edit(&edits);
    }

    /// Some services are desired otherwise from now on.
    pub fn edit(&mut self, edits: &Edits) {
        let before = self.owners_before(&edits.put);
        // Who gives an endpoint away does so before somebody else takes it.
        for name in &edits.gone {
            self.want(name, None);
        }
        for service in &edits.put {
            self.disown(&service.name);
        }
        for service in &edits.put {
            self.want(&service.name, Some(Arc::clone(service)));
        }
        for service in &edits.put {
            self.welcome(service, &before);
        }
    }

    fn owners_before(&self, services: &[Arc<Service>]) -> BTreeMap<Endpoint, Name> {
        let backends = services.iter().flat_map(|service| &service.backends);
        let owned = backends.filter_map(|backend| {
            let owner = self.owners.get(&backend.endpoint)?;
            Some((backend.endpoint, owner.clone()))
        });
        owned.collect()
    }

    /// An endpoint that comes to a service from another one may be another container by now: it has to answer first. In a
    /// service that only gets another name, nothing changes.
    fn welcome(&mut self, service: &Service, before: &BTreeMap<Endpoint, Name>) {
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let owner = before.get(&endpoint);
            if owner == Some(&service.name) || self.serves_there(service, endpoint) {
                continue;
            }
            let leaves_another = |leaving: &Leaving| leaving.service != service.name;
            if owner.is_some()
                || self.leavers.get(endpoint).is_some_and(leaves_another)
                || self.balanced.contains(&endpoint)
            {
                self.balanced.remove(&endpoint);
                self.probes.insert(endpoint, Probing::Anew(service.health));
            }
        }
    }

    /// Whether the kernel has that endpoint as one of this service, under this name or another one.
    fn serves_there(&self, service: &Service, endpoint: Endpoint) -> bool {
        let there = self.serving.on_port(service.port);
        let there = there.filter(|told| overlap(&told.listen, &service.listen));
        let mut told = there.chain(self.serving.all.get(&service.name));
        told.any(|told| told.backends.iter().any(|backend| backend.endpoint == endpoint))
    }

    /// What other services have that these edits claim: ports on the same address, endpoints. The edits are valid among
    /// themselves.
    pub fn clashes(&self, edits: &Edits) -> Problems {
        let mut problems = Vec::new();
        for service in &edits.put {
            let others = self.wanted.on_port(service.port);
            let others = others.filter(|other| !edits.touches(&other.name) && overlap(&other.listen, &service.listen));
            problems.extend(others.take(1).map(|other| Problem {
                place: format!("service \"{}\", port", service.name),
                message: format!("{} is already taken by service \"{}\"", service.port, other.name),
            }));
            for backend in &service.backends {
                let owner = self.owners.get(&backend.endpoint).filter(|owner| !edits.touches(owner));
                problems.extend(owner.map(|owner| Problem {
                    place: format!("service \"{}\", backends", service.name),
                    message: format!("{} is already a backend of service \"{owner}\"", backend.endpoint),
                }));
            }
        }
        problems.into_iter().collect()
    }

    /// Whether a service is wanted where this one is.
    pub fn is_known(&self, service: &Service) -> bool {
        let mut there = self.wanted.on_port(service.port);
        there.any(|known| known.listen == service.listen)
    }

    fn want(&mut self, name: &str, service: Option<Arc<Service>>) {
        self.disown(name);
        self.dirty.insert(name.into());
        let draining = |endpoint: Endpoint| {
            let backends = service.iter().flat_map(|service| &service.backends);
            let mut draining = backends.filter(|backend| backend.state == BackendState::Draining);
            draining.any(|backend| backend.endpoint == endpoint)
        };
        if let Some(old) = self.wanted.all.get(name) {
            let restarted = old.backends.iter().filter(|backend| !draining(backend.endpoint));
            for backend in restarted {
                self.drained.remove(&backend.endpoint);
            }
        }
        let Some(service) = service else {
            self.wanted.remove(name);
            self.paused.remove(name);
            return;
        };
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            self.owners.insert(endpoint, name.into());
            self.retired.remove(&endpoint);
            self.probe_with(endpoint, service.health);
            if let Some(leaving) = self.leavers.get(endpoint) {
                self.dirty.insert(leaving.service.clone());
            }
        }
        // Who is gone, and listened there, leaves to this one what still drains.
        let before = self.serving.on_port(service.port);
        self.dirty.extend(before.map(|service| service.name.clone()));
        self.wanted.put(service);
    }

    fn probe_with(&mut self, endpoint: Endpoint, health: Health) {
        let order = match self.probes.get(&endpoint) {
            Some(Probing::Anew(_)) => Probing::Anew(health),
            _ => Probing::With(health),
        };
        self.probes.insert(endpoint, order);
    }

    fn disown(&mut self, name: &str) {
        let Some(service) = self.wanted.all.get(name) else {
            return;
        };
        for backend in &service.backends {
            if self.owners.get(&backend.endpoint).is_some_and(|owner| **owner == *name) {
                self.owners.remove(&backend.endpoint);
            }
            self.released.insert(backend.endpoint);
        }
    }

    /// Those of a service who begin to drain because of what is desired now have so much time, instead of what the service
    /// says.
    pub fn drain_within(&mut self, name: &str, time: Duration) {
        self.drain_within.insert(name.into(), time);
    }

    /// A service gets no new connections until then, whoever is good: they are dropped, so that clients try again. `None`:
    /// it gets them again. Whether anything is otherwise.
    pub fn pause(&mut self, name: &str, until: Option<Instant>) -> bool {
        let before = match until {
            Some(until) => self.paused.insert(name.into(), until),
            None => self.paused.remove(name),
        };
        if before.is_some() != until.is_some() {
            self.dirty.insert(name.into());
        }
        before != until
    }

    /// Until when a service gets no new connections.
    pub fn paused_until(&self, name: &str) -> Option<Instant> {
        self.paused.get(name).copied()
    }

    /// Probes say something else of an endpoint.
    pub fn judged(&mut self, endpoint: Endpoint) {
        let leaving = self.leavers.get(endpoint).map(|leaving| leaving.service.clone());
        let names = self.owners.get(&endpoint).cloned().into_iter().chain(leaving);
        self.dirty.extend(names);
    }

    /// So many flows were found of those that leave, by a count that began after they left the balance.
    pub fn counted(&mut self, counts: &BTreeMap<Endpoint, u64>, now: Instant) -> Vec<Note> {
        let mut notes = Vec::new();
        for (endpoint, flows) in counts {
            self.happens(*endpoint, Happens::Counted(*flows), now, &mut notes);
        }
        notes
    }

    /// Time has passed; whose pause is over.
    pub fn tick(&mut self, now: Instant) -> Vec<Name> {
        let late = self.leavers.late(now);
        self.dirty.extend(late.map(|leaving| leaving.service.clone()));
        // A handful: whoever pauses a service watches it.
        let over = self.paused.iter().filter(|(_, until)| **until <= now);
        let over: Vec<Name> = over.map(|(name, _)| name.clone()).collect();
        for name in &over {
            self.pause(name, None);
        }
        over
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.paused.values().min().copied();
        self.leavers.next_deadline().into_iter().chain(pauses).min()
    }

    /// Whether something happened that was not worked out yet.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Endpoints that are to be probed from now on, and how; or no longer.
    pub fn take_probes(&mut self) -> BTreeMap<Endpoint, Probing> {
        // Who leaves is known when what is desired has been worked out.
        let is_settled = self.dirty.is_empty();
        let released = if is_settled {
            std::mem::take(&mut self.released)
        } else {
            BTreeSet::new()
        };
        for endpoint in released {
            if self.owners.contains_key(&endpoint) {
                continue;
            }
            let leaving = self.leavers.get(endpoint).and_then(|leaving| {
                let wanted = self.wanted.all.get(&leaving.service);
                wanted.or_else(|| self.serving.all.get(&leaving.service))
            });
            match leaving.map(|service| service.health) {
                Some(health) => self.probe_with(endpoint, health),
                None => drop(self.probes.insert(endpoint, Probing::Stop)),
            }
        }
        std::mem::take(&mut self.probes)
    }

    /// What the kernel was told last.
    pub fn serving(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.serving.all
    }

    /// What is desired.
    pub fn wanted(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.wanted.all
    }

    /// Services whose new connections are held back.
    pub fn paused(&self) -> impl Iterator<Item = &str> {
        self.paused.keys().map(AsRef::as_ref)
    }

    /// Who leaves.
    pub fn leavers(&self) -> &Leavers {
        &self.leavers
    }

    /// Whether an endpoint gets new connections, or would but for a pause of its service.
    pub fn is_balanced(&self, endpoint: Endpoint) -> bool {
        self.balanced.contains(&endpoint)
    }

    /// The service that an endpoint belongs to, or leaves.
    pub fn service_of(&self, endpoint: Endpoint) -> Option<&Name> {
        let leaving = self.leavers.get(endpoint).map(|leaving| &leaving.service);
        self.owners.get(&endpoint).or(leaving)
    }

    /// Works out what the kernel should be told. It is taken for told from then on.
    pub fn settle(&mut self, verdict: &dyn Fn(Endpoint) -> Verdict, now: Instant) -> Change {
        let mut change = Change::default();
        // Those that are gone first: what they leave may fall to one that is there.
        let gone = self.dirty.iter().filter(|name| !self.wanted.all.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.depart(&name, &mut change, now);
            let new = self.ghost(&name, verdict, &mut change, now);
            self.replace(&name, new, &mut change);
        }
        while let Some(name) = self.dirty.pop_first() {
            let Some(service) = self.wanted.all.get(&name).cloned() else {
                continue;
            };
            self.depart(&name, &mut change, now);
            let new = self.present(&service, verdict, &mut change, now);
            self.replace(&name, Some(new), &mut change);
        }
        let leavers = &self.leavers;
        // Who still serves until somebody better is there begins to drain later.
        self.drain_within.retain(|name, _| leavers.any_serving(name));
        change
    }

    /// Notes who was there and is not wanted any more.
    fn depart(&mut self, name: &Name, change: &mut Change, now: Instant) {
        let Some(old) = self.serving.all.get(name).cloned() else {
            return;
        };
        let heir = self.heir(&old);
        let to = heir.as_ref().unwrap_or(name);
        for backend in &old.backends {
            let endpoint = backend.endpoint;
            if let Some(owner) = self.owners.get(&endpoint) {
                let leaving = self.leavers.get(endpoint).filter(|leaving| leaving.service == *name);
                match leaving.cloned() {
                    Some(leaving) if owner == to => self.leavers.put(Leaving {
                        service: to.clone(),
                        ..leaving
                    }),
                    // What it has from here is stale where it is somebody else's now.
                    Some(_) => drop(self.leavers.remove(endpoint)),
                    None => {}
                }
            } else if !self.retired.contains(&endpoint) {
                let is_new = self.leavers.get(endpoint).is_none();
                self.released.insert(endpoint);
                self.leave(to, backend);
                if is_new && backend.state == BackendState::Draining {
                    let replaced = Happens::Replaced(old.drain_timeout);
                    self.happens(endpoint, replaced, now, &mut change.notes);
                }
            }
        }
        self.dirty.extend(heir);
    }

    /// Who listens where a service did that is not wanted any more.
    fn heir(&self, old: &Service) -> Option<Name> {
        if self.wanted.all.contains_key(&old.name) {
            return None;
        }
        let mut there = self.wanted.on_port(old.port);
        let heir = there.find(|service| overlap(&service.listen, &old.listen))?;
        Some(heir.name.clone())
    }

    /// A service that is not wanted, as long as somebody drains.
    fn ghost(
        &mut self,
        name: &Name,
        verdict: &dyn Fn(Endpoint) -> Verdict,
        change: &mut Change,
        now: Instant,
    ) -> Option<Service> {
        self.failed.remove(name);
        let old = Arc::clone(self.serving.all.get(name)?);
        let backends = self.drained_by(name, &BTreeSet::new(), old.drain_timeout, verdict, change, now);
        (!backends.is_empty()).then(|| Service {
            backends,
            ..Service::clone(&old)
        })
    }

    /// A service that is wanted.
    fn present(
        &mut self,
        service: &Arc<Service>,
        verdict: &dyn Fn(Endpoint) -> Verdict,
        change: &mut Change,
        now: Instant,
    ) -> Service {
        let name = &service.name;
        let active = self.active(service, verdict, change);
        let serving = self.serving.all.get(name).cloned();
        let was_there = |endpoint| {
            let mut of = serving.iter().flat_map(|service| &service.backends);
            of.any(|backend| backend.endpoint == endpoint)
        };
        let mut backends = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            match backend.state {
                BackendState::Active => {
                    let left = self.leavers.remove(endpoint);
                    if active.contains(&endpoint) {
                        let back = left.is_some_and(|left| left.drain != Drain::Serving);
                        change.notes.extend(back.then(|| Note::Back(name.clone(), endpoint)));
                        backends.push(*backend);
                    } else if was_there(endpoint) || self.balanced.contains(&endpoint) {
                        backends.push(Backend {
                            state: BackendState::Draining,
                            ..*backend
                        });
                    }
                }
                BackendState::Draining if self.drained.contains(&endpoint) => {}
                BackendState::Draining => self.leave(name, backend),
            }
        }
        backends.extend(self.drained_by(name, &active, service.drain_timeout, verdict, change, now));
        backends.sort_unstable_by_key(|backend| backend.endpoint);
        Service {
            backends,
            ..Service::clone(service)
        }
    }

    /// Who gets new connections: those that are good; where none is, those that were last, with all of their wave.
    fn active(
        &mut self,
        service: &Service,
        verdict: &dyn Fn(Endpoint) -> Verdict,
        change: &mut Change,
    ) -> BTreeSet<Endpoint> {
        let name = &service.name;
        let wanted = service.backends.iter();
        let wanted: Vec<Endpoint> = wanted
            .filter(|backend| backend.state == BackendState::Active)
            .map(|backend| backend.endpoint)
            .collect();
        let leaving = self.leavers.of(name).into_iter();
        let leaving: Vec<Endpoint> = leaving.filter(|endpoint| !self.owners.contains_key(endpoint)).collect();
        let mut active = BTreeSet::new();
        let mut kept = None;
        for family in Family::BOTH {
            let of_family = |endpoint: &&Endpoint| Family::of(endpoint.address) == family;
            let before = active.len();
            active.extend(wanted.iter().filter(of_family).filter(|at| verdict(**at).good));
            if active.len() > before || !wanted.iter().any(|at| of_family(&at)) {
                continue;
            }
            if self.all_failed == AllFailed::Keep {
                // Who leaves and drains was replaced on purpose, whatever became of it.
                let there = wanted.iter().filter(of_family);
                let there = there.filter(|endpoint| self.serves_there(service, **endpoint));
                let failed = there.map(|endpoint| (*endpoint, verdict(*endpoint).failed));
                active.extend(last_wave(failed, longest_fall(&service.health)));
                let last = wanted.iter().chain(&leaving).filter(of_family);
                active.extend(last.filter(|endpoint| self.balanced.contains(endpoint)));
            }
            *kept.get_or_insert(0) += active.len() - before;
        }
        match kept {
            None => drop(self.failed.remove(name)),
            Some(kept) => {
                let is_known = wanted.iter().all(|at| !verdict(*at).open);
                if is_known && self.failed.insert(name.clone()) {
                    change.notes.push(Note::NoneGood(name.clone(), kept));
                }
            }
        }
        active
    }

    /// Those of a service that leave, as they shall be in the kernel.
    fn drained_by(
        &mut self,
        name: &Name,
        active: &BTreeSet<Endpoint>,
        time: Duration,
        verdict: &dyn Fn(Endpoint) -> Verdict,
        change: &mut Change,
        now: Instant,
    ) -> Vec<Backend> {
        let mut backends = Vec::new();
        for endpoint in self.leavers.of(name) {
            let happens = if active.contains(&endpoint) {
                Happens::Needed
            } else {
                Happens::Replaced(time)
            };
            self.happens(endpoint, happens, now, &mut change.notes);
            if verdict(endpoint).dead {
                self.happens(endpoint, Happens::Died, now, &mut change.notes);
            }
            if let Some(leaving) = self.leavers.get(endpoint) {
                let state = match leaving.drain {
                    Drain::Serving => BackendState::Active,
                    Drain::Draining { .. } => BackendState::Draining,
                };
                backends.push(Backend {
                    state,
                    ..leaving.backend
                });
            }
        }
        backends
    }

    /// A backend leaves a service, if it has not begun to.
    fn leave(&mut self, service: &Name, backend: &Backend) {
        let known = self.leavers.get(backend.endpoint);
        let (drain, time) = known.map_or((Drain::Serving, Duration::ZERO), |leaving| {
            (leaving.drain, leaving.time)
        });
        self.leavers.put(Leaving {
            service: service.clone(),
            backend: *backend,
            drain,
            time,
        });
    }

    fn happens(&mut self, endpoint: Endpoint, happens: Happens, now: Instant, notes: &mut Vec<Note>) {
        let Some(leaving) = self.leavers.get(endpoint) else {
            return;
        };
        let (name, drain) = (leaving.service.clone(), leaving.drain);
        let happens = match (happens, self.drain_within.get(&name)) {
            (Happens::Replaced(_), Some(time)) => Happens::Replaced(*time),
            (happens, _) => happens,
        };
        match drain.next(happens, now) {
            Ok(next) => {
                let mut leaving = leaving.clone();
                leaving.drain = next;
                match (drain, next, happens) {
                    (Drain::Serving, Drain::Draining { .. }, Happens::Replaced(time)) => {
                        leaving.time = time;
                        notes.push(Note::Draining(name, endpoint, time));
                    }
                    (Drain::Draining { .. }, Drain::Serving, _) => notes.push(Note::Back(name, endpoint)),
                    _ => {}
                }
                self.leavers.put(leaving);
            }
            Err(over) => {
                notes.push(Note::Retired(name.clone(), endpoint, over, drain.flows()));
                self.leavers.remove(endpoint);
                self.released.insert(endpoint);
                if self.owners.contains_key(&endpoint) {
                    self.drained.insert(endpoint);
                } else {
                    self.retired.insert(endpoint);
                }
                self.dirty.insert(name);
            }
        }
    }

    /// While it is paused nobody gets a new connection, and who knocks hears nothing.
    fn unless_paused(&self, service: Service) -> Service {
        if !self.paused.contains_key(&service.name) {
            return service;
        }
        let held = |backend: &Backend| Backend {
            state: BackendState::Draining,
            ..*backend
        };
        Service {
            backends: service.backends.iter().map(held).collect(),
            on_empty: Refusal::Drop,
            ..service
        }
    }

    /// Notes who gets new connections, but for a pause.
    fn rebalance(&mut self, name: &Name, old: Option<&Service>, new: Option<&Service>, change: &mut Change) {
        let is = active_of(new);
        let backends = [old, new].into_iter().flatten().flat_map(|service| &service.backends);
        for endpoint in backends.map(|backend| backend.endpoint) {
            let elsewhere = self.owners.get(&endpoint).is_some_and(|owner| owner != name);
            if is.contains(&endpoint) {
                self.balanced.insert(endpoint);
            } else if !elsewhere && self.balanced.remove(&endpoint) {
                change.unbalanced.insert(endpoint);
            }
        }
    }

    /// Puts a service in the place of what the kernel was told of it.
    fn replace(&mut self, name: &Name, new: Option<Service>, change: &mut Change) {
        // What retired while it was worked out has been left out already.
        self.dirty.remove(name);
        let old = self.serving.all.get(name).cloned();
        for backend in old.iter().flat_map(|old| &old.backends) {
            self.retired.remove(&backend.endpoint);
        }
        self.rebalance(name, old.as_deref(), new.as_ref(), change);
        let new = new.map(|new| self.unless_paused(new));
        if old.as_deref() == new.as_ref() {
            return;
        }
        change.old.extend(old);
        if let Some(new) = new {
            let new = Arc::new(new);
            change.new.push(Arc::clone(&new));
            self.serving.put(new);
        } else {
            self.serving.remove(name);
        }
    }
}

fn active_of(service: Option<&Service>) -> BTreeSet<Endpoint> {
    let backends = service.into_iter().flat_map(|service| &service.backends);
    let active = backends.filter(|backend| backend.state == BackendState::Active);
    active.map(|backend| backend.endpoint).collect()
}

/// Whether there is an address that both listen on.
pub(super) fn overlap(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::At(a), Listen::At(b)) => !a.is_disjoint(b),
        _ => true,
    }
}

mod wave;

#[cfg(test)]
mod tests;
