//! Works out what the kernel should be told of the services that something happened to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::services::backend_of;
use super::wave::last_wave;
use super::{Member, Membership, MembershipChange, Name, Note, Verdict, pairs};
use crate::config::daemon::AllFailed;
use crate::control::draining::DrainingBackend;
use tcpgw_core::drain::{Drain, Happens};
use tcpgw_core::health::longest_fall;
use tcpgw_core::model::{Backend, BackendState, Endpoint, Refusal, Service};
use tcpgw_core::ruleset::name::Family;

/// What probes say of an endpoint, whatever the service.
type Judge<'j> = dyn Fn(Endpoint) -> Verdict + 'j;

impl Membership {
    /// Works out what the kernel should be told. It is taken for told from then on.
    pub fn settle(&mut self, verdict: &Judge<'_>, now: Instant) -> MembershipChange {
        let mut change = MembershipChange::default();
        // Those that are gone first: what they leave may fall to one that is there.
        let gone = self.dirty.iter().filter(|name| self.wanted.get(name).is_none());
        for name in gone.cloned().collect::<Vec<_>>() {
            self.depart(&name, &mut change, now);
            let new = self.ghost(&name, verdict, &mut change, now);
            self.replace(&name, new, &mut change);
        }
        while let Some(name) = self.dirty.pop_first() {
            let Some(service) = self.wanted.get(&name).cloned() else {
                continue;
            };
            self.depart(&name, &mut change, now);
            let new = self.present(&service, verdict, &mut change, now);
            self.replace(&name, Some(new), &mut change);
        }
        let draining_backends = &self.draining_backends;
        // Who still serves until somebody better is there begins to drain later.
        self.drain_within.retain(|name, _| draining_backends.any_serving(name));
        change.beside = self.beside(&change);
        change
    }

    /// Those that a change leaves as they are and that share endpoints with those that it does not.
    fn beside(&self, change: &MembershipChange) -> Vec<Arc<Service>> {
        let changed = || change.old.iter().chain(&change.new);
        let names: BTreeSet<&Name> = changed().map(|service| &service.name).collect();
        let backends = changed().flat_map(|service| &service.backends);
        let endpoints: BTreeSet<Endpoint> = backends.map(|backend| backend.endpoint).collect();
        let sharing = endpoints
            .into_iter()
            .flat_map(|endpoint| self.serving.of_endpoint(endpoint));
        let sharing: BTreeSet<&Name> = sharing.filter(|name| !names.contains(name)).collect();
        let services = sharing.into_iter().filter_map(|name| self.serving.get(name));
        services.cloned().collect()
    }

    /// Notes who was there and is not wanted any more.
    fn depart(&mut self, name: &Name, change: &mut MembershipChange, now: Instant) {
        let Some(old) = self.serving.get(name).cloned() else {
            return;
        };
        let heir = self.heir(&old);
        let to = heir.as_ref().unwrap_or(name);
        for backend in &old.backends {
            let endpoint = backend.endpoint;
            let member: Member = (endpoint, name.clone());
            let is_wanted = self.wanted.has(to, endpoint);
            let has_moved = !is_wanted && self.moved.contains(&member);
            // What it has from here is stale where it is somebody else's now. But who gets new connections still goes on with
            // that until another one takes over: see `happens`.
            if has_moved && !self.balanced.contains(&member) {
                self.draining_backends.remove(name, endpoint);
                continue;
            }
            if heir.is_some() {
                self.inherit(name, to, endpoint);
            }
            if has_moved {
                self.moved.insert((endpoint, to.clone()));
            }
            if is_wanted || self.retired.contains(&member) {
                continue;
            }
            let is_new = self.draining_backends.get(to, endpoint).is_none();
            self.probing.released.insert(endpoint);
            let of = self.draining_backends.get(to, endpoint).map(|known| known.of.clone());
            self.leave(to, backend, of.as_ref().unwrap_or(name));
            if is_new && backend.state == BackendState::Draining {
                let replaced = Happens::Replaced(old.drain_timeout);
                self.happens(to, endpoint, replaced, now, &mut change.notes);
            }
        }
        self.dirty.extend(heir);
    }

    /// What is known of an endpoint in one service holds for it in that which has taken its place.
    fn inherit(&mut self, name: &Name, heir: &Name, endpoint: Endpoint) {
        if let Some(leaving) = self.draining_backends.remove(name, endpoint)
            && self.draining_backends.get(heir, endpoint).is_none()
        {
            self.draining_backends.put(DrainingBackend {
                service: heir.clone(),
                ..leaving
            });
        }
        if self.balanced.remove(&(endpoint, name.clone())) {
            self.balanced.insert((endpoint, heir.clone()));
        }
    }

    /// Who listens where a service did that is not wanted any more.
    fn heir(&self, old: &Service) -> Option<Name> {
        if self.wanted.get(&old.name).is_some() {
            return None;
        }
        let heir = self.wanted.where_listens(old).next()?;
        Some(heir.name.clone())
    }

    /// A service that is not wanted, as long as somebody drains.
    fn ghost(
        &mut self,
        name: &Name,
        verdict: &Judge<'_>,
        change: &mut MembershipChange,
        now: Instant,
    ) -> Option<Service> {
        self.failed.remove(name);
        let old = Arc::clone(self.serving.get(name)?);
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
        verdict: &Judge<'_>,
        change: &mut MembershipChange,
        now: Instant,
    ) -> Service {
        let name = &service.name;
        self.prove(service, verdict);
        let active = self.active(service, verdict, change);
        let serving = self.serving.get(name).cloned();
        let was_there = |endpoint| {
            let told = serving.as_deref();
            told.is_some_and(|told| backend_of(told, endpoint).is_some())
        };
        let mut backends = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let member: Member = (endpoint, name.clone());
            match backend.state {
                BackendState::Active => {
                    let left = self.draining_backends.remove(name, endpoint);
                    if active.contains(&endpoint) {
                        let back = left.is_some_and(|left| left.drain != Drain::Serving);
                        change.notes.extend(back.then(|| Note::Back(name.clone(), endpoint)));
                        backends.push(*backend);
                    } else if was_there(endpoint) || self.balanced.contains(&member) {
                        backends.push(Backend {
                            state: BackendState::Draining,
                            ..*backend
                        });
                    }
                }
                BackendState::Draining if self.drained.contains(&member) => {}
                BackendState::Draining => self.leave(name, backend, name),
            }
        }
        backends.extend(self.drained_by(name, &active, service.drain_timeout, verdict, change, now));
        backends.sort_unstable_by_key(|backend| backend.endpoint);
        Service {
            backends,
            ..Service::clone(service)
        }
    }

    /// Notes who has answered since it came to a service.
    fn prove(&mut self, service: &Service, verdict: &Judge<'_>) {
        if self.unproven.is_empty() {
            return;
        }
        for backend in &service.backends {
            let member = (backend.endpoint, service.name.clone());
            let answered = verdict(backend.endpoint).answered;
            if let Some(since) = self.unproven.get(&member)
                && answered.is_some_and(|at| at >= *since)
            {
                self.unproven.remove(&member);
            }
        }
    }

    /// What probes say of an endpoint as one of a service.
    fn verdict_in(&self, name: &Name, endpoint: Endpoint, verdict: &Judge<'_>) -> Verdict {
        let verdict = verdict(endpoint);
        if self.unproven.is_empty() || !self.unproven.contains_key(&(endpoint, name.clone())) {
            return verdict;
        }
        Verdict {
            good: false,
            open: verdict.open || verdict.good,
            ..verdict
        }
    }

    /// Who gets new connections: those that are good; where none is, those that were last, with all of their wave.
    fn active(&mut self, service: &Service, verdict: &Judge<'_>, change: &mut MembershipChange) -> BTreeSet<Endpoint> {
        let name = &service.name;
        let wanted = service.backends.iter();
        let wanted = wanted.filter(|backend| backend.state == BackendState::Active);
        let wanted: Vec<(Endpoint, Verdict)> = wanted
            .map(|backend| (backend.endpoint, self.verdict_in(name, backend.endpoint, verdict)))
            .collect();
        let mut active = BTreeSet::new();
        let mut kept = None;
        for family in Family::BOTH {
            let of_family = |endpoint: Endpoint| Family::of(endpoint.address) == family;
            let wanted = wanted.iter().filter(|(endpoint, _)| of_family(*endpoint));
            let before = active.len();
            let good = wanted.clone().filter(|(_, verdict)| verdict.good);
            active.extend(good.map(|(endpoint, _)| *endpoint));
            if active.len() > before || wanted.clone().next().is_none() {
                continue;
            }
            if self.all_failed == AllFailed::Keep {
                let leaving = self.draining_backends.of(name).into_iter();
                // Who leaves and drains was replaced on purpose, whatever became of it.
                let leaving =
                    leaving.filter(|endpoint| backend_of(service, *endpoint).is_none() && of_family(*endpoint));
                let there = wanted
                    .clone()
                    .filter(|(endpoint, _)| self.serves_there(service, *endpoint));
                let failed = there.map(|(endpoint, verdict)| (*endpoint, verdict.failed));
                active.extend(last_wave(failed, longest_fall(&service.health)));
                let last = wanted.clone().map(|(endpoint, _)| *endpoint).chain(leaving);
                active.extend(last.filter(|endpoint| self.balanced.contains(&(*endpoint, name.clone()))));
            }
            *kept.get_or_insert(0) += active.len() - before;
        }
        match kept {
            None => drop(self.failed.remove(name)),
            Some(kept) => {
                let is_known = wanted.iter().all(|(_, verdict)| !verdict.open);
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
        verdict: &Judge<'_>,
        change: &mut MembershipChange,
        now: Instant,
    ) -> Vec<Backend> {
        let mut backends = Vec::new();
        for endpoint in self.draining_backends.of(name) {
            let happens = if active.contains(&endpoint) {
                Happens::Needed
            } else {
                Happens::Replaced(time)
            };
            self.happens(name, endpoint, happens, now, &mut change.notes);
            if verdict(endpoint).dead {
                self.happens(name, endpoint, Happens::Died, now, &mut change.notes);
            }
            if let Some(leaving) = self.draining_backends.get(name, endpoint) {
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

    /// A backend of a service leaves that, or the one that listens there now, if it has not begun to.
    fn leave(&mut self, service: &Name, backend: &Backend, of: &Name) {
        let known = self.draining_backends.get(service, backend.endpoint);
        let (drain, time) = known.map_or((Drain::Serving, Duration::ZERO), |leaving| {
            (leaving.drain, leaving.time)
        });
        self.draining_backends.put(DrainingBackend {
            service: service.clone(),
            of: of.clone(),
            backend: *backend,
            drain,
            time,
        });
    }

    pub(super) fn happens(
        &mut self,
        name: &Name,
        endpoint: Endpoint,
        happens: Happens,
        now: Instant,
        notes: &mut Vec<Note>,
    ) {
        let Some(leaving) = self.draining_backends.get(name, endpoint) else {
            return;
        };
        let drain = leaving.drain;
        let has_moved = !self.moved.is_empty() && self.moved.contains(&(endpoint, name.clone()));
        let happens = match (happens, self.drain_within.get(name)) {
            (Happens::Replaced(_), _) if has_moved => Happens::Replaced(Duration::ZERO),
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
                        notes.push(Note::Draining(leaving.of.clone(), endpoint, time));
                    }
                    (Drain::Draining { .. }, Drain::Serving, _) => notes.push(Note::Back(name.clone(), endpoint)),
                    _ => {}
                }
                self.draining_backends.put(leaving);
            }
            Err(over) => {
                notes.push(Note::Retired(leaving.of.clone(), endpoint, over, drain.flows()));
                self.draining_backends.remove(name, endpoint);
                self.probing.released.insert(endpoint);
                let member = (endpoint, name.clone());
                self.moved.remove(&member);
                if self.wanted.has(name, endpoint) {
                    self.drained.insert(member);
                } else {
                    self.retired.insert(member);
                }
                self.dirty.insert(name.clone());
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
    fn rebalance(&mut self, name: &Name, old: Option<&Service>, new: Option<&Service>, change: &mut MembershipChange) {
        let services = [old, new].into_iter().flatten();
        for (service, backend) in
            services.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
        {
            let endpoint = backend.endpoint;
            let member = (endpoint, name.clone());
            let is_active = |new: &Service| {
                let backend = backend_of(new, endpoint);
                backend.is_some_and(|backend| backend.state == BackendState::Active)
            };
            if new.is_some_and(is_active) {
                self.balanced.insert(member);
            } else if self.balanced.remove(&member) {
                change.unbalanced.extend(pairs(service, endpoint));
            }
        }
    }

    /// Puts a service in the place of what the kernel was told of it.
    fn replace(&mut self, name: &Name, new: Option<Service>, change: &mut MembershipChange) {
        // What retired while it was worked out has been left out already.
        self.dirty.remove(name);
        let old = self.serving.get(name).cloned();
        for backend in old.iter().flat_map(|old| &old.backends) {
            let member = (backend.endpoint, name.clone());
            self.retired.remove(&member);
            if self.draining_backends.get(name, backend.endpoint).is_none() {
                self.moved.remove(&member);
            }
        }
        self.rebalance(name, old.as_deref(), new.as_ref(), change);
        let new = new.map(|new| self.unless_paused(new));
        if old.as_deref() == new.as_ref() {
            return;
        }
        change.old.extend(old);
        if let Some(new) = new {
            // Of most services all is served as it is wanted: one copy is enough.
            let wanted = self.wanted.get(name).filter(|wanted| ***wanted == new);
            let new = wanted.cloned().unwrap_or_else(|| Arc::new(new));
            change.new.push(Arc::clone(&new));
            self.serving.put(new);
        } else {
            self.serving.remove(name);
        }
    }
}
