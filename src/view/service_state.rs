//! Decides which state a service has.

use super::condition::ServiceCondition;
use super::problems::{ServiceFacts, service_problem};
use super::status::ServiceStatus;
use crate::addon::ServiceState;
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::problem::Severity;

/// Returns the state of a service. `is_told_of_drains`: whether a daemon distinguishes backends that drain by order from those that
/// were removed.
pub(super) fn state_of(service: &ServiceStatus<'_>, is_paused: bool, is_told_of_drains: bool) -> ServiceCondition {
    let active = || service.backends.iter().filter(|backend| backend.weight.is_some());
    let health = |state: &str| active().any(|backend| backend.health.as_deref() == Some(state));
    let is_unasked = || {
        let mut unasked = active().map(|of| of.health.as_deref() == Some(UNKNOWN) && of.health_reason.is_none());
        unasked.all(|is_unasked| is_unasked)
    };
    let is_partly = || {
        let problem = service_problem(&ServiceFacts::of(service, is_told_of_drains));
        problem.is_some_and(|problem| problem.severity == Severity::Error)
    };
    match service.addon {
        _ if service.leaving => ServiceCondition::Leaving,
        Some(ServiceState::Suspended) => ServiceCondition::Suspended,
        Some(ServiceState::Waiting) => ServiceCondition::Waiting,
        _ if is_paused => ServiceCondition::Paused,
        _ if !service.healthy && service.is_empty() => ServiceCondition::Empty,
        // Before the first probes nothing is known to be wrong.
        _ if !service.healthy && is_unasked() => ServiceCondition::Probing,
        _ if !service.healthy => ServiceCondition::Down,
        _ if is_partly() => ServiceCondition::Partly,
        _ if health("unhealthy") => ServiceCondition::Degraded,
        _ => ServiceCondition::Up,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use super::*;
    use crate::view::status::BackendStatus;
    use tcpgw_core::summary::FlowVerdict;

    fn service() -> ServiceStatus<'static> {
        ServiceStatus {
            name: Some("a".into()),
            port: 2001,
            addresses: Cow::Owned(BTreeSet::new()),
            provider: None,
            state: ServiceCondition::Up,
            healthy: true,
            leaving: false,
            addon: None,
            balance: "".into(),
            limit: None,
            flows: crate::view::tally::FlowCounts::default(),
            unanswered: None,
            totals: crate::view::totals::TotalsView::default(),
            drops: crate::view::drops::ServiceDrops::default(),
            backends: Vec::new(),
            resets_when_empty: None,
            reachable: true,
        }
    }

    /// Returns a backend; one that drains has no health.
    fn backend(address: &str, health: Option<&'static str>) -> BackendStatus {
        BackendStatus {
            backend: SocketAddr::new(address.parse().unwrap(), 3000),
            state: health.map_or(FlowVerdict::Draining, |_| FlowVerdict::Active),
            weight: health.map(|_| 1),
            health: health.map(Cow::Borrowed),
            health_reason: None,
            flows: crate::view::tally::FlowCounts::default(),
            rates: None,
            of_limit: None,
            totals: crate::view::totals::TotalsView::default(),
            drops: crate::view::drops::BackendDrops::default(),
            source_ports: Vec::new(),
        }
    }

    #[test]
    fn the_worst_of_a_service_is_its_state() {
        let (four, six) = ("10.0.0.1", "fd00::1");
        for (backends, healthy, expected) in [
            (&[(four, Some("healthy"))][..], true, "up"),
            (&[], false, "empty"),
            (&[(four, None)], false, "empty"),
            (&[(four, Some("unhealthy"))], false, "down"),
            (&[(four, Some("unhealthy")), (four, Some("unknown"))], false, "down"),
            (&[(four, Some("unknown"))], false, "probing"),
            (&[(four, Some("unknown")), (four, Some("healthy"))], true, "up"),
            (&[(four, Some("unhealthy")), (four, Some("healthy"))], true, "degraded"),
            (&[(four, Some("failing")), (four, Some("healthy"))], true, "up"),
            (&[(four, Some("healthy")), (four, None)], true, "up"),
            (&[(four, Some("healthy")), (six, Some("unhealthy"))], true, "partly"),
        ] {
            let backends = backends
                .iter()
                .map(|(address, health)| backend(address, *health))
                .collect();
            let service = ServiceStatus {
                healthy,
                backends,
                ..service()
            };
            assert_eq!(state_of(&service, false, true).word(), expected, "{service:?}");
            assert_eq!(state_of(&service, true, true), ServiceCondition::Paused);
        }
        let with = |leaving, addon| {
            let service = ServiceStatus {
                leaving,
                addon,
                healthy: false,
                ..service()
            };
            state_of(&service, true, true).word()
        };
        assert_eq!(with(true, Some(ServiceState::Waiting)), "leaving");
        assert_eq!(with(false, Some(ServiceState::Waiting)), "waiting");
        assert_eq!(with(false, Some(ServiceState::Suspended)), "suspended");
    }
}
