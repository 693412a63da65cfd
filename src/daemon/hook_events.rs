//! Events that hooks have chosen.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::control::events::EventContent;
use crate::hooks::selector::EventSelector;

/// Largest number of backends whose recovery is noticed: more than a gateway has.
const MOST: usize = 1 << 17;

/// Backends that were unhealthy at their last events, by service.
#[derive(Debug, Default)]
pub(super) struct UnhealthyBackends(BTreeSet<(String, SocketAddr)>);

impl UnhealthyBackends {
    /// Takes an event. Returns whether it says that a backend which was unhealthy is healthy again.
    pub(super) fn is_recovery(&mut self, event: &EventContent) -> bool {
        match event {
            EventContent::Health {
                service,
                backend,
                state,
                ..
            } => match *state {
                "unhealthy" if self.0.len() < MOST => {
                    self.0.insert((service.clone(), *backend));
                    false
                }
                "healthy" => self.0.remove(&(service.clone(), *backend)),
                _ => false,
            },
            EventContent::Retired { service, backend, .. } => {
                self.0.remove(&(service.clone(), *backend));
                false
            }
            _ => false,
        }
    }
}

/// Returns whether an event is what a hook has chosen. `is_recovery`: see [`UnhealthyBackends`].
pub(super) fn is_chosen(chosen: EventSelector, event: &EventContent, is_recovery: bool) -> bool {
    match (chosen, event) {
        (EventSelector::Event(kind), event) => event.kind() == kind,
        (EventSelector::Problem(kind), EventContent::Problem(problem)) => problem.kind == kind,
        (EventSelector::ProblemEnded(kind), EventContent::ProblemEnded(problem)) => problem.kind == kind,
        (EventSelector::Health(chosen), EventContent::Health { state, .. }) => *state == chosen,
        (EventSelector::Recovered, EventContent::Health { .. }) => is_recovery,
        (EventSelector::Deploy(chosen), EventContent::Deploy { phase, .. }) => *phase == chosen,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::problem::{EndedProblem, Problem, ProblemKind};

    fn is_chosen(name: &str, event: &EventContent) -> bool {
        super::is_chosen(name.parse().unwrap(), event, false)
    }

    #[test]
    fn a_name_chooses_what_it_stands_for_and_nothing_else() {
        let begun = |kind| EventContent::Problem(Problem::new(kind, "m"));
        let ended = |kind| EventContent::ProblemEnded(EndedProblem::from(Problem::new(kind, "m")));
        let (unanswered, web) = (ProblemKind::Unanswered, ProblemKind::Web);
        assert!(is_chosen("unanswered", &begun(unanswered)));
        assert!(!is_chosen("unanswered", &ended(unanswered)) && !is_chosen("unanswered", &begun(web)));
        assert!(is_chosen("unanswered_ended", &ended(unanswered)));
        assert!(!is_chosen("unanswered_ended", &begun(unanswered)));
        for kind in ProblemKind::ALL {
            assert!(is_chosen("problem", &begun(*kind)) && !is_chosen("problem", &ended(*kind)));
            assert!(is_chosen("problem_ended", &ended(*kind)) && !is_chosen("problem_ended", &begun(*kind)));
        }
        let health = |state| EventContent::Health {
            service: "web".into(),
            backend: ([10, 2, 0, 1], 80).into(),
            state,
            reason: None,
        };
        assert!(is_chosen("health", &health("failing")) && is_chosen("health_failing", &health("failing")));
        assert!(!is_chosen("health_failing", &health("healthy")));
        let deploy = |phase| EventContent::Deploy {
            id: 1,
            service: "web".into(),
            phase,
            reason: None,
        };
        assert!(is_chosen("deploy_failed", &deploy("failed")) && !is_chosen("deploy_failed", &deploy("undone")));
        let torn_down = EventContent::TornDown { flushed: 0, uid: 0 };
        assert!(is_chosen("torn_down", &torn_down) && !is_chosen("torn_down", &begun(ProblemKind::TornDown)));
        let tag = serde_json::to_value(&torn_down).unwrap();
        assert_eq!(tag["event"], torn_down.kind());
    }

    #[test]
    fn only_a_backend_that_was_unhealthy_recovers() {
        let mut backends = UnhealthyBackends::default();
        let health = |service: &str, state| EventContent::Health {
            service: service.into(),
            backend: ([10, 2, 0, 1], 80).into(),
            state,
            reason: None,
        };
        let steps = [
            ("a", "healthy", false),
            ("a", "failing", false),
            ("a", "unhealthy", false),
            ("b", "healthy", false),
            ("a", "rising", false),
            ("a", "healthy", true),
            ("a", "healthy", false),
            ("a", "unhealthy", false),
        ];
        for (service, state, expected) in steps {
            let event = health(service, state);
            let is_recovery = backends.is_recovery(&event);
            assert_eq!(is_recovery, expected, "{service} {state}");
            let chosen = "backend_unhealthy_ended".parse().unwrap();
            assert_eq!(super::is_chosen(chosen, &event, is_recovery), expected);
            assert_eq!(is_chosen("backend_unhealthy", &event), state == "unhealthy");
        }
        backends.is_recovery(&EventContent::Retired {
            service: "a".into(),
            backend: ([10, 2, 0, 1], 80).into(),
            reason: "dead",
            flows: None,
        });
        assert!(!backends.is_recovery(&health("a", "healthy")), "it is another one");
    }
}
