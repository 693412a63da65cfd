//! Marks that rules of other programs set, as `doctor` judges them: policy routing by them, and tcpgw's own mark.

use crate::doctor::{PORT, breaks, doctor, line, passes, web};
use crate::harness::Net;
use crate::harness::client::{Conn, PATIENCE, connect};
use crate::harness::plan::{PUBLIC, at};

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
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "nobody marks: {:#}", report.json);
        sh(&format!(
            "nft -f - <<'END'\ntable inet mine {{ chain p {{ {chain}; {rule}; }}; }}\nEND"
        ));
        breaks(&net, family);
        let report = doctor(&net);
        let found = report.one("packets-dropped", "broken");
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
        let report = doctor(&net);
        sh("nft delete table inet mine");
        report
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

#[test]
fn rules_that_overwrite_our_mark_are_found() {
    let net = Net::new();
    let _servers = web(&net);
    let id = "flow-mark-overwritten";
    let nft = "nft 'table ip mine { chain post { type filter hook postrouting priority -151; ct mark set 0x1; }; }'";
    for (rule, lift) in [
        (nft, "nft delete table ip mine"),
        (
            "iptables-nft -t mangle -A POSTROUTING -j CONNMARK --save-mark",
            "nft delete table ip mangle",
        ),
        (
            "iptables-legacy -t mangle -A POSTROUTING -j CONNMARK --set-mark 0x1",
            "iptables-legacy -t mangle -F",
        ),
    ] {
        assert!(is_marked(&net));
        net.sh("gateway", rule).ok();
        let (is_marked_now, held) = marked(&net);
        assert!(!is_marked_now, "{rule}");
        let report = doctor(&net);
        drop(held);
        assert_eq!(report.status, 1, "{:#}", report.json);
        // The effect of other rules is visible in the flows, too.
        report.one("flows-unmarked", "broken");
        let fix = line(report.one(id, "broken"));
        net.sh("gateway", &fix).ok();
        net.sh("gateway", "conntrack -D -p tcp >/dev/null 2>&1; true").ok();
        assert!(is_marked(&net), "{fix}");
        let report = doctor(&net);
        assert!(report.bad().is_empty(), "{:#}", report.json);
        net.sh("gateway", lift).ok();
    }
    // A rule with a mask that keeps the mark is no fault.
    for rule in [
        "nft 'table ip mine { chain post { type filter hook postrouting priority -151; ct mark set ct mark & 0xffffff00 | 0x1; }; }'",
        "iptables-nft -t mangle -A POSTROUTING -j CONNMARK --save-mark --mask 0xff",
    ] {
        net.sh("gateway", rule).ok();
        assert!(is_marked(&net), "{rule}");
    }
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
}

/// Returns true when `tcpgw flows` lists a connection that a client outside opens.
fn is_marked(net: &Net) -> bool {
    marked(net).0
}

/// Returns whether a new connection has tcpgw's mark, and that connection.
fn marked(net: &Net) -> (bool, Conn) {
    let to = at(PUBLIC[0], PORT);
    let mut conn = net.within("client", || connect(to, PATIENCE)).expect("a connection");
    let port = conn.local().port();
    let _ = conn.greeting();
    let is_listed = net.tcpgw(&["flows"]).ok().contains(&format!(":{port} "));
    (is_listed, conn)
}
