//! Computation of the change of the kernel for services to which something happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Membership;
use super::change::{BackendVerdict, MembershipChange, Note};
use super::services::{Member, backend_of, pairs};
use super::wave::last_wave;
use crate::config::daemon::AllFailed;
use crate::control::draining::DrainingBackend;
use crate::control::name::Name;
use tcpgw_core::drain::{Drain, DrainEvent};
use tcpgw_core::health::longest_fall;
use tcpgw_core::model::{Backend, BackendState, Endpoint, PacketRefusal, Service};
use tcpgw_core::ruleset::name::Family;

/// Returns the result of the probes of an endpoint, for all services.
type Judge<'j> = dyn Fn(Endpoint) -> BackendVerdict + 'j;

/// A change that is worked out, and what it depends on besides the services.
struct Settling<'a> {
    verdict: &'a Judge<'a>,
    now: Instant,
    change: MembershipChange,
}

impl Membership {
    /// Returns the change of the kernel. From then on it counts as made.
    pub fn settle(&mut self, verdict: &Judge<'_>, now: Instant) -> MembershipChange {
        let mut settling = Settling {
            verdict,
            now,
            change: MembershipChange::default(),
        };
        // Removed services come first: their draining backends may be handed over to a present one.
        let gone = self.dirty.iter().filter(|name| self.wanted.get(name).is_none());
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove_undesired(&name, &mut settling);
            let new = self.leaving_form(&name, &mut settling);
            self.replace(&name, new, &mut settling.change);
        }
        while let Some(name) = self.dirty.pop_first() {
            let Some(service) = self.wanted.get(&name).cloned() else {
                continue;
            };
            self.remove_undesired(&name, &mut settling);
            let new = self.present(&service, &mut settling);
            self.replace(&name, Some(new), &mut settling.change);
        }
        let draining_backends = &self.draining_backends;
        // Drain times stay for backends that get connections until they are replaced, and drain later.
        self.drain_within.retain(|name, _| draining_backends.any_serving(name));
        let mut change = settling.change;
        change.beside = self.beside(&change);
        change
    }

    /// Returns the unchanged services that share endpoints with changed ones.
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

    /// Handles backends in the kernel that are not desired any more.
    fn remove_undesired(&mut self, name: &Name, settling: &mut Settling<'_>) {
        let Some(old) = self.serving.get(name).cloned() else {
            return;
        };
        let successor = self.successor(&old);
        let to = successor.as_ref().unwrap_or(name);
        for backend in &old.backends {
            let endpoint = backend.endpoint;
            let member: Member = (endpoint, name.clone());
            let is_wanted = self.wanted.has(to, endpoint);
            let has_moved = !is_wanted && self.moved.contains(&member);
            // Flows of an endpoint that has moved are stale. A backend that still gets new connections keeps them
            // until another one replaces it: see `happens`.
            if has_moved && !self.balanced.contains(&member) {
                self.draining_backends.remove(name, endpoint);
                continue;
            }
            if successor.is_some() {
                self.hand_over(name, to, endpoint);
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
                let replaced = DrainEvent::Replaced(old.drain_timeout);
                self.drain_event(to, endpoint, replaced, settling.now, &mut settling.change.notes);
            }
        }
        self.dirty.extend(successor);
    }

    /// Hands the state of an endpoint over from a service to the one that replaced it.
    fn hand_over(&mut self, name: &Name, successor: &Name, endpoint: Endpoint) {
        if let Some(leaving) = self.draining_backends.remove(name, endpoint)
            && self.draining_backends.get(successor, endpoint).is_none()
        {
            self.draining_backends.put(DrainingBackend {
                service: successor.clone(),
                ..leaving
            });
        }
        if self.balanced.remove(&(endpoint, name.clone())) {
            self.balanced.insert((endpoint, successor.clone()));
        }
    }

    /// Returns the desired service that listens where a removed one did.
    fn successor(&self, old: &Service) -> Option<Name> {
        if self.wanted.get(&old.name).is_some() {
            return None;
        }
        let successor = self.wanted.where_listens(old).next()?;
        Some(successor.name.clone())
    }

    /// Returns the form of a removed service in the kernel, as long as one of its backends drains.
    fn leaving_form(&mut self, name: &Name, settling: &mut Settling<'_>) -> Option<Service> {
        self.failed.remove(name);
        let old = Arc::clone(self.serving.get(name)?);
        let backends = self.drained_by(name, &BTreeSet::new(), old.drain_timeout, settling);
        (!backends.is_empty()).then(|| Service {
            backends,
            ..Service::clone(&old)
        })
    }

    /// Returns the form of a desired service in the kernel.
    fn present(&mut self, service: &Arc<Service>, settling: &mut Settling<'_>) -> Service {
        let name = &service.name;
        self.prove(service, settling.verdict);
        let active = self.active(service, settling);
        let serving = self.serving.get(name).cloned();
        let was_there = |endpoint| {
            let service = serving.as_deref();
            service.is_some_and(|service| backend_of(service, endpoint).is_some())
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
                        settling
                            .change
                            .notes
                            .extend(back.then(|| Note::Back(name.clone(), endpoint)));
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
        backends.extend(self.drained_by(name, &active, service.drain_timeout, settling));
        backends.sort_unstable_by_key(|backend| backend.endpoint);
        Service {
            backends,
            ..Service::clone(service)
        }
    }

    /// Ends the proof of backends that have answered since they were added to a service.
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

    /// Returns the result of the probes of an endpoint in a service.
    fn verdict_in(&self, name: &Name, endpoint: Endpoint, verdict: &Judge<'_>) -> BackendVerdict {
        let verdict = verdict(endpoint);
        if self.unproven.is_empty() || !self.unproven.contains_key(&(endpoint, name.clone())) {
            return verdict;
        }
        BackendVerdict {
            good: false,
            open: verdict.open || verdict.good,
            ..verdict
        }
    }

    /// Returns the backends that get new connections: the healthy ones, or if there are none, the last ones that were,
    /// with all of their wave. Those that have to answer first are none of the wave: another container has failed there. One that gets
    /// connections keeps them, unless its container is known to have ended.
    fn active(&mut self, service: &Service, settling: &mut Settling<'_>) -> BTreeSet<Endpoint> {
        let name = &service.name;
        let wanted = service.backends.iter();
        let wanted = wanted.filter(|backend| backend.state == BackendState::Active);
        let wanted: Vec<(Endpoint, BackendVerdict)> = wanted
            .map(|backend| {
                (
                    backend.endpoint,
                    self.verdict_in(name, backend.endpoint, settling.verdict),
                )
            })
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
                // A backend that drains was replaced on purpose, whatever its health.
                let leaving =
                    leaving.filter(|endpoint| backend_of(service, *endpoint).is_none() && of_family(*endpoint));
                let there = wanted
                    .clone()
                    .filter(|(endpoint, _)| self.serves_there(service, *endpoint));
                let there = there.filter(|(endpoint, _)| !self.is_unproven(name, *endpoint));
                let failed = there.map(|(endpoint, verdict)| (*endpoint, verdict.failed));
                active.extend(last_wave(failed, longest_fall(&service.health)));
                let last = wanted.clone().map(|(endpoint, _)| *endpoint).chain(leaving);
                let last = last.map(|endpoint| (endpoint, name.clone()));
                let last = last.filter(|member| self.balanced.contains(member) && !self.ended.contains(member));
                active.extend(last.map(|(endpoint, _)| endpoint));
            }
            *kept.get_or_insert(0) += active.len() - before;
        }
        match kept {
            None => drop(self.failed.remove(name)),
            Some(kept) => {
                let is_known = wanted.iter().all(|(_, verdict)| !verdict.open);
                if is_known && self.failed.insert(name.clone()) {
                    settling.change.notes.push(Note::NoneGood(name.clone(), kept));
                }
            }
        }
        active
    }

    /// Returns the draining backends of a service as they will be in the kernel.
    fn drained_by(
        &mut self,
        name: &Name,
        active: &BTreeSet<Endpoint>,
        time: Duration,
        settling: &mut Settling<'_>,
    ) -> Vec<Backend> {
        let (now, notes) = (settling.now, &mut settling.change.notes);
        let mut backends = Vec::new();
        for endpoint in self.draining_backends.of(name) {
            let event = if active.contains(&endpoint) {
                DrainEvent::Needed
            } else {
                DrainEvent::Replaced(time)
            };
            self.drain_event(name, endpoint, event, now, notes);
            if (settling.verdict)(endpoint).dead {
                self.drain_event(name, endpoint, DrainEvent::Died, now, notes);
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

    /// Begins to remove a backend from a service, or from the one that listens there now, if this has not begun.
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

    pub(super) fn drain_event(
        &mut self,
        name: &Name,
        endpoint: Endpoint,
        event: DrainEvent,
        now: Instant,
        notes: &mut Vec<Note>,
    ) {
        let Some(leaving) = self.draining_backends.get(name, endpoint) else {
            return;
        };
        let drain = leaving.drain;
        let has_moved = !self.moved.is_empty() && self.moved.contains(&(endpoint, name.clone()));
        let event = match (event, self.drain_within.get(name)) {
            (DrainEvent::Replaced(_), _) if has_moved => DrainEvent::Replaced(Duration::ZERO),
            (DrainEvent::Replaced(_), Some(time)) => DrainEvent::Replaced(*time),
            (event, _) => event,
        };
        match drain.next(event, now) {
            Ok(next) => {
                let mut leaving = leaving.clone();
                leaving.drain = next;
                match (drain, next, event) {
                    (Drain::Serving, Drain::Draining { .. }, DrainEvent::Replaced(time)) => {
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

    /// Returns the form of a paused service in the kernel: no backend gets new connections, and SYNs are dropped.
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
            on_empty: PacketRefusal::Drop,
            ..service
        }
    }

    /// Notes the backends that get new connections, regardless of a pause.
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
                self.unserved.remove(name);
                self.balanced.insert(member);
            } else if self.balanced.remove(&member) {
                change.unbalanced.extend(pairs(service, endpoint));
            }
        }
    }

    /// Replaces the form of a service in the kernel.
    fn replace(&mut self, name: &Name, new: Option<Service>, change: &mut MembershipChange) {
        // Backends that were removed meanwhile have been left out already.
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
        self.ended.retain(|(_, of)| of != name);
        let new = new.map(|new| self.unless_paused(new));
        if old.as_deref() == new.as_ref() {
            return;
        }
        change.old.extend(old);
        if let Some(new) = new {
            // Most services are served as they are desired, and share one copy.
            let wanted = self.wanted.get(name).filter(|wanted| ***wanted == new);
            let new = wanted.cloned().unwrap_or_else(|| Arc::new(new));
            change.new.push(Arc::clone(&new));
            self.serving.put(new);
        } else {
            self.serving.remove(name);
        }
    }
}
