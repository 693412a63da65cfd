//! Problems of Docker's engine and of containers.
use std::collections::BTreeMap;

use super::Core;
use crate::control::name::Name;
use tcpgw_core::container::ContainerProblem;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// Largest number of problems of one service that its message has.
const MOST: usize = 3;

/// Port of a service, and what is wrong with its containers.
type OfService = (Option<u16>, Vec<String>);

impl Core {
    /// Reports or resolves the problems of the engine and of containers.
    pub(super) fn judge_docker(&mut self) {
        let engine = self.engine_problem();
        let containers = self.container_problems();
        self.problems.replace(
            &[ProblemKind::Docker, ProblemKind::Container],
            engine.into_iter().chain(containers),
        );
    }

    fn engine_problem(&self) -> Option<Problem> {
        let message = match &self.docker.trouble {
            Some(why) => {
                format!(
                    "{why}; what is served of its containers goes on as it was last known, and new ones are not served"
                )
            }
            None if self.docker.is_uncertain() => {
                "Docker's engine names no container with labels of tcpgw, though services of such containers are \
                 served: they stay until it has said so for a minute"
                    .to_owned()
            }
            None => match &self.docker.left_out {
                Some(left_out) => left_out.clone(),
                None => return None,
            },
        };
        Some(Problem::new(ProblemKind::Docker, message))
    }

    /// Returns one problem for each service whose containers have some, and one for all other containers.
    fn container_problems(&self) -> Vec<Problem> {
        let mut by_service: BTreeMap<Option<&Name>, OfService> = BTreeMap::new();
        let Some(snapshot) = &self.docker.snapshot else {
            return Vec::new();
        };
        for ContainerProblem { service, port, message } in &snapshot.problems {
            let (of_port, messages) = by_service.entry(service.as_ref()).or_default();
            *of_port = of_port.or(port.map(std::num::NonZeroU16::get));
            messages.push(message.clone());
        }
        for (name, refused) in &self.docker.refused {
            let (of_port, messages) = by_service.entry(Some(name)).or_default();
            let service = snapshot.state.get(name);
            *of_port = of_port.or(service.map(|service| service.port.get()));
            let why = &refused.why;
            let of = if refused.names.is_empty() {
                self.docker.example(name)
            } else {
                format!(" ({})", shown(&refused.names))
            };
            messages.push(format!("containers of service \"{name}\"{of}: {why}"));
        }
        let problems = by_service.into_iter().map(|(name, (port, mut messages))| {
            let more = messages.len().saturating_sub(MOST);
            messages.truncate(MOST);
            if more > 0 {
                messages.push(tcpgw_core::words::count(more, "more problem"));
            }
            let message = format!("labels are not in effect: {}", messages.join("; "));
            let is_served = name.is_some_and(|name| {
                self.docker
                    .get(name)
                    .is_some_and(|service| !service.backends.is_empty())
            });
            let severity = if is_served { Severity::Warning } else { Severity::Error };
            let problem = Problem::new(ProblemKind::Container, message).with_severity(severity);
            Problem {
                service: name.map(ToString::to_string),
                port,
                ..problem
            }
        });
        problems.collect()
    }
}

/// Returns a few names of containers, for messages.
fn shown(names: &[Box<str>]) -> String {
    let more = names.len().saturating_sub(MOST);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let names: Vec<String> = names
        .iter()
        .take(MOST)
        .map(|name| tcpgw_core::escape::text(name))
        .collect();
    format!("{}{more}", names.join(", "))
}
