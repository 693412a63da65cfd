//! Counters of connections by service and backend.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, PUBLIC_2, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::wait_until;
use crate::harness::wire::SYN;

/// Number of forged SYNs.
const SENT: u16 = 60;

const STATUS: &[&str] = &["status", "--interval", "0s"];

/// Returns the numbers of connections of a service, by its IPv4 and its IPv6 backend.
fn connections(status: &Value, name: &str) -> Vec<u64> {
    let services = status["services"].as_array().expect("a list");
    let service = services.iter().find(|service| service["name"] == name).expect(name);
    let backends = service["backends"].as_array().expect("a list");
    let of = |value: &Value| value["totals"]["connections"].as_u64().expect("a number");
    let each: Vec<u64> = backends.iter().map(of).collect();
    assert_eq!(of(service), each.iter().sum::<u64>(), "{service:#}");
    each
}

fn services() -> [Value; 6] {
    [
        service("any", 2001, &["b1"], 3000, json!({"balance": "round-robin"})),
        service("one", 2002, &["b1"], 3000, json!({"addresses": PUBLIC})),
        service("two", 2002, &["b1"], 3000, json!({"addresses": PUBLIC_2})),
        service(
            "kept",
            2003,
            &["b2"],
            3000,
            json!({"source": "preserve", "balance": "source-hash"}),
        ),
        service("closed", 2004, &["b1"], 3000, json!({"deny": ["0.0.0.0/0", "::/0"]})),
        service("silent", 2006, &["b3"], 3009, json!({})),
    ]
}

#[test]
fn each_connection_is_counted_once_for_its_service_and_backend() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.nft(
        "b3",
        "table inet silent {\nchain input {\ntype filter hook input priority 0\ntcp dport 3009 drop\n}\n}",
    );
    net.apply(state(services()));
    // A client outside, a container behind the gateway, and the gateway itself.
    for host in ["client", "b1", "gateway"] {
        for family in 0..2 {
            for (public, port, times) in [
                (PUBLIC, 2001, 1),
                (PUBLIC_2, 2001, 1),
                (PUBLIC, 2002, 3),
                (PUBLIC_2, 2002, 4),
                (PUBLIC, 2003, 5),
            ] {
                for _ in 0..times {
                    let mut conn = net.connect(host, at(public[family], port)).expect("a connection");
                    conn.greeting().expect("a greeting");
                    // Later packets are not counted.
                    conn.echo(&[7; 10_000]).expect("an echo");
                }
            }
        }
    }
    for public in PUBLIC {
        let brief = Duration::from_millis(1300);
        net.within("client", || connect(at(public, 2004), brief))
            .expect_err("it is denied");
        // The SYN is repeated after 1 s.
        net.within("client", || connect(at(public, 2006), brief))
            .expect_err("it is not answered");
    }
    let status = net.json(STATUS, 0);
    let counted = |name| connections(&status, name);
    assert_eq!(counted("any"), [6, 6]);
    assert_eq!((counted("one"), counted("two")), (vec![9, 9], vec![12, 12]));
    assert_eq!(counted("kept"), [15, 15]);
    assert_eq!((counted("closed"), counted("silent")), (vec![0, 0], vec![1, 1]));

    // The counters outlive changes, and end with their service or backend.
    let [any, one, _, kept, ..] = services();
    net.apply(state([any.clone(), one.clone(), kept]));
    net.apply(state([any, one]));
    for (set, left) in [("v4", 1), ("v6", 1), ("at_v4", 1), ("at_v6", 1)] {
        let counted = net.tally(&format!("connections_{set}"));
        assert_eq!(counted.len(), left, "{set}: {counted:?}");
    }
    assert_eq!(connections(&net.json(STATUS, 0), "any"), [6, 6]);
}

#[test]
fn what_a_limit_drops_is_no_connection() {
    let net = Net::new();
    net.apply(state([service(
        "slow",
        2005,
        &["b4"],
        3000,
        json!({"limit": {"pps": 1, "burst": 40}}),
    )]));
    for family in 0..2 {
        for n in 0..SENT {
            let from = SocketAddr::new(crowd(n)[family], 40_000);
            net.forge("client", &Segment::new(from, at(PUBLIC[family], 2005), SYN));
        }
        let over = || net.tally(["over_to_v4", "over_to_v6"][family]).values().sum::<u64>();
        let passed = || {
            net.tally(["connections_v4", "connections_v6"][family])
                .values()
                .sum::<u64>()
        };
        // The answers are resets, and take from a bucket of their own.
        let all = wait_until(PATIENCE, || over() + passed() == u64::from(SENT));
        assert!(all, "{} are over the limit, {} are counted", over(), passed());
        assert!(over() > 0 && passed() > 0, "{} are over the limit", over());
    }
}
