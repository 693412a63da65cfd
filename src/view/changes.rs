//! Changes of services as text, for `diff`, dry runs and `history`.

use std::net::SocketAddr;

use tcpgw_core::diff::{BackendChange, BackendChangeKind, ServiceChange, ServiceChangeKind};
use tcpgw_core::words::count;

#[cfg(test)]
mod tests;

/// Returns the line of a change: `~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (12 flows will be flushed)`.
pub fn line(change: &ServiceChange) -> String {
    let sign = match change.kind {
        ServiceChangeKind::Added => '+',
        ServiceChangeKind::Changed => '~',
        ServiceChangeKind::Removed => '-',
    };
    let name = change.name.as_deref().unwrap_or("(unnamed)");
    let mut parts = vec![format!("{sign} {name} {}", listen(change))];
    parts.extend(backends(change));
    if !change.settings.is_empty() {
        parts.push(change.settings.join(", "));
    }
    parts.join("  ")
}

/// Returns the backends and settings that change: `+ 10.2.0.13:3000`, `limit none -> 5 packets/s`.
pub fn details(change: &ServiceChange) -> impl Iterator<Item = String> {
    backends(change).chain(change.settings.iter().cloned())
}

fn backends(change: &ServiceChange) -> impl Iterator<Item = String> {
    change.backends.iter().map(of_backend)
}

fn listen(change: &ServiceChange) -> String {
    if change.addresses.is_empty() {
        return format!(":{}", change.port);
    }
    let at = |address| SocketAddr::new(address, change.port).to_string();
    let addresses: Vec<String> = change.addresses.iter().copied().map(at).collect();
    addresses.join(",")
}

fn of_backend(change: &BackendChange) -> String {
    let backend = change.backend;
    let text = match change.change {
        BackendChangeKind::Added => format!("+ {backend}"),
        BackendChangeKind::Removed => format!("- {backend}"),
        BackendChangeKind::Draining => format!("{backend} drains"),
        BackendChangeKind::Active => format!("{backend} is active again"),
        BackendChangeKind::Weight => format!("{backend} weight {}", change.weight.unwrap_or(1)),
    };
    match change.flows {
        0 => text,
        flows => format!("{text} ({} will be flushed)", count(flows, "flow")),
    }
}
