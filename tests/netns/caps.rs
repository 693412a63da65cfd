//! Caps: flows of a service, flows and handshakes of a client.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE, connect_from};
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::wait_until;
use crate::harness::wire::SYN;

const BRIEF: Duration = Duration::from_millis(400);

/// Connects from the client's nth address. Returns the connection, if it is let in at once.
fn enter(net: &Net, family: usize, n: u16, port: u16) -> Option<Conn> {
    let from = SocketAddr::new(crowd(n)[family], 0);
    let conn = net.within("client", || connect_from(Some(from), at(PUBLIC[family], port), BRIEF));
    conn.ok().and_then(|mut conn| conn.greeting().is_ok().then_some(conn))
}

#[test]
fn a_service_has_no_more_flows_than_it_may() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.apply(state([
        service("small", 2001, &["b1"], 3000, json!({"max_flows": 5})),
        service("free", 2002, &["b2"], 3000, json!({})),
    ]));
    for family in 0..2 {
        let mut held: Vec<Conn> = (0..5)
            .map(|n| enter(&net, family, n, 2001).expect("there is room"))
            .collect();
        assert!(enter(&net, family, 100, 2001).is_none(), "it is full");
        assert!(net.tallied("over_flows", "tcp . 2001") > 0);
        assert!(enter(&net, family, 100, 2002).is_some(), "others are not");
        for conn in &mut held {
            conn.echo(b"goes on").expect("what is up goes on");
        }
        let status = std::thread::scope(|scope| {
            let clients = scope.spawn(|| (0..5).filter(|n| enter(&net, family, 200 + n, 2001).is_some()).count());
            let status = net.json(&["status", "--interval", "1s"], 1);
            assert_eq!(clients.join().expect("the clients"), 0, "it is full");
            status
        });
        let told = &status["problems"][0];
        assert_eq!(
            (&told["kind"], &told["service"]),
            (&json!("over_limit"), &json!("small")),
            "{status:#}"
        );
        held.pop().expect("five").reset().expect("a reset");
        assert!(
            wait_until(PATIENCE, || enter(&net, family, 101, 2001).is_some()),
            "there is room again"
        );
        drop(held);
    }
    let status = net.json(&["status", "--interval", "0s"], 0);
    assert!(
        status["services"][0]["drops"]["over_flows"]["packets"].as_u64() > Some(0),
        "{status:#}"
    );
    // The table is read back as it was written.
    net.forget();
    let file = net.state_file(
        "same.json",
        state([
            service("small", 2001, &["b1"], 3000, json!({"max_flows": 5})),
            service("free", 2002, &["b2"], 3000, json!({})),
        ]),
    );
    net.tcpgw(&["diff", &file]).exits(0);
    net.apply(state([service("small", 2001, &["b1"], 3000, json!({}))]));
    let all: Vec<Conn> = (0..8).filter_map(|n| enter(&net, 0, n, 2001)).collect();
    assert_eq!(all.len(), 8, "without a cap");
}

/// Clients that are turned away are not served: every list of problems has that, not only that of a command that looks
/// twice.
#[test]
fn the_daemon_knows_that_a_service_turns_clients_away() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([service("small", 2001, &["b1"], 3000, json!({"max_flows": 2}))]));
    let daemon = net.daemon(&[]);
    assert!(wait_until(PATIENCE, || enter(&net, 0, 0, 2001).is_some()));
    let mut held: Vec<Conn> = Vec::new();
    assert!(wait_until(PATIENCE, || {
        held.extend(enter(&net, 0, 1, 2001));
        held.len() == 2
    }));
    let healthz = || daemon.ask("GET", "/v1/healthz", "").expect("an answer");
    let is_told = || {
        assert!(enter(&net, 0, 100, 2001).is_none(), "it is full");
        let answer = healthz().json()["problems"][0].clone();
        answer["kind"] == "over_limit" && answer["service"] == "small" && answer["severity"] == "error"
    };
    assert!(wait_until(PATIENCE, is_told), "{:?}", healthz());
    assert_eq!(healthz().status, 503);
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]).exits(1);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["problems"][0]["kind"], "over_limit", "{status:#}");
    let doctor = net.cli(&["doctor"]).exits(1);
    assert!(doctor.stdout.contains("broken [over-limit]"), "{doctor}");
    daemon.hears(
        0,
        &json!({"event": "problem", "kind": "over_limit", "severity": "error", "service": "small"}),
    );
    for conn in held {
        conn.reset().expect("a reset");
    }
    assert!(wait_until(PATIENCE * 3, || healthz().status == 200), "{:?}", healthz());
    daemon.hears(0, &json!({"event": "problem_ended", "kind": "over_limit"}));
}

#[test]
fn a_client_has_no_more_flows_than_it_may() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"client": {"flows": 3}}),
    )]));
    let mut held: Vec<Conn> = (0..3)
        .map(|_| enter(&net, 0, 1, 2001).expect("there is room"))
        .collect();
    assert!(enter(&net, 0, 1, 2001).is_none(), "it has three");
    held.push(enter(&net, 0, 2, 2001).expect("another client"));
    // All of the client's addresses of IPv6 are in one network of 64 bits, and so they are one client.
    let mut v6: Vec<Conn> = (0..3)
        .map(|n| enter(&net, 1, n, 2001).expect("there is room"))
        .collect();
    assert!(enter(&net, 1, 7, 2001).is_none(), "its network has three");
    assert!(net.tallied("over_client", "tcp . 2001") >= 2);
    v6.pop().expect("three").reset().expect("a reset");
    assert!(wait_until(PATIENCE, || enter(&net, 1, 7, 2001).is_some()));
    drop((held, v6));
}

#[test]
fn a_client_that_floods_is_stopped_and_others_are_not() {
    let net = Net::alone();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let caps = json!({"client": {"handshakes_per_second": 20}});
    net.apply(state([service("a", 2001, &["b1"], 3000, caps)]));
    let (offered, time) = (1000 / net.divisor(2000), Duration::from_secs(3));
    for (family, flooder) in [crowd(9)[0], "2001:db8:dead::7".parse().expect("an address")]
        .into_iter()
        .enumerate()
    {
        let public = at(PUBLIC[family], 2001);
        let arriving = net.capture("b1", move |packet| !packet.outgoing && packet.opens());
        let syn = |number: u64| {
            let port = 1024 + u16::try_from(number % 60_000).expect("a port");
            Segment::new(SocketAddr::new(flooder, port), public, SYN)
        };
        let sent = net.forger("client").blast(offered, time, syn);
        let passed = arriving.stop().len();
        let most = 20 * (usize::try_from(time.as_secs()).expect("few") + 2);
        eprintln!("{sent} SYNs, {passed} arrived");
        assert!((20..=most).contains(&passed), "{passed} of {sent} arrived, {most} may");
        for n in 0..5 {
            assert!(enter(&net, 0, 300 + n, 2001).is_some(), "client {n}");
        }
    }
}
