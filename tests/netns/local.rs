//! Clients on the gateway itself.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;

use crate::harness::Net;
use crate::harness::client::connect;
use crate::harness::plan::{BACKENDS, INTERNAL, PUBLIC, PUBLIC_2, at, ip};
use crate::harness::server::Behaviour;
use crate::harness::state::{FLOW_MARK, backends, endpoints, service, state};

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

#[test]
fn the_gateway_is_a_client_like_any_other() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    for source in ["masquerade", "preserve"] {
        net.apply(state(&[service(
            "web",
            8000,
            &backends(&BACKENDS, 3000),
            &json!({"source": source}),
        )]));
        for family in 0..2 {
            let spread = net.spread("gateway", at(PUBLIC[family], 8000), 400);
            let fair = spread.values().all(|n| (60..=140).contains(n));
            assert!(spread.len() == 4 && fair, "{source}: {spread:?}");
            for address in [PUBLIC, PUBLIC_2, INTERNAL].map(|addresses| addresses[family]) {
                let mut conn = net.connect("gateway", at(address, 8000)).expect("a connection");
                let greeting = conn.greeting().expect("a greeting");
                // A container cannot answer the gateway's public address past the gateway, but it need not see it.
                assert_eq!(greeting.seen_as.ip(), ip(INTERNAL[family]), "{source}");
                conn.echo(&vec![7; 200_000]).expect("an echo");
                let flows = net.flows_to(endpoints(&greeting.backend, 3000)[family]);
                let flow = flows
                    .iter()
                    // A port may have been used for another address before.
                    .find(|flow| (flow.client, flow.public) == (conn.local(), at(address, 8000)))
                    .expect("it is tracked");
                assert_eq!(flow.mark & FLOW_MARK, FLOW_MARK);
            }
        }
    }
}

#[test]
fn the_gateway_learns_that_a_service_is_empty() {
    let net = Net::new();
    net.apply(state(&[
        service("reset", 8000, &[], &json!({"on_empty": "reset"})),
        service("drop", 8001, &[], &json!({"on_empty": "drop"})),
        service("at", 8002, &[], &json!({"addresses": PUBLIC})),
    ]));
    for host in ["gateway", "client", "b1"] {
        for address in PUBLIC {
            for port in [8000, 8002] {
                let error = net.connect(host, at(address, port)).expect_err("no backend");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{host} {address}");
            }
            let silence = net.within(host, || connect(at(address, 8001), Duration::from_millis(300)));
            assert_eq!(
                silence.expect_err("no backend").kind(),
                ErrorKind::TimedOut,
                "{host} {address}"
            );
        }
    }
}

#[test]
fn programs_on_loopback_keep_their_ports() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let _own = LOOPBACK.map(|address| net.serve_at("gateway", at(address, 8000), Behaviour::Greet));
    let services = |port: u16| service("web", port, &backends(&BACKENDS, 3000), &json!({"source": "preserve"}));
    // A port that is taken on loopback only is free for a service.
    net.apply(state(&[services(8000)]));
    for address in LOOPBACK {
        for _ in 0..20 {
            let mut conn = net.connect("gateway", at(address, 8000)).expect("a connection");
            let greeting = conn.greeting().expect("a greeting");
            assert_eq!((greeting.backend.as_str(), greeting.seen_as), ("gateway", conn.local()));
            conn.echo(&[7; 2000]).expect("an echo");
        }
        let closed = net
            .connect("gateway", at(address, 3000))
            .expect_err("nobody listens there");
        assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    }
    let marked = net.conntrack().iter().filter(|flow| flow.mark & FLOW_MARK != 0).count();
    assert_eq!(marked, 0, "what stays on loopback is not ours");
    for address in PUBLIC {
        let spread = net.spread("gateway", at(address, 8000), 20);
        assert!(!spread.contains_key("gateway"), "{spread:?}");
    }
}
