//! Established connections outlive changes, and new connections are not disturbed by them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::rounds;
use crate::harness::Net;
use crate::harness::client::Conn;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::state::{FLOW_MARK, backends, backends_with, endpoints, service, state};

const APPLIES: usize = 300;

/// Returns the nth of many states: `web` stays at b1 and b2, its other fields and all other services change.
fn changing(n: u32) -> Value {
    let weight = |n: u32| json!({"weight": n % 3 + 1});
    let of_web = [
        backends_with(&["b1"], 3000, &weight(n)),
        backends_with(&["b2"], 3000, &weight(n / 3)),
    ]
    .concat();
    let balance = ["client-hash", "random", "source-hash", "round-robin"][(n as usize / 5) % 4];
    let mut services = vec![service("web", 8000, &of_web, &json!({"balance": balance}))];
    if n.is_multiple_of(2) {
        let limit = json!({"limit": {"pps": 1000 + n}, "balance": balance});
        services.push(service("comes-and-goes", 8001, &backends(&["b1", "b3"], 3001), &limit));
    }
    let rolling = [["b1", "b2"], ["b2", "b3"], ["b3", "b4"]][n as usize % 3];
    services.push(service(
        "rolls",
        8002,
        &backends(&rolling, 3002),
        &json!({"source": "preserve"}),
    ));
    state(&services)
}

/// A transfer goes on through hundreds of applies. `TCPGW_APPLIES` and `TCPGW_SOAK` change their number.
#[test]
fn a_transfer_goes_on_through_hundreds_of_applies() {
    let applies = u32::try_from(rounds("TCPGW_APPLIES", APPLIES)).expect("a sane number");
    let short_connections = 2 * applies as usize;
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(changing(0));
    let (over, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    let connected = AtomicUsize::new(0);
    let mut transfers = PUBLIC.map(|address| {
        let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn
    });
    // At a steady rate, so that the connections meet the applies at every moment of theirs.
    let more = || {
        thread::sleep(Duration::from_millis(20));
        let going = !over.load(Relaxed) || connected.load(Relaxed) < short_connections;
        connected.fetch_add(usize::from(going), Relaxed);
        going
    };
    let spreads = thread::scope(|scope| {
        for conn in &mut transfers {
            scope.spawn(|| transfer(conn, &over, &moved));
        }
        let clients = PUBLIC.map(|address| {
            let (net, more) = (&net, &more);
            scope.spawn(move || net.spread_while("client", at(address, 8000), 1, more))
        });
        let end = OnDrop(&over);
        apply_many(&net, &moved, applies);
        drop(end);
        clients.map(|client| client.join().expect("clients do not panic"))
    });
    assert_eq!(net.handshakes_again(), 0, "no SYN was lost");
    for spread in &spreads {
        println!(
            "{} short connections, the longest {:?}",
            spread.served(),
            spread.longest
        );
        assert!(spread.failures.is_empty(), "{spread:?}");
    }
    println!("{} MB moved meanwhile", moved.load(Relaxed) >> 20);
    assert!(
        spreads
            .iter()
            .map(crate::harness::client::Spread::served)
            .sum::<usize>()
            >= short_connections
    );
}

/// Applies one state after the other, and sees to it that the transfers move.
fn apply_many(net: &Net, moved: &AtomicU64, applies: u32) {
    let mut before = 0;
    for n in 1..=applies {
        net.apply(changing(n));
        if n.is_multiple_of(100.min(applies)) {
            let now = moved.load(Relaxed);
            assert!(now > before, "the transfers stand still after {n} applies");
            before = now;
        }
    }
}

#[test]
fn established_connections_outlive_every_change_that_keeps_their_backend() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state(&[service(
        "web",
        8000,
        &backends(&["b1", "b2"], 3000),
        &json!({}),
    )]));
    let mut conns: Vec<Conn> = PUBLIC
        .iter()
        .flat_map(|address| (0..8).map(move |_| address))
        .map(|address| {
            let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
            conn.greeting().expect("a greeting");
            conn
        })
        .collect();
    let before = flows(&net);
    assert_eq!(before.len(), conns.len());

    for (what, changed) in changes_of_web() {
        net.apply(state(&[changed]));
        for conn in &mut conns {
            conn.echo(&[7; 2000])
                .unwrap_or_else(|e| panic!("after a change of {what}: {e}"));
        }
        assert_eq!(flows(&net), before, "after a change of {what}");
    }
}

/// Returns changes of a service at b1 and b2 after which both backends remain.
fn changes_of_web() -> Vec<(&'static str, Value)> {
    let hosts = ["b1", "b2"];
    let all = backends(&hosts, 3000);
    let web = |fields: &Value| service("web", 8000, &all, fields);
    let weights = [
        backends_with(&["b1"], 3000, &json!({"weight": 5})),
        backends(&["b2"], 3000),
    ]
    .concat();
    let draining = backends_with(&hosts, 3000, &json!({"state": "draining"}));
    let more = backends(&["b1", "b2", "b3", "b4"], 3000);
    vec![
        ("limit", web(&json!({"limit": {"pps": 5000}}))),
        ("rate", web(&json!({"limit": {"pps": 7000, "burst": 9000}}))),
        (
            "direction",
            web(&json!({"limit": {"pps": 7000, "direction": "shared"}})),
        ),
        ("no limit", web(&json!({}))),
        ("weights", service("web", 8000, &weights, &json!({}))),
        ("balance", web(&json!({"balance": "round-robin"}))),
        ("another balance", web(&json!({"balance": "source-hash"}))),
        ("more backends", service("web", 8000, &more, &json!({}))),
        ("source", web(&json!({"source": "preserve"}))),
        ("on_retire", web(&json!({"on_retire": "reset", "on_empty": "drop"}))),
        ("deny", web(&json!({"deny": ["0.0.0.0/0", "::/0"]}))),
        ("allow", web(&json!({"allow": ["192.0.2.0/24"]}))),
        ("addresses", web(&json!({"addresses": PUBLIC}))),
        ("name", service("renamed", 8000, &all, &json!({}))),
        ("draining", service("web", 8000, &draining, &json!({}))),
        ("active", web(&json!({}))),
    ]
}

const DAMAGES: [&str; 9] = [
    "flush ruleset",
    "delete table inet tcpgw",
    "flush table inet tcpgw",
    "flush chain inet tcpgw balance",
    "add rule inet tcpgw balance drop",
    "add chain inet tcpgw stray",
    "flush set inet tcpgw services",
    "flush map inet tcpgw slots_v4",
    "flush set inet tcpgw limited_v6",
];

#[test]
fn apply_repairs_what_others_broke() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let web = state(&[
        service(
            "web",
            8000,
            &backends(&["b1", "b2"], 3000),
            &json!({"limit": {"pps": 100_000}}),
        ),
        service(
            "turns",
            8001,
            &backends(&["b3", "b4"], 3000),
            &json!({"balance": "round-robin"}),
        ),
    ]);
    net.apply(&web);
    let sound = net.rules();
    let mut kept = PUBLIC.map(|address| {
        let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn
    });
    for damage in DAMAGES {
        net.sh("gateway", &format!("nft {damage}")).ok();
        net.apply(&web);
        assert_eq!(net.rules(), sound, "after {damage}");
        for (address, conn) in PUBLIC.into_iter().zip(&mut kept) {
            let spread = net.spread("client", at(address, 8001), 10);
            assert_eq!(
                spread.into_iter().collect::<Vec<_>>(),
                [("b3".into(), 5), ("b4".into(), 5)]
            );
            assert_eq!(net.spread("client", at(address, 8000), 10).values().sum::<usize>(), 10);
            conn.echo(&[7; 2000]).unwrap_or_else(|e| panic!("after {damage}: {e}"));
        }
    }
}

/// Returns the marked flows to port 3000, without fields that change by themselves.
fn flows(net: &Net) -> Vec<String> {
    let all = ["b1", "b2"].into_iter().flat_map(|host| endpoints(host, 3000));
    let mut flows: Vec<String> = all
        .flat_map(|endpoint| net.flows_to(endpoint))
        .map(|flow| {
            format!(
                "{} {} {} {}",
                flow.client,
                flow.public,
                flow.backend,
                flow.mark & FLOW_MARK
            )
        })
        .collect();
    flows.sort();
    flows
}

fn transfer(conn: &mut Conn, over: &AtomicBool, moved: &AtomicU64) {
    let chunk = vec![7; 1 << 14];
    while !over.load(Relaxed) {
        conn.echo(&chunk).expect("the transfer goes on");
        moved.fetch_add(chunk.len() as u64, Relaxed);
        // Leaves the machine to the others.
        thread::sleep(Duration::from_millis(10));
    }
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
