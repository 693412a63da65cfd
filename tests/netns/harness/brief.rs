//! Short ways to write state files: services whose backends are a port of some hosts, in both families.

use serde_json::{Value, json};

use super::state;

/// Returns a state of these services.
pub(crate) fn state(services: impl IntoIterator<Item = Value>) -> Value {
    state::state(&services.into_iter().collect::<Vec<_>>())
}

/// Returns a service on a port, with a port of these hosts as backends, and the other fields in `more`.
pub(crate) fn service(name: &str, port: u16, hosts: &[&str], to: u16, more: Value) -> Value {
    let mut service = state::service(name, port, &state::backends(hosts, to), &json!({}));
    if let (Value::Object(fields), Value::Object(more)) = (&mut service, more) {
        fields.extend(more);
    }
    service
}

/// Returns the endpoints of a host's port, as backends are written.
pub(crate) fn endpoints(host: &str, port: u16) -> [String; 2] {
    state::endpoints(host, port).map(|endpoint| endpoint.to_string())
}
