//! Backends that can be reached from outside through services only.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::forge::Segment;
use crate::harness::plan::{NOBODY, PUBLIC, addresses, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::Ran;
use crate::harness::wait_until;
use crate::harness::wire::{ACK, SYN};

const BRIEF: Duration = Duration::from_millis(500);

fn greeted(net: &Net, from: &str, to: SocketAddr, patience: Duration) -> bool {
    net.within(from, || {
        connect(to, patience).and_then(|mut conn| conn.greeting()).is_ok()
    })
}

fn with_config(net: &Net, text: &str, args: &[&str]) -> Ran {
    let config = net.file("config.toml");
    fs::write(&config, text).expect("failed to write a configuration");
    let config = config.to_string_lossy().into_owned();
    net.tcpgw(&[&["--config", &config], args].concat())
}

#[test]
fn outside_is_what_comes_by_another_interface() {
    let net = Net::new();
    let _backends = net.serve_all(3000, Behaviour::Greet);
    let _others = ["b1", "client", "routed"].map(|host| net.serve(host, 8000, Behaviour::Greet));
    let file = net.state_file(
        "state.json",
        state([service("web", 2001, &["b1", "b2"], 3000, json!({}))]),
    );
    net.tcpgw(&["apply", &file]).ok();
    let direct = |host: &str, family: usize, port| SocketAddr::new(addresses(host)[family], port);
    let mut before: Vec<_> = (0..2)
        .map(|family| net.connect("client", direct("b1", family, 3000)).expect("routed"))
        .collect();
    let differs = with_config(&net, "protect_backends = true", &["diff", &file]).exits(1);
    assert!(differs.stdout.contains("through services only"), "{differs}");
    with_config(&net, "protect_backends = true", &["apply", &file]).ok();
    // The table is read back as it was written.
    net.forget();
    with_config(&net, "protect_backends = true", &["diff", &file]).exits(0);
    for family in 0..2 {
        before[family].greeting().expect("what was up goes on");
        for from in ["client", "routed"] {
            assert!(!greeted(&net, from, direct("b1", family, 3000), BRIEF), "{from}");
        }
        for (from, to) in [
            ("client", at(PUBLIC[family], 2001)),
            ("routed", at(PUBLIC[family], 2001)),
            ("b2", at(PUBLIC[family], 2001)),
            ("gateway", at(PUBLIC[family], 2001)),
            ("gateway", direct("b1", family, 3000)),
            ("peer", direct("b1", family, 3000)),
            ("client", direct("b1", family, 8000)),
            ("client", direct("b3", family, 3000)),
            ("b1", direct("client", family, 8000)),
            ("b1", direct("routed", family, 8000)),
        ] {
            assert!(greeted(&net, from, to, PATIENCE), "{from} to {to}");
        }
        // No handshake, but conntrack takes it for the middle of a connection.
        let set = ["direct_v4", "direct_v6"][family];
        let key = format!("{} . 3000", addresses("b1")[family]);
        let counted = net.tallied(set, &key);
        assert!(counted >= 2, "{counted}");
        let arriving = net.capture("b1", move |packet| {
            !packet.outgoing && packet.has(ACK) && !packet.has(SYN)
        });
        let odd = Segment::new(at(NOBODY[family], 7), direct("b1", family, 3000), ACK)
            .seq(9)
            .ack(9);
        net.forge("client", &odd);
        assert!(wait_until(PATIENCE, || net.tallied(set, &key) > counted), "counted");
        let arrived = arriving.stop();
        assert!(arrived.iter().all(|packet| packet.src != odd.src), "{arrived:?}");
    }
    let status = net.json(&["status", "--interval", "0s"], 0);
    let dropped = &status["services"][0]["backends"][0]["drops"]["direct"]["packets"];
    assert!(dropped.as_u64() >= Some(2), "{status:#}");
    net.tcpgw(&["apply", &file]).ok();
    for family in 0..2 {
        assert!(
            greeted(&net, "client", direct("b1", family, 3000), PATIENCE),
            "off again"
        );
    }
}

#[test]
fn a_daemon_protects_every_backend_that_comes() {
    let net = Net::new();
    let _backends = net.serve_all(3000, Behaviour::Greet);
    let config = net.file("config.toml");
    fs::write(&config, "protect_backends = true\n").expect("failed to write a configuration");
    let daemon = net.daemon_within(&[("TCPGW_CONFIG", config.to_string_lossy().into_owned())]);
    let direct = |host: &str, family: usize| SocketAddr::new(addresses(host)[family], 3000);
    net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    daemon.settles(2);
    net.want(state([service(
        "web",
        2001,
        &["b1", "b2"],
        3000,
        json!({"limit": {"pps": 1000}}),
    )]));
    daemon.settles(4);
    for (family, public) in PUBLIC.into_iter().enumerate() {
        for host in ["b1", "b2"] {
            assert!(!greeted(&net, "client", direct(host, family), BRIEF), "{host}");
        }
        assert!(greeted(&net, "client", direct("b3", family), PATIENCE));
        assert!(greeted(&net, "client", at(public, 2001), PATIENCE));
    }
    net.want(state([service("web", 2001, &["b2"], 3000, json!({}))]));
    daemon.settles(2);
    let reached = || greeted(&net, "client", direct("b1", 0), BRIEF);
    assert!(
        wait_until(PATIENCE * 8, reached),
        "a container that has left is nobody's backend"
    );
}

/// Returns the fix that `doctor` names for backends that can be reached without the gateway, and whether `status` without a daemon
/// reports them, both with a configuration of that text.
fn told_of(net: &Net, text: &str) -> (Option<String>, bool) {
    let doctor = with_config(net, text, &["-o", "json", "doctor"]);
    let doctor: Value = serde_json::from_str(&doctor.stdout).unwrap_or_else(|error| panic!("{error}: {doctor}"));
    let findings = doctor["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["id"] == "backends-exposed");
    let status = with_config(
        net,
        text,
        &["--socket", "none", "status", "-o", "json", "--interval", "0s"],
    );
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status}"));
    let problems = status["problems"].as_array().expect("problems");
    (
        found.map(|finding| finding["fix"].to_string()),
        problems.iter().any(|problem| problem["kind"] == "backends_exposed"),
    )
}

#[test]
fn what_the_table_holds_is_told_and_not_what_the_file_says() {
    const PROTECTS: &str = "protect_backends = true\n";
    let wanted = || state([service("web", 2001, &["b1"], 3000, json!({"limit": {"pps": 1000}}))]);
    let direct = SocketAddr::new(addresses("b1")[0], 3000);
    for (of_daemon, other) in [("", PROTECTS), (PROTECTS, "")] {
        let net = Net::new();
        let _backends = net.serve_all(3000, Behaviour::Greet);
        let is_open = of_daemon.is_empty();
        let config = net.file("of-daemon.toml");
        fs::write(&config, of_daemon).expect("failed to write a configuration");
        net.want(wanted());
        let mut daemon = net.daemon_within(&[("TCPGW_CONFIG", config.to_string_lossy().into_owned())]);
        daemon.settles(2);
        let reached = greeted(&net, "client", direct, if is_open { PATIENCE } else { BRIEF });
        assert_eq!(reached, is_open);
        let is_told = |by: &str, text: &str| {
            let (found, is_problem) = told_of(&net, text);
            assert_eq!((found.is_some(), is_problem), (is_open, is_open), "{by}, {text:?}");
            if is_open && !text.is_empty() {
                let fix = found.unwrap_or_default();
                assert!(fix.contains("is not in effect yet"), "{fix}");
            }
        };
        for text in [of_daemon, other] {
            is_told("beside the daemon", text);
        }
        daemon.kill();
        for text in [of_daemon, other] {
            is_told("without a daemon", text);
        }
    }
}
