//! The services of a state file and of the API, which share endpoints.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tcpgw_core::model::{self, State};

use super::World;

pub(super) const OF_FILE: [&str; 2] = ["f1", "f2"];
pub(super) const OF_API: [&str; 2] = ["a1", "a2"];

/// Distance between the port of a service and the port that a local program has.
pub(super) const ELSEWHERE: u16 = 100;

pub(super) fn port(name: &str) -> u16 {
    let all = OF_FILE.into_iter().chain(OF_API);
    9001 + u16::try_from(all.into_iter().position(|of| of == name).unwrap()).unwrap()
}

/// Returns the endpoints of a service. Some are in several services, of one provider and of two, and are all that `f1` has.
pub(super) fn backends(name: &str) -> Vec<SocketAddr> {
    let hosts: &[u8] = match name {
        "f1" => &[1, 50],
        "f2" => &[2, 50],
        "a1" => &[3, 50],
        _ => &[1, 4],
    };
    hosts.iter().map(|host| ([10, 9, 0, *host], 80).into()).collect()
}

pub(super) fn is_named(name: &str) -> bool {
    OF_FILE.iter().chain(&OF_API).any(|known| *known == name)
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "name": name, "port": port(name), "drain_timeout": "7s", "labels": {"of": name}, "health": {"interval": "5s"},
        "backends": backends(name),
    })
}

pub(super) fn state(services: impl IntoIterator<Item = Value>) -> State {
    let services: Vec<Value> = services.into_iter().collect();
    let text = json!({"version": 1, "services": services}).to_string();
    model::parse(text.as_bytes()).unwrap()
}

/// Returns an item of the list of providers.
pub(super) fn owned((name, provider): (&str, &str)) -> (String, String) {
    (name.to_owned(), provider.to_owned())
}

impl World {
    /// Returns a service as its provider wants it.
    pub(super) fn wanted(&self, name: &str) -> Value {
        let mut service = service(name);
        if self.clients.moved.contains(name) {
            service["port"] = (port(name) + ELSEWHERE).into();
        }
        service
    }
}
