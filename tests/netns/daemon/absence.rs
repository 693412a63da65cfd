//! Loss of files, keys, stores and records, as an operator loses them, ends no service.

mod configuration;
mod dead_daemon;
mod store;
mod table;

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::{Net, wait_until};

const RECORDED: Duration = Duration::from_millis(2500);

/// Starts a daemon with a file's service on port 2001 at b1, and an API service on port 2002 at b2.
fn begin(net: &Net) -> Daemon<'_> {
    net.want(of_file());
    let daemon = net.daemon(&[]);
    let [backend, _] = endpoints("b2", 3000);
    let words = ["service", "add", "api", "--port", "2002", "--backend", &backend];
    net.cli(&[&words[..], &["--label", "of=api", "--drain-timeout", "7s"]].concat())
        .ok();
    net.cli(&["wait", "api", "--for", "healthy"]).ok();
    daemon.settles(3);
    // The record follows a change after a second.
    thread::sleep(RECORDED);
    daemon
}

/// Starts a daemon that serves a file's service on port 2001 at b1 as a recorded orphan.
fn orphaned(net: &Net) -> Daemon<'_> {
    net.apply(of_file());
    let daemon = net.daemon_without_state(&[]);
    provider_of(net, "file", "orphan");
    thread::sleep(RECORDED);
    daemon
}

fn of_file() -> Value {
    state([service("file", 2001, &["b1"], 3000, json!({}))])
}

#[track_caller]
fn serves(net: &Net, ports: &[u16]) {
    for port in ports {
        let spread = net.spread("client", at(PUBLIC[0], *port), 5);
        assert_eq!(spread.values().sum::<usize>(), 5, "port {port}: {spread:?}");
    }
}

/// Waits until these ports are served, where backends have to answer probes first.
#[track_caller]
fn serves_soon(net: &Net, ports: &[u16]) {
    for port in ports {
        let answers = || net.connect("client", at(PUBLIC[0], *port)).is_ok();
        assert!(wait_until(PATIENCE, answers), "port {port}");
    }
    serves(net, ports);
}

#[track_caller]
fn provider_of(net: &Net, name: &str, provider: &str) {
    let reported = || net.told(&["service", "ls"]);
    let is_it = |told: &Value| {
        let mut all = told["services"].as_array().into_iter().flatten();
        all.any(|listed| listed["service"]["name"] == name && listed["provider"] == provider)
    };
    assert!(wait_until(PATIENCE, || is_it(&reported())), "{:#}", reported());
}
