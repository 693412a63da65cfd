//! Containers in two services: each service has its own flows and drains, and the container has one bucket and one probe.

use std::io::ErrorKind;

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::retire::open;

/// Returns services "a" and "b" on ports 2001 and 2002, with these backends.
fn two(a: &[&str], b: &[&str], more: &Value) -> Value {
    state([
        service("a", 2001, a, 3000, more.clone()),
        service("b", 2002, b, 3000, more.clone()),
    ])
}

fn both(net: &Net, port: u16, host: &str) -> [Conn; 2] {
    PUBLIC.map(|address| open(net, at(address, port), host))
}

fn go_on(conns: &mut [Conn]) {
    for conn in conns {
        conn.echo(b"on").expect("it goes on");
    }
}

fn are_reset(conns: &mut [Conn]) {
    for conn in conns {
        let ended = conn.echo(b"late").expect_err("it should have ended");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    }
}

fn limited(net: &Net, host: &str) -> bool {
    let elements = net.sh("gateway", "nft list set inet tcpgw limit_to_v4").ok();
    let [four, _] = endpoints(host, 3000);
    let (address, port) = four.rsplit_once(':').expect("an endpoint");
    elements.contains(&format!("{address} . {port} "))
}

#[test]
fn what_leaves_one_service_stays_whole_in_the_other() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let more = json!({"on_retire": "reset", "limit": {"pps": 1000}});
    net.apply(two(&["b1"], &["b1"], &more));
    let (mut a, mut b) = (both(&net, 2001, "b1"), both(&net, 2002, "b1"));
    let status: Value = serde_json::from_str(&net.tcpgw(&["-o", "json", "status"]).stdout).expect("JSON");
    for service in status["services"].as_array().expect("services") {
        assert_eq!(service["flows"]["established"], 2, "{service:#}");
        let used: u64 = service["backends"][0]["source_ports"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|ports| ports["used"].as_u64())
            .sum();
        assert_eq!(used, 2, "one family's, of both services: {service:#}");
    }

    let output = net.apply(two(&["b2"], &["b1"], &more)).stdout;
    assert!(output.contains("2 flows flushed"), "{output}");
    are_reset(&mut a);
    go_on(&mut b);
    assert!(limited(&net, "b1"), "its bucket is still that of the other service");
    both(&net, 2001, "b2");
    both(&net, 2002, "b1");
    net.apply(two(&["b2"], &["b2"], &more));
    are_reset(&mut b);
    assert!(!limited(&net, "b1"));

    let refused = net
        .apply_with(
            &[],
            state([
                service("a", 2001, &["b2"], 3000, more),
                service("b", 2002, &["b2"], 3000, json!({})),
            ]),
        )
        .exits(2);
    assert!(refused.stderr.contains("with another limit"), "{}", refused.stderr);
}

#[test]
fn a_drain_with_a_daemon_is_of_one_service() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let more = json!({
        "on_retire": "reset", "drain_timeout": "2s", "limit": {"pps": 1000},
        "health": {"interval": "100ms", "timeout": "1s", "fall": 2},
    });
    net.want(two(&["b1"], &["b1"], &more));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    let (mut a, mut b) = (both(&net, 2001, "b1"), both(&net, 2002, "b1"));
    let before = daemon.last();
    net.want(two(&["b2"], &["b1"], &more));
    daemon.hears(before, &json!({"event": "draining", "service": "a"}));
    // The event is told when it is decided, before the kernel knows it.
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    go_on(&mut a);
    go_on(&mut b);
    both(&net, 2001, "b2");
    let mut newer = both(&net, 2002, "b1");
    let retired = daemon.hears(
        before,
        &json!({"event": "retired", "service": "a", "backend": endpoints("b1", 3000)[0]}),
    );
    assert_eq!(retired["reason"], "deadline", "{retired}");
    assert!(wait_until(PATIENCE, || daemon.get("/v1/drains")["drains"] == json!([])));
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    are_reset(&mut a);
    go_on(&mut b);
    go_on(&mut newer);
    assert!(limited(&net, "b1"));
    both(&net, 2002, "b1");

    // The backend that is left there is not given to another service before it answers.
    net.want(two(&["b2", "b4"], &["b1", "b2"], &more));
    assert!(wait_until(PATIENCE, || {
        net.spread("client", at(PUBLIC[0], 2002), 20).contains_key("b2")
    }));
    go_on(&mut b);
}

/// A dead container delays no service with a healthy one, even with an hour between that service's probes. A probe that took
/// another container's error as its own would make the service wait for an hour.
#[test]
fn a_dead_container_keeps_no_service_of_a_healthy_one_waiting() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.sh("b4", "ip addr flush dev eth0").ok();
    let mut services = vec![
        service("web", 2001, &["b1"], 3000, json!({"health": {"interval": "1h"}})),
        service("dead", 2002, &["b4"], 3000, json!({})),
    ];
    net.want(state(services.clone()));
    let daemon = net.daemon(&[]);
    let finds = |found: &str| daemon.get("/v1/services/dead").to_string().contains(found);
    assert!(wait_until(PATIENCE * 2, || finds("unreachable")));
    for port in 2010..2016 {
        let name = format!("s{port}");
        services.push(service(
            &name,
            port,
            &["b1"],
            3000,
            json!({"health": {"interval": "1h"}}),
        ));
        net.want(state(services.clone()));
        for address in PUBLIC {
            let is_served = || net.connect("client", at(address, port)).is_ok();
            assert!(
                wait_until(PATIENCE, is_served),
                "{name}: {:#}",
                daemon.get("/v1/daemon")
            );
        }
    }
}

/// Two services swap their containers by a change of the file, and no client is refused meanwhile.
#[test]
fn services_that_swap_containers_refuse_nobody() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let more = json!({"drain_timeout": "1s", "health": {"interval": "200ms", "timeout": "500ms", "fall": 2}});
    net.want(two(&["b1"], &["b2"], &more));
    let daemon = net.daemon(&[]);
    daemon.settles(4);
    // Backends that serve after each step. b4 never answers.
    net.sh("b4", "ip addr flush dev eth0").ok();
    for (a, b, after_a, after_b) in [
        ("b2", "b1", "b2", "b1"),
        ("b1", "b2", "b1", "b2"),
        ("b2", "b3", "b2", "b3"),
        ("b3", "b4", "b3", "b3"),
    ] {
        let is_there = |port, host: &str| {
            let spread = PUBLIC.map(|address| net.spread_by("client", at(address, port), 4, 1));
            spread
                .iter()
                .all(|spread| spread.failures.is_empty() && spread.backends.keys().eq([host]))
        };
        let switch = || {
            net.want(two(&[a], &[b], &more));
            wait_until(PATIENCE, || is_there(2001, after_a) && is_there(2002, after_b))
        };
        let both = || net.spread_during("client", at(PUBLIC[0], 2002), 1, switch);
        let (first, (second, arrives)) = net.spread_during("client", at(PUBLIC[0], 2001), 1, both);
        assert!(arrives, "to {a} and {b}: {:#}", daemon.get("/v1/services"));
        for spread in [first, second] {
            assert!(spread.failures.is_empty(), "to {a} and {b}: {spread:?}");
        }
    }
}
