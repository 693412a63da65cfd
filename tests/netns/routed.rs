//! Traffic that the gateway merely routes is not affected by the rules.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::client::{PATIENCE, connect};
use crate::harness::forge::Segment;
use crate::harness::plan::{BACKENDS, NOBODY, PUBLIC, addresses, at};
use crate::harness::server::Behaviour;
use crate::harness::state::{FLOW_MARK, backends, endpoints, service, state};
use crate::harness::wire::{ACK, FIN, PSH, Packet, SYN};

/// Returns a state with port 8000 to all containers, each at one packet a second.
fn narrow(source: &str) -> Value {
    let fields = json!({"source": source, "limit": {"pps": 1, "burst": 8}, "on_retire": "reset", "on_empty": "reset"});
    state(&[service("narrow", 8000, &backends(&BACKENDS, 3000), &fields)])
}

#[test]
fn other_hosts_and_containers_are_reached_as_if_there_were_no_gateway() {
    let net = Net::new();
    let _backends = net.serve_all(3000, Behaviour::Greet);
    // The service's own port, on hosts that are no gateway.
    let _same_port = ["routed", "b1", "peer", "client"].map(|host| net.serve(host, 8000, Behaviour::Greet));
    let ways = [
        ("client", "routed", 8000),
        ("client", "peer", 8000),
        ("client", "b1", 8000),
        ("client", "b1", 3000),
        ("routed", "b1", 3000),
        ("routed", "client", 8000),
        ("b1", "routed", 8000),
        ("b1", "client", 8000),
        ("peer", "client", 8000),
        ("gateway", "routed", 8000),
        ("gateway", "b1", 8000),
        ("gateway", "b1", 3000),
        ("peer", "b1", 3000),
    ];
    for source in ["masquerade", "preserve"] {
        net.apply(narrow(source));
        for (from, to, port) in ways {
            for address in addresses(to) {
                let what = format!("{source}: {from} to {to} port {port}");
                let mut conn = net.connect(from, SocketAddr::new(address, port)).expect(&what);
                let greeting = conn.greeting().expect(&what);
                assert_eq!(
                    (greeting.backend.as_str(), greeting.seen_as),
                    (to, conn.local()),
                    "{what}"
                );
                // More than the limit would let through for minutes.
                conn.echo(&vec![7; 1 << 20]).expect(&what);
            }
        }
        let marked: Vec<_> = net
            .conntrack()
            .into_iter()
            .filter(|flow| flow.mark & FLOW_MARK != 0)
            .collect();
        assert!(marked.is_empty(), "{marked:?}");
        the_limit_holds(&net);
        net.sh("gateway", "conntrack -F").ok();
    }
}

/// Asserts that the limit applies, without which the test above would prove nothing.
fn the_limit_holds(net: &Net) {
    for address in PUBLIC {
        let slow = net.within("client", || {
            let mut conn = connect(at(address, 8000), PATIENCE).expect("the handshake is within the limit");
            conn.patience(std::time::Duration::from_millis(300));
            conn.greeting().and_then(|_| conn.echo(&vec![7; 1 << 20]))
        });
        slow.expect_err("a megabyte is not within the limit");
    }
}

/// Flows of other programs pass when they began before conntrack saw them or are invalid to it, because only their ends can judge
/// them.
#[test]
fn midstream_and_invalid_packets_of_others_pass() {
    let net = Net::new();
    let (established, nonsense) = ([ACK, PSH | ACK], [SYN | ACK, FIN, 0, SYN | FIN]);
    for source in ["masquerade", "preserve"] {
        net.apply(narrow(source));
        for (family, nobody) in NOBODY.into_iter().enumerate() {
            let of = |host: &str, port| SocketAddr::new(addresses(host)[family], port);
            let nobody = |port| at(nobody, port);
            let mut ways = vec![
                ("client", nobody(5000), "routed", of("routed", 8000)),
                ("client", nobody(5001), "b1", of("b1", 8000)),
                ("client", nobody(5002), "b1", of("b1", 3000)),
                ("routed", of("routed", 8000), "client", nobody(5003)),
                ("b1", of("b1", 8000), "client", nobody(5004)),
            ];
            if source == "masquerade" {
                // A preserved backend's would be late packets, whose client knows only the gateway.
                ways.push(("b1", endpoints("b1", 3000)[family], "client", nobody(5005)));
            }
            for (from, src, to, dst) in ways {
                for flags in established.into_iter().chain(nonsense) {
                    let arriving = net.capture(to, move |packet: &Packet| {
                        !packet.outgoing && (packet.src, packet.dst, packet.flags) == (src, dst, flags)
                    });
                    net.forge(
                        from,
                        &Segment {
                            flags,
                            ..Segment::new(src, dst, flags)
                        }
                        .payload(b"x"),
                    );
                    arriving.wait_for(PATIENCE, |_| true);
                }
            }
        }
    }
    let marked = net.conntrack().iter().filter(|flow| flow.mark & FLOW_MARK != 0).count();
    assert_eq!(marked, 0);
}
