//! Services of Docker's containers: each is accepted or left out by itself, so that a container with wrong labels keeps no other from
//! being served.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::judge::{GatewayCheck, JudgementError};
use super::obstacles::Obstacles;
use super::orphans::Orphan;
use super::{Core, DaemonPhase, Now, Provider};
use crate::control::name::Name;
use crate::provider::docker::{DockerNews, DockerSnapshot};
use tcpgw_core::container::ContainerBackend;
use tcpgw_core::model::{Edits, Endpoint, Service, State};

/// Cause of changes, for events.
pub(super) const CAUSE: &str = "Docker's containers";

/// The services of Docker's containers.
#[derive(Debug, Default)]
pub(super) struct DockerServices {
    /// The services in effect; `None`: the engine has not told yet, and no earlier daemon has served any.
    state: Option<Arc<State>>,
    /// The containers as the engine named them last.
    pub(super) snapshot: Option<Arc<DockerSnapshot>>,
    /// Reason why the engine is not followed now.
    pub(super) trouble: Option<String>,
    /// Services that are left out because of others, with the reasons.
    pub(super) refused: BTreeMap<Name, String>,
    /// The container that each backend is or was, as long as it is probed.
    backends: BTreeMap<Endpoint, ContainerBackend>,
    /// Whether the snapshot has not been decided about.
    is_due: bool,
    /// Whether containers asked for the last change of the desired state, and not the state file or the API.
    pub(super) has_changed_last: bool,
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
        self.docker.trouble = news.trouble;
        if let Some(snapshot) = news.snapshot
            && self.docker.snapshot.as_ref() != Some(&snapshot)
        {
            self.docker.snapshot = Some(snapshot);
            self.docker.is_due = true;
        }
        self.judge_docker();
    }

    /// Returns whether [`Self::decide_docker`] has work.
    pub fn is_docker_due(&self) -> bool {
        // Until then it is not known what is served, and by which provider.
        self.docker.is_due && self.has_looked()
    }

    /// Puts the services of the last snapshot into effect, as far as other services and the gateway allow. Returns whether all of it
    /// is decided; if not, the gateway is being examined, and it is decided later.
    pub fn decide_docker(&mut self, vet: &mut GatewayCheck<'_>, now: Now) -> bool {
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
        self.judge_docker();
        let services: Vec<Orphan> = old.services().cloned().map(Orphan::whole).collect();
        if !services.is_empty() {
            self.orphan(services, "the daemon does not follow Docker's containers any more", now);
        }
    }

    /// Returns the edits that other services and the fences allow, and the names of the services that are left out, with the reasons.
    fn admitted(&self, snapshot: &DockerSnapshot, old: &State) -> (Edits, BTreeMap<Name, String>) {
        let changed = snapshot.state.edits_from(old);
        let mut refused = BTreeMap::new();
        let mut edits = Edits {
            put: Vec::new(),
            gone: changed.gone,
        };
        self.admit_containers(&mut edits, &changed.put, &mut refused);
        for service in changed.put.iter().filter(|service| refused.contains_key(&service.name)) {
            let Some(before) = old.get(&service.name) else {
                continue;
            };
            // The service stays with the containers that it has had, as long as they are there.
            let mut kept = Vec::new();
            if before.port == service.port {
                let left = Arc::new(with_backends_of(before, service));
                self.admit_containers(&mut edits, &[left], &mut BTreeMap::new());
                kept.extend(edits.put.iter().find(|put| put.name == service.name).cloned());
            }
            match kept.first() {
                Some(kept) if **kept == **before => edits.put.retain(|put| put.name != service.name),
                Some(_) => {}
                None => edits.gone.push(service.name.clone()),
            }
        }
        edits.gone.sort_unstable();
        (edits, refused)
    }

    /// Adds services that fit to `edits`, and the others to `refused`, by bisection: few conflicts need few attempts.
    fn admit_containers(&self, edits: &mut Edits, batch: &[Arc<Service>], refused: &mut BTreeMap<Name, String>) {
        if batch.is_empty() {
            return;
        }
        let mut with = edits.clone();
        with.put.extend(batch.iter().cloned());
        with.put.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match (self.judge_books(&with, Provider::Docker), batch) {
            (Ok(()), _) => *edits = with,
            (Err(why), [service]) => drop(refused.insert(service.name.clone(), why.lines().join("; "))),
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
