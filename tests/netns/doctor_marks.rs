//! Policy routing by marks of other programs' rules, as the doctor sees it.

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
