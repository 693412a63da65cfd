//! Policy routing by marks of other programs' rules, as `doctor` judges it.

use crate::doctor::{breaks, doctor, passes, web};
use crate::harness::Net;

#[test]
fn marks_that_lead_nowhere_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10");
    passes(&net, 0);
    let chain = "type filter hook prerouting priority mangle";
    sh("ip route add unreachable default table 55");
    for (family, rule, mark, goes) in [
        (0, "iifname ext meta mark set 5", "fwmark 5", "blackhole"),
        (0, "iifname ext meta mark set 5", "fwmark 5", "prohibit"),
        (0, "iifname ext meta mark set meta mark or 5", "fwmark 5", "blackhole"),
        (
            0,
            "iifname ext meta mark set jhash ip saddr mod 1 offset 5",
            "fwmark 5",
            "blackhole",
        ),
        (0, "iifname br0 meta mark set 6", "fwmark 6/0xf", "lookup 55"),
        (1, "iifname ext meta mark set 5", "fwmark 5", "blackhole"),
    ] {
        let ip = ["ip", "ip -6"][family];
        sh(&format!("{ip} rule add {mark} {goes} priority 50"));
        let said = doctor(&net);
        assert!(said.bad().is_empty(), "nobody marks: {:#}", said.json);
        sh(&format!(
            "nft -f - <<'END'\ntable inet mine {{ chain p {{ {chain}; {rule}; }}; }}\nEND"
        ));
        breaks(&net, family);
        let said = doctor(&net);
        let found = said.one("packets-dropped", "broken");
        let seen = found["seen"].as_str().unwrap_or_default();
        assert!(seen.contains("rule 1 of chain p of table inet mine"), "{seen}");
        sh(&format!("{ip} rule del priority 50"));
        passes(&net, family);
        assert!(doctor(&net).bad().is_empty(), "the mark leads nowhere else");
        sh("nft delete table inet mine");
    }
    sh("ip rule add fwmark 7 blackhole priority 50");
    for program in ["iptables-nft", "iptables-legacy"] {
        let rule = "PREROUTING -i ext -p tcp -j MARK --set-mark 7";
        sh(&format!("{program} -t mangle -A {rule}"));
        breaks(&net, 0);
        doctor(&net).one("packets-dropped", "broken");
        sh(&format!("{program} -t mangle -D {rule}"));
        // Some clients only.
        let some = "PREROUTING -s 192.0.2.7 -p tcp -j MARK --set-mark 7";
        sh(&format!("{program} -t mangle -A {some}"));
        passes(&net, 0);
        doctor(&net).one("packets-dropped", "warning");
        sh(&format!("{program} -t mangle -D {some}"));
    }
}

/// A computed mark is reported when one of its possible values leads to a blackhole, as some clients get that value.
#[test]
fn a_mark_that_is_computed_is_found_where_it_may_lead_nowhere() {
    let net = Net::new();
    let _servers = web(&net);
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    sh("ip route replace default via 203.0.113.10");
    sh("ip rule add fwmark 5 blackhole priority 50");
    let mark = |rule: &str| {
        sh(&format!(
            "nft -f - <<'END'\ntable inet mine {{ chain p {{ type filter hook prerouting priority mangle; iifname ext meta mark set {rule}; }}; }}\nEND"
        ));
        let said = doctor(&net);
        sh("nft delete table inet mine");
        said
    };
    mark("jhash ip saddr mod 4 seed 7 offset 4").one("packets-dropped", "warning");
    mark("numgen inc mod 2 offset 4").one("packets-dropped", "warning");
    for others in [
        "jhash ip saddr mod 4 seed 7 offset 8",
        "meta mark or 8",
        "meta mark and 0xff",
    ] {
        assert!(mark(others).bad().is_empty(), "{others}");
    }
}

/// Used up hop limits are found: with a hop limit of 1 the gateway forwards no request, and the next router forwards no answer.
#[test]
fn hop_limits_that_are_used_up_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let sh = |line: &str| drop(net.sh("gateway", line).ok());
    let load = |hook: &str, rule: &str| {
        sh(&format!(
            "nft -f - <<'END'\ntable inet mine {{ chain p {{ type filter hook {hook} priority mangle; {rule}; }}; }}\nEND"
        ));
    };
    let unload = || sh("nft delete table inet mine");
    let set = ["ip ttl set", "ip6 hoplimit set"];
    for (family, set) in set.into_iter().enumerate() {
        for link in ["ext", "br0"] {
            load("prerouting", &format!("iifname {link} {set} 1"));
            breaks(&net, family);
            let said = doctor(&net);
            let found = said.one("packets-dropped", "broken");
            let seen = found["seen"].as_str().unwrap_or_default();
            assert!(seen.contains("rule 1 of chain p of table inet mine gives"), "{seen}");
            assert!(seen.contains("the hop limit (TTL) 1"), "{seen}");
            unload();
        }
        // Hop limits that suffice, that concern other traffic, and that the next host accepts.
        for (hook, rule) in [
            ("prerouting", format!("iifname ext {set} 64")),
            ("prerouting", format!("udp dport 53 {set} 1")),
            ("prerouting", format!("iifname ext {set} 1; iifname ext {set} 64")),
            ("forward", format!("oifname br0 {set} 1")),
        ] {
            load(hook, &rule);
            passes(&net, family);
            let said = doctor(&net);
            assert!(said.bad().is_empty(), "{rule}: {:#}", said.json);
            unload();
        }
    }
    // Behind a router there are clients who get no answer.
    sh("ip route replace default via 203.0.113.10");
    load("forward", "oifname ext ip ttl set 1");
    doctor(&net).one("packets-dropped", "broken");
    unload();
    assert!(doctor(&net).bad().is_empty());
}
