//! Distribution of new connections over the backends.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::client::Spread;
use crate::harness::plan::{BACKENDS, INTERNAL, PUBLIC, PUBLIC_2, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::state::{backends, backends_with, service, state};

#[test]
fn connections_spread_as_the_weights_say() {
    let net = Net::new();
    let one_to_three = [
        backends_with(&["b1"], 3001, &json!({"weight": 1})),
        backends_with(&["b2"], 3001, &json!({"weight": 3})),
    ]
    .concat();
    net.apply(state(&[
        service("even", 8000, &backends(&BACKENDS, 3000), &json!({})),
        service("uneven", 8001, &one_to_three, &json!({})),
    ]));
    let _servers = [3000, 3001].map(|port| net.serve_all(port, Behaviour::Greet));
    for address in PUBLIC {
        let even = net.spread_by("client", at(address, 8000), 1000, 4);
        assert!(even.failures.is_empty(), "{even:?}");
        for backend in BACKENDS {
            assert!((180..=320).contains(&even.backends[backend]), "{address}: {even:?}");
        }
        let uneven = net.spread_by("client", at(address, 8001), 1000, 4);
        assert_eq!((uneven.served(), uneven.backends.len()), (1000, 2), "{uneven:?}");
        // Five standard deviations.
        assert!((181..=319).contains(&uneven.backends["b1"]), "{address}: {uneven:?}");
    }
}

#[test]
fn round_robin_takes_turns_per_service() {
    let net = Net::new();
    let weighted = [
        backends_with(&["b1"], 3001, &json!({"weight": 2})),
        backends(&["b2", "b3"], 3001),
    ]
    .concat();
    let round_robin = json!({"balance": "round-robin"});
    net.apply(state(&[
        service("equal", 8000, &backends(&BACKENDS, 3000), &round_robin),
        service("weighted", 8001, &weighted, &round_robin),
    ]));
    let _servers = [3000, 3001].map(|port| net.serve_all(port, Behaviour::Greet));
    for address in PUBLIC {
        // In turn, so that a counter that both shared would show.
        let mut counts = [BTreeMap::new(), BTreeMap::new()];
        for _ in 0..80 {
            for (port, counts) in [8000, 8001].into_iter().zip(&mut counts) {
                let mut conn = net.connect("client", at(address, port)).expect("a connection");
                *counts.entry(conn.greeting().expect("a greeting").backend).or_default() += 1;
            }
        }
        let expected = [("b1", 20), ("b2", 20), ("b3", 20), ("b4", 20)];
        assert_eq!(counts[0], count(&expected), "{address}");
        assert_eq!(counts[1], count(&[("b1", 40), ("b2", 20), ("b3", 20)]), "{address}");
        let parallel = net.spread_by("client", at(address, 8000), 400, 4);
        assert_eq!(
            parallel.backends,
            count(&expected.map(|(name, n)| (name, n * 5))),
            "{parallel:?}"
        );
    }
}

const CLIENTS: u16 = 300;

#[test]
fn source_hash_sticks() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let apply = |hosts: &[&str]| {
        let hashed = json!({"balance": "source-hash"});
        net.apply(state(&[service("sticky", 8000, &backends(hosts, 3000), &hashed)]));
    };
    apply(&BACKENDS);
    let before = places(&net, 8000);
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let mut counts: BTreeMap<&str, u16> = BTreeMap::new();
        for (_, backend) in before.iter().filter(|(client, _)| family(client)) {
            *counts.entry(backend).or_default() += 1;
        }
        // Both the addresses and the seed are fixed: this does not vary from run to run.
        let fair = counts
            .values()
            .all(|n| (CLIENTS * 18 / 100..=CLIENTS * 32 / 100).contains(n));
        assert!(counts.len() == 4 && fair, "{counts:?}");
    }
    assert_eq!(places(&net, 8000), before);

    apply(&["b1", "b2", "b3"]);
    let without_b4 = places(&net, 8000);
    assert!(without_b4.values().all(|backend| backend != "b4"));
    let others = before.iter().filter(|(_, backend)| *backend != "b4");
    let (stayed, moved): (Vec<_>, Vec<_>) = others.partition(|(client, backend)| without_b4[client] == **backend);
    println!(
        "b4 leaves: of the others' clients {} stay, {} move",
        stayed.len(),
        moved.len()
    );
    // With `mod N` two thirds would move; what does, keeps the shares exact.
    assert!(
        moved.len() * 4 < stayed.len(),
        "{} moved, {} stayed",
        moved.len(),
        stayed.len()
    );

    net.sh("gateway", "nft delete table inet tcpgw").ok();
    apply(&BACKENDS);
    assert_eq!(places(&net, 8000), before, "everyone is back, in a new table too");
}

#[test]
fn a_service_on_chosen_addresses_is_only_there() {
    let net = Net::new();
    net.apply(state(&[
        service("one", 8000, &backends(&["b1"], 3000), &json!({"addresses": PUBLIC})),
        service("two", 8001, &backends(&["b2"], 3000), &json!({"addresses": PUBLIC})),
        service("three", 8001, &backends(&["b3"], 3000), &json!({"addresses": PUBLIC_2})),
    ]));
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let _own = net.serve("gateway", 8000, Behaviour::Greet);
    let expected = [
        ("client", PUBLIC, 8000, "b1"),
        ("client", PUBLIC_2, 8000, "gateway"),
        ("client", PUBLIC, 8001, "b2"),
        ("client", PUBLIC_2, 8001, "b3"),
        ("peer", PUBLIC, 8000, "b1"),
        ("peer", INTERNAL, 8000, "gateway"),
        ("gateway", PUBLIC, 8000, "b1"),
        ("gateway", PUBLIC_2, 8000, "gateway"),
    ];
    for (host, addresses, port, backend) in expected {
        for address in addresses {
            let mut conn = net.connect(host, at(address, port)).expect("a connection");
            let greeting = conn.greeting().expect("a greeting");
            assert_eq!(greeting.backend, backend, "from {host} to {address} port {port}");
            if backend == "gateway" {
                assert_eq!(
                    greeting.seen_as,
                    conn.local(),
                    "it is the gateway's own: not translated"
                );
            }
            conn.echo(&vec![7; 100_000]).expect("an echo");
        }
    }
    for address in INTERNAL {
        let refused = net
            .connect("peer", at(address, 8001))
            .expect_err("nobody listens there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_more() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    for balance in ["client-hash", "random", "source-hash", "round-robin"] {
        let apply = |b1: Value| {
            let backends = [backends_with(&["b1"], 3000, &b1), backends(&["b2"], 3000)].concat();
            net.apply(state(&[service("web", 8000, &backends, &json!({"balance": balance}))]));
        };
        apply(json!({"state": "active"}));
        for address in PUBLIC {
            // Hashed by address it takes more than one client to find it.
            let clients = (0..).map(|n| crowd(n)[usize::from(address.contains(':'))]);
            let mut tries = clients.take(100).map(|from| {
                let mut conn = net.connect_from("client", from, at(address, 8000)).expect("a way");
                let backend = conn.greeting().expect("a greeting").backend;
                (from, backend, conn)
            });
            let (from, _, mut kept) = tries.find(|(_, backend, _)| backend == "b1").expect("b1 gets some");
            apply(json!({"state": "draining"}));
            assert_eq!(net.spread("client", at(address, 8000), 40), count(&[("b2", 40)]));
            let mut again = net.connect_from("client", from, at(address, 8000)).expect("a way");
            assert_eq!(again.greeting().expect("a greeting").backend, "b2");
            kept.echo(&vec![7; 100_000]).expect("the flow goes on");
            apply(json!({"state": "active"}));
            kept.echo(&vec![7; 100_000]).expect("the flow goes on");
        }
    }
}

#[test]
fn a_change_of_width_loses_no_syn() {
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let weighted = |balance: &str, b1: u16| {
        let backends = [
            backends_with(&["b1"], 3000, &json!({"weight": b1})),
            backends(&["b2", "b3"], 3000),
        ]
        .concat();
        net.apply(state(&[service("web", 8000, &backends, &json!({"balance": balance}))]));
    };
    // 3, 4, 3 and 5 slots, then the other ways to balance.
    let round = || {
        for balance in [
            "client-hash",
            "random",
            "client-hash",
            "round-robin",
            "random",
            "source-hash",
            "round-robin",
            "source-hash",
        ] {
            for b1 in [1, 2, 1, 3] {
                weighted(balance, b1);
            }
        }
    };
    round();
    let [v4, v6] = PUBLIC.map(|address| at(address, 8000));
    let (on_v4, (on_v6, ())) = net.spread_during("client", v4, 1, || {
        net.spread_during("client", v6, 1, || (0..3).for_each(|_| round()))
    });
    no_syn_was_lost(&net, [on_v4, on_v6]);
}

#[test]
fn a_backend_that_comes_and_drains_loses_no_syn() {
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let apply = |balance: &str, b4: &str| {
        let backends = [
            backends(&["b1", "b2", "b3"], 3000),
            backends_with(&["b4"], 3000, &json!({"state": b4})),
        ]
        .concat();
        net.apply(state(&[service("web", 8000, &backends, &json!({"balance": balance}))]));
    };
    apply("random", "active");
    let [v4, v6] = PUBLIC.map(|address| at(address, 8000));
    let (on_v4, (on_v6, ())) = net.spread_during("client", v4, 1, || {
        net.spread_during("client", v6, 1, || {
            for balance in ["client-hash", "random", "source-hash", "round-robin", "random"] {
                for state in ["draining", "active"].repeat(3) {
                    apply(balance, state);
                }
            }
        })
    });
    no_syn_was_lost(&net, [on_v4, on_v6]);
}

fn no_syn_was_lost(net: &Net, spreads: [Spread; 2]) {
    let counters = net
        .sh("gateway", "nft list table inet tcpgw | grep 'counter packets [1-9]'")
        .stdout;
    assert_eq!(net.handshakes_again(), 0, "{spreads:?}\n{counters}");
    for spread in spreads {
        println!("{} connections, the longest {:?}", spread.served(), spread.longest);
        assert!(spread.failures.is_empty(), "{spread:?}\n{counters}");
        assert!(spread.served() > 500, "{spread:?}\n{counters}");
    }
}

/// Returns the backend that each client of the crowd gets.
fn places(net: &Net, port: u16) -> BTreeMap<IpAddr, String> {
    let clients = (0..CLIENTS).flat_map(|n| crowd(n).into_iter().zip(PUBLIC));
    let place = |(client, address)| {
        let to: SocketAddr = at(address, port);
        let mut conn = net.connect_from("client", client, to).expect("a connection");
        (client, conn.greeting().expect("a greeting").backend)
    };
    clients.map(place).collect()
}

fn count(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(backend, n)| ((*backend).into(), *n)).collect()
}
