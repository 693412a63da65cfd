//! Single orders by the command line, as clients and operators meet them.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{endpoints, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::shell::Ran;
use crate::harness::{Net, wait_until};

fn public() -> std::net::SocketAddr {
    at(PUBLIC[0], 2001)
}

fn end(host: &str) -> String {
    let [v4, _] = endpoints(host, 3000);
    v4
}

/// Servers everywhere, and a service `a` of the API with these hosts behind it.
#[track_caller]
fn begin<'n>(net: &'n Net, hosts: &[&str]) -> (Daemon<'n>, [Server; 4]) {
    let servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let backends: Vec<String> = hosts.iter().map(|host| end(host)).collect();
    let mut args = vec!["service", "add", "a", "--port", "2001", "--drain-timeout", "30s"];
    args.extend(backends.iter().flat_map(|backend| ["--backend", backend]));
    net.cli(&args).ok();
    net.cli(&["wait", "a", "--for", "healthy"]).ok();
    (daemon, servers)
}

/// Returns the backends that get new connections.
#[track_caller]
fn serves(net: &Net) -> Vec<String> {
    net.spread("client", public(), 20).into_keys().collect()
}

fn deploy(net: &Net, hosts: &[&str], more: &[&str]) -> Ran {
    let targets: Vec<String> = hosts.iter().map(|host| end(host)).collect();
    let mut args = vec!["deploy", "a"];
    args.extend(targets.iter().flat_map(|target| ["--target", target]));
    net.cli(&[&args, more].concat())
}

#[track_caller]
fn phase(net: &Net, id: u64) -> Value {
    net.told(&["deploys", &id.to_string()])["phase"].clone()
}

#[track_caller]
fn comes_to(net: &Net, id: u64, wanted: &str) {
    let is_it = || {
        net.cli(&["deploys", &id.to_string(), "-o", "json"])
            .stdout
            .contains(&format!("\"{wanted}\""))
    };
    assert!(wait_until(PATIENCE, is_it), "{}", phase(net, id));
}

#[track_caller]
fn changes(net: &Net) -> usize {
    let answer = net.told(&["history", "a"]);
    answer["entries"].as_array().expect("a list").len()
}

#[test]
fn targets_that_never_answer_switch_nothing() {
    let net = Net::new();
    let (_daemon, [_b1, _b2, b3, _b4]) = begin(&net, &["b1"]);
    drop(b3);
    net.mute("b4");
    for (host, reason) in [("b3", "refused"), ("b4", "timed out")] {
        let ran = deploy(&net, &["b2", host], &["--timeout", "3s"]).exits(1);
        let text = format!("{} ({reason})", end(host));
        assert!(
            ran.stderr.contains(&text) && ran.stderr.contains("nothing was switched"),
            "{ran}"
        );
        assert!(!ran.stderr.contains(&format!("{} (", end("b2"))), "{ran}");
        assert_eq!(serves(&net), ["b1"]);
    }
    let ran = deploy(&net, &["b3"], &["--timeout", "1s", "-o", "json"]).exits(1);
    let output: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(output["phase"], "failed");
    assert_eq!((changes(&net), serves(&net)), (1, vec!["b1".to_owned()]));
    // One is enough.
    deploy(&net, &["b2", "b4"], &["--min", "1", "--until", "switched"]).exits(0);
    assert_eq!((changes(&net), serves(&net)), (2, vec!["b2".to_owned()]));
    for wrong in [
        &["--min", "3"][..],
        &["--target", "10.2.0.12:3000"],
        &["--target", "127.0.0.1:1"],
    ] {
        let ran = deploy(&net, &["b1", "b2"], wrong);
        assert!(ran.status != 0 && !ran.stderr.is_empty(), "{ran}");
    }
    deploy(&net, &["b1", "b2"], &["--min", "3"]).exits(2);
    assert_eq!(changes(&net), 2);
}

#[test]
fn who_interrupts_while_it_probes_undoes_it() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    net.mute("b4");
    let ends = [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)];
    for ((signal, code), id) in ends.into_iter().zip(1..) {
        let running = net.begin(&["deploy", "a", "--target", &end("b2"), "--target", &end("b4")]);
        comes_to(&net, id, "probing");
        // A second one does not get between.
        let second = deploy(&net, &["b3"], &[]).exits(1);
        assert!(
            second
                .stderr
                .contains(&format!("deploy {id} of service \"a\" is under way")),
            "{second}"
        );
        running.signal(signal);
        let ran = running.wait().exits(code);
        assert!(ran.stderr.contains("undone"), "{ran}");
        assert_eq!(phase(&net, id), "undone");
        assert_eq!((changes(&net), serves(&net)), (1, vec!["b1".to_owned()]));
    }
}

/// A deploy supersedes one whose targets never answer: those targets get no connections, and clients are not affected.
#[test]
fn a_deploy_supersedes_one_that_probes() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    net.mute("b4");
    let (b2, b4) = (end("b2"), end("b4"));
    let (spread, second) = net.spread_during("client", public(), 4, || {
        let first = net.begin(&["deploy", "a", "--target", &b2, "--target", &b4]);
        comes_to(&net, 1, "probing");
        deploy(&net, &["b3"], &[]).exits(1);
        let second = deploy(&net, &["b2", "b3"], &["--supersede", "--until", "switched"]).exits(0);
        let first = first.wait().exits(1);
        assert!(first.stderr.contains("superseded by deploy 2"), "{first}");
        second
    });
    assert!(second.stderr.is_empty() || !second.stderr.contains("error"), "{second}");
    assert_eq!(spread.failures, Vec::<String>::new());
    assert!(
        spread.backends.values().sum::<usize>() > 20 && !spread.backends.contains_key("b4"),
        "{:?}",
        spread.backends
    );
    assert_eq!((phase(&net, 1), changes(&net)), (json!("undone"), 2));
    assert_eq!(serves(&net), ["b2", "b3"]);
    // A deploy that has switched does not block the next one.
    deploy(&net, &["b1"], &["--supersede", "--until", "switched"]).exits(0);
    assert_eq!(serves(&net), ["b1"]);
}

#[test]
fn who_interrupts_while_it_drains_lets_it_go_on() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    let mut session = net.hold("client", public());
    let running = net.begin(&["deploy", "a", "--target", &end("b2"), "--drain-timeout", "4s"]);
    comes_to(&net, 1, "switched");
    // The command looks that often.
    thread::sleep(Duration::from_millis(700));
    running.signal(Signal::SIGINT);
    let ran = running.wait().exits(130);
    assert!(ran.stderr.contains("goes on without this command"), "{ran}");
    session.conn.echo(b"still there").expect("it drains");
    comes_to(&net, 1, "drained");
    session.conn.patience(Duration::from_millis(500));
    session.conn.echo(b"still there").expect_err("its time is over");
    assert_eq!((changes(&net), serves(&net)), (2, vec!["b2".to_owned()]));
}

#[test]
fn rolling_back_keeps_the_sessions_of_the_old_ones() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    let refused = net.cli(&["rollback", "a"]).exits(1);
    assert!(
        refused.stderr.contains("no deploy of service \"a\" is under way"),
        "{refused}"
    );
    let mut old = net.hold("client", public());
    deploy(&net, &["b2"], &["--until", "switched"]).ok();
    assert_eq!(serves(&net), ["b2"]);
    let mut new = net.hold("client", public());
    assert_eq!([&*old.greeting.backend, &*new.greeting.backend], ["b1", "b2"]);
    net.cli(&["rollback", "a"]).ok();
    assert_eq!(serves(&net), ["b1"]);
    for session in [&mut old, &mut new] {
        session.conn.echo(b"still there").expect("it goes on");
    }
    assert_eq!((phase(&net, 1), changes(&net)), (json!("undone"), 3));
    drop(new);
    net.cli(&["wait", "a", "--for", "drained"]).ok();
    old.conn.echo(b"still there").expect("it is no leaver's");
    net.cli(&["rollback", "a"]).exits(1);
    // The next one is as if nothing had been.
    deploy(&net, &["b2"], &["--drain-timeout", "1s"]).ok();
    assert_eq!(
        (phase(&net, 2), serves(&net)),
        (json!("drained"), vec!["b2".to_owned()])
    );
}

#[test]
fn a_hook_runs_once_and_its_failure_keeps_the_switch() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    let _session = net.hold("client", public());
    let file = net.file("hooked");
    let say = format!(
        "echo \"$TCPGW_SERVICE $TCPGW_DEPLOY $TCPGW_OLD $TCPGW_NEW\" >> {}",
        file.to_string_lossy()
    );
    let hook = format!("{say}; exit 3");
    let ran = deploy(&net, &["b2", "b3"], &["--drain-timeout", "1s", "--on-switched", &hook]).exits(1);
    assert!(ran.stderr.contains("the switch is kept"), "{ran}");
    let text = fs::read_to_string(&file).expect("it ran");
    assert_eq!(text, format!("a 1 {} {} {}\n", end("b1"), end("b2"), end("b3")));
    assert_eq!((phase(&net, 1), changes(&net)), (json!("drained"), 2));
    // The hook is not run when no backends are switched.
    net.mute("b4");
    deploy(&net, &["b4"], &["--timeout", "1s", "--on-switched", &say]).exits(1);
    deploy(&net, &["b1"], &["--until", "switched", "--on-switched", &say]).exits(0);
    let text = fs::read_to_string(&file).expect("it ran");
    let second = format!("a 3 {} {} {}", end("b2"), end("b3"), end("b1"));
    assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), [second]);
}

#[test]
fn drained_backends_keep_their_sessions_and_come_back() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1", "b2"]);
    assert_eq!(serves(&net), ["b1", "b2"]);
    let mut session = loop {
        let session = net.hold("client", public());
        if session.greeting.backend == "b1" {
            break session;
        }
    };
    net.cli(&["drain", "a", &end("b1")]).ok();
    assert_eq!(serves(&net), ["b2"]);
    session.conn.echo(b"still there").expect("it drains");
    let ran = net
        .cli(&["wait", "a", "--for", "drained", "--timeout", "300ms"])
        .exits(1);
    assert!(ran.stderr.contains(&end("b1")), "{ran}");
    drop(session);
    net.cli(&["drain", "a", &end("b1"), "--wait"]).ok();
    net.cli(&["wait", "a", "--for", "drained"]).ok();
    net.cli(&["undrain", "a", &end("b1")]).ok();
    net.cli(&["wait", "a", "--for", "healthy"]).ok();
    assert_eq!(serves(&net), ["b1", "b2"]);
    let unknown = net.cli(&["drain", "a", &end("b3")]);
    assert!(unknown.status != 0 && unknown.stderr.contains(&end("b3")), "{unknown}");
}

#[test]
fn who_connects_during_a_pause_waits_and_is_served() {
    let net = Net::new();
    let (_daemon, _servers) = begin(&net, &["b1"]);
    let mut session = net.hold("client", public());
    net.cli(&["pause", "a"]).ok();
    let place = net.place("client");
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            place.enter();
            connect(public(), PATIENCE).and_then(|mut conn| conn.greeting())
        });
        // Its SYN is sent again after a second.
        assert!(
            wait_until(PATIENCE, || net.syns_again("client") > 0),
            "nothing was held back"
        );
        assert!(!waits.is_finished());
        session.conn.echo(b"still there").expect("a pause is for new ones");
        assert!(net.told(&["service", "show", "a"])["paused_for"].as_u64() > Some(0));
        net.cli(&["resume", "a"]).ok();
        let served = waits.join().expect("it does not panic").expect("it was answered");
        assert_eq!(served.backend, "b1");
    });
    assert_eq!(serves(&net), ["b1"]);
    // The pause ends by itself.
    let before = net.syns_again("client");
    net.cli(&["pause", "a", "--for", "1s"]).ok();
    let greeted = net.within("client", || {
        connect(public(), PATIENCE).and_then(|mut conn| conn.greeting())
    });
    assert_eq!(greeted.expect("it was answered").backend, "b1");
    assert!(net.syns_again("client") > before);
}
