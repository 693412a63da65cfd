//! Resources that are suspended and resumed while their services are not possible on the gateway.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{ask, configure, daemon, listens, provisioned, services};
use super::sign_on::page_of;
use crate::harness::brief::{endpoints, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// An address that the gateway does not have at first.
const LATER: &str = "10.2.0.250";

/// Returns the name of the backend that answers a client, or `None` when the connection is reset.
fn answered(net: &Net, to: SocketAddr) -> Result<Option<String>, ErrorKind> {
    let greeting = net.within("client", || {
        connect(to, Duration::from_secs(1)).and_then(|mut client| client.greeting())
    });
    match greeting {
        Ok(greeting) => Ok(Some(greeting.backend)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.kind()),
    }
}

#[track_caller]
fn is_answered(net: &Net, to: SocketAddr, by: Option<&str>) {
    let mut last = Ok(None);
    let is_so = || {
        last = answered(net, to);
        last.as_ref().is_ok_and(|greeting| greeting.as_deref() == by)
    };
    assert!(wait_until(PATIENCE * 2, is_so), "{by:?}: {last:?}");
}

/// Returns the services that are reported as held back.
fn held_back(daemon: &Daemon<'_>) -> Vec<Value> {
    let problems = daemon.get("/v1/daemon")["problems"].clone();
    let problems = problems.as_array().expect("a list").iter();
    let held = problems.filter(|problem| problem["kind"] == "held_back");
    held.map(|problem| problem["service"].clone()).collect()
}

/// Provisions a resource and registers a backend. Returns the resource, its port and its service.
fn served(net: &Net, daemon: &Daemon<'_>) -> (String, u16, Value) {
    let (resource, port) = provisioned(net, Dialect::Scalingo, "my-app");
    let mut service = services(daemon)[0]["service"].clone();
    service["backends"] = json!(endpoints("b1", 3000));
    service["drain_timeout"] = json!("1s");
    daemon.post("/v1/apply", state([service.clone()])).ok();
    daemon.settles(2);
    (resource, port, service)
}

/// A service whose new form is not possible is served in its old form; when its resource is suspended, the old form is not
/// served.
#[test]
fn what_is_served_of_a_service_that_is_held_back_is_suspended() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, port, service) = served(&net, &daemon);
    let to = at(PUBLIC[0], port);
    is_answered(&net, to, Some("b1"));
    let mut later = service;
    later["source_addresses"] = json!([LATER]);
    later["backends"] = json!(["10.2.0.11:3000"]);
    daemon.post("/v1/apply?hold_back=true", state([later.clone()])).ok();
    let is_told = || held_back(&daemon) == [later["name"].clone()];
    assert!(wait_until(PATIENCE, is_told), "{:?}", held_back(&daemon));
    is_answered(&net, to, Some("b1"));

    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    is_answered(&net, to, None);
    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 204);
    is_answered(&net, to, Some("b1"));

    // The new form becomes possible while the service is suspended, and is served after the resumption.
    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    is_answered(&net, to, None);
    net.sh("gateway", &format!("ip address add {LATER}/24 dev br0")).ok();
    assert!(
        wait_until(PATIENCE, || held_back(&daemon).is_empty()),
        "{:?}",
        held_back(&daemon)
    );
    is_answered(&net, to, None);
    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 204);
    is_answered(&net, to, Some("b1"));
    let wanted = services(&daemon)[0]["service"]["source_addresses"].clone();
    assert_eq!(wanted, json!([LATER]));
}

/// A suspended service whose port a local program has, so that it is not served at all, comes back suspended when the port is
/// free.
#[test]
fn a_suspended_service_whose_port_was_taken_comes_back_suspended() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, port, service) = served(&net, &daemon);
    let to = at(PUBLIC[0], port);
    is_answered(&net, to, Some("b1"));
    daemon.stop();
    // As after a boot: what was served before has no right to its port.
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    fs::remove_dir_all(net.file("run")).expect("it is there");
    let program = net.serve("gateway", port, Behaviour::Greet);
    daemon.start();
    listens(&net);
    let name = [service["name"].clone()];
    assert!(
        wait_until(PATIENCE, || held_back(&daemon) == name),
        "{:?}",
        held_back(&daemon)
    );
    let id = resource.rsplit('/').next().expect("an id");
    let page = page_of(&net, Dialect::Scalingo, id);
    assert!(page.contains("The gateway cannot serve this address now"), "{page}");
    assert!(!page.contains("what was there before stays"), "{page}");

    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    assert_eq!(net.told(&["addon", "show", "my-app"])["state"], "suspended");
    let page = page_of(&net, Dialect::Scalingo, id);
    assert!(
        page.contains("The add-on is suspended") && !page.contains("cannot serve"),
        "{page}"
    );
    drop(program);
    assert!(
        wait_until(PATIENCE * 3, || held_back(&daemon).is_empty()),
        "{:?}",
        held_back(&daemon)
    );
    is_answered(&net, to, None);
    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 204);
    is_answered(&net, to, Some("b1"));
}
