//! State files.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::plan;

/// Mark that tcpgw sets on its flows by default.
pub(crate) const FLOW_MARK: u32 = 1 << 23;

/// Returns a state of these services.
pub(crate) fn state(services: &[Value]) -> Value {
    json!({"version": 1, "services": services})
}

/// Returns both addresses of these hosts, with that port.
pub(crate) fn backends(hosts: &[&str], port: u16) -> Vec<Value> {
    backends_with(hosts, port, &json!({}))
}

/// Returns such backends, each with further fields such as `weight` or `state`.
pub(crate) fn backends_with(hosts: &[&str], port: u16, fields: &Value) -> Vec<Value> {
    let addresses = hosts.iter().flat_map(|host| plan::addresses(host));
    let backend = |address| {
        let mut backend = json!({"address": address, "port": port});
        with(&mut backend, fields);
        backend
    };
    addresses.map(backend).collect()
}

/// Returns a service on that port, with the other fields in `fields`.
pub(crate) fn service(name: &str, port: u16, backends: &[Value], fields: &Value) -> Value {
    let mut service = json!({"name": name, "port": port, "backends": backends});
    with(&mut service, fields);
    service
}

/// Returns both endpoints of a host on that port.
pub(crate) fn endpoints(host: &str, port: u16) -> [SocketAddr; 2] {
    plan::addresses(host).map(|address| SocketAddr::new(address, port))
}

fn with(object: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().expect("fields are an object") {
        object[name] = value.clone();
    }
}
