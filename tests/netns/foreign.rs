//! Another table that publishes the same container, and its flows.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{self, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::retire::{draining, open, until};

#[test]
fn other_peoples_flows_are_left_alone() {
    let net = Net::new();
    let _servers = ["b1", "b2", "gateway", "routed"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.nft("gateway", FOREIGN);
    let [address, address6] = PUBLIC;
    net.apply(state([service("a", 2001, &["b1", "b2"], 3000, json!({}))]));
    let routed = SocketAddr::new(plan::addresses("routed")[0], 3000);
    let direct = SocketAddr::new(plan::addresses("b1")[1], 3000);
    let mut others = [
        open(&net, at(address, 8080), "b1"),
        open(&net, at(address6, 8080), "b1"),
        open(&net, at(address, 8081), "b1"),
        open(&net, at(address, 3000), "gateway"),
        open(&net, routed, "routed"),
        open(&net, direct, "b1"),
    ];
    let foreign = net.sh("gateway", "nft -s list table inet foreign").ok();
    let all = || {
        let mut all = net.conntrack();
        all.retain(|flow| flow.state == "ESTABLISHED" && others_ports(flow.public.port(), flow.mark));
        all.len()
    };
    let count = all();
    let mut go_on = |after: &str| {
        for (number, conn) in others.iter_mut().enumerate() {
            conn.echo(b"on").unwrap_or_else(|e| panic!("{after}: {number}: {e}"));
        }
    };
    let _mine = until(&net, at(address, 2001), "b1");
    go_on("first apply");
    net.apply(state([service("a", 2001, &["b2"], 3000, json!({}))]));
    go_on("its backend is removed");
    net.apply(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"source": "preserve", "on_retire": "reset"}),
    )]));
    go_on("it comes back");
    net.apply(state([draining("a", 2001, "b1", &["b2"])]));
    go_on("it drains");
    net.apply(state([service("b", 2002, &["b2"], 3000, json!({}))]));
    go_on("its service is removed");
    net.apply(state([service("b", 2002, &["b1"], 3000, json!({}))]));
    net.tcpgw(&["teardown"]).ok();
    go_on("teardown");
    assert_eq!(all(), count);
    assert_eq!(net.sh("gateway", "nft -s list table inet foreign").ok(), foreign);
}

fn others_ports(public: u16, mark: u32) -> bool {
    public != 2001 && public != 2002 && mark & 0x0080_0000 == 0
}

/// Rules that publish one of the containers on other ports, with and without masquerade, as a container engine writes them.
const FOREIGN: &str = "
table inet foreign {
    chain publish {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local tcp dport { 8080, 8081 } dnat ip to 10.2.0.11:3000
        fib daddr type local tcp dport 8080 dnat ip6 to [fd00:2::11]:3000
    }
    chain source {
        type nat hook postrouting priority srcnat; policy accept;
        meta l4proto tcp ct original proto-dst 8081 ct status dnat masquerade
    }
}";
