//! Commands beside a daemon that is dead, that stops answering while they wait, or that listens at the configuration's socket.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::timed;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::retire::until;

/// A pause that was acknowledged ends at its time, whatever `apply` changes of other services meanwhile.
#[test]
fn an_apply_beside_a_dead_daemon_keeps_pauses_and_drains() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let [backend, _] = endpoints("b1", 3000);
    net.cli(&["service", "add", "web", "--port", "2002", "--backend", &backend])
        .ok();
    net.cli(&["wait", "web", "--for", "healthy"]).ok();
    net.cli(&["pause", "web", "--for", "60s"]).ok();
    let paused_for = |net: &Net| net.told(&["service", "show", "web"])["paused_for"].clone();
    assert!(
        paused_for(&net).as_u64().is_some_and(|left| left > 50),
        "{}",
        paused_for(&net)
    );
    daemon.kill();
    let applied = net.apply_alone(&state([service("a", 2001, &["b2"], 3000, json!({}))]));
    assert!(applied.stderr.contains("web"), "{applied}");
    applied.ok();
    net.want(state([service("a", 2001, &["b2"], 3000, json!({}))]));
    daemon.start();
    daemon.settles(2);
    let left = paused_for(&net);
    assert!(left.as_u64().is_some_and(|left| (20..60).contains(&left)), "{left}");
    assert!(net.connect("client", at(PUBLIC[0], 2002)).is_err(), "it is paused");
    net.cli(&["resume", "web"]).ok();
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2002))
        .is_ok()));
}

/// An ordered drain keeps its deadline: its flows are flushed at that time, neither by the first `apply` beside the dead daemon,
/// nor as late as the service's own drain time.
#[test]
fn an_apply_beside_a_dead_daemon_keeps_deadlines_of_drains() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let [leaves, stays] = ["b1", "b2"].map(|host| endpoints(host, 3000)[0].clone());
    let add = [
        "service",
        "add",
        "web",
        "--port",
        "2002",
        "--backend",
        &leaves,
        "--backend",
        &stays,
        "--drain-timeout",
        "300s",
    ];
    net.cli(&add).ok();
    daemon.settles(2);
    let mut held = until(&net, at(PUBLIC[0], 2002), "b1");
    net.cli(&["drain", "web", &leaves, "--drain-timeout", "12s"]).ok();
    daemon.kill();
    // The second one goes by what the first has written.
    for port in [2001, 2003] {
        let applied = net.apply_alone(&state([service("a", port, &["b2"], 3000, json!({}))]));
        assert!(applied.stderr.contains("web"), "{applied}");
        applied.ok();
        held.echo(b"beside").expect("its time is not over");
    }
    net.want(state([service("a", 2003, &["b2"], 3000, json!({}))]));
    daemon.start();
    let drain = || daemon.get("/v1/drains")["drains"][0].clone();
    assert!(wait_until(PATIENCE, || !drain().is_null()));
    let (drain, left) = (drain(), drain()["seconds_left"].as_u64());
    assert!(left.is_some_and(|left| left <= 12), "{drain}");
    assert_eq!(drain["backend"], json!(leaves));
    let is_over = || {
        let retired = daemon.events_of("retired");
        retired
            .iter()
            .any(|event| event["reason"] == "deadline" && event["service"] == "web")
    };
    assert!(wait_until(PATIENCE * 2, is_over), "{:?}", daemon.events());
    held.patience(Duration::from_millis(300));
    assert!(wait_until(PATIENCE, || held.echo(b"x").is_err()), "its time is over");
}

/// The changes of a daemon that dies right afterwards are explained, and removals by other programs are reported.
#[test]
fn the_doctor_sees_what_others_took_of_a_service_that_had_just_changed() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let mut daemon = net.daemon(&["--no-owner"]);
    let [backend, _] = endpoints("b1", 3000);
    net.cli(&["service", "add", "web", "--port", "2002", "--backend", &backend])
        .ok();
    net.cli(&["wait", "web", "--for", "healthy"]).ok();
    // The record follows a change after a second.
    thread::sleep(Duration::from_millis(2500));
    net.cli(&["service", "set", "web", "--pps", "500"]).ok();
    daemon.kill();
    let accuses = || {
        let ran = net.tcpgw(&["doctor", "-o", "json"]);
        let output: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        output["findings"].to_string().contains("table-changed")
    };
    assert!(!accuses(), "nobody but the daemon has written");
    net.sh("gateway", "nft delete element inet tcpgw slots_v4 '{ 2002 . 0 }'")
        .ok();
    assert!(accuses(), "an element is gone");
}

/// Commands that wait end when their time is over, and report before that they wait for a daemon that does not answer.
#[test]
fn commands_that_wait_end_in_time_though_the_daemon_hangs() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let [backend, _] = endpoints("b1", 3000);
    net.cli(&["service", "add", "web", "--port", "2002", "--backend", &backend])
        .ok();
    net.cli(&[
        "service",
        "add",
        "dead",
        "--port",
        "2003",
        "--backend",
        "10.2.0.99:3000",
    ])
    .ok();
    let commands: [&[&str]; 3] = [
        &["deploy", "web", "--target", "10.2.0.98:3000", "--timeout", "5s"],
        &["status", "--service", "dead", "--wait", "--timeout", "5s"],
        &["wait", "dead", "--for", "healthy", "--timeout", "5s"],
    ];
    let running = commands.map(|command| net.begin(command));
    thread::sleep(Duration::from_secs(1));
    daemon.signal(Signal::SIGSTOP);
    let ended = timed(|| running.map(crate::harness::shell::Running::wait));
    daemon.signal(Signal::SIGCONT);
    let (ended, took) = ended;
    assert!(
        took < Duration::from_secs(30),
        "they wait for a daemon that hangs: {took:?}"
    );
    for ran in &ended {
        assert_eq!(ran.status, 1, "{ran}");
        assert!(ran.stderr.contains("has not answered for"), "{ran}");
        assert!(ran.stderr.contains("waiting for it"), "{ran}");
    }
    let [deploy, ..] = &ended;
    assert!(deploy.stderr.contains("it had not switched"), "{deploy}");
    assert!(deploy.stderr.contains("`tcpgw deploys 1`"), "{deploy}");
}

/// Commands take the socket from the configuration, without `--socket` or the variable.
#[test]
fn commands_ask_the_socket_of_the_configuration() {
    let net = Net::new();
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let config = net.file("config.toml");
    let path = config.to_str().expect("text");
    fs::write(&config, format!("[daemon]\nsocket = {:?}\n", net.socket())).expect("a file");
    let answer = net.tcpgw(&["--config", path, "service", "ls", "-o", "json"]).ok();
    assert!(answer.contains("services"), "{answer}");
    // A configuration that cannot be used is reported, and the default socket is tried.
    fs::write(&config, "[daemon]\nsockets = 1\n").expect("a file");
    let bad = net.tcpgw(&["--config", path, "service", "ls"]);
    assert!(
        bad.status != 0 && bad.stderr.contains("warning: the configuration cannot be read"),
        "{bad}"
    );
    // The command line comes first.
    let socket = net.socket().to_string_lossy().into_owned();
    net.tcpgw(&["--config", path, "--socket", &socket, "service", "ls"])
        .ok();
    drop(daemon);
}
