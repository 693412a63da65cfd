//! The doctor and `status`, which agree, with a daemon and without one.

use std::cell::Cell;

use serde_json::{Value, json};

use super::{OPTIONS, daemon_of, is_served};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, PUBLIC_2, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::Ran;
use crate::harness::{Net, wait_until};

#[test]
fn without_a_daemon_status_looks_itself() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))])).ok();
    net.tcpgw(&["status", "--interval", "0s"]).exits(0);
    net.sh("gateway", "sysctl -w net.ipv4.ip_forward=0").ok();
    assert!(!is_served(&net, at(PUBLIC[0], 2001)));
    let output = net.tcpgw(&["status", "--interval", "0s"]).exits(1);
    assert!(output.stdout.contains("error: net.ipv4"), "{output}");
    net.sh("gateway", "sysctl -w net.ipv4.ip_forward=1").ok();
    net.tcpgw(&["status", "--interval", "0s"]).exits(0);
}

/// Returns the findings of `doctor`, which asks the daemon.
pub(super) fn findings(net: &Net) -> Vec<(String, String)> {
    findings_of(&net.cli(&["doctor", "-o", "json"]))
}

fn findings_of(ran: &Ran) -> Vec<(String, String)> {
    let output: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
    let all = output["findings"].as_array().expect("a list").iter();
    all.map(|finding| (text(finding, "id"), text(finding, "severity")))
        .collect()
}

/// A problem with the severity `error` makes both `status` and `doctor` fail, and no other problem does.
#[test]
fn doctor_and_status_agree_about_what_is_an_error() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let chosen = json!({"addresses": [PUBLIC_2[0]]});
    net.want(state([
        service("a", 2001, &["b1", "b2"], 3000, json!({})),
        service("b", 2002, &["b3"], 3000, chosen),
    ]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(6);
    // The way to clients far away.
    net.sh("gateway", "ip route replace default via 203.0.113.10").ok();
    let is_alone = Cell::new(false);
    let ask = |args: &[&str]| {
        if is_alone.get() {
            net.tcpgw(&[&["--socket", "none"], args].concat())
        } else {
            net.cli(args)
        }
    };
    let status = || {
        let ran = ask(&["status", "-o", "json", "--interval", "0s"]);
        let output: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        (ran.status, output["problems"].clone())
    };
    let about = |kind: &str| {
        let (_, problems) = status();
        let all = problems.as_array().expect("a list").clone();
        let found = all.into_iter().find(|problem| problem["kind"] == kind);
        found.map(|problem| problem["severity"] == "error")
    };
    let agree = |kind: &str, is_error: bool, with: &str| {
        assert!(
            wait_until(PATIENCE, || about(kind) == Some(is_error)),
            "{kind} {with}: {:#}",
            status().1
        );
        let doctor = findings_of(&ask(&["doctor", "-o", "json"]));
        let same = (
            kind.replace('_', "-"),
            if is_error { "broken" } else { "warning" }.to_owned(),
        );
        assert!(doctor.contains(&same), "{kind} {with}: {doctor:?}");
        let exit = i32::from(is_error);
        assert_eq!(status().0, exit, "{kind} {with}: {:#}", status().1);
        ask(&["doctor"]).exits(exit);
    };
    let facts = [
        (
            "address_not_local",
            ["del", "add"].map(|to| format!("ip address {to} 203.0.113.2/24 dev ext")),
            [true, true],
        ),
        (
            "backend_without_route",
            ["add", "del"].map(|to| format!("ip route {to} unreachable 10.2.0.11/32")),
            // Without a daemon nothing takes it out of the balance.
            [false, true],
        ),
        (
            "backend_is_gateway",
            ["add", "del"].map(|to| format!("ip address {to} 10.2.0.11/32 dev lo")),
            [true, true],
        ),
        (
            "answers_without_route",
            ["add", "del"].map(|to| format!("ip rule {to} from 10.2.0.0/24 blackhole prio 100")),
            [true, true],
        ),
        (
            "ip_forward_off",
            [0, 1].map(|on| format!("sysctl -qw net.ipv4.ip_forward={on}")),
            [true, true],
        ),
    ];
    for (kind, [provoke, mend], [is_error, _]) in &facts {
        net.sh("gateway", provoke).ok();
        agree(kind, *is_error, "with a daemon");
        net.sh("gateway", mend).ok();
        let is_over = || status().0 == 0 && about(kind).is_none();
        assert!(wait_until(PATIENCE, is_over), "{kind}: {:#}", status().1);
        assert!(wait_until(PATIENCE, || ask(&["doctor"]).status == 0), "{kind}");
    }
    daemon.stop();
    is_alone.set(true);
    for (kind, [provoke, mend], [_, is_error]) in &facts {
        net.sh("gateway", provoke).ok();
        agree(kind, *is_error, "without a daemon");
        net.sh("gateway", mend).ok();
        assert_eq!((status().0, ask(&["doctor"]).status), (0, 0), "{kind}");
    }
}

#[test]
fn the_doctor_asks_the_daemon() {
    let net = Net::new();
    let (_servers, mut daemon) = daemon_of(&net, &[], json!({}));
    let says = |id: &str, severity: &str| findings(&net).contains(&(id.to_owned(), severity.to_owned()));
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    assert!(says("paused", "warning"), "{:?}", findings(&net));
    net.cli(&["resume", "a"]).exits(0);
    assert!(!says("paused", "warning"), "{:?}", findings(&net));
    net.want("{");
    assert!(
        wait_until(PATIENCE, || says("rejected-state", "broken")),
        "{:?}",
        findings(&net)
    );
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    assert!(
        wait_until(PATIENCE, || !says("rejected-state", "broken")),
        "{:?}",
        findings(&net)
    );
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let silent = says("daemon-not-answering", "broken");
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(silent, "it hangs, and nothing says so");
    daemon.stop();
    let ended = net.tcpgw(&["doctor"]);
    assert!(!ended.stdout.contains("daemon-"), "{ended}");
}

#[test]
fn the_doctor_tells_of_each_trouble_of_the_daemon() {
    let net = Net::new();
    let config = net.file("config.toml");
    std::fs::write(&config, "").expect("a file");
    // A store that cannot be read.
    std::fs::write(net.file("store.db"), "x".repeat(4096)).expect("a file");
    let options = ["--config", config.to_str().expect("text")];
    let (_servers, mut daemon) = daemon_of(&net, &options, json!({}));
    let says = |id: &str, severity: &str| findings(&net).contains(&(id.to_owned(), severity.to_owned()));
    assert!(says("store", "broken"), "{:?}", findings(&net));
    std::fs::write(&config, "[daemon]\nprobes = 1\n").expect("a file");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(
        wait_until(PATIENCE, || says("rejected-configuration", "warning")),
        "{:?}",
        findings(&net)
    );
    net.cli(&["teardown"]).exits(0);
    assert!(says("torn-down", "broken"), "{:?}", findings(&net));
    net.cli(&["resume"]).exits(0);
    assert!(
        wait_until(PATIENCE, || !says("torn-down", "broken")),
        "{:?}",
        findings(&net)
    );

    let pid = daemon.id();
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    daemon.kill();
    let status = net
        .tcpgw(&["--socket", "none", "status", "--interval", "0s"])
        .exits(1)
        .stdout;
    let first = status.lines().next().unwrap_or_default();
    assert!(first.contains("1 service (1 paused)"), "{status}");
    let gone = net.tcpgw(&["doctor"]).exits(1);
    assert!(gone.stdout.contains("broken [daemon-gone]"), "{gone}");
    assert!(gone.stdout.contains(&format!("(process {pid}) was killed")), "{gone}");
}
