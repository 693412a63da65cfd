//! Files of the daemon that are gone or not accepted, and services that nobody defines any more.

use std::time::Duration;

use serde_json::{Value, json};

use super::doctor::findings;
use super::{OPTIONS, daemon_of, health};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// A store file that was removed or replaced is reported, because the daemon keeps writing to a file that has no name any more.
#[test]
fn a_store_that_is_removed_or_replaced_is_told() {
    let net = Net::new();
    let (_servers, mut daemon) = daemon_of(&net, OPTIONS, json!({}));
    let (store, away) = (net.file("store.db"), net.file("away.db"));
    let is_moved = |daemon: &Daemon<'_>| {
        let (status, errors) = health(daemon);
        let is_it = |problem: &Value| problem["kind"] == "store_moved";
        assert!(status == 503 || !errors.iter().any(is_it));
        errors
            .iter()
            .find(|problem| is_it(problem))
            .map(|problem| problem["message"].to_string())
    };
    let comes_and_goes = |daemon: &Daemon<'_>, words: &str, comes: bool| {
        let is_so = || is_moved(daemon).is_some_and(|message| message.contains(words)) == comes;
        assert!(
            wait_until(PATIENCE * 2, is_so),
            "{words}, {comes}: {:?}",
            health(daemon)
        );
    };
    assert_eq!(is_moved(&daemon), None);
    std::fs::rename(&store, &away).expect("a store");
    comes_and_goes(&daemon, "was removed", true);
    let status = net.cli(&["status", "--interval", "0s"]).exits(1);
    assert!(status.stdout.contains("tcpgw export"), "{status}");
    std::fs::write(&store, "").expect("a file");
    comes_and_goes(&daemon, "another file", true);
    std::fs::rename(&away, &store).expect("a store");
    comes_and_goes(&daemon, "", false);
    net.cli(&["status", "--interval", "0s"]).exits(0);
    std::fs::remove_file(&store).expect("a store");
    comes_and_goes(&daemon, "was removed", true);
    daemon.stop();
    daemon.start();
    daemon.settles(2);
    // Some looks later.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(is_moved(&daemon), None);
}

#[test]
fn a_state_a_configuration_and_a_pause_that_are_not_as_ordered_are_told() {
    let net = Net::new();
    let config = net.file("config.toml");
    std::fs::write(&config, "").expect("a file");
    let options = ["--config", config.to_str().expect("text")];
    let (_servers, daemon) = daemon_of(&net, &options, json!({}));
    std::fs::write(&config, "[daemon]\nprobes = 1\n").expect("a file");
    let before = daemon.last();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let answer = daemon.hears(before, &json!({"event": "problem", "kind": "rejected_configuration"}));
    assert!(answer["message"].as_str().expect("text").contains("probes"), "{answer}");
    assert_eq!(health(&daemon), (200, Vec::new()), "what is served is served");
    std::fs::write(&config, "").expect("a file");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.hears(
        before,
        &json!({"event": "problem_ended", "kind": "rejected_configuration"}),
    );

    let before = daemon.last();
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    daemon.hears(before, &json!({"event": "problem", "kind": "paused", "service": "a"}));
    assert_eq!(health(&daemon), (200, Vec::new()), "it was asked for");
    assert!(
        net.cli(&["status", "--interval", "0s"])
            .exits(0)
            .stdout
            .contains("is paused by")
    );
    net.cli(&["resume", "a"]).exits(0);
    daemon.hears(
        before,
        &json!({"event": "problem_ended", "kind": "paused", "service": "a"}),
    );
}

#[test]
fn orphans_are_told_with_a_daemon_and_without() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let direct = |args: &[&str]| {
        let ran = net.tcpgw(&[&["--socket", "none"], args, &["-o", "json"]].concat());
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
    };
    let provider = || direct(&["status", "--interval", "0s"])["services"][0]["provider"].clone();
    assert_eq!(provider(), "file", "as the record says");
    let mut daemon = net.daemon_without_state(&[]);
    daemon.settles(2);
    assert!(
        findings(&net).contains(&("orphaned".to_owned(), "warning".to_owned())),
        "{:?}",
        findings(&net)
    );
    // The daemon writes its record a while later.
    assert!(wait_until(PATIENCE, || provider() == "orphan"), "{}", provider());
    daemon.kill();
    let status = direct(&["status", "--interval", "0s"]);
    assert_eq!(status["services"][0]["provider"], "orphan", "{status:#}");
    let problems = status["problems"].as_array().expect("a list").iter();
    let kinds: Vec<(&Value, &Value)> = problems
        .map(|problem| (&problem["kind"], &problem["severity"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("daemon_gone"), &json!("error")),
            (&json!("orphaned"), &json!("warning"))
        ]
    );
    let doctor = net.tcpgw(&["doctor"]);
    assert!(
        doctor
            .stdout
            .contains("[orphaned] 1 service that no provider defines any more"),
        "{doctor}"
    );
}

#[test]
fn a_daemon_of_another_namespace_is_told() {
    let net = Net::new();
    let _begun = daemon_of(&net, &[], json!({}));
    // Its socket at the place where one is looked for; only this command sees it there.
    let run = |command: &str| {
        let socket = net.socket();
        let line = format!(
            "mount -t tmpfs none /run && mkdir /run/tcpgw && ln -s {} /run/tcpgw/tcpgw.sock && exec env TCPGW_CONFIG=/dev/null {} {command}",
            socket.to_str().expect("text"),
            crate::harness::shell::TCPGW
        );
        let ran = net.sh("client", &line);
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
    };
    let status = run("status -o json --interval 0s");
    let problems = status["problems"].as_array().expect("a list");
    let kinds: Vec<&Value> = problems.iter().map(|problem| &problem["kind"]).collect();
    assert_eq!(kinds, ["other_namespace"], "it does not look as if nothing was applied");
    let told = problems[0]["message"].as_str().expect("text");
    assert!(
        told.contains("/run/tcpgw/tcpgw.sock serves another network namespace"),
        "{told}"
    );
    for doctor in [
        run("doctor -o json"),
        run(&format!(
            "--socket {} doctor -o json",
            net.socket().to_str().expect("text")
        )),
    ] {
        let found = doctor["findings"].as_array().expect("a list");
        let found = found.iter().find(|finding| finding["id"] == "other-namespace");
        assert_eq!(found.expect("it is found")["severity"], "warning", "{doctor:#}");
    }
}

#[test]
fn a_daemon_whose_socket_is_gone_is_told() {
    let net = Net::new();
    let _begun = daemon_of(&net, &[], json!({}));
    std::fs::rename(net.socket(), net.file("elsewhere.sock")).expect("it is there");
    let answer = net.tcpgw(&["status", "--interval", "0s"]).ok();
    assert!(answer.contains("was not asked: it listens on"), "{answer}");
    let doctor = net.tcpgw(&["doctor"]);
    assert!(doctor.stdout.contains("daemon-unreachable"), "{doctor}");
}

#[test]
fn a_service_that_was_removed_and_drains_is_no_problem() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let stays = || service("stays", 2001, &["b1"], 3000, json!({}));
    net.want(state([stays(), service("goes", 2002, &["b2"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(4);
    let _held = net.connect("client", at(PUBLIC[0], 2002)).expect("it is served");
    net.want(state([stays()]));
    let leaves = || {
        let status = net.told(&["status", "--interval", "0s"]);
        assert_eq!(
            (&status["ok"], &status["problems"]),
            (&json!(true), &json!([])),
            "{status:#}"
        );
        let services = status["services"].as_array().expect("a list");
        services
            .iter()
            .any(|service| service["name"] == "goes" && service["leaving"] == true)
    };
    assert!(wait_until(PATIENCE, leaves), "{:#}", daemon.get("/v1/status"));
    assert_eq!(health(&daemon), (200, Vec::new()));
}
