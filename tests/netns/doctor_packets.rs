//! Rules of other programs about kinds of packets: TCP flags, marks, hop limits, answers that leave, clients that are near.

use crate::doctor::{PORT, breaks, breaks_and_heals, doctor, passes, web};
use crate::harness::Net;

const DROPPED: &str = "packets-dropped";

fn chain(hook: &str, rule: &str) -> String {
    format!("nft 'table inet mine {{ chain c {{ type filter hook {hook}; {rule}; }}; }}'")
}

#[test]
fn rules_about_flags_and_marks_are_judged() {
    let net = Net::new();
    let _servers = web(&net);
    for (provoke, mend) in [
        (
            "iptables-nft -I FORWARD -p tcp --syn -j DROP".to_owned(),
            "iptables-nft -F FORWARD",
        ),
        (
            "iptables-legacy -I FORWARD -p tcp --dport 3000 --syn -j DROP".into(),
            "iptables-legacy -F FORWARD",
        ),
        (
            chain("forward priority 0", "tcp flags syn drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "tcp flags & (syn|ack) == syn drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "tcp sport 3000 tcp flags & (syn|ack) == ack drop"),
            "nft delete table inet mine",
        ),
        // The handshake passes, and no byte after it.
        (
            chain("forward priority 0", "tcp flags & psh == psh drop"),
            "nft delete table inet mine",
        ),
        (
            "iptables-legacy -I FORWARD -p tcp --tcp-flags PSH,ACK PSH,ACK -j DROP".into(),
            "iptables-legacy -F FORWARD",
        ),
        (
            chain("forward priority 0", "meta mark 0 drop"),
            "nft delete table inet mine",
        ),
        (
            chain("forward priority 0", "meta mark != 0x77 drop"),
            "nft delete table inet mine",
        ),
        (
            chain(
                "postrouting priority 200",
                &format!("oifname \"ext\" tcp sport {PORT} drop"),
            ),
            "nft delete table inet mine",
        ),
    ] {
        breaks_and_heals(&net, 0, DROPPED, &provoke);
        net.sh("gateway", mend).ok();
    }
    // Rules for packets that no handshake has.
    let harmless = [
        "tcp flags & (fin|syn) == (fin|syn) drop",
        "tcp flags & (fin|syn|rst|ack) != syn ct state new drop",
        "meta mark 0x77 drop",
        "ip saddr 192.0.2.77 ip daddr 10.2.0.11 drop",
        "tcp sport 3000 tcp dport 3000 drop",
    ];
    net.sh("gateway", &chain("forward priority 0", &harmless.join("; ")))
        .ok();
    passes(&net, 0);
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
}

/// Usual hardening, which no client meets, is no finding; rules that all packets meet are errors.
#[test]
fn rules_about_headers_are_judged() {
    let net = Net::new();
    let _servers = web(&net);
    for rule in [
        "ip version 4 drop",
        "ip hdrlength 5 drop",
        "ip frag-off 0x4000 drop",
        "ip protocol tcp numgen inc mod 1 0 drop",
        "ip protocol tcp jhash ip saddr mod 1 0 drop",
    ] {
        breaks_and_heals(&net, 0, DROPPED, &chain("forward priority 0", rule));
        net.sh("gateway", "nft delete table inet mine").ok();
    }
    let harmless = [
        "meta pkttype broadcast drop",
        "fib daddr type broadcast drop",
        "ip version != 4 drop",
        "ip ttl 0 drop",
        "tcp doff < 5 drop",
        "meta length > 65535 drop",
        "ip frag-off & 0x1fff != 0 drop",
        "ip option lsrr exists drop",
        "ip option ssrr exists drop",
        "ip option rr exists drop",
        "exthdr rt exists drop",
        "tcp option maxseg size 1-500 drop",
    ]
    .join("; ");
    let tables = [
        ("raw", "prerouting priority raw", harmless.clone()),
        (
            "fragments",
            "prerouting priority -450",
            "ip frag-off & 0x1fff != 0 drop".into(),
        ),
        ("owned", "prerouting priority 0", "meta skuid 1000 drop".into()),
        (
            "forwarded",
            "forward priority 0",
            format!("{harmless}; meta skgid 1000 drop"),
        ),
    ];
    for (name, hook, rules) in tables {
        let table = format!("nft 'table inet {name} {{ chain c {{ type filter hook {hook}; {rules}; }}; }}'");
        net.sh("gateway", &table).ok();
    }
    let iptables = "for ipt in iptables-nft iptables-legacy; do $ipt -A FORWARD -m pkttype --pkt-type broadcast -j DROP; \
                    $ipt -A FORWARD -f -j DROP; $ipt -A FORWARD -m addrtype --dst-type BROADCAST -j DROP; \
                    $ipt -A FORWARD -p tcp -m tcpmss --mss 1:500 -j DROP; $ipt -A FORWARD -m ttl --ttl-lt 2 -j DROP; done";
    net.sh("gateway", iptables).ok();
    for family in [0, 1] {
        passes(&net, family);
    }
    let report = doctor(&net);
    assert!(report.bad().is_empty(), "{:#}", report.json);
}

#[test]
fn drops_are_found_on_a_gateway_without_a_default_route() {
    let net = Net::new();
    let _servers = web(&net);
    net.sh(
        "gateway",
        "ip link set far down; ip route flush default; ip -6 route flush default",
    )
    .ok();
    passes(&net, 0);
    assert_eq!(doctor(&net).status, 0);
    let ingress = format!(
        "nft 'table netdev mine {{ chain c {{ type filter hook ingress device \"ext\" priority 0; tcp dport {PORT} drop; }}; }}'"
    );
    breaks_and_heals(&net, 0, DROPPED, &ingress);
    net.sh("gateway", "nft delete table netdev mine").ok();
    let docker = "iptables-nft -A FORWARD -i docker0 -j ACCEPT; iptables-nft -A FORWARD -m conntrack --ctstate \
                  ESTABLISHED,RELATED -j ACCEPT; iptables-nft -P FORWARD DROP";
    breaks_and_heals(&net, 0, DROPPED, docker);
}

/// Before conntrack sees a packet, it is invalid, and has no flow that rules could ask for.
#[test]
fn rules_before_conntrack_are_judged_as_such() {
    let net = Net::new();
    let _servers = web(&net);
    for rule in [
        "ct state invalid drop",
        "iifname \"ext\" ct state vmap { new : accept, invalid : drop }",
    ] {
        // Neighbour discovery is invalid there, too: that is a matter of its own.
        let rule = format!("meta l4proto tcp {rule}");
        breaks_and_heals(&net, 0, DROPPED, &chain("prerouting priority -310", &rule));
        net.sh("gateway", "nft delete table inet mine").ok();
    }
    let legacy =
        format!("iptables-legacy -t raw -A PREROUTING -p tcp --dport {PORT} -m conntrack --ctstate INVALID -j DROP");
    breaks_and_heals(&net, 0, DROPPED, &legacy);
    net.sh("gateway", "iptables-legacy -t raw -F").ok();
    // Nothing is new there, has a direction, a mark or a translation; and what leaves has come in by no interface.
    let harmless = [
        "ct state new drop",
        "ct direction original drop",
        "ct status dnat drop",
        "ct mark 0 drop",
        "ct mark != 0x77 drop",
        "ct state established tcp dport set 8999",
    ];
    net.sh("gateway", &chain("prerouting priority -310", &harmless.join("; ")))
        .ok();
    let egress = "nft 'table netdev mine { chain c { type filter hook egress device \"ext\" priority 0; iifname \"br0\" drop; }; }'";
    net.sh("gateway", egress).ok();
    for family in [0, 1] {
        passes(&net, family);
    }
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
}

/// All clients have a route, and its type is that of a host.
#[test]
fn rules_about_the_route_to_the_client_are_judged() {
    let net = Net::new();
    let _servers = web(&net);
    for rule in [
        "fib saddr type unicast",
        "fib saddr oif exists",
        "fib saddr oif \"ext\"",
        "fib saddr oifname \"ext\"",
    ] {
        let provoke = chain("prerouting priority -150", &format!("{rule} tcp dport {PORT} drop"));
        breaks_and_heals(&net, 0, DROPPED, &provoke);
        net.sh("gateway", "nft delete table inet mine").ok();
    }
    let legacy = "iptables-legacy -A FORWARD -i ext -m addrtype --src-type UNICAST -j DROP";
    breaks_and_heals(&net, 0, DROPPED, legacy);
    net.sh("gateway", "iptables-legacy -F FORWARD").ok();
    let harmless = [
        "fib saddr type { local, broadcast, multicast, unreachable } drop",
        "fib saddr oif missing drop",
        "fib saddr . iif oif missing drop",
        "fib saddr oif \"lo\" drop",
    ];
    net.sh("gateway", &chain("prerouting priority 0", &harmless.join("; ")))
        .ok();
    net.sh(
        "gateway",
        "iptables-nft -A FORWARD -m addrtype --src-type LOCAL,BROADCAST -j DROP",
    )
    .ok();
    for family in [0, 1] {
        passes(&net, family);
    }
    let said = doctor(&net);
    assert!(said.bad().is_empty(), "{:#}", said.json);
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
    // Neighbour discovery is a matter of its own: doctor_neighbours.
    let set = ["ip ttl set", "meta l4proto tcp ip6 hoplimit set"];
    for (family, set) in set.into_iter().enumerate() {
        for link in ["ext", "br0"] {
            load("prerouting", &format!("iifname {link} {set} 1"));
            breaks(&net, family);
            let report = doctor(&net);
            let found = report.one("packets-dropped", "broken");
            let seen = found["seen"].as_str().unwrap_or_default();
            assert!(seen.contains("rule 1 of chain p of table inet mine gives"), "{seen}");
            assert!(seen.contains("the hop limit (TTL) 1"), "{seen}");
            unload();
        }
        // Hop limits that suffice, that concern other traffic, and that the next host accepts.
        for (hook, rule) in [
            ("prerouting", format!("iifname ext {set} 64")),
            (
                "prerouting",
                format!("udp dport 53 {} 1", set.trim_start_matches("meta l4proto tcp ")),
            ),
            ("prerouting", format!("iifname ext {set} 1; iifname ext {set} 64")),
            ("forward", format!("oifname br0 {set} 1")),
        ] {
            load(hook, &rule);
            passes(&net, family);
            let report = doctor(&net);
            assert!(report.bad().is_empty(), "{rule}: {:#}", report.json);
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
