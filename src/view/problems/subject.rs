//! The service that a problem is about.

use std::net::{IpAddr, SocketAddr};

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
    title_of(name, service.addresses.iter(), service.port)
}

/// Returns a name and addresses as [`title`] does. Without addresses the service listens on every local one.
pub fn title_of<'a>(name: &str, addresses: impl Iterator<Item = &'a IpAddr>, port: u16) -> String {
    let listen_keys: Vec<String> = addresses
        .map(|address| SocketAddr::new(*address, port).to_string())
        .collect();
    if listen_keys.is_empty() {
        format!("{name} :{port}")
    } else {
        format!("{name} {}", listen_keys.join(","))
    }
}
