//! ICMP passes a service: IPv6 and path MTU discovery need it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Net;
use crate::harness::client::PATIENCE;
use crate::harness::forge::Segment;
use crate::harness::plan::{BACKENDS, INTERNAL, PUBLIC, PUBLIC_2, at, ip};
use crate::harness::server::Behaviour;
use crate::harness::state::{backends, service, state};
use crate::harness::wire::{ACK, ICMP, ICMPV6, Packet};

#[test]
fn the_gateway_answers_pings_and_finds_its_neighbours() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let fields = json!({"source": "preserve", "limit": {"pps": 1000}, "deny": ["198.18.0.0/15"], "on_empty": "drop"});
    net.apply(state(&[
        service("web", 8000, &backends(&BACKENDS, 3000), &fields),
        service("empty", 8001, &[], &json!({"addresses": PUBLIC})),
    ]));
    let pings: Vec<String> = [PUBLIC, PUBLIC_2, INTERNAL]
        .concat()
        .iter()
        .map(|address| format!("ping -q -c 1 -W 5 {address}"))
        .collect();
    for host in ["client", "b1", "peer", "routed", "gateway"] {
        net.sh(host, &pings.join(" && ")).ok();
    }
    for host in ["gateway", "client", "b1", "b2", "b3", "b4"] {
        net.sh(host, "ip neigh flush all").ok();
    }
    for address in PUBLIC {
        assert_eq!(net.spread("client", at(address, 8000), 40).len(), 4);
    }
    let neighbours = net.sh("gateway", "ip -6 neigh show dev br0").ok();
    let found = neighbours
        .lines()
        .filter(|line| line.contains("fd00:2::1") && line.contains("lladdr"));
    assert_eq!(found.count(), 4, "{neighbours}");
}

/// The way to b1 has a narrow part right behind the gateway, which tells the client so; the way to the client has one
/// in front of it, which the containers learn. Each is told of the connection as it knows it.
#[test]
fn path_mtu_discovery_works_through_a_service() {
    for source in ["masquerade", "preserve"] {
        let net = Net::new();
        let _server = net.serve("b1", 3000, Behaviour::Greet);
        net.apply(state(&[service(
            "web",
            8000,
            &backends(&["b1"], 3000),
            &json!({"source": source}),
        )]));
        net.narrow_path("b1", 1280);
        for client in crate::harness::plan::addresses("client") {
            net.sh("gateway", &format!("ip route replace {client} dev ext mtu 1300"))
                .ok();
        }
        let [at_client, at_b1] = ["client", "b1"].map(|host| net.capture(host, too_big));
        for (family, address) in PUBLIC.into_iter().enumerate() {
            let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
            let seen_as = conn.greeting().expect("a greeting").seen_as.ip();
            conn.echo(&vec![7; 1 << 20]).expect("an echo");
            // The client knows the gateway only, and it is the way there that is narrow.
            assert_eq!(learnt(&net, "client", address), Some(1280), "{source}");
            assert_eq!(learnt(&net, "b1", &seen_as.to_string()), Some(1300), "{source}");
            assert_eq!(seen_as == ip(INTERNAL[family]), source == "masquerade");
        }
        for capture in [at_client, at_b1] {
            let families: BTreeSet<u8> = capture.stop().iter().map(|packet| packet.protocol).collect();
            assert_eq!(families, BTreeSet::from([ICMP, ICMPV6]), "{source}");
        }
    }
}

#[test]
fn a_container_with_a_small_mtu_is_served_both_ways() {
    let net = Net::new();
    let servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state(&[service(
        "web",
        8000,
        &backends(&["b1"], 3000),
        &json!({"limit": {"pps": 100_000}}),
    )]));
    net.set_mtu("b1", 1280);
    for address in PUBLIC {
        let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&vec![7; 4 << 20]).expect("an echo");
    }
    assert_eq!(servers[0].bytes_in(), 8 << 20);
}

#[test]
fn errors_from_a_backend_reach_the_client_at_once() {
    let net = Net::new();
    net.nft(
        "b1",
        "table inet angry { chain input { type filter hook input priority 0;
            tcp dport 3000 reject with icmpx type port-unreachable; }; }",
    );
    for source in ["masquerade", "preserve"] {
        let fields = json!({"source": source, "limit": {"pps": 1, "burst": 8}});
        net.apply(state(&[service("web", 8000, &backends(&["b1"], 3000), &fields)]));
        for (host, address) in ["client", "gateway", "peer"]
            .into_iter()
            .flat_map(|host| PUBLIC.map(|a| (host, a)))
        {
            let public = ip(address);
            let told = net.capture(host, move |packet| unreachable(packet) && packet.src.ip() == public);
            let error = net.connect(host, at(address, 8000)).expect_err("b1 refuses");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{source} {host} {address}");
            // On the gateway itself it is translated when it has come in.
            if host != "gateway" {
                told.wait_for(PATIENCE, |_| true);
            }
        }
    }
}

/// Errors of 1 KB about one connection, sent by its client as fast as possible, stay within the limit of the backend.
#[test]
fn errors_are_within_the_limit_of_the_backend() {
    const SENT: u32 = 3000;
    let (pps, burst, reserve) = (10, 50, 10);
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    for direction in ["each", "shared"] {
        let fields = json!({"limit": {"pps": pps, "burst": burst, "direction": direction}});
        net.apply(state(&[service("web", 8000, &backends(&["b1"], 3000), &fields)]));
        for address in PUBLIC {
            let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
            conn.greeting().expect("a greeting");
            let arrived = net.capture("b1", |packet| !packet.outgoing && unreachable(packet));
            let begin = Instant::now();
            let forger = net.forger("client");
            let answer = Segment::new(at(address, 8000), conn.local(), ACK);
            for _ in 0..SENT {
                forger.refuse(&answer, 1000).expect("it goes out");
            }
            thread::sleep(Duration::from_millis(300));
            let seconds = u32::try_from(begin.elapsed().as_secs() + 1).expect("a short time");
            let count = u32::try_from(arrived.stop().len()).expect("a sane number");
            eprintln!("{direction} {address}: {count} of {SENT} errors in {seconds} s");
            // The handshake, the greeting and its acknowledgement have been taken from the same bucket, with those of the other way
            // where both share one.
            assert!(count >= burst + reserve - 20, "{count}");
            assert!(count <= burst + reserve + (pps + 1) * seconds, "{count} in {seconds} s");
            let over: u64 = ["over_to_v4", "over_to_v6"]
                .iter()
                .flat_map(|set| net.tally(set))
                .map(|(_, n)| n)
                .sum();
            assert!(over >= u64::from(SENT - count), "{over} counted");
            // The reserve is for errors only: the connection waits for its bucket, and goes on.
            conn.echo(b"on").expect("it goes on");
        }
        net.apply(state(&[service("web", 8000, &backends(&["b1"], 3000), &json!({}))]));
    }
}

/// Returns the path MTU that a host has learnt, if there is one.
fn learnt(net: &Net, host: &str, to: &str) -> Option<u32> {
    let route = net.sh(host, &format!("ip route get {to}")).ok();
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

fn too_big(packet: &Packet) -> bool {
    !packet.outgoing
        && ((packet.protocol, packet.icmp) == (ICMP, (3, 4)) || (packet.protocol, packet.icmp) == (ICMPV6, (2, 0)))
}

fn unreachable(packet: &Packet) -> bool {
    !packet.outgoing
        && ((packet.protocol, packet.icmp) == (ICMP, (3, 3)) || (packet.protocol, packet.icmp) == (ICMPV6, (1, 4)))
}
