//! State files, from a few words.

use serde_json::{Value, json};

use super::plan;

/// A state of these services.
pub(crate) fn state(services: impl IntoIterator<Item = Value>) -> Value {
    json!({"version": 1, "services": services.into_iter().collect::<Vec<_>>()})
}

/// A service on a port whose backends are a port of these hosts, in both families, and what else its fields say.
pub(crate) fn service(name: &str, port: u16, hosts: &[&str], to: u16, more: Value) -> Value {
    let backends: Vec<String> = hosts.iter().flat_map(|host| endpoints(host, to)).collect();
    let mut service = json!({"name": name, "port": port, "backends": backends});
    let (Value::Object(fields), Value::Object(more)) = (&mut service, more) else {
        panic!("the fields of a service are an object");
    };
    fields.extend(more);
    service
}

/// A host's port as backends are written.
pub(crate) fn endpoints(host: &str, port: u16) -> [String; 2] {
    plan::addresses(host).map(|address| std::net::SocketAddr::new(address, port).to_string())
}
