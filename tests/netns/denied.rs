//! Established connections whose clients are denied: they are counted, and ended where the service asks for that.

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::plan::{PUBLIC, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// Connects from the client's nth address.
fn connect(net: &Net, family: usize, n: u16, port: u16) -> Conn {
    let mut conn = net
        .connect_from("client", crowd(n)[family], at(PUBLIC[family], port))
        .expect("connects");
    conn.greeting().expect("a greeting");
    conn.patience(std::time::Duration::from_secs(2));
    conn
}

fn web(fields: Value) -> Value {
    state([
        service("web", 2001, &["b1"], 3000, fields),
        service("other", 2002, &["b2"], 3000, json!({})),
    ])
}

/// Denied networks: 198.18.1.7 and its IPv6 counterpart are denied by a network and by a network within it.
const DENY: [&str; 4] = [
    "198.18.1.0/24",
    "198.18.1.0/28",
    "2001:db8:f::100/120",
    "2001:db8:f::107/128",
];
const DENIED: u16 = 0x107;
const ALLOWED: u16 = 0x207;

#[test]
fn without_a_daemon() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.apply(web(json!({"on_retire": "reset"})));
    let mut denied: Vec<Conn> = (0..2).map(|family| connect(&net, family, DENIED, 2001)).collect();
    let mut spared: Vec<Conn> = (0..2).map(|family| connect(&net, family, ALLOWED, 2001)).collect();
    spared.extend((0..2).map(|family| connect(&net, family, DENIED, 2002)));

    let denying = net.state_file("denying.json", web(json!({"on_retire": "reset", "deny": DENY})));
    let diff = net.tcpgw(&["diff", &denying]).exits(1);
    let words = "2 connections of denied clients go on (web 2); --flush-denied ends them";
    assert!(diff.stderr.contains(words), "{diff}");
    let applied = net.tcpgw(&["apply", &denying]).exits(0);
    assert!(applied.stderr.contains(words), "{applied}");
    let report = net.json(&["apply", &denying], 0);
    assert_eq!(
        (&report["denied_flows"], &report["denied_flows_flushed"]),
        (&json!(2), &json!(0))
    );
    for conn in denied.iter_mut().chain(&mut spared) {
        conn.echo(b"still here").expect("goes on");
    }

    let report = net.json(&["apply", &denying, "--flush-denied"], 0);
    assert_eq!(
        (&report["denied_flows"], &report["denied_flows_flushed"]),
        (&json!(0), &json!(2))
    );
    for conn in &mut denied {
        conn.echo(b"is it over").expect_err("was ended");
    }
    for conn in &mut spared {
        conn.echo(b"still here").expect("goes on");
    }
    let quiet = net.tcpgw(&["apply", &denying]).exits(0);
    assert!(!quiet.stderr.contains("denied"), "{quiet}");

    // An allow list denies all others.
    let allowing = net.state_file(
        "allowing.json",
        web(json!({"on_retire": "reset", "allow": ["198.18.3.0/24"]})),
    );
    let report = net.json(&["apply", &allowing, "--flush-denied"], 0);
    assert_eq!(report["denied_flows_flushed"], 2);
    let (web, other) = spared.split_at_mut(2);
    for conn in web {
        conn.echo(b"is it over").expect_err("was ended");
    }
    for conn in other {
        conn.echo(b"still here").expect("goes on");
    }
}

#[test]
fn with_a_daemon() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.want(state([]));
    let daemon = net.daemon(&[]);
    let [v4, v6] = endpoints("b1", 3000);
    net.cli(&[
        "service",
        "add",
        "web",
        "--port",
        "2001",
        "--on-retire",
        "reset",
        "--backend",
        &v4,
        "--backend",
        &v6,
    ])
    .ok();
    daemon.settles(2);
    let mut denied: Vec<Conn> = (0..2).map(|family| connect(&net, family, DENIED, 2001)).collect();
    let mut spared: Vec<Conn> = (0..2).map(|family| connect(&net, family, ALLOWED, 2001)).collect();
    let set: Vec<&str> = ["service", "set", "web"]
        .into_iter()
        .chain(DENY.iter().flat_map(|net| ["--deny", net]))
        .collect();
    let changed = net.cli(&set).exits(0);
    assert!(
        changed.stderr.contains("2 connections of denied clients go on (web 2)"),
        "{changed}"
    );
    for conn in denied.iter_mut().chain(&mut spared) {
        conn.echo(b"still here").expect("goes on");
    }
    let flushed = net.cli(&["service", "set", "web", "--flush-denied"]).exits(0);
    assert!(
        flushed.stderr.contains("2 connections of denied clients ended"),
        "{flushed}"
    );
    for conn in &mut denied {
        conn.echo(b"is it over").expect_err("was ended");
    }
    for conn in &mut spared {
        conn.echo(b"still here").expect("goes on");
    }
    let nobody = net.state_file(
        "nobody.json",
        state([service(
            "web",
            2001,
            &["b1"],
            3000,
            json!({"on_retire": "reset", "deny": ["0.0.0.0/0", "::/0"]}),
        )]),
    );
    let would = net.cli(&["-o", "json", "diff", &nobody]).exits(1);
    assert!(would.stdout.contains("\"denied_flows\": 2"), "{would}");
    let applied = net.told(&["apply", &nobody, "--flush-denied"]);
    assert_eq!(applied["denied_flows_flushed"], 2, "{applied:#}");
    assert!(wait_until(PATIENCE, || spared
        .iter_mut()
        .all(|conn| conn.echo(b"over").is_err())));
}
