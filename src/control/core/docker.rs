//! Services of Docker's containers: each is accepted or left out by itself, so that a container with wrong labels keeps no other from
//! being served.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::acceptance::{GatewayCheck, JudgementError};
use super::docker_snapshot::{DockerSnapshot, PortHolders};
use super::obstacles::Obstacles;
use super::orphans::Orphan;
use super::{Core, DaemonPhase, Now, Provider};
use crate::control::name::Name;
use crate::provider::docker::{DockerNews, TrackedContainers};
use tcpgw_core::container::{ContainerBackend, EarlierServices};
use tcpgw_core::model::{Backend, Edits, Endpoint, Service, State};

/// Cause of changes, for events.
pub(super) const CAUSE: &str = "Docker's containers";

/// The services of Docker's containers.
#[derive(Debug, Default)]
pub(super) struct DockerServices {
    /// The services in effect; `None`: the engine has not told yet, and no earlier daemon has served any.
    state: Option<Arc<State>>,
    /// The containers as the engine named them last.
    containers: Option<Arc<TrackedContainers>>,
    /// Their services, as they were decided about last.
    pub(super) snapshot: Option<Arc<DockerSnapshot>>,
    /// Ports that are kept for services whose containers are replaced.
    holders: PortHolders,
    /// Reason why the engine is not followed now.
    pub(super) trouble: Option<String>,
    /// Events of the engine that were left out, and why.
    pub(super) left_out: Option<String>,
    /// Services that are left out because of others, or some of their containers.
    pub(super) refused: BTreeMap<Name, RefusedContainers>,
    /// The container that each backend is or was, as long as it is probed.
    backends: BTreeMap<Endpoint, ContainerBackend>,
    /// Whether the containers, or what bounds them, have changed since the snapshot.
    is_unread: bool,
    /// Whether the snapshot has not been decided about.
    is_due: bool,
    /// Whether containers asked for the last change of the desired state, and not the state file or the API.
    pub(super) has_changed_last: bool,
}

/// Containers that are left out because of other services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedContainers {
    /// Reason.
    pub(super) why: String,
    /// Names of the containers, where others of the service are served.
    pub(super) names: Vec<Box<str>>,
}

impl DockerServices {
    /// Returns the service of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.state.as_ref()?.get(name)
    }

    /// Returns whether a container of the service has a health check without a result yet.
    pub(super) fn is_unchecked(&self, name: &str) -> bool {
        self.snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.unchecked.contains(name))
    }

    /// Returns all services, by name.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.state.iter().flat_map(|state| &state.services)
    }

    /// Takes over the services that an earlier daemon has served, until the engine tells.
    pub(super) fn presume(&mut self, services: impl Iterator<Item = Service>) {
        let services: Vec<Arc<Service>> = services.map(Arc::new).collect();
        self.state = (!services.is_empty()).then(|| Arc::new(State::from_valid(services)));
    }

    /// Marks the snapshot to be decided about again, since reasons may have changed.
    pub(super) fn judge_again(&mut self) {
        self.is_due |= !self.refused.is_empty() && self.snapshot.is_some();
    }

    /// Marks the containers to be read again, since the fences may have changed.
    pub(super) fn read_again(&mut self) {
        self.is_unread |= self.containers.is_some();
        self.judge_again();
    }

    /// Returns whether a port has become free that containers may wait for.
    fn is_port_free(&self, now: Instant) -> bool {
        self.containers.is_some() && self.holders.due().is_some_and(|at| at <= now)
    }

    /// Returns the names of the containers of these backends, each one once.
    fn names_of<'b>(&self, backends: impl Iterator<Item = &'b Backend>) -> Vec<Box<str>> {
        let of = |backend: &Backend| self.snapshot.as_ref()?.backends.get(&backend.endpoint);
        let ids: std::collections::BTreeSet<&str> = backends.filter_map(of).map(|container| &*container.id).collect();
        let containers = self.containers.iter().flat_map(|tracked| &tracked.containers);
        let theirs = containers.filter(|container| ids.contains(&*container.id));
        theirs.map(|container| container.name.clone()).collect()
    }

    /// Returns the name of a container of the service in brackets, for messages.
    pub(super) fn example(&self, name: &str) -> String {
        let snapshot = self.snapshot.as_ref();
        let example = snapshot.and_then(|snapshot| snapshot.examples.get(name));
        let example = example.map(|container| format!(" ({})", tcpgw_core::escape::text(container)));
        example.unwrap_or_default()
    }

    /// Returns whether the engine names no container, though services of containers are served, and is not believed yet.
    pub(super) fn is_uncertain(&self) -> bool {
        let may_be_wrong = |of: &DockerSnapshot| of.state.services.is_empty() && !of.is_certain;
        self.snapshot.as_deref().is_some_and(may_be_wrong) && self.services().next().is_some()
    }
}

impl Core {
    /// Takes what is known of Docker's engine and its containers; [`Self::decide_docker`] decides about it.
    pub fn docker_news(&mut self, news: DockerNews) {
        (self.docker.trouble, self.docker.left_out) = (news.trouble, news.left_out);
        if let Some(containers) = news.containers
            && self.docker.containers.as_ref() != Some(&containers)
        {
            self.docker.containers = Some(containers);
            self.docker.is_unread = true;
        }
        self.judge_docker();
    }

    /// Returns whether [`Self::decide_docker`] has work.
    pub fn is_docker_due(&self, now: Now) -> bool {
        let docker = &self.docker;
        // Until then it is not known what is served, and by which provider.
        (docker.is_due || docker.is_unread || docker.is_port_free(now.instant)) && self.has_looked()
    }

    /// Reads the services of the containers, beside what earlier ones have got.
    fn read_containers(&mut self, now: Now) {
        let docker = &mut self.docker;
        let Some(tracked) = docker.containers.clone() else {
            return;
        };
        if !docker.is_unread && !docker.is_port_free(now.instant) {
            return;
        }
        docker.is_unread = false;
        docker.is_due = true;
        let old = docker.state.clone().unwrap_or_default();
        docker.holders.update(&old, &tracked, now.instant);
        self.due.port_free = docker.holders.due();
        let orphans = self.orphans.iter().map(|orphan| &orphan.service);
        let served = old.services.iter().chain(orphans);
        let served = served.filter(|service| !self.held_back.contains(&service.name));
        let earlier = EarlierServices {
            served: served
                .map(|service| (service.name.clone(), Arc::clone(service)))
                .collect(),
            holders: self.docker.holders.names(),
        };
        let last = self.docker.snapshot.take();
        let snapshot = DockerSnapshot::new(&tracked, &self.config.fences, &earlier, last.as_deref());
        self.docker.snapshot = Some(Arc::new(snapshot));
    }

    /// Puts the services of the last snapshot into effect, as far as other services and the gateway allow. Returns whether all of it
    /// is decided; if not, the gateway is being examined, and it is decided later.
    pub fn decide_docker(&mut self, vet: &mut GatewayCheck<'_>, now: Now) -> bool {
        self.read_containers(now);
        let Some(snapshot) = self.docker.snapshot.clone() else {
            self.docker.is_due = false;
            return true;
        };
        if self.docker.is_uncertain() {
            self.docker.is_due = false;
            self.judge_docker();
            return true;
        }
        let old = self.docker.state.clone().unwrap_or_default();
        let (edits, refused) = self.admitted(&snapshot, &old);
        let (edits, obstacles, is_decided) = match self.examined_containers(&edits, &old, vet) {
            Ok(obstacles) => (edits, obstacles, true),
            // What ends is told at once, and what begins when it is known to be possible.
            Err(unjudged) => {
                if matches!(unjudged, JudgementError::Refused(_)) {
                    self.examine_again(now);
                }
                (without_beginnings(&edits, &old), Obstacles::new(), false)
            }
        };
        self.docker.is_due = !is_decided;
        self.docker.refused = refused;
        if !edits.is_empty() || self.docker.state.is_none() {
            self.docker.state = Some(Arc::new(edited(&old, &edits)));
        }
        // Others may wait for a port that a service has left.
        let has_left = |service: &Arc<Service>| old.get(&service.name).is_some_and(|of| of.port != service.port);
        self.docker.is_unread |= edits.put.iter().any(has_left);
        if self.held_back.has_judged {
            self.decide(&edits, obstacles);
        }
        if !edits.is_empty() {
            self.addresses_changed(now);
            self.docker.has_changed_last = true;
            self.wanted_instead(CAUSE, &edits, now);
            // Only reasons of others can have changed by these.
            self.docker.is_due = !is_decided;
        }
        self.leave_ended(&snapshot);
        self.prove_started_again(&snapshot, now);
        self.judge_docker();
        // What a new service waits for may have changed, and nothing else.
        self.judgement.outdate();
        is_decided
    }

    /// Ends following Docker's engine: the services of its containers stay as orphans.
    pub fn no_docker(&mut self, now: Now) {
        let old = std::mem::take(&mut self.docker);
        self.due.port_free = None;
        self.judge_docker();
        let services: Vec<Orphan> = old.services().cloned().map(Orphan::whole).collect();
        if !services.is_empty() {
            self.orphan(services, "the daemon does not follow Docker's containers any more", now);
        }
    }

    /// Returns the edits that other services and the fences allow, and the names of the services that are left out, with the reasons.
    fn admitted(&self, snapshot: &DockerSnapshot, old: &State) -> (Edits, BTreeMap<Name, RefusedContainers>) {
        let changed = snapshot.state.edits_from(old);
        let mut refused = BTreeMap::new();
        let mut edits = Edits {
            put: Vec::new(),
            gone: changed.gone,
        };
        self.admit_containers(&mut edits, &changed.put, &mut refused);
        for service in &changed.put {
            if !refused.contains_key(&service.name) {
                continue;
            }
            let Some(before) = old.get(&service.name) else {
                continue;
            };
            // The service stays with the containers that it has had, as long as they are there, and with new ones that fit.
            let kept = (before.port == service.port).then(|| self.admit_part(&mut edits, service, before, snapshot));
            let Some(kept) = kept.flatten() else {
                edits.gone.push(service.name.clone());
                continue;
            };
            let has = |backend: &&Backend| kept.backends.iter().any(|of| of.endpoint == backend.endpoint);
            let left_out = service.backends.iter().filter(|backend| !has(backend));
            if let Some(refused) = refused.get_mut(&service.name) {
                refused.names = self.docker.names_of(left_out);
            }
            if *kept == **before {
                edits.put.retain(|put| put.name != service.name);
            }
        }
        edits.gone.sort_unstable();
        (edits, refused)
    }

    /// Adds a service to `edits` with the backends that it has had, and as many new ones as fit, all those of a container or none.
    /// Returns it; `None`: it does not fit without any.
    fn admit_part(
        &self,
        edits: &mut Edits,
        service: &Service,
        before: &Service,
        snapshot: &DockerSnapshot,
    ) -> Option<Arc<Service>> {
        let has = |backend: &&Backend| before.backends.iter().any(|of| of.endpoint == backend.endpoint);
        let (kept, mut new): (Vec<&Backend>, Vec<&Backend>) = service.backends.iter().partition(has);
        let id = |backend: &Backend| snapshot.backends.get(&backend.endpoint).map(|container| &container.id);
        new.sort_by_key(|backend| id(backend));
        let groups: Vec<&[&Backend]> = new.chunk_by(|a, b| id(a) == id(b)).collect();
        let with = |base: &Service, number: usize| {
            let new = groups.iter().take(number).copied().flatten();
            let mut backends: Vec<Backend> = kept.iter().chain(new).map(|backend| **backend).collect();
            backends.sort_unstable();
            Service {
                backends,
                ..base.clone()
            }
        };
        let admit = |service: Service| {
            let mut with = edits.clone();
            let service = Arc::new(service);
            with.put.push(Arc::clone(&service));
            with.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            self.judge_books(&with, Provider::Docker).ok()?;
            Some((with, service))
        };
        let (base, mut admitted) = [service, before]
            .into_iter()
            .find_map(|base| Some((base, admit(with(base, 0))?)))?;
        // More of them do not fit where fewer do not.
        let (mut fit, mut most) = (0, groups.len());
        while fit < most {
            let middle = (fit + most).div_ceil(2);
            match admit(with(base, middle)) {
                Some(more) => (fit, admitted) = (middle, more),
                None => most = middle - 1,
            }
        }
        let service;
        (*edits, service) = admitted;
        Some(service)
    }

    /// Adds services that fit to `edits`, and the others to `refused`, by bisection: few conflicts need few attempts.
    fn admit_containers(
        &self,
        edits: &mut Edits,
        batch: &[Arc<Service>],
        refused: &mut BTreeMap<Name, RefusedContainers>,
    ) {
        if batch.is_empty() {
            return;
        }
        let mut with = edits.clone();
        with.put.extend(batch.iter().cloned());
        with.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match (self.judge_books(&with, Provider::Docker), batch) {
            (Ok(()), _) => *edits = with,
            (Err(why), [service]) => {
                let (why, names) = (why.lines().join("; "), Vec::new());
                refused.insert(service.name.clone(), RefusedContainers { why, names });
            }
            (Err(_), _) => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.admit_containers(edits, first, refused);
                self.admit_containers(edits, second, refused);
            }
        }
    }

    /// Returns the obstacles of services that are new or have new backends.
    fn examined_containers(
        &self,
        edits: &Edits,
        old: &State,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<Obstacles, JudgementError> {
        let begins = |service: &&Arc<Service>| old.get(&service.name).is_none_or(|before| begins(service, before));
        let services: Vec<Arc<Service>> = edits.put.iter().filter(begins).cloned().collect();
        if services.is_empty() {
            return Ok(Obstacles::new());
        }
        let state = State { services };
        let (found, _) = self.examined(&state, self.settings.take_over, vet)?;
        let obstacles = state.services.iter().map(|service| {
            let new = self.new_obstacles(service, found.get(&service.name));
            (service.name.clone(), new)
        });
        Ok(obstacles.filter(|(_, new)| !new.is_empty()).collect())
    }

    /// Has services not fall back on backends whose container does not run any more.
    fn leave_ended(&mut self, snapshot: &DockerSnapshot) {
        let ended = self.docker.backends.iter();
        let ended = ended.filter(|(_, container)| !snapshot.running.contains(&container.id));
        for endpoint in ended.map(|(endpoint, _)| *endpoint) {
            self.membership.ended(endpoint, |name| self.docker.get(name).is_some());
        }
    }

    /// Has backends answer a probe first whose container is another one than before, or was started again: it does not listen yet,
    /// though the one before it did.
    fn prove_started_again(&mut self, snapshot: &DockerSnapshot, now: Now) {
        let services = self.docker.services();
        let backends =
            services.flat_map(|service| service.backends.iter().map(|of| (of.endpoint, service.name.clone())));
        let backends: Vec<(Endpoint, Name)> = backends.collect();
        let mut is_any = false;
        for (endpoint, name) in backends {
            let Some(container) = snapshot.backends.get(&endpoint) else {
                continue;
            };
            let before = self.docker.backends.insert(endpoint, container.clone());
            if before.is_some_and(|before| before != *container) && self.phase == DaemonPhase::Running {
                self.membership.prove_again(&name, endpoint, now.instant);
                is_any = true;
            }
        }
        let health = &self.health;
        let of_snapshot = &snapshot.backends;
        self.docker
            .backends
            .retain(|endpoint, _| of_snapshot.contains_key(endpoint) || health.get((*endpoint).into()).is_some());
        if is_any {
            self.because(CAUSE, now);
            self.probe(now.instant);
        }
    }
}

/// Returns a state after edits.
fn edited(old: &State, edits: &Edits) -> State {
    let untouched = old.services.iter().filter(|service| !edits.touches(&service.name));
    State::from_valid(untouched.chain(&edits.put).cloned().collect())
}

/// Returns whether a service gets a port or a backend that it has not had.
fn begins(service: &Service, before: &Service) -> bool {
    let has = |endpoint| before.backends.iter().any(|backend| backend.endpoint == endpoint);
    service.port != before.port || !service.backends.iter().all(|backend| has(backend.endpoint))
}

/// Returns a service as it was, with those of its backends that `new` has, too, in their new states.
fn with_backends_of(before: &Service, new: &Service) -> Service {
    let has = |endpoint| before.backends.iter().any(|backend| backend.endpoint == endpoint);
    Service {
        backends: new
            .backends
            .iter()
            .filter(|backend| has(backend.endpoint))
            .copied()
            .collect(),
        ..before.clone()
    }
}

/// Returns the part of edits that adds neither services nor backends nor ports.
fn without_beginnings(edits: &Edits, old: &State) -> Edits {
    let put = edits.put.iter().filter_map(|service| {
        let before = old.get(&service.name)?;
        if !begins(service, before) {
            return Some(Arc::clone(service));
        }
        if service.port != before.port {
            return None;
        }
        let left = with_backends_of(before, service);
        (left != **before).then(|| Arc::new(left))
    });
    Edits {
        put: put.collect(),
        gone: edits.gone.clone(),
    }
}
