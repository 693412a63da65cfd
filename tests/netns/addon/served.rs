//! Connections of an app's clients: before a backend is registered, while it serves, and while its resource is suspended.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{ask, configure, daemon, deprovision, listens, provisioned, services};
use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// Returns true when a client's connection is refused at once, as at a port without a listener.
fn is_reset(net: &Net, to: SocketAddr) -> bool {
    let refused = net.within("client", || connect(to, PATIENCE).map(drop));
    refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Returns the name of the only service.
fn name_of(daemon: &Daemon<'_>) -> String {
    let name = services(daemon)[0]["service"]["name"].clone();
    name.as_str().expect("a name").to_owned()
}

fn is_served(net: &Net, to: SocketAddr) -> bool {
    net.within("client", || {
        connect(to, Duration::from_secs(1))
            .and_then(|mut client| client.greeting())
            .is_ok()
    })
}

/// Returns the add-on state of the only service in `status`. Asserts that the service's health check and problems have no error.
#[track_caller]
fn addon_state(net: &Net, daemon: &Daemon<'_>) -> Value {
    assert_eq!(daemon.ask("GET", "/v1/healthz", "").expect("an answer").status, 200);
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]).ok();
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let problems = status["problems"].as_array().expect("a list");
    assert!(
        problems.iter().all(|problem| problem["severity"] != "error"),
        "{status:#}"
    );
    status["services"][0]["addon"].clone()
}

#[test]
fn an_app_is_served_but_while_it_is_suspended() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, port) = provisioned(&net, Dialect::Scalingo, "my-app");
    let name = name_of(&daemon);
    let to = PUBLIC.map(|address| at(address, port));
    assert!(to.iter().all(|to| is_reset(&net, *to)));
    assert_eq!(addon_state(&net, &daemon), "waiting");
    let answer = net.cli(&["status", "--interval", "0s"]).ok();
    assert!(answer.starts_with("ok: ") && answer.contains("waiting"), "{answer}");
    let answer = net.cli(&["service", "show", &name]).ok();
    assert!(answer.contains("of app my-app, plan small, waiting"), "{answer}");

    let backends: Vec<String> = ["b1", "b2"].iter().flat_map(|host| endpoints(host, 3000)).collect();
    let patch = json!({"backends": backends, "drain_timeout": "1s", "on_empty": "drop"}).to_string();
    daemon
        .ask("PATCH", &format!("/v1/services/{name}"), &patch)
        .expect("an answer")
        .ok();
    daemon.settles(4);
    assert!(to.iter().all(|to| is_served(&net, *to)));
    assert_eq!(addon_state(&net, &daemon), "active");

    // Another plan: the limit changes under the open connection.
    let mut held = net.connect("client", to[0]).expect("a connection");
    held.greeting().expect("a greeting");
    ask(&net, "PUT", &resource, json!({"plan": "large"})).is(200);
    held.echo(b"through another plan").expect("it lives");

    // A pause has clients wait: that ends with the suspension, and does not come back.
    net.cli(&["pause", "app:my-app", "--for", "10m"]).ok();
    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    assert!(
        wait_until(PATIENCE, || to.iter().all(|to| is_reset(&net, *to))),
        "new connections are reset"
    );
    let refused = net.cli(&["pause", "app:my-app"]).exits(1);
    assert!(refused.stderr.contains("suspended"), "{}", refused.stderr);
    assert!(to.iter().all(|to| is_reset(&net, *to)));
    assert_eq!(addon_state(&net, &daemon), "suspended");
    let answer = net.cli(&["status", "--interval", "0s"]).ok();
    assert!(answer.starts_with("ok: ") && answer.contains("suspended"), "{answer}");
    let backends_of = |host: &str| endpoints(host, 3000).map(|endpoint| endpoint.parse().expect("an endpoint"));
    let all: Vec<SocketAddr> = ["b1", "b2"].into_iter().flat_map(backends_of).collect();
    let are_flushed = || all.iter().all(|backend| net.flows_to(*backend).is_empty());
    assert!(wait_until(PATIENCE, are_flushed), "what was established drains");
    held.patience(Duration::from_millis(300));
    assert!(held.echo(b"x").is_err());
    let refused = net.cli(&["deploy", &name, "--target", &backends[0]]).exits(1);
    assert!(refused.stderr.contains("suspended"), "{}", refused.stderr);
    let history = net.cli(&["history", "app:my-app"]).ok();
    assert!(history.contains("addon suspend through scalingo"), "{history}");

    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 204);
    assert!(
        wait_until(PATIENCE * 2, || to.iter().all(|to| is_served(&net, *to))),
        "as before"
    );
    assert_eq!(addon_state(&net, &daemon), "active");
    let view = daemon.get(&format!("/v1/services/{name}"));
    assert_eq!(
        (&view["service"]["on_empty"], &view["service"]["port"]),
        (&json!("drop"), &json!(port))
    );

    assert_eq!(deprovision(&net, &resource).status, 204);
    let is_gone = || to.iter().all(|to| is_reset(&net, *to)) && are_flushed();
    assert!(wait_until(PATIENCE, is_gone));
}

/// An app whose containers are all drained by order is no error of the gateway; a container that fails is one.
#[test]
fn an_app_that_is_scaled_to_nothing_waits_and_one_that_fails_is_unhealthy() {
    let net = Net::new();
    let server = net.serve("b1", 3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (_, port) = provisioned(&net, Dialect::Scalingo, "my-app");
    let to = at(PUBLIC[0], port);
    let target = &endpoints("b1", 3000)[0];
    let deploy = || {
        net.cli(&["deploy", "app:my-app", "--target", target, "--until", "switched"])
            .ok()
    };
    deploy();
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    assert_eq!(addon_state(&net, &daemon), "active");

    net.cli(&["drain", "app:my-app", "--wait"]).ok();
    assert!(wait_until(PATIENCE, || is_reset(&net, to)));
    assert_eq!(addon_state(&net, &daemon), "waiting");
    let reply = net.cli(&["status", "--interval", "0s"]).ok();
    assert!(reply.starts_with("ok: ") && reply.contains("waiting"), "{reply}");
    let list = net.cli(&["addon", "ls"]).ok();
    assert!(list.contains("waiting"), "{list}");

    deploy();
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    assert_eq!(addon_state(&net, &daemon), "active");
    drop(server);
    let is_unhealthy = || {
        daemon
            .ask("GET", "/v1/healthz", "")
            .is_ok_and(|answer| answer.status == 503)
    };
    assert!(wait_until(PATIENCE * 2, is_unhealthy), "nobody ordered that");
    let output = net.cli(&["status", "--interval", "0s"]).exits(1);
    assert!(!output.stdout.contains("waiting"), "{output}");
}

/// The port, limit and end of a resource's service belong to its plan: other changes to them by mistake are refused.
#[test]
fn a_service_of_a_resource_is_the_platforms() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    provisioned(&net, Dialect::CleverCloud, "my-app");
    let before = services(&daemon);
    let name = name_of(&daemon);
    let path = format!("/v1/services/{name}");
    for (method, body) in [
        ("DELETE", ""),
        ("PATCH", r#"{"port": 20005}"#),
        ("PATCH", r#"{"limit": {"pps": 1000000}}"#),
        ("PATCH", r#"{"limit": null}"#),
        ("PATCH", r#"{"addresses": ["203.0.113.1"]}"#),
    ] {
        let refused = daemon.ask(method, &path, body).expect("an answer");
        assert!(
            refused.status == 422 && refused.body.contains("add-on of app my-app"),
            "{refused:?}"
        );
    }
    // A state that does not name it leaves it there.
    let own = state([service("own", 2001, &["b1"], 3000, json!({}))]);
    daemon.post("/v1/apply", own).ok();
    daemon
        .post("/v1/apply?allow_empty=true", json!({"version": 1, "services": []}))
        .ok();
    assert_eq!(services(&daemon), before);
}

/// A deploy that has begun before a suspension must not report that its backends get connections.
#[test]
fn a_deploy_ends_with_a_suspension() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, _) = provisioned(&net, Dialect::Scalingo, "my-app");
    let silent = endpoints("b2", 3999);
    let deploy = ["deploy", "app:my-app", "--target", &silent[0], "--timeout", "60s"];
    let deploy = net.begin(&deploy);
    daemon.hears(0, &json!({"event": "deploy", "phase": "probing"}));
    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    let ended = daemon.hears(0, &json!({"event": "deploy", "phase": "failed"}));
    let received = deploy.wait();
    assert_eq!(received.status, 1, "{received}");
    for text in [ended["reason"].to_string(), received.stderr] {
        assert!(
            text.contains("app my-app is suspended") && text.contains("nothing was switched"),
            "{text}"
        );
    }
    assert_eq!(services(&daemon)[0]["service"]["backends"], json!([]));
}

/// A client that waits for a deploy is told at once, with the reason, when the app is deprovisioned.
#[test]
fn a_deploy_ends_with_its_app() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, _) = provisioned(&net, Dialect::Scalingo, "my-app");
    let silent = endpoints("b2", 3999);
    let deploy = net.begin(&["deploy", "app:my-app", "--target", &silent[0], "--timeout", "60s"]);
    daemon.hears(0, &json!({"event": "deploy", "phase": "probing"}));
    assert_eq!(deprovision(&net, &resource).status, 204);
    let ended = daemon.hears(0, &json!({"event": "deploy", "phase": "failed"}));
    let received = deploy.wait();
    assert_eq!(received.status, 1, "{received}");
    for text in [ended["reason"].to_string(), received.stderr] {
        assert!(
            text.contains("the add-on of app my-app was deprovisioned; nothing was switched"),
            "{text}"
        );
    }
}

/// A suspended service keeps its claims until it is resumed: meanwhile no other service takes one of its backends on other terms,
/// neither through the API nor by an `apply` beside a stopped daemon.
#[test]
fn a_suspended_service_keeps_its_claims() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, port) = provisioned(&net, Dialect::Scalingo, "my-app");
    let name = name_of(&daemon);
    let backends = json!({"backends": endpoints("b1", 3000), "drain_timeout": "1s"}).to_string();
    daemon
        .ask("PATCH", &format!("/v1/services/{name}"), &backends)
        .expect("an answer")
        .ok();
    daemon.settles(2);
    assert_eq!(ask(&net, "POST", &format!("{resource}/suspend"), "").status, 204);
    let to = at(PUBLIC[0], port);
    assert!(wait_until(PATIENCE, || is_reset(&net, to)));

    let other = service("other", 2001, &["b1"], 3000, json!({}));
    let refused = daemon
        .ask("PUT", "/v1/services/other", &other.to_string())
        .expect("an answer");
    assert!(refused.status == 422 && refused.body.contains(&name), "{refused:?}");
    // The file of last services says what it has.
    assert!(wait_until(PATIENCE, || net.told(&["status"])["services"][0]["addon"]
        == "suspended"));
    daemon.stop();
    let refused = net.apply_alone(&state([other])).exits(2);
    assert!(
        refused.stderr.contains(&name) && refused.stderr.contains("is also a backend"),
        "{refused}"
    );
    daemon.start();
    listens(&net);
    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 204);
    assert!(wait_until(PATIENCE * 2, || is_served(&net, to)), "as before");
}

/// A fault that makes a change impossible does not prevent a resumption, because the service was served with that fault before.
#[test]
fn a_resumption_restores_what_was_served() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (resource, port) = provisioned(&net, Dialect::Scalingo, "my-app");
    let name = name_of(&daemon);
    let backends = ["b1", "b2"].map(|host| endpoints(host, 3000)[0].clone());
    let backends = json!({"backends": backends, "drain_timeout": "1s"}).to_string();
    daemon
        .ask("PATCH", &format!("/v1/services/{name}"), &backends)
        .expect("an answer")
        .ok();
    daemon.settles(2);
    let to = at(PUBLIC[0], port);
    net.sh("gateway", "ip address add 10.2.0.12/32 dev lo").ok();
    daemon.hears(0, &json!({"event": "problem", "kind": "own_backend"}));
    for (request, is_so) in [
        ("suspend", is_reset as fn(&Net, SocketAddr) -> bool),
        ("resume", is_served),
    ] {
        assert_eq!(ask(&net, "POST", &format!("{resource}/{request}"), "").status, 204);
        assert!(wait_until(PATIENCE * 2, || is_so(&net, to)), "{request}");
    }
}
