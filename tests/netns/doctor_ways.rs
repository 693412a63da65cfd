//! Routes to backends and to clients, as `doctor` judges them.

use serde_json::json;

use crate::doctor::{PORT, breaks, doctor, passes, web};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;

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
        let report = doctor(&net);
        report.one("backend-without-route", "broken");
        assert_eq!(report.status, 1);
        net.json(&["status", "--interval", "0s"], 1);
        net.sh("gateway", &format!("ip route del {route}")).ok();
        assert!(doctor(&net).bad().is_empty());
        passes(&net, family);
    }
    // A network that begins or ends with a backend.
    net.sh("gateway", "ip address add 10.2.0.10/32 brd 10.2.0.11 dev br0")
        .ok();
    breaks(&net, 0);
    let report = doctor(&net);
    let found = report.one("backend-without-route", "broken");
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
        let report = doctor(&net);
        report.one(id, "broken");
        assert_eq!(report.status, 1);
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
    net.sh("gateway", "ip link set ext arp off").ok();
    is_broken("no-public-address");
    net.sh("gateway", "ip link set ext arp on").ok();
    // Linux may lose the local route of an IPv6 address by the change of the flag, which is another finding.
    let report = doctor(&net);
    let bad = report.bad();
    assert!(
        bad.iter().all(|finding| finding["id"] != "no-public-address"),
        "{bad:?}"
    );
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
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
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
            let report = doctor(&net);
            report.one("answers-without-route", "broken");
            assert_eq!(report.status, 1);
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
            // What conntrack knows of them ends 10 s after a reset.
            passes(&net, family);
            sh(&format!("{ip} route add {end} {route}"));
            doctor(&net).one("answers-without-route", "warning");
            breaks(&net, family);
            sh(&format!("{ip} route del {end} {route}"));
            is_well();
        }
    }
    for family in 0..2 {
        passes(&net, family);
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
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{:#}", report.json);
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
        let report = doctor(&net);
        let found = report.one(finding, "broken");
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
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
    let ran = net.apply_with(&[], state([web("10.9.0.9:3000")]));
    assert!(
        ran.status == 2 && ran.stderr.contains("one of the gateway's own addresses"),
        "{ran}"
    );
    net.sh("gateway", "ip route del local 10.9.0.0/24 dev lo").ok();
    let report = doctor(&net);
    report.one("address-not-local", "broken");
    report.one("source-address-not-local", "broken");
}
