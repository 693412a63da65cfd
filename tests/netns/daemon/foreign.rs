//! Other programs that write to nftables while the daemon runs, under traffic.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::daemon::{number, timed};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::retire::open;

/// Documented time of a repair when the daemon does not own the table.
const REPAIR: Duration = Duration::from_secs(5);

const ELEMENT: &str = "nft add element inet tcpgw services '{ tcp . 65000 }'";

#[test]
fn nobody_writes_to_an_owned_table() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    let mut held = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
    let identity = net.identity();
    let (spread, ()) = net.spread_during("client", at(PUBLIC[0], 2001), 4, || {
        net.sh("gateway", "nft flush ruleset");
        for refused in ["nft delete table inet tcpgw", "nft flush table inet tcpgw", ELEMENT] {
            let run = net.sh("gateway", refused);
            assert!(run.status != 0 && run.stderr.contains("not permitted"), "{run}");
        }
    });
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    assert_eq!((net.identity().table, net.syns_again("client")), (identity.table, 0));
    for conn in &mut held {
        conn.echo(b"on").expect("it goes on");
    }
    assert!(daemon.events_of("drift").is_empty() && daemon.is_settled(2));
    // The table still accepts its owner's changes.
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
    assert_eq!(net.spread("client", at(PUBLIC[1], 2001), 10)["b2"], 10);
}

#[test]
fn the_doctor_knows_the_daemon_that_owns_the_table() {
    let net = Net::new();
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["owns_table"] == true));
    let socket = net.socket().to_string_lossy().into_owned();
    // A daemon that is not asked is known by its files in the run directory.
    for (asked, is_asked) in [(&*socket, true), ("none", false)] {
        let ran = net.tcpgw(&["-o", "json", "--socket", asked, "doctor"]);
        let output: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
        let findings = output["findings"].as_array().expect("a list");
        let owned: Vec<&Value> = findings.iter().filter(|one| one["id"] == "table-owned").collect();
        assert_eq!((owned.len(), &owned[0]["severity"]), (1, &"note".into()), "{output:#}");
        let is_unreachable = findings.iter().any(|one| one["id"] == "daemon-unreachable");
        assert_eq!(is_unreachable, !is_asked, "{output:#}");
    }
    // A change that the daemon has just made is not on record yet, and is not another program's.
    let last = daemon.last();
    net.want(state([service("a", 2002, &["b1"], 3000, json!({}))]));
    daemon.hears(last, &json!({"event": "committed"}));
    let ran = net.tcpgw(&["-o", "json", "--socket", &socket, "doctor"]);
    assert!(!ran.stdout.contains("table-changed"), "{ran}");
}

#[test]
fn what_others_do_is_repaired() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let wanted = state([service("a", 2001, &["b1"], 3000, json!({"on_retire": "reset"}))]);
    net.want(&wanted);
    let daemon = net.daemon(&["--no-owner"]);
    daemon.settles(2);
    assert_eq!(daemon.get("/v1/daemon")["owns_table"], false);
    let file = net.wanted().to_string_lossy().into_owned();
    let (mut lived, mut held) = (0, 0);
    for harm in [
        "nft flush ruleset",
        "nft delete table inet tcpgw",
        "nft flush map inet tcpgw slots_v4",
        "nft flush chain inet tcpgw spread_v4",
        ELEMENT,
    ] {
        let mut conns = PUBLIC.map(|address| open(&net, at(address, 2001), "b1"));
        let before = daemon.last();
        net.sh("gateway", harm).ok();
        let (repaired, took) = timed(|| {
            // The event, and not only what it says of itself.
            let is_repaired = || {
                daemon
                    .events()
                    .iter()
                    .any(|event| number(event) > Some(before) && event["event"] == "repaired")
            };
            wait_until(REPAIR, || is_repaired() && net.tcpgw(&["diff", &file]).status == 0)
        });
        assert!(repaired, "{harm}: {:#?}", daemon.events());
        let drift = daemon.hears(before, &json!({"event": "drift"}));
        assert!(
            drift["who"].as_str().is_some_and(|who| who.contains("nft (")),
            "{harm}: {drift}"
        );
        for address in PUBLIC {
            net.spread("client", at(address, 2001), 5);
        }
        for conn in &mut conns {
            held += 1;
            conn.patience(Duration::from_secs(3));
            lived += usize::from(conn.echo(b"still there?").is_ok());
        }
        eprintln!("{harm}: repaired within {took:?}");
    }
    eprintln!("{lived} of {held} sessions that said nothing meanwhile live");
    // Connections without data while the rules are absent are not affected.
    assert_eq!(lived, held);
}

/// New connections are served right after a repair. Connections that exchange data while the rules are absent may or may not go
/// on.
#[test]
fn traffic_goes_on_after_a_repair() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1", "b2"], 3000, json!({}))]));
    let daemon = net.daemon(&["--no-owner"]);
    daemon.settles(4);
    let mut talkers: Vec<_> = (0..20).map(|_| net.hold("client", at(PUBLIC[0], 2001)).conn).collect();
    let before = daemon.last();
    let over = AtomicBool::new(false);
    let talk = |mut conn: Conn| {
        conn.patience(Duration::from_secs(5));
        while !over.load(Relaxed) {
            if conn.echo(b"still there?").is_err() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    };
    let (spread, live) = thread::scope(|scope| {
        let talk = &talk;
        let talkers: Vec<_> = talkers.drain(..).map(|conn| scope.spawn(move || talk(conn))).collect();
        let (spread, ()) = net.spread_during("client", at(PUBLIC[0], 2001), 2, || {
            net.sh("gateway", "nft flush ruleset").ok();
            daemon.hears(before, &json!({"event": "repaired"}));
            // Connections that lost a packet send it again.
            thread::sleep(Duration::from_secs(2));
            over.store(true, Relaxed);
        });
        let live = talkers
            .into_iter()
            .map(|talker| talker.join().expect("it does not panic"));
        (spread, live.filter(|lives| *lives).count())
    });
    let (served, failed) = (spread.served(), spread.failures.len());
    eprintln!("a flush: {served} new connections served, {failed} failed; {live} of 20 that talked all the time live");
    assert!(served > 0);
    daemon.settles(4);
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 40).len(), 2);
}
