//! A client that openapi-python-client generates from the API's document, and a real daemon.

use std::fs;

use crate::harness::brief::{endpoints, state};
use crate::harness::libraries::libraries;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, client};

#[test]
fn a_generated_client_edits_services_and_deploys() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let _daemon = net.daemon(&[]);
    let path = format!(
        "PYTHONPATH={}",
        libraries("client-generator", "openapi_python_client", "a_generated_client").to_string_lossy()
    );
    let generated = net.file("generated");
    fs::create_dir(&generated).expect("a directory");
    let (generated, socket) = (generated.to_string_lossy(), net.socket());
    let [[b1, _], [b2, _]] = ["b1", "b2"].map(|host| endpoints(host, 3000));
    let words = [
        "env",
        &path,
        "PYTHONDONTWRITEBYTECODE=1",
        "python3",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/daemon/generated/client.py"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi.json"),
        &generated,
        &socket.to_string_lossy(),
        &b1,
        &b2,
    ];
    net.run("gateway", &words).ok();
    // The resulting state: `a`, deployed to the second host, on the port that was `b`'s; `b` is gone.
    assert_eq!(net.spread("client", at(PUBLIC[0], 2002), 5)["b2"], 5);
    let gone = net.within("client", || client::connect(at(PUBLIC[0], 2001), client::PATIENCE));
    assert!(gone.is_err(), "b is not gone");
}
