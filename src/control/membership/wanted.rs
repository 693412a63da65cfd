//! Desired services: what edits change in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::Membership;
use super::services::{Member, backend_of, endpoints_of};
use crate::control::name::Name;
use tcpgw_core::model::{BackendState, Edits, Endpoint, Service};

impl Membership {
    /// Replaces all desired services.
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

    /// Changes some desired services.
    pub fn edit(&mut self, edits: &Edits, now: Instant) {
        self.revision += 1;
        let before = self.members_before(&edits.put);
        for name in &edits.gone {
            self.want(name, None);
        }
        for service in &edits.put {
            let serves = |served: &Arc<Service>| !served.backends.is_empty();
            if self.wanted.get(&service.name).is_none() && !self.serving.get(&service.name).is_some_and(serves) {
                self.unserved.insert(service.name.clone(), now);
            }
            self.want(&service.name, Some(Arc::clone(service)));
        }
        for endpoint in endpoints_of(&edits.put) {
            let leaving = self.draining_backends.of_endpoint(endpoint);
            self.dirty.extend(leaving.map(|leaving| leaving.service.clone()));
        }
        let mut is_kept_of = BTreeMap::new();
        for service in &edits.put {
            self.admit_endpoints(service, &before, &mut is_kept_of, now);
        }
    }

    /// Returns the services that have an endpoint of these now.
    fn members_before(&self, services: &[Arc<Service>]) -> BTreeSet<Member> {
        let members = endpoints_of(services).into_iter().flat_map(|endpoint| {
            let names = self.wanted.of_endpoint(endpoint);
            names.map(move |name| (endpoint, name.clone()))
        });
        members.collect()
    }

    /// Sets or removes the desired form of one service.
    pub(super) fn want(&mut self, name: &Name, service: Option<Arc<Service>>) {
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
            self.unserved.remove(name);
            return;
        };
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let member = (endpoint, name.clone());
            self.retired.remove(&member);
            self.moved.remove(&member);
            self.probing.wanted.insert(endpoint);
        }
        // Backends that drain in a removed service that listened there are handed over to this one.
        let before = self.serving.on_port(service.port);
        self.dirty.extend(before.map(|service| service.name.clone()));
        self.wanted.put(service);
    }

    /// Handles endpoints that are new to a service. Such an endpoint may be another container than the one that other
    /// services know, so it has to answer a probe first, unless the service only gets another name.
    ///
    /// An endpoint that no service keeps has moved: its results are forgotten, and its earlier flows are stale.
    ///
    /// `is_kept_of`: remembers for each endpoint whether a service keeps it, however many services it is added to.
    fn admit_endpoints(
        &mut self,
        service: &Service,
        before: &BTreeSet<Member>,
        is_kept_of: &mut BTreeMap<Endpoint, bool>,
        now: Instant,
    ) {
        for backend in &service.backends {
            let endpoint = backend.endpoint;
            let member = (endpoint, service.name.clone());
            // The service itself keeps the endpoint.
            if before.contains(&member) || self.serves_there(service, endpoint) {
                continue;
            }
            let is_kept = if let Some(is_kept) = is_kept_of.get(&endpoint) {
                *is_kept
            } else {
                let is_kept = self.is_kept(endpoint, before);
                if !is_kept {
                    self.moves(endpoint, before);
                }
                is_kept_of.insert(endpoint, is_kept);
                is_kept
            };
            if is_kept {
                self.unproven.insert(member, now);
                self.probing.again.insert(endpoint);
            }
        }
    }

    /// Returns whether a desired service with the endpoint had it before.
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

    /// Returns whether the kernel has the endpoint in this service, under this name or another one.
    pub(super) fn serves_there(&self, service: &Service, endpoint: Endpoint) -> bool {
        let there = self.serving.where_listens(service);
        let mut there = there.chain(self.serving.get(&service.name));
        there.any(|there| backend_of(there, endpoint).is_some())
    }
}
