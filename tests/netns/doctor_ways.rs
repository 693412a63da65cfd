//! Routes, links and bridges on the way to backends, as `doctor` judges them.

use std::time::Duration;

use serde_json::json;

use crate::doctor::{PORT, breaks, doctor, line, passes, web};
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

#[test]
fn a_backend_without_a_way_to_it_is_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    for (family, route) in ["blackhole 10.2.0.11/32", "unreachable fd00:2::11/128"]
        .into_iter()
        .enumerate()
    {
        passes(&net, family);
        net.sh("gateway", &format!("ip route add {route}")).ok();
        breaks(&net, family);
        let said = doctor(&net);
        said.one("backend-without-route", "broken");
        assert_eq!(said.status, 1);
        net.json(&["status", "--interval", "0s"], 1);
        net.sh("gateway", &format!("ip route del {route}")).ok();
        assert!(doctor(&net).bad().is_empty());
        passes(&net, family);
    }
    // A network that begins or ends with a backend.
    net.sh("gateway", "ip address add 10.2.0.10/32 brd 10.2.0.11 dev br0")
        .ok();
    breaks(&net, 0);
    let said = doctor(&net);
    let found = said.one("backend-without-route", "broken");
    assert!(found["seen"].to_string().contains("broadcast"), "{found:#}");
    net.sh("gateway", "ip address del 10.2.0.10/32 dev br0").ok();
    passes(&net, 0);
    net.sh("gateway", "ip address add 10.2.0.11/32 dev lo").ok();
    breaks(&net, 0);
    doctor(&net).one("backend-is-gateway", "broken");
}

/// tcpgw's rules and the kernel ask for the route of an address, and not whether an interface has it.
#[test]
fn an_own_address_that_clients_cannot_reach_is_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    let is_broken = |id: &str| {
        let said = doctor(&net);
        said.one(id, "broken");
        assert_eq!(said.status, 1);
        net.json(&["status", "--interval", "0s"], 1);
    };
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let version = ["-4", "-6"][family];
        passes(&net, family);
        let route = format!("table local local {public} dev ext");
        net.sh("gateway", &format!("ip {version} route del {route}")).ok();
        breaks(&net, family);
        is_broken("address-lost");
        net.sh("gateway", &format!("ip {version} route add {route}")).ok();
        assert!(doctor(&net).bad().is_empty());
        passes(&net, family);
    }
    net.sysctl("net.ipv4.conf.ext.arp_ignore", 8);
    is_broken("no-public-address");
    net.sysctl("net.ipv4.conf.ext.arp_ignore", 0);
    assert!(doctor(&net).bad().is_empty());
}

#[test]
fn a_way_that_only_a_rule_for_the_incoming_interface_gives_is_one() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([
        json!({"name": "web", "port": PORT, "backends": ["10.2.0.11:3000"]}),
    ]));
    passes(&net, 0);
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br0.rp_filter=0");
    sh("ip rule add iif ext lookup 77 && ip route add 10.2.0.0/24 dev br0 table 77");
    sh("ip route del 10.2.0.0/24 dev br0 && ip route add unreachable 10.2.0.0/24");
    passes(&net, 0);
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
    // And one that is wrong there alone.
    sh("ip route replace 10.2.0.0/24 dev br0 && ip route add blackhole 10.2.0.11/32 table 77");
    breaks(&net, 0);
    assert_eq!(doctor(&net).status, 1);
    doctor(&net).one("backend-without-route", "broken");
    sh("ip route del blackhole 10.2.0.11/32 table 77");
    passes(&net, 0);
    assert!(doctor(&net).bad().is_empty());
    // Answers come in by another interface than the gateway's own packets.
    sh("ip rule add iif br0 to 203.0.113.10 lookup 78 && ip route add prohibit 203.0.113.10/32 table 78");
    sh("ip rule add iif br0 to 192.0.2.0/24 lookup 78 && ip route add prohibit 192.0.2.0/24 table 78");
    breaks(&net, 0);
    // Others may be answered: only this client is not.
    doctor(&net).one("answers-without-route", "warning");
}

#[test]
fn answers_that_policy_routing_refuses_are_found_before_a_client_comes() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10 && ip -6 route replace default via 2001:db8:1::10");
    // Private, documentation and benchmark networks are refused on many gateways.
    for network in ["10.0.0.0/8", "192.0.2.0/24", "198.18.0.0/15"] {
        sh(&format!("ip route add blackhole {network}"));
    }
    sh("ip -6 route add unreachable 2001:db8:ffff::/48");
    let is_well = || assert!(doctor(&net).bad().is_empty(), "{:#}", doctor(&net).json);
    is_well();
    let of_rules =
        ["from 10.2.0.0/24", "iif br0"].map(|of| ["blackhole", "unreachable", "prohibit"].map(|end| (of, end)));
    for (of, end) in of_rules.into_iter().flatten() {
        let lines = [
            (0, format!("ip rule add {of} {end} prio 100"), "ip rule del prio 100"),
            (
                0,
                format!("ip route add {end} default table 77 && ip rule add {of} lookup 77 prio 100"),
                "ip rule del prio 100 && ip route flush table 77",
            ),
            (
                1,
                format!(
                    "ip -6 rule add {} {end} prio 100",
                    of.replace("10.2.0.0/24", "fd00:2::/64")
                ),
                "ip -6 rule del prio 100",
            ),
        ];
        for (family, provoke, mend) in lines {
            sh(&provoke);
            let said = doctor(&net);
            said.one("answers-without-route", "broken");
            assert_eq!(said.status, 1);
            net.json(&["status", "--interval", "0s"], 1);
            breaks(&net, family);
            sh(mend);
            sh("conntrack -F 2>/dev/null");
            is_well();
        }
    }
    for family in 0..2 {
        passes(&net, family);
    }
    // The clients' own network: they were served.
    for (family, route) in [(0, "203.0.113.8/29"), (1, "2001:db8:1::10/124")] {
        let ip = ["ip", "ip -6"][family];
        for end in ["blackhole", "unreachable", "prohibit"] {
            sh(&format!("{ip} route add {end} {route}"));
            doctor(&net).one("answers-without-route", "warning");
            breaks(&net, family);
            sh(&format!("{ip} route del {end} {route}"));
            is_well();
            passes(&net, family);
        }
    }
}

#[test]
fn rules_of_policy_routing_for_ports_are_found_before_a_client_comes() {
    let net = Net::new();
    let _servers = [3000, 3001].map(|port| net.serve("b1", port, Behaviour::Greet));
    net.apply(state([
        service("web", PORT, &["b1"], 3000, json!({})),
        service("other", PORT + 1, &["b1"], 3001, json!({})),
    ]));
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10 && ip -6 route replace default via 2001:db8:1::10");
    let is_well = || {
        let said = doctor(&net);
        assert!(said.bad().is_empty(), "{:#}", said.json);
    };
    // Rules for other protocols, ports and directions, as ordinary gateways have them.
    for other in [
        "ipproto udp dport 3000",
        "ipproto tcp sport 3000",
        "ipproto tcp dport 2000-2999",
    ] {
        for ip in ["ip", "ip -6"] {
            sh(&format!("{ip} rule add iif ext {other} blackhole prio 90"));
        }
    }
    sh(
        "ip rule add iif lo ipproto tcp dport 25 prohibit prio 90 && ip rule add ipproto tcp dport 22 lookup main prio 90",
    );
    is_well();
    for family in 0..2 {
        passes(&net, family);
    }
    let ip = ["ip", "ip -6"];
    let cases = [
        (
            0,
            "iif ext ipproto tcp dport 3000",
            "blackhole",
            "backend-without-route",
        ),
        (
            0,
            "iif ext to 10.2.0.0/24 ipproto tcp",
            "prohibit",
            "backend-without-route",
        ),
        (
            0,
            "iif br0 ipproto tcp sport 3000",
            "unreachable",
            "answers-without-route",
        ),
        (
            0,
            "iif br0 ipproto tcp sport 3000",
            "blackhole",
            "answers-without-route",
        ),
        (
            1,
            "iif ext ipproto tcp dport 3000",
            "unreachable",
            "backend-without-route",
        ),
        (
            1,
            "iif br0 ipproto tcp sport 2900-3000",
            "blackhole",
            "answers-without-route",
        ),
    ];
    for (family, of, end, finding) in cases {
        sh(&format!("{} rule add {of} {end} prio 100", ip[family]));
        let said = doctor(&net);
        let found = said.one(finding, "broken");
        let port = if of.contains(" to ") { "10.2.0.11" } else { ":3000" };
        assert!(found["seen"].to_string().contains(port), "{of} {end}: {found:#}");
        assert!(!found["seen"].to_string().contains(":3001"), "{of} {end}: {found:#}");
        net.json(&["status", "--interval", "0s"], 1);
        breaks(&net, family);
        sh(&format!("{} rule del prio 100", ip[family]));
        sh("conntrack -F 2>/dev/null");
        is_well();
        passes(&net, family);
    }
    // Only a rule for the port gives packets a route at all.
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ext.rp_filter=0 net.ipv4.conf.br0.rp_filter=0");
    sh(
        "ip rule add iif ext ipproto tcp dport 3000-3001 lookup 77 prio 100 && ip route add 10.2.0.0/24 dev br0 table 77",
    );
    sh("ip rule add iif ext to 10.2.0.0/24 unreachable prio 101");
    passes(&net, 0);
    is_well();
}

#[test]
fn policies_of_ipsec_that_drop_packets_are_found() {
    let net = Net::new();
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.apply(state([service("web", PORT, &["b1"], 3000, json!({}))]));
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10 && ip -6 route replace default via 2001:db8:1::10");
    let is_well = |of: &str| {
        let said = doctor(&net);
        assert!(said.bad().is_empty(), "{of}: {:#}", said.json);
        for family in 0..2 {
            passes(&net, family);
        }
        said
    };
    let add = |line: &str| sh(&format!("ip xfrm policy add {line}"));
    is_well("no policy");
    // Policies for other packets, and one for all that goes after another one.
    add("src 172.16.0.0/12 dst 192.168.0.0/16 dir fwd action block");
    add("src 198.51.100.0/24 dst 0.0.0.0/0 dir in action block");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dir fwd action block");
    add("src 10.2.0.0/24 dst 0.0.0.0/0 proto tcp sport 3001 dir fwd action block");
    is_well("others");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd action block priority 100");
    add("src 0.0.0.0/0 dst 0.0.0.0/0 proto tcp dir fwd action allow priority 50");
    is_well("allowed");
    sh("ip xfrm policy flush");
    let all = "src 0.0.0.0/0 dst 0.0.0.0/0";
    let cases = [
        (0, "setdefault fwd block".to_owned()),
        (1, "setdefault out block".to_owned()),
        (0, format!("add {all} dir fwd action block")),
        (0, format!("add {all} dir out action block priority 9")),
        (0, format!("add {all} proto tcp dport {PORT} dir fwd action block")),
        (0, "add src 10.2.0.0/24 dst 0.0.0.0/0 dir fwd action block".to_owned()),
        (0, "add src 0.0.0.0/0 dst 10.2.0.0/24 dir out action block".to_owned()),
        (1, "add src ::/0 dst ::/0 dir fwd action block".to_owned()),
    ];
    for (family, policy) in cases {
        sh(&format!("ip xfrm policy {policy}"));
        let said = doctor(&net);
        assert!(
            !said.findings("packets-dropped").is_empty(),
            "{policy}: {:#}",
            said.json
        );
        let mut found = said.findings("packets-dropped").into_iter();
        assert!(
            found.any(|finding| finding["severity"] == "broken"),
            "{policy}: {:#}",
            said.json
        );
        net.json(&["status", "--interval", "0s"], 1);
        breaks(&net, family);
        sh("ip xfrm policy flush; ip xfrm policy setdefault fwd accept out accept");
        sh("conntrack -F 2>/dev/null");
        is_well(&policy);
    }
    // Some clients only.
    add("src 203.0.113.10/32 dst 0.0.0.0/0 dir fwd action block");
    doctor(&net).one("packets-dropped", "warning");
    breaks(&net, 0);
    sh("ip xfrm policy flush");
    add("src 198.18.0.0/15 dst 0.0.0.0/0 dir fwd tmpl proto esp mode tunnel level required");
    let said = is_well("encrypted");
    assert!(
        said.json["unchecked"].to_string().contains("policies of IPsec"),
        "{:#}",
        said.json
    );
}

#[test]
fn a_backend_that_the_default_route_leads_to_is_found() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh("gateway", "ip route replace default via 203.0.113.10").ok();
    passes(&net, 0);
    assert!(doctor(&net).bad().is_empty());
    net.sh("gateway", "ip address flush dev br0 scope global").ok();
    breaks(&net, 0);
    doctor(&net).one("backend-by-default-route", "warning");
}

#[test]
fn every_address_of_a_local_network_is_the_gateways() {
    let net = Net::new();
    let server = net.serve("b1", 3000, Behaviour::Greet);
    net.sh("gateway", "ip route add local 10.9.0.0/24 dev lo").ok();
    net.sh("client", &format!("ip route add 10.9.0.0/24 via {}", PUBLIC[0]))
        .ok();
    let web = |backend: &str| {
        json!({"name": "web", "port": PORT, "addresses": ["10.9.0.5"], "source_addresses": ["10.9.0.7"],
            "backends": [backend]})
    };
    let ran = net.apply(state([web("10.2.0.11:3000")]));
    assert_eq!(ran.stderr, "", "nothing to warn of");
    let to = at("10.9.0.5", PORT);
    net.within("client", || connect(to, PATIENCE).and_then(|mut conn| conn.greeting()))
        .expect("a greeting");
    assert!(server.accepted() > 0);
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
    let ran = net.apply_with(&[], state([web("10.9.0.9:3000")]));
    assert!(
        ran.status == 2 && ran.stderr.contains("one of the gateway's own addresses"),
        "{ran}"
    );
    net.sh("gateway", "ip route del local 10.9.0.0/24 dev lo").ok();
    let said = doctor(&net);
    said.one("address-not-local", "broken");
    said.one("source-address-not-local", "broken");
}

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
    let from_afar = |patience| {
        net.within("client", || {
            crate::harness::client::connect_from(Some(crowd), to, patience)
        })
        .is_ok()
    };
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
    let said = doctor(&net);
    let found = said.one("reverse-path-filter", "broken");
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
    let said = doctor(&net);
    let found = said.one("reverse-path-filter", "warning");
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
        let said = doctor(&net);
        let fix = line(said.one("bridge-without-hairpin", "warning"));
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
    let said = doctor(&net);
    let fix = line(said.one("bridge-without-hairpin", "warning"));
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
    let said = doctor(&net);
    said.one("path-mtu", "note");
    assert_eq!(said.status, 0);
}
