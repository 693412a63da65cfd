//! A gateway with two uplinks and policy routing, as the guide for networks makes it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::harness::Net;
use crate::harness::client::connect_from;
use crate::harness::plan::{at, ip};
use crate::harness::server::Behaviour;
use crate::harness::state::{FLOW_MARK, backends, service, state};

/// Returns the commands of the guide for the links and routers of the topology, where `client` and `routed` are the routers.
fn commands() -> String {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/networks.md")).expect("the guide");
    let block = guide.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block
        .expect("the commands")
        .replace("wan1", "ext")
        .replace("wan2", "far");
    let commands = block
        .replace("via 203.0.113.1 ", "via 203.0.113.10 ")
        .replace("via 198.51.100.1 ", "via 198.51.100.20 ");
    assert!(commands.contains("via 203.0.113.10 dev ext") && commands.contains("via 198.51.100.20 dev far"));
    commands
}

#[test]
fn each_client_is_answered_by_the_uplink_that_it_came_in_by() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    // A client far behind each uplink.
    let (first, second) = (ip("198.18.0.7"), ip("192.0.2.7"));
    net.sh("routed", "ip address add 192.0.2.7/32 dev lo").ok();
    net.sh("gateway", "ip route del default").ok();
    let answered = |source: &str| {
        let preserve = source == "preserve";
        for (host, from, to) in [("client", first, "203.0.113.1"), ("routed", second, "198.51.100.1")] {
            let mut conn = net.connect_from(host, from, at(to, 20003)).expect(host);
            let greeting = conn.greeting().expect(host);
            assert_eq!(greeting.seen_as.ip() == from, preserve, "{source}: {host}");
        }
    };
    for source in ["masquerade", "preserve"] {
        net.apply(state(&[service(
            "web",
            20003,
            &backends(&["b1"], 3000),
            &json!({"source": source}),
        )]));
        if source == "masquerade" {
            let from = Some(SocketAddr::new(second, 0));
            let to = at("198.51.100.1", 20003);
            let lost = net.within("routed", || connect_from(from, to, Duration::from_millis(500)));
            assert!(lost.is_err(), "without the rules no route leads back");
            net.sh("gateway", &commands()).ok();
        }
        answered(source);
        let marks: Vec<u32> = net.conntrack().iter().map(|flow| flow.mark).collect();
        assert!(
            marks.contains(&(FLOW_MARK | 2)) && marks.contains(&FLOW_MARK),
            "{marks:x?}"
        );
    }
}
