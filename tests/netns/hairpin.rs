//! Clients behind the gateway: a backend of the service, a backend of another one, and a neighbour that is no backend.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{INTERNAL, PUBLIC, addresses, at, ip};
use crate::harness::server::{Behaviour, Server};
use crate::harness::state::{backends, endpoints, service, state};
use crate::harness::wire::{Packet, RST, lines};
use crate::harness::{Net, wait_until};

/// Returns `web` at b1 and `other` at b2, each with that source mode.
fn web_and_other(source: &str) -> Value {
    let source = json!({"source": source});
    state(&[
        service("web", 8000, &backends(&["b1"], 3000), &source),
        service("other", 8001, &backends(&["b2"], 3000), &source),
    ])
}

const PORTS: [(u16, &str); 2] = [(8000, "b1"), (8001, "b2")];

fn serve(net: &Net) -> [Server; 2] {
    ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet))
}

/// Asserts that every client reaches both services with the expected source address.
fn everyone_is_served(net: &Net, source: &str) {
    // Client, and whether the backend could answer it without the gateway.
    for (host, beside) in [
        ("b1", true),
        ("b2", true),
        ("peer", true),
        ("client", false),
        ("routed", false),
    ] {
        for (port, backend) in PORTS {
            for (family, address) in PUBLIC.into_iter().enumerate() {
                let what = format!("{host} to {address} port {port}, {source}");
                let mut conn = net
                    .connect(host, at(address, port))
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                let greeting = conn.greeting().unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(greeting.backend, backend, "{what}");
                if source == "masquerade" || beside {
                    assert_eq!(greeting.seen_as.ip(), ip(INTERNAL[family]), "{what}");
                } else {
                    assert_eq!(greeting.seen_as, conn.local(), "{what}");
                }
                conn.echo(&vec![7; 200_000]).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
        }
    }
}

#[test]
fn containers_and_their_neighbours_are_clients_too() {
    let net = Net::new();
    let _servers = serve(&net);
    for source in ["masquerade", "preserve"] {
        net.apply(web_and_other(source));
        everyone_is_served(&net, source);
        // A public address of the gateway is not the only one.
        for address in INTERNAL {
            let mut conn = net.connect("b1", at(address, 8000)).expect("a connection");
            assert_eq!(conn.greeting().expect("a greeting").backend, "b1");
        }
    }
}

/// A filtering bridge needs hairpin mode: with `br_netfilter` it sends a packet out again only by another port than it came in
/// by, unless that port is in hairpin mode.
#[test]
fn a_filtering_bridge_needs_hairpin_mode() {
    let net = Net::new();
    let sysctls = ["iptables", "ip6tables"].map(|family| format!("/proc/sys/net/bridge/bridge-nf-call-{family}"));
    if net.sh("gateway", &format!("test -e {}", sysctls[0])).status != 0 {
        println!("this kernel has no br_netfilter: nothing to test");
        return;
    }
    for sysctl in sysctls {
        net.sh("gateway", &format!("echo 1 > {sysctl}")).ok();
    }
    let servers = serve(&net);
    for source in ["masquerade", "preserve"] {
        net.apply(web_and_other(source));
        for (family, address) in PUBLIC.into_iter().enumerate() {
            let before = servers[0].accepted();
            let alone = net.within("b1", || connect(at(address, 8000), Duration::from_millis(300)));
            let error = alone.expect_err("the bridge does not send it back by its own port");
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{source}");
            assert_eq!(servers[0].accepted(), before);
            let mut conn = net.connect("b1", at(address, 8001)).expect("to another port it goes");
            assert_eq!(conn.greeting().expect("a greeting").seen_as.ip(), ip(INTERNAL[family]));
        }
        for port in ["b1", "b2"] {
            net.sh("gateway", &format!("bridge link set dev {port} hairpin on"))
                .ok();
        }
        everyone_is_served(&net, source);
        for port in ["b1", "b2"] {
            net.sh("gateway", &format!("bridge link set dev {port} hairpin off"))
                .ok();
        }
    }
}

/// A flushed backend never reaches the client directly, although it goes on sending to the client's address, which it sees.
#[test]
fn a_flushed_backend_never_speaks_to_the_client_directly() {
    let net = Net::new();
    let sources = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Source));
    let web = |host: &str| {
        let fields = json!({"source": "preserve"});
        state(&[service("web", 8000, &backends(&[host], 3000), &fields)])
    };
    let moved = |to: u16| {
        let fields = json!({"source": "preserve"});
        state(&[service("web", to, &backends(&["b1"], 3000), &fields)])
    };
    // The backend leaves for good; or it is in another service afterwards.
    for (what, after) in [("replaced", web("b2")), ("moved", moved(8001))] {
        for (family, address) in PUBLIC.into_iter().enumerate() {
            net.apply(web("b1"));
            let container = addresses("b1")[family];
            let direct = net.capture("client", move |packet: &Packet| packet.src.ip() == container);
            let before = sources[0].resets();
            let mut conn = net.connect("client", at(address, 8000)).expect("a connection");
            conn.receive().expect("some bytes");
            let client = conn.local();
            let endpoint: SocketAddr = endpoints("b1", 3000)[family];
            let at_b1 = net.capture("b1", move |packet: &Packet| {
                !packet.outgoing && packet.between(client, endpoint)
            });
            assert_eq!(sources[0].open(), 1);
            net.apply(&after);
            // Reading opens the window, were it not for the flush; what b1 has in flight it sends again.
            drop(conn);
            assert!(
                wait_until(PATIENCE, || sources[0].resets() > before),
                "{what}: b1 goes on"
            );
            let at_b1 = at_b1.stop();
            assert!(at_b1.iter().any(|packet| packet.has(RST)), "{what}: {}", lines(&at_b1));
            let direct = direct.stop();
            assert!(direct.is_empty(), "{what}: the client sees\n{}", lines(&direct));
        }
    }
}
