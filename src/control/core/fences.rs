//! Services outside of the configuration's fences: of the store, of an earlier state file, or orphans. Those that are
//! served stay served, with a problem; others are not put into the kernel.

use std::sync::Arc;

use super::Core;
use super::surroundings::Obstacles;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use tcpgw_core::model::{Problem as Wrong, Service, State};
use tcpgw_core::problem::{Kind, Problem};

impl Core {
    /// Adds obstacles for services outside of the fences. `before`: services as they were served before. Defaults hold
    /// nothing back: a configuration that is gone must not end what was served.
    pub(super) fn add_fences(&self, all: &State, before: &[Arc<Service>], found: &mut Obstacles) {
        let mut add = |service: &Service, kind, problem| {
            let service = service.name.clone();
            let obstacle = Obstacle {
                service: service.clone(),
                kind,
                problem,
            };
            found.entry(service).or_default().push(obstacle);
        };
        for service in all.services.iter().chain(before) {
            if let Some(problem) = self.config.check_port(service).filter(|_| self.config.fences_ports()) {
                add(service, ObstacleKind::FencedPort(service.port), problem);
            }
            for (endpoint, problem) in self.config.refused_backends(service) {
                add(service, ObstacleKind::FencedBackend(endpoint), problem);
            }
        }
        if self.config.fences_sizes() {
            for (service, problem) in self.too_many(all) {
                add(service, ObstacleKind::FencedSize, problem);
            }
        }
    }

    /// Returns the services that exceed the maximum sizes. Services that are served are counted first.
    fn too_many<'s>(&self, all: &'s State) -> Vec<(&'s Service, Wrong)> {
        let is_served = |service: &&Service| {
            let held = self.held_back.contains(&service.name);
            !held
                && (self.membership.serving().contains_key(&service.name)
                    || self.membership.serving_at(service).is_some())
        };
        let services = all.services.iter().map(AsRef::as_ref);
        let (first, others): (Vec<&Service>, Vec<&Service>) = services.partition(is_served);
        let mut sizes = (0, 0);
        let mut over = Vec::new();
        for service in first.into_iter().chain(others) {
            let with = (sizes.0 + 1, sizes.1 + service.backends.len());
            match self.config.check_sizes(with.0, with.1).into_iter().next() {
                None => sizes = with,
                Some(problem) => over.push((service, problem)),
            }
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
        Problem::new(Kind::OutsideFences, message)
    }

    /// Returns the advice for a service outside of the fences.
    pub(super) fn cure_of_fences(&self, service: &Service) -> String {
        let name = &service.name;
        let is_of_file = self.file.as_ref().is_some_and(|file| file.get(name).is_some());
        let change = if is_of_file {
            format!("change it in {}", self.origin)
        } else {
            format!("change it with `tcpgw service set {name}`, or remove it with `tcpgw service rm {name}`")
        };
        format!("move the fence and reload the daemon (SIGHUP), or {change}")
    }
}
