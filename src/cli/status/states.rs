//! Words for the states of services and backends.

use crate::addon::ServiceState;
use crate::view::status::{BackendStatus, IN_BALANCE, ServiceStatus};
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::summary::FlowVerdict;

/// Returns the state of a service in one word. Problems of the service take precedence over the states of its backends;
/// `problems` may be those of all services.
pub(in crate::cli) fn of_service(service: &ServiceStatus<'_>, problems: &[Problem]) -> &'static str {
    let of_it = || {
        let named = problems.iter();
        named.filter(|problem| {
            problem.port == Some(service.port) && problem.service.as_deref() == service.name.as_deref()
        })
    };
    let is_partial = of_it().any(|problem| {
        let kinds = [ProblemKind::NoActiveBackend, ProblemKind::NoHealthyBackend];
        kinds.contains(&problem.kind) && problem.severity == Severity::Error
    });
    match (service.healthy, service.is_empty()) {
        _ if service.leaving => "leaving",
        _ if service.addon == Some(ServiceState::Suspended) => "SUSPENDED",
        _ if service.addon == Some(ServiceState::Waiting) => "WAITING",
        _ if of_it().any(|problem| problem.kind == ProblemKind::Paused) => PAUSED,
        (true, _) if is_partial => "PARTLY",
        (true, _) => "up",
        (false, true) => "EMPTY",
        (false, false) => "DOWN",
    }
}

/// State of a paused service.
pub(in crate::cli) const PAUSED: &str = "PAUSED";

/// Returns whether new connections are sent to it, as far as its health says so.
pub(in crate::cli) fn is_up(backend: &BackendStatus) -> bool {
    let health = backend.health.as_deref();
    backend.weight.is_some() && health.is_none_or(|health| IN_BALANCE.contains(&health))
}

/// Returns the state of a backend for new connections, in one word. A backend that is not probed, or not yet, is active.
pub(in crate::cli) fn of_backend(backend: &BackendStatus) -> String {
    match (backend.state, backend.health.as_deref()) {
        (FlowVerdict::Draining, _) => "draining",
        (_, None | Some("presumed")) => "active",
        (_, Some(UNKNOWN)) => "probing",
        (_, Some(health)) => health,
    }
    .to_owned()
}
