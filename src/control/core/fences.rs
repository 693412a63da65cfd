//! Services outside of the configuration's fences: of the store, of an earlier state file, or orphans. Those that are
//! served stay served, with a problem, and can be changed otherwise; others are not put into the kernel.

use std::sync::Arc;

use super::obstacles::Obstacles;
use super::{Core, Provider};
use crate::addon::id::ResourceId;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use crate::control::request::Refused;
use tcpgw_core::model::{Edits, Endpoint, InputProblem, InputProblems, Service, State};
use tcpgw_core::problem::{Problem, ProblemKind};

fn add(found: &mut Obstacles, service: &Service, kind: ObstacleKind, problem: InputProblem) {
    let service = service.name.clone();
    let obstacle = Obstacle {
        service: service.clone(),
        kind,
        problem,
    };
    found.entry(service).or_default().push(obstacle);
}

impl Core {
    /// Adds obstacles for services outside of the fences. `before`: services as they were served before. Defaults hold
    /// nothing back: a configuration that is gone must not end what was served.
    pub(super) fn add_fences(&self, all: &State, before: &[Arc<Service>], found: &mut Obstacles) {
        self.add_ports_and_backends(all.services.iter().chain(before), found);
        if self.config.fences_sizes() {
            for (service, problem) in self.too_many(all) {
                add(found, service, ObstacleKind::FencedSize, problem);
            }
        }
    }

    fn add_ports_and_backends<'s>(&self, services: impl IntoIterator<Item = &'s Arc<Service>>, found: &mut Obstacles) {
        for service in services {
            if let Some(problem) = self.config.check_port(service).filter(|_| self.config.fences_ports()) {
                add(found, service, ObstacleKind::FencedPort(service.port), problem);
            }
            for (endpoint, problem) in self.config.refused_backends(service) {
                add(found, service, ObstacleKind::FencedBackend(endpoint), problem);
            }
        }
    }

    /// Fails when a change by the API or by containers exceeds the fences. Only what it adds is judged: ports,
    /// backends, and numbers that grow. What was let in before the fences were drawn narrower can be suspended, drained
    /// and deployed, and its backends can change within the fences.
    pub(super) fn judge_added(&self, edits: &Edits, holds_back: bool, provider: Provider) -> Result<(), Refused> {
        let is_judged_whole = |service: &Service| !holds_back && self.held_back.contains(&service.name);
        let sizes = self.config.fences_sizes().then(|| {
            let all = &self.with_orphans(edits);
            let (before, after) = (self.sizes_with(&Edits::default()), self.sizes_with(all));
            let is_whole = provider == Provider::Api && edits.put.iter().any(|service| is_judged_whole(service));
            let grown = |before: usize, after: usize| if is_whole || after > before { after } else { 0 };
            self.config
                .check_sizes(grown(before.0, after.0), grown(before.1, after.1))
        });
        let mut problems: Vec<InputProblem> = sizes.into_iter().flatten().collect();
        for service in &edits.put {
            let own = match provider {
                Provider::Docker => self.docker.get(&service.name),
                Provider::Api | Provider::File => self.api.get(&service.name).map(|stored| &stored.service),
            };
            let there = own.or_else(|| self.orphans.get(&service.name).map(|orphan| &orphan.service));
            let there = there.filter(|_| !is_judged_whole(service));
            if there.is_none_or(|there| there.port != service.port) {
                problems.extend(self.config.check_port(service));
            }
            let has = |endpoint: Endpoint| {
                there.is_some_and(|there| there.backends.iter().any(|backend| backend.endpoint == endpoint))
            };
            let added = self
                .config
                .refused_backends(service)
                .filter(|(endpoint, _)| !has(*endpoint));
            problems.extend(added.map(|(_, problem)| problem));
        }
        let problems: InputProblems = problems.into_iter().collect();
        problems.into_result().map_err(Refused::Invalid)
    }

    /// Adds the obstacles of held-back services that are outside of the fences.
    pub(super) fn add_fences_of_held(&self, edits: &Edits, found: &mut Obstacles) {
        for service in &edits.put {
            let Some(held) = self.held_back.get(&service.name) else {
                continue;
            };
            self.add_ports_and_backends([service], found);
            let sizes = held.why.iter().filter(|why| why.kind == ObstacleKind::FencedSize);
            found.entry(service.name.clone()).or_default().extend(sizes.cloned());
        }
    }

    /// Returns the services that exceed the maximum sizes. Services that are served are counted first.
    fn too_many<'s>(&self, all: &'s State) -> Vec<(&'s Service, InputProblem)> {
        let is_served = |service: &&Service| {
            let held = self.held_back.contains(&service.name);
            !held
                && (self.membership.serving().contains_key(&service.name)
                    || self.membership.serving_at(service).is_some())
        };
        let services = all.services.iter().map(AsRef::as_ref);
        let (first, others): (Vec<&Service>, Vec<&Service>) = services.partition(is_served);
        let backends = all.services.iter().map(|service| service.backends.len()).sum();
        let mut sizes = (0, 0);
        let mut over = Vec::new();
        for service in first.into_iter().chain(others) {
            let with = (sizes.0 + 1, sizes.1 + service.backends.len());
            // The problem has the numbers of all, to which the fence would have to be moved.
            let excess = if !self.config.check_sizes(with.0, 0).is_empty() {
                self.config.check_sizes(all.services.len(), 0)
            } else if !self.config.check_sizes(0, with.1).is_empty() {
                self.config.check_sizes(0, backends)
            } else {
                sizes = with;
                continue;
            };
            over.extend(excess.into_iter().map(|problem| (service, problem)));
        }
        over
    }

    /// Returns the problem of a service that is served outside of the fences.
    pub(super) fn outside_fences(&self, service: &Service, obstacle: &Obstacle) -> Problem {
        let message = format!(
            "service \"{}\" :{} is served, and outside of the fences: {}; {}",
            service.name,
            service.port,
            obstacle.reason(),
            self.cure_of_fences(service)
        );
        Problem::new(ProblemKind::OutsideFences, message)
    }

    /// Returns the advice for a service outside of the fences.
    pub(super) fn cure_of_fences(&self, service: &Service) -> String {
        let name = &service.name;
        let is_of_file = self.file.as_ref().is_some_and(|file| file.get(name).is_some());
        let resource = ResourceId::of_service(name).and_then(|id| self.addon.registry.get(id));
        let change = if is_of_file {
            format!("change it in {}", self.origin)
        } else if self.docker.get(name).is_some() {
            format!("change the labels of its containers{}", self.docker.example(name))
        } else if let Some(resource) = resource {
            format!("remove it with `tcpgw addon deprovision {}`", resource.app)
        } else {
            format!("change it with `tcpgw service set {name}`, or remove it with `tcpgw service rm {name}`")
        };
        format!("move the fence and reload the daemon (SIGHUP), or {change}")
    }
}
