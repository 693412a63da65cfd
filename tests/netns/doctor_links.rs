//! Links and bridges to backends, and their reverse path filters, as `doctor` judges them.

use std::time::Duration;

use serde_json::json;

use crate::doctor::{PORT, breaks, doctor, line, passes, web};
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect, connect_from};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

#[test]
fn a_backend_that_does_not_answer_on_its_link_is_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    passes(&net, 0);
    net.sh("b1", "ip link set eth0 down").ok();
    net.sh("gateway", "ip neighbour flush dev br0").ok();
    breaks(&net, 0);
    let found = || !doctor(&net).findings("backend-unreachable").is_empty();
    assert!(wait_until(PATIENCE, found), "{:#}", doctor(&net).json);
    doctor(&net).one("backend-unreachable", "warning");
    net.sh("b1", "ip link set eth0 up").ok();
    passes(&net, 0);
    assert!(doctor(&net).findings("backend-unreachable").is_empty());
}

#[test]
fn a_strict_reverse_path_filter_is_found_where_ways_differ() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    let chosen = json!({"name": "web", "port": PORT, "addresses": [PUBLIC[0]], "backends": ["10.2.0.11:3000"]});
    net.apply(state([chosen]));
    net.sh("gateway", "sysctl -qw net.ipv4.conf.all.rp_filter=1").ok();
    assert!(doctor(&net).bad().is_empty(), "the ways are the same");
    passes(&net, 0);
    // Clients come in by `ext`, the way to those that are not on that link is by `far`: packets to them take another
    // way, but for the filter that would do no harm.
    let crowd = at("198.18.7.7", 0);
    let to = at(PUBLIC[0], PORT);
    let from_afar = |patience| net.within("client", || connect_from(Some(crowd), to, patience)).is_ok();
    net.sh(
        "routed",
        "sysctl -qw net.ipv4.ip_forward=1 && ip route add 198.18.0.0/15 via 198.51.100.1",
    )
    .ok();
    assert!(from_afar(PATIENCE));
    net.sh(
        "gateway",
        "ip route replace default via 198.51.100.20; ip route add 198.18.0.0/16 via 203.0.113.10 metric 9",
    )
    .ok();
    net.sh("gateway", "ip route add 198.18.0.0/16 via 198.51.100.20").ok();
    assert!(!from_afar(Duration::from_millis(400)));
    let report = doctor(&net);
    let found = report.one("reverse-path-filter", "broken");
    let seen = found["seen"].as_str().unwrap_or_default();
    assert!(seen.contains("ext") && seen.contains("far"), "{seen}");
    net.sh("gateway", &line(found)).ok();
    for finding in doctor(&net).findings("reverse-path-filter") {
        net.sh("gateway", &line(finding)).ok();
    }
    assert!(doctor(&net).findings("reverse-path-filter").is_empty());
    // The filter lets the SYN pass now, and the container sees it; the answer takes the other way.
    let before = drops(&net);
    let _ = from_afar(Duration::from_millis(400));
    assert_eq!(drops(&net), before);
}

fn drops(net: &Net) -> u64 {
    let text = net.sh("gateway", "cat /proc/net/netstat").ok();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.find(|(name, _)| *name == "IPReversePathFilter");
    found.and_then(|(_, value)| value.parse().ok()).expect("such a counter")
}

#[test]
fn a_backend_whose_answers_come_by_another_link_is_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([
        json!({"name": "web", "port": PORT, "backends": ["10.2.0.11:3000"]}),
    ]));
    // A second link to b1, to which the gateway sends; b1 answers by the first one.
    let b1 = net.namespace("b1");
    net.sh(
        "gateway",
        &format!("ip link add second type veth peer name eth1 netns {b1}"),
    )
    .ok();
    net.sh("b1", "ip link set eth1 up").ok();
    net.sh(
        "gateway",
        "ip address add 10.2.0.2/24 dev second && ip link set second up",
    )
    .ok();
    net.sh("gateway", "ip route add 10.2.0.11/32 dev second").ok();
    passes(&net, 0);
    net.sh("gateway", "sysctl -qw net.ipv4.conf.br0.rp_filter=1").ok();
    breaks(&net, 0);
    let report = doctor(&net);
    let found = report.one("reverse-path-filter", "warning");
    net.sh("gateway", &line(found)).ok();
    assert!(doctor(&net).findings("reverse-path-filter").is_empty());
    passes(&net, 0);
}

#[test]
fn a_bridge_that_asks_the_rules_and_sends_nothing_back_is_found() {
    let net = Net::new();
    if net
        .sh("gateway", "test -e /proc/sys/net/bridge/bridge-nf-call-iptables")
        .status
        != 0
    {
        println!("this kernel has no br_netfilter: nothing to test");
        return;
    }
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    for (family, setting) in ["iptables", "ip6tables"].into_iter().enumerate() {
        // The bridge's learned addresses name the one port.
        passes(&net, family);
        let itself = || {
            net.within("b1", || connect(at(PUBLIC[family], PORT), Duration::from_millis(400)))
                .is_ok()
        };
        assert!(itself());
        net.sh("gateway", &format!("sysctl -qw net.bridge.bridge-nf-call-{setting}=1"))
            .ok();
        assert!(!itself());
        let report = doctor(&net);
        let fix = line(report.one("bridge-without-hairpin", "warning"));
        assert_eq!(fix, "bridge link set dev b1 hairpin on");
        net.sh("gateway", &fix).ok();
        assert!(itself());
        assert!(doctor(&net).findings("bridge-without-hairpin").is_empty());
        net.sh("gateway", "bridge link set dev b1 hairpin off").ok();
        net.sh("gateway", &format!("sysctl -qw net.bridge.bridge-nf-call-{setting}=0"))
            .ok();
    }
    // One bridge may ask for itself; of ports that were never seen, all are named.
    net.sh("gateway", "ip link set br0 type bridge nf_call_iptables 1; bridge fdb flush dev br0 || ip link set br0 type bridge fdb_flush; ip neighbour flush dev br0").ok();
    let report = doctor(&net);
    let fix = line(report.one("bridge-without-hairpin", "warning"));
    for port in ["b1", "b2", "b3", "b4", "peer"] {
        assert!(fix.contains(port), "{fix}");
    }
    net.sh("gateway", &fix).ok();
    assert!(doctor(&net).findings("bridge-without-hairpin").is_empty());
}

#[test]
fn a_narrow_link_to_backends_is_noted() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh("gateway", "ip link set br0 mtu 1400").ok();
    let report = doctor(&net);
    report.one("path-mtu", "note");
    assert_eq!(report.status, 0);
}
