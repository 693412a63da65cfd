//! Rules, settings and marks of others that keep clients from being served.

use serde_json::json;

use super::{OPTIONS, breaks_and_mends, daemon_of, daemon_with_metrics, health, is_served, problem};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, PUBLIC_2, at};
use crate::harness::{Net, wait_until};

/// The part of Docker's rules that matters for other programs.
const DOCKER: &str = "*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
";

#[test]
fn whatever_keeps_clients_from_being_served_is_told_at_once() {
    let net = Net::new();
    net.sh("gateway", "nft add table ip older").ok();
    let (_servers, daemon) = daemon_with_metrics(&net, json!({}));
    let docker = net.file("docker.rules");
    std::fs::write(&docker, DOCKER).expect("a file");
    let docker = format!("iptables-nft-restore {}", docker.to_str().expect("text"));
    let foreign = "nft 'table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }'";
    let dnat = "nft 'table ip other { chain pre { type nat hook prerouting priority dstnat - 1; tcp dport 2001 dnat to \
                10.2.0.99:80; }; }'";
    let newer = "nft 'table ip older { chain pre { type nat hook prerouting priority dstnat; tcp dport 2001 dnat to \
                 10.2.0.99:80; }; }'";
    for (kind, breaks, mends) in [
        (
            "ip_forward_off",
            "sysctl -w net.ipv4.ip_forward=0",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        ("packets_dropped", foreign, "nft delete table inet other"),
        (
            "packets_dropped",
            &docker,
            "iptables-nft -F FORWARD; iptables-nft -P FORWARD ACCEPT",
        ),
        ("port_translated_elsewhere", dnat, "nft delete table ip other"),
        // The chain is newer than ours, and its table is not.
        ("port_translated_elsewhere", newer, "nft delete table ip older"),
        // A table of the older kind, whose changes are not notified.
        (
            "packets_dropped",
            "iptables-legacy -P FORWARD DROP",
            "iptables-legacy -P FORWARD ACCEPT",
        ),
    ] {
        breaks_and_mends(&net, &daemon, at(PUBLIC[0], 2001), kind, "gateway", [breaks, mends]);
    }
}

/// A setting that stops forwarding, and its repair, are known without checks at intervals: the kernel notifies the daemon of each
/// change of these settings.
#[test]
fn a_setting_that_stops_forwarding_is_heard_and_so_is_its_mending() {
    let net = Net::new();
    let (_servers, daemon) = daemon_of(&net, &["--check-interval", "0s"], json!({}));
    let errors = |kind: &str| health(&daemon).1.iter().any(|problem| problem["kind"] == kind);
    assert!(wait_until(PATIENCE, || health(&daemon) == (200, Vec::new())));
    for (kind, setting, breaks, mends) in [
        ("ip_forward_off", "net.ipv4.ip_forward", 0, 1),
        ("ip_forward_off", "net.ipv4.conf.br0.forwarding", 0, 1),
        ("ipv6_forwarding_off", "net.ipv6.conf.all.forwarding", 0, 1),
    ] {
        net.sysctl(setting, breaks);
        assert!(
            wait_until(PATIENCE, || errors(kind)),
            "{setting}: {:?}",
            health(&daemon)
        );
        net.sysctl(setting, mends);
        let is_well = || health(&daemon) == (200, Vec::new());
        assert!(wait_until(PATIENCE, is_well), "{setting}: {:?}", health(&daemon));
    }
}

/// Drops at interfaces, before or after all tables that see packets, and drops by a named set are reported at once.
#[test]
fn drops_at_interfaces_and_by_sets_are_told_at_once() {
    let net = Net::new();
    let (_servers, daemon) = daemon_with_metrics(&net, json!({}));
    let mends = "nft delete table inet other";
    let set = |hook: &str, set: &str, rule: &str| {
        let chain = format!("chain c {{ type filter hook {hook}; {rule}; }}");
        (
            format!("nft 'table inet other {{ set s {{ {set}; }}; {chain}; }}'"),
            mends,
        )
    };
    let at_interface = |hook: &str, device: &str, rule: &str| {
        let chain = format!("chain c {{ type filter hook {hook} device {device} priority 0; {rule}; }}");
        (
            format!("nft 'table netdev other {{ {chain}; }}'"),
            "nft delete table netdev other",
        )
    };
    let address = "type ipv4_addr; elements = { 198.51.100.77, 10.2.0.11 }";
    let networks = "type ipv4_addr; flags interval; elements = { 10.2.0.8/29, 192.0.2.0/24 }";
    let public = format!("type ipv4_addr; elements = {{ {}, {} }}", PUBLIC[0], PUBLIC_2[0]);
    let ports = "type inet_service; flags interval; elements = { 22, 2000-2010 }";
    let endpoints = "type ipv4_addr . inet_service; elements = { 10.2.0.11 . 3000 }";
    for (breaks, mends) in [
        at_interface("ingress", "ext", "tcp dport 2001 drop"),
        at_interface("egress", "br0", "ip daddr 10.2.0.11 drop"),
        (
            "nft 'table inet other { chain c { type filter hook ingress device ext priority 0; meta nfproto ipv4 drop; }; }'".into(),
            mends,
        ),
        set("forward priority 0", address, "ip daddr @s drop"),
        set("forward priority 0", networks, "ip daddr @s reject"),
        set("forward priority 0", endpoints, "ip daddr . tcp dport @s drop"),
        set("prerouting priority raw", ports, "tcp dport @s drop"),
        set("prerouting priority raw", &public, "ip daddr @s drop"),
    ] {
        breaks_and_mends(&net, &daemon, at(PUBLIC[0], 2001), "packets_dropped", "gateway", [&breaks, mends]);
    }
    // Sets that hold none of our addresses are no problem.
    for (other, mends) in [
        set("forward priority 0", &public, "ip saddr @s drop"),
        set("forward priority 0", "type ipv4_addr", "ip daddr @s drop"),
        set(
            "prerouting priority raw",
            "type inet_service; elements = { 22, 25 }",
            "tcp dport @s drop",
        ),
        at_interface("ingress", "ext", "udp dport 2001 drop"),
        at_interface("ingress", "ext", "tcp dport 3000 drop"),
    ] {
        net.sh("gateway", &other).ok();
        assert!(is_served(&net, at(PUBLIC[0], 2001)), "{other}");
        let said = net.cli(&["doctor", "-o", "json"]);
        assert!(!said.stdout.contains("packets-dropped"), "{other}: {said}");
        net.sh("gateway", mends).ok();
    }
}

/// Runs a command that breaks the gateway, asserts that a problem of that kind and severity is reported, and that it is gone
/// after the command that repairs the gateway.
#[track_caller]
fn is_told(net: &Net, daemon: &Daemon<'_>, [kind, severity]: [&str; 2], [breaks, mends]: [&str; 2]) {
    assert_eq!(problem(net, kind), None, "{breaks}: before");
    let before = daemon.last();
    net.sh("gateway", breaks).ok();
    let answer = daemon.hears(before, &json!({"event": "problem", "kind": kind}));
    assert_eq!(answer["severity"], severity, "{breaks}: {answer}");
    assert_eq!(
        problem(net, kind).expect("as the event")["severity"],
        severity,
        "{breaks}"
    );
    let (status, errors) = health(daemon);
    let is_error = severity == "error";
    assert_eq!(
        (status == 503, errors.iter().any(|problem| problem["kind"] == kind)),
        (is_error, is_error),
        "{breaks}: {errors:?}"
    );
    net.sh("gateway", mends).ok();
    daemon.hears(before, &json!({"event": "problem_ended", "kind": kind}));
    assert_eq!(problem(net, kind), None, "{mends}");
}

#[test]
fn what_the_doctor_finds_has_a_kind_of_its_own() {
    let net = Net::new();
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({"limit": {"pps": 1000}}));
    assert!(wait_until(PATIENCE, || problem(&net, "backends_exposed").is_some()));
    assert_eq!(health(&daemon), (200, Vec::new()), "it is a warning");
    let mark = "nft 'table inet other { chain post { type filter hook postrouting priority -151; ct mark set 1; }; }'";
    // Only where the port is another one: the probes of these tests go on.
    let probes = "nft 'table inet other { chain out { type filter hook output priority 0; tcp dport 3000 ip daddr 10.2.0.11 ip \
                  length > 1400 drop; }; }'";
    for (kind, breaks, mends) in [
        (["flow_mark_overwritten", "error"], mark, "nft delete table inet other"),
        (["probes_dropped", "warning"], probes, "nft delete table inet other"),
        (
            ["backend_by_default_route", "warning"],
            "ip route add 10.2.0.11/32 $(ip route show default | sed 's/default//')",
            "ip route del 10.2.0.11/32",
        ),
    ] {
        is_told(&net, &daemon, kind, [breaks, mends]);
    }
}

#[test]
fn flows_that_lost_our_mark_are_told_whoever_took_it() {
    let net = Net::new();
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
    let mut held = [0, 1].map(|family| net.connect("client", at(PUBLIC[family], 2001)).expect("it is served"));
    let before = daemon.last();
    // The rule is gone before the next check, and the flows stay without the mark.
    net.nft(
        "gateway",
        "table inet other { chain forward { type filter hook forward priority 0; ct mark set 1; }; }",
    );
    for conn in &mut held {
        conn.greeting().and_then(|_| conn.echo(b"on")).expect("it is served");
    }
    net.nft("gateway", "delete table inet other");
    let answer = daemon.hears(
        before,
        &json!({"event": "problem", "kind": "flows_unmarked", "severity": "error"}),
    );
    assert!(
        answer["message"]
            .as_str()
            .expect("text")
            .starts_with("2 flows from services"),
        "{answer}"
    );
    let over = || problem(&net, "flow_mark_overwritten").is_none();
    assert!(wait_until(PATIENCE, over));
    let (status, errors) = health(&daemon);
    assert_eq!((status, errors.len()), (503, 1), "{errors:?}");
    assert_eq!(
        problem(&net, "flows_unmarked").expect("as the event")["severity"],
        "error"
    );
    net.cli(&["status", "--interval", "0s"]).exits(1);
    // Without the daemon, too.
    let direct = net.tcpgw(&["--socket", "none", "status", "--interval", "0s"]).exits(1);
    assert!(direct.stdout.contains("error: 2 flows from services"), "{direct}");
    for family in ["ipv4", "ipv6"] {
        net.sh(
            "gateway",
            &format!("conntrack -D -f {family} -p tcp --orig-port-dst 2001"),
        )
        .ok();
    }
    daemon.hears(before, &json!({"event": "problem_ended", "kind": "flows_unmarked"}));
    net.cli(&["status", "--interval", "0s"]).exits(0);
}
