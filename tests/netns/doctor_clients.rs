//! Rules of other programs that drop all clients, though they name some clients or count packets, as `doctor` judges them.

use std::time::Duration;

use serde_json::json;

use crate::doctor::{PORT, SHORT, breaks, doctor, passes, reaches, web};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at, crowd, ip};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const DROPPED: &str = "packets-dropped";

/// Loads rules into a chain of the hook forward, and takes them away at the end.
fn with_rules<T>(net: &Net, rules: &str, read: impl FnOnce() -> T) -> T {
    let sets = "set many { typeof iifname . ip saddr; flags interval; elements = { ext . 0.0.0.0/0 }; }; \
                set none { type ipv4_addr; }; set seen { type ipv4_addr; flags dynamic; }; \
                set banned { type ipv4_addr; flags timeout; elements = { 192.0.2.4 timeout 1h }; };";
    let chain = "type filter hook forward priority 0; policy accept;";
    net.sh(
        "gateway",
        &format!("nft -f - <<'END'\ntable inet mine {{ {sets} chain f {{ {chain} {rules}; }}; }}\nEND"),
    )
    .ok();
    let seen = read();
    net.sh("gateway", "nft delete table inet mine").ok();
    seen
}

/// Connects from some of the client's addresses, after conntrack has forgotten all others.
fn serve(net: &Net, family: usize) {
    net.sh("gateway", "conntrack -F 2>/dev/null").ok();
    for n in 1..=4 {
        let conn = net.connect_from("client", crowd(n)[family], at(PUBLIC[family], PORT));
        conn.and_then(|mut conn| conn.greeting()).expect("it is served");
    }
}

/// Rules that name addresses, networks or ports of clients drop everybody if nobody else is there.
#[test]
fn a_rule_that_drops_all_who_were_served_is_an_error() {
    let net = Net::new();
    let _servers = web(&net);
    for (family, severity, rules) in [
        (0, "broken", "ip saddr { 198.18.0.1-198.18.0.4 } drop"),
        (0, "broken", "ip saddr 198.18.0.0/24 tcp flags syn drop"),
        (0, "broken", "iifname ext tcp sport 32768-60999 drop"),
        (1, "broken", "ip6 saddr 2001:db8:f::/64 drop"),
        (0, "warning", "ip saddr { 198.18.0.1, 198.18.0.3 } drop"),
    ] {
        serve(&net, family);
        with_rules(&net, rules, || {
            let report = doctor(&net);
            let found = report.one(DROPPED, severity);
            let seen = found["seen"].as_str().unwrap_or_default();
            assert!(
                seen.contains("clients that were served a moment ago"),
                "{rules}: {seen}"
            );
            net.json(&["status", "--interval", "0s"], i32::from(severity == "broken"));
        });
        assert!(doctor(&net).bad().is_empty(), "{rules}: {:#}", doctor(&net).json);
    }
    serve(&net, 0);
    with_rules(&net, "ip saddr { 198.18.0.1, 198.18.9.9 } drop", || {
        assert!(doctor(&net).bad().is_empty(), "a ban of one: {:#}", doctor(&net).json);
    });
    // The kernel takes packets from its own addresses for forged ones.
    for (family, network) in [(0, "198.18.0.0/24"), (1, "2001:db8:f::/64")] {
        let version = ["-4", "-6"][family];
        serve(&net, family);
        net.sh("gateway", &format!("ip {version} route add local {network} dev lo"))
            .ok();
        doctor(&net).one("answers-without-route", "broken");
        net.json(&["status", "--interval", "0s"], 1);
        net.sh("gateway", &format!("ip {version} route del local {network} dev lo"))
            .ok();
        assert!(doctor(&net).bad().is_empty());
    }
}

/// Clients behind the gateway come in by the containers' interface, and their packets leave by it.
#[test]
fn a_rule_that_drops_all_clients_behind_the_gateway_is_an_error() {
    let net = Net::new();
    let _servers = web(&net);
    let behind = |n: u16| [format!("10.2.0.{n}"), format!("fd00:2::{n}")];
    let addresses = |n| {
        format!(
            "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad; ",
            behind(n)[0],
            behind(n)[1]
        )
    };
    net.sh("peer", &(150..=153).map(addresses).collect::<String>()).ok();
    let serve_behind = |family: usize| {
        for n in 150..=153 {
            let conn = net.connect_from("peer", ip(&behind(n)[family]), at(PUBLIC[family], PORT));
            conn.and_then(|mut conn| conn.greeting()).expect("it is served");
        }
    };
    for (family, rules) in [
        (0, "iifname br0 oifname br0 tcp flags syn drop"),
        (0, "ip saddr 10.2.0.150-10.2.0.153 drop"),
        (1, "iifname br0 oifname br0 drop"),
    ] {
        net.sh("gateway", "conntrack -F 2>/dev/null").ok();
        with_rules(&net, rules, || {
            passes(&net, family);
            let report = doctor(&net);
            assert!(
                report.bad().is_empty(),
                "nobody behind it was served, {rules}: {:#}",
                report.json
            );
        });
        net.sh("gateway", "conntrack -F 2>/dev/null").ok();
        serve_behind(family);
        with_rules(&net, rules, || {
            let report = doctor(&net);
            let found = report.one(DROPPED, "broken");
            let seen = found["seen"].as_str().unwrap_or_default();
            assert!(seen.contains("4 of 4 clients"), "{rules}: {seen}");
            net.json(&["status", "--interval", "0s"], 1);
            passes(&net, family);
            doctor(&net).one(DROPPED, "warning");
        });
        assert!(doctor(&net).bad().is_empty(), "{rules}: {:#}", doctor(&net).json);
    }
}

#[test]
fn whatever_drops_all_clients_is_an_error() {
    let net = Net::new();
    let _servers = web(&net);
    for (family, rules) in [
        (0, "ip saddr . tcp dport { 0.0.0.0/0 . 3000 } drop"),
        (0, "ip saddr . ip daddr { 0.0.0.0/0 . 10.2.0.0/24 } drop"),
        (0, "iifname . ip saddr @many drop"),
        (
            0,
            "tcp dport 3000 ip saddr { 0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/2 } drop",
        ),
        (
            0,
            "tcp dport 3000 ip saddr 0.0.0.0/1 drop; tcp dport 3000 ip saddr 128.0.0.0/1 drop",
        ),
        (
            0,
            "tcp dport 3000 ip saddr vmap { 0.0.0.0/1 : drop, 128.0.0.0/1 : drop }",
        ),
        (0, "tcp dport 3000 ip saddr != @none drop"),
        (0, "tcp dport 3000 ct count over 0 drop"),
        (0, "tcp dport 3000 quota over 0 bytes drop"),
        (0, "tcp dport 3000 update @seen { ip saddr } drop"),
        (1, "tcp dport 3000 ip6 saddr ::/0 drop"),
        (1, "tcp dport 3000 ip6 saddr { ::/1, 8000::/1 } drop"),
    ] {
        with_rules(&net, rules, || {
            breaks(&net, family);
            let report = doctor(&net);
            let found = report.one(DROPPED, "broken");
            let seen = found["seen"].as_str().unwrap_or_default();
            assert!(seen.contains("by its rule") && report.status == 1, "{rules}: {seen}");
        });
    }
    for program in ["iptables-nft", "iptables-legacy"] {
        for option in [
            "-m statistic --mode random --probability 1.0",
            "-m connlimit --connlimit-above 0",
        ] {
            let rule = format!("FORWARD -p tcp --dport 3000 {option} -j DROP");
            net.sh("gateway", &format!("{program} -I {rule}")).ok();
            breaks(&net, 0);
            doctor(&net).one(DROPPED, "broken");
            net.sh("gateway", &format!("{program} -D {rule}")).ok();
        }
    }
    passes(&net, 0);
    passes(&net, 1);
    assert!(doctor(&net).bad().is_empty());
}

#[test]
fn what_may_drop_all_clients_is_a_warning() {
    let net = Net::new();
    let _servers = web(&net);
    for rules in [
        "tcp sport 1024-65535 tcp dport 3000 drop",
        "tcp dport 3000 limit rate 1000/second drop",
        "tcp dport 3000 ct count over 1000 drop",
        "tcp dport 3000 quota over 100 mbytes drop",
        // Nearly no client is let through.
        "ip saddr != { 192.0.2.1 } tcp dport 3000 drop",
        "ip saddr != 192.0.2.0/24 tcp dport 3000 drop",
    ] {
        with_rules(&net, rules, || doctor(&net).one(DROPPED, "warning").clone());
    }
    for option in [
        "-m time --timestart 00:00 --timestop 23:59:59",
        "-m statistic --mode random --probability 0.999",
    ] {
        let rule = format!("FORWARD -p tcp --dport 3000 {option} -j DROP");
        net.sh("gateway", &format!("iptables-nft -I {rule}")).ok();
        assert!(!reaches(&net, 0, SHORT), "{rule}");
        doctor(&net).one(DROPPED, "warning");
        net.sh("gateway", &format!("iptables-nft -D {rule}")).ok();
    }
    // These are about some clients for sure.
    for rules in [
        "tcp dport 3000 ip saddr { 0.0.0.0/1, 240.0.0.0/4 } drop",
        "ip saddr . tcp dport { 192.0.2.0/24 . 3000 } drop",
        "tcp dport 3000 add @seen { ip saddr ct count over 1000 } drop",
        "tcp dport 3000 ip saddr @none drop",
        "ip saddr @banned drop",
    ] {
        let report = with_rules(&net, rules, || doctor(&net));
        assert!(report.bad().is_empty(), "{rules}: {:#}", report.json);
    }
    passes(&net, 0);
}

/// Sets of banned addresses with timeouts, as fail2ban and similar programs keep them, are judged by their present members.
#[test]
fn bans_are_judged_by_whom_they_have_now() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.want(state([service("web", PORT, &["b1", "b2"], 3000, json!({}))]));
    let daemon = net.daemon(&["--check-interval", "1s"]);
    daemon.settles(4);
    let bans = "table inet bans { set b { type ipv4_addr; flags timeout; elements = { 192.0.2.4 timeout 1h }; }; \
                chain p { type filter hook prerouting priority -300; ip saddr @b drop; }; }";
    net.sh("gateway", &format!("nft -f - <<'END'\n{bans}\nEND")).ok();
    let reported = || {
        let status = daemon.get("/v1/status");
        let problems = status["problems"].as_array().expect("a list").iter();
        let text = problems.map(|problem| format!("{}: {}", problem["severity"], problem["message"]));
        text.collect::<Vec<_>>()
    };
    let is_error = || reported().iter().any(|told| told.starts_with("\"error\""));
    // Some looks later.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(reported(), Vec::<String>::new());
    // A backend that is banned for some seconds.
    net.sh(
        "gateway",
        "nft add element inet bans b { 10.2.0.11 timeout 5s, 10.2.0.12 timeout 5s }",
    )
    .ok();
    assert!(wait_until(PATIENCE, is_error), "{:?}", reported());
    // The end of a ban is not notified, so it is found by the next check only.
    assert!(wait_until(PATIENCE * 3, || reported().is_empty()), "{:?}", reported());
    passes(&net, 0);
}
