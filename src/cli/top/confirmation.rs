//! Questions before a change: the change, and its consequences for clients.

use std::net::SocketAddr;

use super::query::{OrderKind, PAUSE, TopOrder};
use super::sample::{ServiceLine, TopSample};
use crate::view::drained::consequence;
use tcpgw_core::words::count;

/// Question before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopConfirmation {
    /// The question.
    pub(super) ask: String,
    /// Consequences of a yes.
    pub(super) then: String,
}

impl TopConfirmation {
    /// Returns the question before an order, in view of the last sample.
    pub(super) fn new(order: &TopOrder, sample: Option<&TopSample>) -> Self {
        let name = &order.service;
        let is_it = |service: &&ServiceLine| service.name.as_ref() == Some(name);
        let service = sample.and_then(|sample| sample.services.iter().find(is_it));
        match order.kind {
            OrderKind::Pause => Self {
                ask: format!("Pause {name} for {PAUSE}?"),
                then: format!(
                    "New connections are dropped, so that clients try again. {} go on. The service resumes by itself after {PAUSE}, or \
                     with r.",
                    flows(service.map(|service| service.load.flows), "Its")
                ),
            },
            OrderKind::Resume => Self {
                ask: format!("Resume {name}?"),
                then: match service {
                    Some(service) if !service.is_paused() => "It is not paused, as far as is known.".to_owned(),
                    _ => "New connections are accepted again.".to_owned(),
                },
            },
            OrderKind::Drain(backend) => Self {
                ask: format!("Drain {backend} of {name}?"),
                then: drained(service, backend),
            },
            OrderKind::Undrain(backend) => Self {
                ask: format!("Undrain {backend} of {name}?"),
                then: "It gets new connections again, once it has answered a probe.".to_owned(),
            },
        }
    }
}

fn drained(service: Option<&ServiceLine>, backend: SocketAddr) -> String {
    let backends = service.map_or(&[][..], |service| &service.backends);
    let others = backends.iter().filter(|other| other.backend != backend && other.is_up);
    let connections = consequence(others.count());
    let it = backends.iter().find(|of| of.backend == backend);
    format!(
        "{connections} {} may go on for the service's drain_timeout, and are ended then.",
        flows(it.map(|it| it.load.flows), "Its")
    )
}

fn flows(number: Option<u64>, whose: &str) -> String {
    match number.and_then(|number| usize::try_from(number).ok()) {
        Some(number) => format!("{whose} {}", count(number, "flow")),
        None => format!("{whose} flows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::sample_tests::{backend, sample, service};

    fn question(kind: OrderKind, sample: &TopSample) -> TopConfirmation {
        let service = "web".into();
        TopConfirmation::new(&TopOrder { service, kind }, Some(sample))
    }

    #[test]
    fn a_question_says_what_will_happen() {
        let mut web = service("web", 8000, 1.0);
        web.backends = vec![backend("10.2.0.11:3000", 7), backend("10.2.0.12:3000", 1)];
        let first = web.backends[0].backend;
        let both = sample([web.clone()]);
        let asked = question(OrderKind::Drain(first), &both);
        assert_eq!(asked.ask, "Drain 10.2.0.11:3000 of web?");
        assert_eq!(
            asked.then,
            "It gets no new connections: they go to 1 other backend. Its 7 flows may go on for the service's drain_timeout, and are \
             ended then."
        );
        web.backends[1].is_up = false;
        let alone = question(OrderKind::Drain(first), &sample([web]));
        assert!(alone.then.contains("NO OTHER BACKEND IS UP"), "{}", alone.then);
        let paused = question(OrderKind::Pause, &both);
        assert!(
            paused.ask == "Pause web for 30s?" && paused.then.contains("dropped"),
            "{paused:?}"
        );
        assert!(question(OrderKind::Resume, &both).then.contains("not paused"));
        assert!(question(OrderKind::Undrain(first), &both).then.contains("again"));
    }
}
