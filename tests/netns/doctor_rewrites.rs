//! Rules of other programs that change packets of services without conntrack, as `status` and `doctor` judge them.

use crate::doctor::{PORT, breaks, doctor, passes, web};
use crate::harness::Net;
use crate::harness::plan::{PUBLIC, at, crowd};

const DROPPED: &str = "packets-dropped";

fn load(net: &Net, table: &str, chain: &str) {
    net.nft("gateway", &format!("table {table} mine {{ chain c {{ {chain}; }}; }}"));
}

fn unload(net: &Net, table: &str) {
    net.sh("gateway", &format!("nft delete table {table} mine")).ok();
    net.sh("gateway", "conntrack -F 2>/dev/null").ok();
}

#[test]
fn rules_that_rewrite_packets_are_errors_where_they_break_connections() {
    let net = Net::new();
    let _servers = web(&net);
    let raw = "type filter hook prerouting priority -310";
    let port = format!("tcp dport {PORT}");
    for (family, table, chain, says) in [
        (
            0,
            "ip",
            format!("{raw}; {port} tcp dport set 8999"),
            "the destination port 8999",
        ),
        (
            0,
            "inet",
            format!("{raw}; iifname ext {port} tcp dport set 8999"),
            "packets to services",
        ),
        (
            0,
            "ip",
            format!("{raw}; {port} ip daddr set 10.2.0.99"),
            "address 10.2.0.99",
        ),
        (
            1,
            "ip6",
            format!("{raw}; {port} ip6 daddr set fd00:2::99"),
            "address fd00:2::99",
        ),
        (
            0,
            "ip",
            format!("{raw}; {port} ip saddr set 192.0.2.9"),
            "the source address 192.0.2.9",
        ),
        (
            0,
            "ip",
            format!("type filter hook prerouting priority mangle; {port} tcp dport set 8999"),
            "the destination port",
        ),
        (
            1,
            "inet",
            "type filter hook forward priority 0; oifname br0 tcp dport 3000 tcp dport set 3001".to_owned(),
            "the destination port 3001",
        ),
        (
            0,
            "ip",
            format!("type filter hook postrouting priority 300; tcp sport {PORT} tcp sport set 8999"),
            "answers of backends the source port 8999",
        ),
        (
            0,
            "netdev",
            format!("type filter hook ingress device \"ext\" priority 0; {port} tcp dport set 8999"),
            "the destination port 8999",
        ),
        (
            0,
            "netdev",
            "type filter hook ingress device \"ext\" priority 0; tcp flags syn tcp flags set rst".to_owned(),
            "other TCP flags",
        ),
        (
            0,
            "netdev",
            format!("type filter hook ingress device \"ext\" priority 0; {port} meta pkttype set other"),
            "the packet type",
        ),
    ] {
        passes(&net, family);
        load(&net, table, &chain);
        breaks(&net, family);
        let report = doctor(&net);
        let found = report.one(DROPPED, "broken");
        let seen = found["seen"].as_str().unwrap_or_default();
        assert!(
            seen.contains("rule 1 of chain c") && seen.contains(says),
            "{chain}: {seen}"
        );
        net.json(&["status", "--interval", "0s"], 1);
        unload(&net, table);
    }
    passes(&net, 0);
    assert!(doctor(&net).bad().is_empty());
}

#[test]
fn rules_that_rewrite_packets_are_well_where_they_break_no_connection() {
    let net = Net::new();
    let _servers = web(&net);
    let raw = "type filter hook prerouting priority -310";
    for (family, table, chain) in [
        (0, "inet", format!("{raw}; ip dscp set cs1; ip ttl set 64; ip id set 7")),
        (
            1,
            "inet",
            format!("{raw}; ip6 dscp set cs1; ip6 flowlabel set 7; ip6 nexthdr tcp ip6 hoplimit set 64"),
        ),
        (
            0,
            "ip",
            format!("{raw}; udp dport 53 udp dport set 5353; tcp dport 81 tcp dport set 82"),
        ),
        (0, "ip", format!("{raw}; ip daddr 192.0.2.1 ip daddr set 203.0.113.1")),
        // conntrack writes the address of its own translation over it.
        (
            0,
            "ip",
            "type filter hook forward priority 0; oifname ext tcp sport 3000 tcp sport set 3001".to_owned(),
        ),
        (
            0,
            "ip",
            format!("type filter hook prerouting priority mangle; tcp dport {PORT} ip saddr set 192.0.2.9"),
        ),
        (
            0,
            "inet",
            "type filter hook forward priority 0; tcp flags syn tcp option maxseg size set 1200".to_owned(),
        ),
    ] {
        load(&net, table, &chain);
        passes(&net, family);
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{chain}: {:#}", report.json);
        unload(&net, table);
    }
}

/// All who were served come from one network, which a rule sends to another port.
#[test]
fn a_rewrite_of_all_who_were_served_is_an_error() {
    let net = Net::new();
    let _servers = web(&net);
    for n in 1..=4 {
        let conn = net.connect_from("client", crowd(n)[0], at(PUBLIC[0], PORT));
        conn.and_then(|mut conn| conn.greeting()).expect("it is served");
    }
    load(
        &net,
        "ip",
        &format!(
            "type filter hook prerouting priority -310; ip saddr 198.18.0.0/24 tcp dport {PORT} tcp dport set 8999"
        ),
    );
    let report = doctor(&net);
    let seen = report.one(DROPPED, "broken")["seen"].to_string();
    assert!(seen.contains("changes packets of 4 of 4 clients"), "{seen}");
    net.json(&["status", "--interval", "0s"], 1);
    passes(&net, 0);
}
