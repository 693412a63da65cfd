//! Services that show their backends more than one of the gateway's addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect, connect_from};
use crate::harness::plan::{self, PUBLIC, at, ip};
use crate::harness::server::Behaviour;

const MORE: [&str; 2] = ["10.2.0.101", "fd00:2::101"];
const INTERNAL: [&str; 2] = crate::harness::plan::INTERNAL;

#[test]
fn backends_see_all_of_them_and_a_client_comes_by_the_same_again() {
    let net = with_more();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(busy(json!([INTERNAL[0], MORE[0], MORE[1]])));
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let own: &[&str] = [&[INTERNAL[0], MORE[0]][..], &[MORE[1]]][family];
        let seen_from = |port| {
            let from = SocketAddr::new(plan::addresses("client")[family], port);
            seen(&net, from, at(public, 2001))
        };
        let ports = 40000..40024;
        let first: Vec<IpAddr> = ports.clone().map(seen_from).collect();
        let addresses: BTreeSet<IpAddr> = first.iter().copied().collect();
        assert_eq!(addresses, own.iter().map(|address| ip(address)).collect());
        // The kernel would give a port that is still known the same source again whatever the rules say.
        net.sh("gateway", "conntrack -F").ok();
        assert_eq!(ports.map(seen_from).collect::<Vec<_>>(), first);
    }
}

#[test]
fn a_family_without_any_is_masqueraded_and_local_clients_and_neighbours_are_served() {
    let net = with_more();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(busy(json!([MORE[0]])));
    // Masquerading determines which of two addresses is used.
    let (v4, v6): (&[&str], &[&str]) = (&[MORE[0]], &[INTERNAL[1], MORE[1]]);
    for (host, family, own) in [
        ("client", 0, v4),
        ("client", 1, v6),
        ("gateway", 0, v4),
        ("gateway", 1, v6),
        ("b2", 0, v4),
        ("b1", 0, v4),
    ] {
        let greeting = net.within(host, || connect(at(PUBLIC[family], 2001), PATIENCE)?.greeting());
        let greeting = greeting.unwrap_or_else(|e| panic!("{host}: {e}"));
        let seen_as = greeting.seen_as.ip();
        assert!(own.iter().any(|own| ip(own) == seen_as), "{host} as {seen_as}");
    }
}

#[test]
fn a_change_of_them_is_told_and_leaves_flows_alone() {
    let net = with_more();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(busy(json!(null)));
    let mut conn = net
        .within("client", || connect(at(PUBLIC[0], 2001), PATIENCE))
        .expect("a connection");
    conn.greeting().expect("a greeting");
    for (addresses, said) in [
        (json!(MORE), "source_addresses none -> 10.2.0.101, fd00:2::101"),
        (
            json!([INTERNAL[0]]),
            "source_addresses 10.2.0.101, fd00:2::101 -> 10.2.0.1",
        ),
        (json!(null), "source_addresses 10.2.0.1 -> none"),
    ] {
        let file = net.state_file("next.json", busy(addresses.clone()));
        // Another program's transaction, so that the table has to be read back.
        net.nft("gateway", "add table inet foreign; delete table inet foreign");
        let output = net.tcpgw(&["diff", &file]).exits(1).stdout;
        assert_eq!(output, format!("~ busy :2001  {said}\n"));
        net.apply(busy(addresses));
        net.nft("gateway", "add table inet foreign; delete table inet foreign");
        assert_eq!(net.tcpgw(&["diff", &file]).exits(0).stdout, "");
        conn.echo(b"still there").expect("it goes on");
    }
}

/// The kernel deletes masqueraded flows when the link that they leave by goes down or loses the address
/// (`net/netfilter/nf_nat_masquerade.c`), but not those that are shown by chosen addresses, or by none. With a second network on
/// the link the gateway's address depends on the backend, and only masquerading can choose it.
#[test]
fn chosen_addresses_keep_connections_where_a_link_has_several_networks() {
    let net = Net::new();
    net.sh("gateway", "ip address add 10.7.0.1/24 dev br0").ok();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([
        service(
            "chosen",
            2001,
            &["b1"],
            3000,
            json!({"source_addresses": [INTERNAL[0]]}),
        ),
        service("preserved", 2002, &["b2"], 3000, json!({"source": "preserve"})),
        service("told", 2003, &["b3"], 3000, json!({"on_retire": "reset"})),
    ]));
    let open = |port, backend| crate::retire::open(&net, at(PUBLIC[0], port), backend);
    let mut chosen = open(2001, "b1");
    let mut preserved = open(2002, "b2");
    for change in [
        "ip link set br0 down && ip link set br0 up",
        "ip address del 10.2.0.1/24 dev br0 && ip address add 10.2.0.1/24 dev br0",
    ] {
        let mut told = open(2003, "b3");
        net.sh("gateway", change).ok();
        chosen.echo(b"on").expect("it goes on");
        preserved.echo(b"on").expect("it goes on");
        // The client connects again at once, and does not wait.
        let ended = told.echo(b"on").expect_err("the kernel has deleted it");
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{change}");
        open(2003, "b3").echo(b"on").expect("a new one works");
    }
}

#[test]
fn an_address_that_is_not_the_gateways_is_refused() {
    let net = Net::new();
    let ran = net.apply_with(&[], busy(json!([INTERNAL[0], MORE[0]]))).exits(2);
    let told = "service \"busy\", source_addresses 10.2.0.101: is not an address of this gateway";
    assert!(ran.stderr.contains(told) && !ran.stderr.contains("10.2.0.1:"), "{ran}");
}

/// Makes a topology whose gateway has a second address of each family on the containers' bridge.
fn with_more() -> Net {
    let net = Net::new();
    let [v4, v6] = MORE;
    let add = format!("ip address add {v4}/24 dev br0 && ip address add {v6}/64 dev br0 nodad");
    net.sh("gateway", &add).ok();
    net
}

fn busy(addresses: Value) -> Value {
    let more = match addresses {
        Value::Null => json!({}),
        addresses => json!({"source_addresses": addresses}),
    };
    state([service("busy", 2001, &["b1"], 3000, more)])
}

/// Returns the client's address as the backend sees it.
fn seen(net: &Net, from: SocketAddr, to: SocketAddr) -> IpAddr {
    let greeting = net.within("client", || {
        let mut conn = connect_from(Some(from), to, PATIENCE)?;
        let greeting = conn.greeting()?;
        conn.reset()?;
        Ok::<_, std::io::Error>(greeting)
    });
    greeting.unwrap_or_else(|e| panic!("{from}: {e}")).seen_as.ip()
}
