//! The state file: errors in it are reported, and the last good state stays.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::{Daemon, number};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// Asserts that the daemon says of its file what is wrong, and that `a` still is served.
#[track_caller]
fn rejects(net: &Net, daemon: &Daemon<'_>, before: u64, says: &str) {
    let rejected = daemon.hears(before, &json!({"event": "rejected", "provider": "file"}));
    assert!(rejected["problems"].to_string().contains(says), "{rejected}");
    let problems = daemon.get("/v1/daemon")["problems"].to_string();
    assert!(problems.contains(says), "{problems}");
    let health = daemon.ask("GET", "/v1/healthz", "").expect("an answer");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 5)["b1"], 5);
}

#[test]
fn a_bad_file_is_reported_and_changes_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = net.file("config.toml");
    fs::write(&config, "[fences]\nports = \"2000-2099\"\n").expect("a file");
    let good = state([service("a", 2001, &["b1"], 3000, json!({}))]);
    net.want(&good);
    let mut daemon = net.daemon(&["--config", config.to_str().expect("text")]);
    daemon.settles(2);
    let beyond = state([service("a", 3001, &["b1"], 3000, json!({}))]).to_string();
    for (text, says) in [
        ("{\"version\": 1, \"services\": [", "line 1"),
        ("", "wanted.json"),
        (&beyond, "2000-2099"),
        ("{\"version\": 1, \"services\": []}", "allow_empty"),
    ] {
        let before = daemon.last();
        net.want(text);
        rejects(&net, &daemon, before, says);
        let before = daemon.last();
        net.want(&good);
        assert!(
            wait_until(PATIENCE, || daemon.is_settled(2)),
            "{:#}",
            daemon.get("/v1/daemon")
        );
        let ended = daemon.hears(before, &json!({"event": "problem_ended"}));
        assert_eq!(ended["kind"], "rejected_state");
        let is_new = |event: &Value| number(event) > Some(before) && event["event"] != "problem_ended";
        assert!(!daemon.events().iter().any(is_new), "nothing was changed");
    }
    let before = daemon.last();
    fs::remove_file(net.wanted()).expect("it is there");
    rejects(&net, &daemon, before, "wanted.json");
    // One that starts so keeps what is in the kernel.
    daemon.kill();
    daemon.launch();
    assert!(wait_until(PATIENCE, || !daemon.events_of("started").is_empty()));
    rejects(&net, &daemon, 0, "wanted.json");
    net.want(&good);
    daemon.settles(2);

    // Other fences, at a reload.
    fs::write(&config, "[fences]\nports = \"3000-3999\"\n").expect("a file");
    let before = daemon.last();
    daemon.signal(Signal::SIGHUP);
    rejects(&net, &daemon, before, "3000-3999");
    fs::write(&config, "[fences\n").expect("a file");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || daemon
        .logged()
        .contains("the old configuration stays")));
    net.want(&beyond);
    daemon.settles(2);
    assert_eq!(net.spread("client", at(PUBLIC[0], 3001), 5)["b1"], 5);
}

/// A port that is served stays served, also over restarts, when a local program listens on it later.
#[test]
fn a_port_that_is_served_stays_served() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(&[]);
    daemon.settles(2);
    let _program = net.serve("gateway", 2001, Behaviour::Greet);
    daemon.kill();
    daemon.start();
    daemon.settles(2);
    net.want(state([service(
        "a",
        2001,
        &["b2"],
        3000,
        json!({"drain_timeout": "1s"}),
    )]));
    for backend in endpoints("b1", 3000) {
        daemon.hears(0, &json!({"event": "retired", "backend": backend}));
    }
    daemon.settles(2);
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 5)["b2"], 5);
    assert!(daemon.events_of("rejected").is_empty());
}

#[test]
fn a_burst_of_changes_is_few_transactions() {
    const CHANGES: u16 = 200;
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let of = |count: u16| {
        state((0..count).map(|n| {
            let more = json!({"labels": {"n": n.to_string()}, "on_empty": "drop"});
            service(&format!("s{n}"), 2001 + n, &[], 3000, more)
        }))
    };
    net.want(state([service("a", 2000, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&["--allow-empty"]);
    daemon.settles(2);
    let before = daemon.events_of("committed").len();
    for count in 1..=CHANGES {
        net.want(of(count));
    }
    let all = || daemon.get("/v1/daemon")["services"] == u64::from(CHANGES);
    assert!(wait_until(PATIENCE * 2, || all() && daemon.get("/v1/daemon")["in_sync"] == true));
    let transactions = daemon.events_of("committed").len() - before;
    eprintln!("{CHANGES} changes, {transactions} transactions");
    // A slow machine writes the file so slowly that what it writes is not one burst.
    assert!(transactions < usize::from(CHANGES) / 2, "{transactions}");
}
