//! The service that a problem is about.

use std::net::SocketAddr;

use crate::view::status::ServiceStatus;
use tcpgw_core::problem::Problem;

/// Returns the problem as one of a service, and of a backend of it.
pub(super) fn of(service: &ServiceStatus<'_>, backend: Option<SocketAddr>, problem: Problem) -> Problem {
    Problem {
        service: service.name.as_deref().map(str::to_owned),
        port: Some(service.port),
        backend,
        ..problem
    }
}

/// Returns the name and the addresses of a service: `my-app :20003`.
pub fn title(service: &ServiceStatus<'_>) -> String {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    let listen_keys: Vec<String> = service
        .addresses
        .iter()
        .map(|address| SocketAddr::new(*address, service.port).to_string())
        .collect();
    if listen_keys.is_empty() {
        format!("{name} :{}", service.port)
    } else {
        format!("{name} {}", listen_keys.join(","))
    }
}
