//! Words for the states of backends.

use crate::view::status::{BackendStatus, IN_BALANCE};
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::summary::FlowVerdict;

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
