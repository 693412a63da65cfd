//! While clients are not served, whatever the cause, `status`, healthz and events report it; after the repair they report that.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::{Daemon, number};
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, PUBLIC_2, addresses, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::shell::Ran;
use crate::harness::wire::SYN;
use crate::harness::{Net, wait_until};

/// Time to wait for a connection that is expected to fail.
const SHORT: Duration = Duration::from_millis(400);
/// Pause between clients that wait for the handshake, each of which sends its SYN four times in so long.
const WAITS: Duration = Duration::from_secs(7);
/// Time between two rounds of clients.
const ROUND: Duration = Duration::from_secs(9);
const OPTIONS: &[&str] = &["--check-interval", "1s"];

/// Returns true when a client gets a greeting.
fn is_served(net: &Net, to: SocketAddr) -> bool {
    net.within("client", || {
        connect(to, SHORT).and_then(|mut client| client.greeting()).is_ok()
    })
}

/// Sends a SYN of each of some clients, and again as long as the sockets are held.
fn begin_to_connect(net: &Net, to: SocketAddr) -> Vec<Socket> {
    let others = [20, 21].map(|n| crowd(n)[usize::from(to.is_ipv6())]);
    let from = [addresses("client")[usize::from(to.is_ipv6())]]
        .into_iter()
        .chain(others);
    from.map(|from| begin_from(net, from, to)).collect()
}

pub(super) fn begin_from(net: &Net, from: IpAddr, to: SocketAddr) -> Socket {
    net.within("client", || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not block");
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .expect("an address of the client");
        // It goes on, or is refused at once.
        let _ = socket.connect(&to.into());
        socket
    })
}

/// Returns the status of healthz, and its errors.
pub(super) fn health(daemon: &Daemon<'_>) -> (u16, Vec<Value>) {
    let answer = daemon.ask("GET", "/v1/healthz", "").expect("an answer");
    let told = answer.json();
    let problems = told["problems"].as_array().expect("a list").iter();
    let errors = problems.filter(|problem| problem["severity"] == "error").cloned();
    (answer.status, errors.collect())
}

/// Breaks the gateway for real, and asserts that all ways to ask say so with an error of that kind; then mends it.
#[track_caller]
fn breaks_and_mends(
    net: &Net,
    daemon: &Daemon<'_>,
    to: SocketAddr,
    kind: &str,
    host: &str,
    [breaks, mends]: [&str; 2],
) {
    assert!(wait_until(PATIENCE, || is_served(net, to)), "{breaks}: before");
    let before = daemon.last();
    net.sh(host, breaks).ok();
    let mut waiting: Vec<(Instant, Vec<Socket>)> = Vec::new();
    let is_known = || {
        assert!(!is_served(net, to), "{breaks}: it breaks nothing");
        // The flow of a client that gives up at once is gone after some seconds, and a daemon that is slow may look at it only once.
        if waiting.last().is_none_or(|(since, _)| since.elapsed() > WAITS) {
            waiting.push((Instant::now(), begin_to_connect(net, to)));
        }
        let (status, errors) = health(daemon);
        status == 503 && errors.iter().any(|problem| problem["kind"] == kind)
    };
    assert!(wait_until(PATIENCE * 6, is_known), "{breaks}: {:?}", health(daemon));
    drop(waiting);
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]).exits(1);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["ok"], false);
    let problems = status["problems"].as_array().expect("a list");
    assert!(problems.iter().any(|problem| problem["kind"] == kind), "{status:#}");
    daemon.hears(before, &json!({"event": "problem", "kind": kind, "severity": "error"}));

    let before = daemon.last();
    net.sh(host, mends).ok();
    let is_well = || is_served(net, to) && health(daemon) == (200, Vec::new());
    assert!(wait_until(PATIENCE * 6, is_well), "{mends}: {:?}", health(daemon));
    net.cli(&["status", "--interval", "0s"]).exits(0);
    daemon.hears(before, &json!({"event": "problem_ended", "kind": kind}));
}

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
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    net.sh("gateway", "nft add table ip older").ok();
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
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
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&["--check-interval", "0s"]);
    daemon.settles(2);
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
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
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

/// Returns the problem of a kind that `status` reports, if there is one.
fn problem(net: &Net, kind: &str) -> Option<Value> {
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status}"));
    let problems = status["problems"].as_array().expect("a list");
    problems.iter().find(|problem| problem["kind"] == kind).cloned()
}

/// Runs a command that breaks the gateway, asserts that a problem of that kind and severity is reported, and that it is gone
/// after the command that repairs the gateway.
#[track_caller]
fn is_told(net: &Net, daemon: &Daemon<'_>, [kind, severity]: [&str; 2], [breaks, mends]: [&str; 2]) {
    assert_eq!(problem(net, kind), None, "{breaks}: before");
    let before = daemon.last();
    net.sh("gateway", breaks).ok();
    let told = daemon.hears(before, &json!({"event": "problem", "kind": kind}));
    assert_eq!(told["severity"], severity, "{breaks}: {told}");
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
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"limit": {"pps": 1000}}),
    )]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
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
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
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
    let told = daemon.hears(
        before,
        &json!({"event": "problem", "kind": "flows_unmarked", "severity": "error"}),
    );
    assert!(
        told["message"]
            .as_str()
            .expect("text")
            .starts_with("2 flows from services"),
        "{told}"
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

#[test]
fn a_public_address_that_is_gone_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let here = json!({"addresses": [PUBLIC_2[0]]});
    net.want(state([service("a", 2001, &["b1"], 3000, here)]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let commands = [
        "ip address del 203.0.113.2/24 dev ext",
        "ip address add 203.0.113.2/24 dev ext",
    ];
    breaks_and_mends(
        &net,
        &daemon,
        at(PUBLIC_2[0], 2001),
        "address_not_local",
        "gateway",
        commands,
    );
}

/// A lost public address is reported when clients used it: a service that listens on all addresses does not name it, but the
/// connections of its clients do.
#[test]
fn one_of_several_public_addresses_that_is_gone_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let remove = "ip address del 203.0.113.2/24 dev ext";
    let add = "ip address add 203.0.113.2/24 dev ext";
    // No service used it.
    net.sh("gateway", remove).ok();
    let to = at(PUBLIC[0], 2001);
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    net.sh("gateway", add).ok();
    let to = at(PUBLIC_2[0], 2001);
    assert!(wait_until(PATIENCE, || is_served(&net, to)));
    // The daemon has to have seen it: it looks each second, and less often on a busy machine.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(problem(&net, "address_lost"), None);
    let before = daemon.last();
    net.sh("gateway", remove).ok();
    let lost = || problem(&net, "address_lost");
    assert!(wait_until(PATIENCE * 6, || lost().is_some()));
    let told = lost().expect("it stays");
    assert_eq!(told["severity"], "warning");
    let words = told["message"].as_str().expect("words");
    assert!(words.contains("203.0.113.2 ("), "{words}");
    daemon.hears(before, &json!({"event": "problem", "kind": "address_lost"}));
    net.cli(&["status", "--interval", "0s"]).exits(0);
    let doctor = net.cli(&["doctor"]);
    assert!(doctor.stdout.contains("address-lost"), "{doctor}");
    let before = daemon.last();
    net.sh("gateway", add).ok();
    daemon.hears(before, &json!({"event": "problem_ended", "kind": "address_lost"}));
}

#[test]
fn a_gateway_without_a_public_address_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"backends": ["10.2.0.11:3000"]}),
    )]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(1);
    let to = at(PUBLIC[0], 2001);
    net.sh("gateway", "ip address del 198.51.100.1/24 dev far").ok();
    let addresses = [
        "ip -4 address flush dev ext",
        "ip address add 203.0.113.1/24 dev ext && ip route replace default via 203.0.113.10",
    ];
    breaks_and_mends(&net, &daemon, to, "no_public_address", "gateway", addresses);
    let link = [
        "ip link set ext down",
        "ip link set ext up && ip route replace default via 203.0.113.10",
    ];
    breaks_and_mends(&net, &daemon, to, "no_public_address", "gateway", link);
}

#[test]
fn handshakes_that_are_not_completed_are_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let to = at(PUBLIC[0], 2001);
    // The gateway's own traffic goes on, and so do probes.
    let elsewhere = [
        "ip route add 10.2.0.0/24 via 198.51.100.20 table 77 && ip rule add iif ext to 10.2.0.0/24 lookup 77",
        "ip rule del iif ext to 10.2.0.0/24 lookup 77",
    ];
    breaks_and_mends(&net, &daemon, to, "unanswered", "gateway", elsewhere);
    // A firewall of the backend's own host that lets only the gateway's own probes in.
    let only_probes = [
        "nft 'table ip fw { chain in { type filter hook input priority 0; tcp dport 3000 tcp flags syn ip ttl != 64 drop; }; }'",
        "nft delete table ip fw",
    ];
    breaks_and_mends(&net, &daemon, to, "unanswered", "b1", only_probes);
    // Answers go elsewhere. Any host can forge such handshakes, so they are an error only where those of several clients fail, and
    // no other is completed.
    let back = [
        "ip route add 203.0.113.10 via 198.51.100.20 table 78 && ip route add 198.18.0.0/15 via 198.51.100.20 table 78 && \
         ip rule add iif br0 lookup 78",
        "ip rule del iif br0 lookup 78",
    ];
    breaks_and_mends(&net, &daemon, to, "unanswered", "gateway", back);
}

/// An outage without a known cause is reported without a break, although clients that give up and come again leave times in which
/// conntrack has no old handshake.
#[test]
fn an_outage_that_no_check_knows_is_told_without_a_break() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let to = at(PUBLIC[0], 2001);
    assert!(wait_until(PATIENCE, || is_served(&net, to)), "before");
    let before = daemon.last();
    let zone = "nft -f - <<'END'\ntable inet zone { chain z { type filter hook prerouting priority -300; iifname ext ct zone set 5; }; }\nEND";
    net.sh("gateway", zone).ok();
    let start = Instant::now();
    // Each comes for the time in which it sends three SYNs, and then no more for a while.
    let mut waiting = begin_to_connect(&net, to);
    let (mut errors, mut round) = (0, 0);
    while start.elapsed() < Duration::from_secs(26) {
        if start.elapsed() > ROUND * (round + 1) {
            round += 1;
            waiting = begin_to_connect(&net, to);
        } else if start.elapsed() > ROUND * round + Duration::from_millis(3500) {
            waiting.clear();
        }
        let status = net.cli(&["status", "--interval", "0s"]);
        if status.status == 0 {
            assert_eq!(errors, 0, "after {:?}: {}", start.elapsed(), status.stdout);
            assert!(start.elapsed() < Duration::from_secs(12), "{}", status.stdout);
        } else {
            errors += 1;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(errors > 0);
    drop(waiting);
    net.sh("gateway", "nft delete table inet zone").ok();
    let mended = Instant::now();
    let is_well = || is_served(&net, to) && health(&daemon) == (200, Vec::new());
    assert!(wait_until(Duration::from_secs(8), is_well), "{:?}", health(&daemon));
    let is_silent = || net.told(&["status", "--interval", "0s"])["problems"] == json!([]);
    assert!(
        wait_until(Duration::from_secs(25), is_silent),
        "after {:?}",
        mended.elapsed()
    );
    let is_error = |event: &&Value| {
        number(event) > Some(before)
            && event["event"] == "problem"
            && event["kind"] == "unanswered"
            && event["severity"] == "error"
    };
    let events = daemon.events();
    assert_eq!(events.iter().filter(is_error).count(), 1, "{events:#?}");
}

/// An outage is reported beside more old connections than the 4,096 that the daemon remembers: when one of them ends, another one
/// takes its place, and is not a client that was served.
#[test]
fn an_outage_is_told_beside_many_old_connections_some_of_which_end() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let to = at(PUBLIC[0], 2001);
    let hold = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.connect_timeout(&to.into(), PATIENCE).expect("it is served");
        // conntrack forgets a connection at once that is reset, or soon.
        socket.set_linger(Some(Duration::ZERO)).expect("an option of sockets");
        socket
    };
    let mut old: Vec<Socket> = net.within("client", || (0..4400).map(|_| hold()).collect());
    let fw = "nft 'table ip fw { chain in { type filter hook input priority 0; tcp dport 3000 tcp flags syn ip ttl != 64 drop; }; }'";
    net.sh("b1", fw).ok();
    let mut waiting = begin_to_connect(&net, to);
    let mut is_error = || {
        old.truncate(old.len().saturating_sub(3));
        health(&daemon).1.iter().any(|problem| problem["kind"] == "unanswered")
    };
    assert!(wait_until(PATIENCE * 2, &mut is_error), "{:?}", health(&daemon));
    waiting.extend(begin_to_connect(&net, to));
    let told = Instant::now();
    while told.elapsed() < Duration::from_secs(13) {
        assert!(is_error(), "after {:?}: {:?}", told.elapsed(), health(&daemon));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Forged SYNs from one address are a warning at most and do not make the gateway unhealthy.
#[test]
fn a_forged_syn_makes_no_gateway_unhealthy() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    // conntrack forgets one that is not confirmed after 5 s, and a busy machine looks for them less often than each second.
    let port = Cell::new(40_000);
    let forge = |last: u8| {
        port.set(port.get() + 1);
        let nobody = at(&format!("192.0.2.{last}"), port.get());
        net.forge("client", &Segment::new(nobody, at(PUBLIC[0], 2001), SYN));
    };
    let forge_until = |all: &[u8], is_told: &dyn Fn() -> bool| {
        wait_until(PATIENCE, || {
            for last in all {
                forge(*last);
            }
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(1) && !is_told() {
                std::thread::sleep(Duration::from_millis(50));
            }
            is_told()
        })
    };
    let told = || {
        let problems = daemon.get("/v1/daemon")["problems"].clone();
        let mut problems = problems.as_array().cloned().unwrap_or_default();
        problems.retain(|problem| problem["kind"] == "unanswered");
        problems.pop()
    };
    assert!(
        forge_until(&[7], &|| told().is_some()),
        "{:#}",
        daemon.get("/v1/daemon")
    );
    // The problem is a warning, and ends when conntrack forgets the flow.
    while let Some(problem) = told() {
        assert_eq!(problem["severity"], "warning", "{problem}");
        assert_eq!(health(&daemon), (200, Vec::new()));
        net.cli(&["status", "--interval", "0s"]).exits(0);
    }
    // Several clients that fail are believed, where none is served.
    let is_error = || health(&daemon).1.iter().any(|problem| problem["kind"] == "unanswered");
    assert!(forge_until(&[8, 9], &is_error), "{:?}", health(&daemon));
}

#[test]
fn some_that_are_not_answered_among_others_are_a_warning() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service(
        "a",
        2001,
        &["b1"],
        3000,
        json!({"source": "preserve"}),
    )]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let to = at(PUBLIC[0], 2001);
    // Answers to one of the clients get lost; the others are served.
    net.sh("b1", "ip route add blackhole 198.18.0.0/15").ok();
    let warned = || {
        assert!(is_served(&net, to));
        let lost = net.connect_short(to);
        assert!(lost, "the answer should not arrive");
        let status = net.told(&["status", "--interval", "0s"]);
        let problems = status["problems"].as_array().expect("a list");
        let found = problems.iter().find(|problem| problem["kind"] == "unanswered").cloned();
        found.is_some_and(|problem| {
            assert_eq!(problem["severity"], "warning", "{problem}");
            assert_eq!((&problem["service"], &problem["port"]), (&json!("a"), &json!(2001)));
            status["services"][0]["unanswered"].as_u64() > Some(0)
        })
    };
    assert!(wait_until(PATIENCE * 2, warned), "{:#}", daemon.get("/v1/status"));
    assert_eq!(health(&daemon), (200, Vec::new()));
}

impl Net {
    /// Returns true when a client of the crowd cannot connect within `SHORT`.
    fn connect_short(&self, to: SocketAddr) -> bool {
        let from = SocketAddr::new(crate::harness::plan::crowd(7)[0], 0);
        let connect = || crate::harness::client::connect_from(Some(from), to, SHORT);
        self.within("client", connect).is_err()
    }
}

/// A store file that was removed or replaced is reported, because the daemon keeps writing to a file that has no name any more.
#[test]
fn a_store_that_is_removed_or_replaced_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let (store, away) = (net.file("store.db"), net.file("away.db"));
    let is_moved = |daemon: &Daemon<'_>| {
        let (status, errors) = health(daemon);
        let is_it = |problem: &Value| problem["kind"] == "store_moved";
        assert!(status == 503 || !errors.iter().any(is_it));
        errors
            .iter()
            .find(|problem| is_it(problem))
            .map(|problem| problem["message"].to_string())
    };
    let comes_and_goes = |daemon: &Daemon<'_>, words: &str, comes: bool| {
        let is_so = || is_moved(daemon).is_some_and(|message| message.contains(words)) == comes;
        assert!(
            wait_until(PATIENCE * 2, is_so),
            "{words}, {comes}: {:?}",
            health(daemon)
        );
    };
    assert_eq!(is_moved(&daemon), None);
    std::fs::rename(&store, &away).expect("a store");
    comes_and_goes(&daemon, "was removed", true);
    let status = net.cli(&["status", "--interval", "0s"]).exits(1);
    assert!(status.stdout.contains("tcpgw export"), "{status}");
    std::fs::write(&store, "").expect("a file");
    comes_and_goes(&daemon, "another file", true);
    std::fs::rename(&away, &store).expect("a store");
    comes_and_goes(&daemon, "", false);
    net.cli(&["status", "--interval", "0s"]).exits(0);
    std::fs::remove_file(&store).expect("a store");
    comes_and_goes(&daemon, "was removed", true);
    daemon.stop();
    daemon.start();
    daemon.settles(2);
    // Some looks later.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(is_moved(&daemon), None);
}

#[test]
fn a_state_a_configuration_and_a_pause_that_are_not_as_ordered_are_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = net.file("config.toml");
    std::fs::write(&config, "").expect("a file");
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&["--config", config.to_str().expect("text")]);
    daemon.settles(2);
    std::fs::write(&config, "[daemon]\nprobes = 1\n").expect("a file");
    let before = daemon.last();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let told = daemon.hears(before, &json!({"event": "problem", "kind": "rejected_configuration"}));
    assert!(told["message"].as_str().expect("text").contains("probes"), "{told}");
    assert_eq!(health(&daemon), (200, Vec::new()), "what is served is served");
    std::fs::write(&config, "").expect("a file");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.hears(
        before,
        &json!({"event": "problem_ended", "kind": "rejected_configuration"}),
    );

    let before = daemon.last();
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    daemon.hears(before, &json!({"event": "problem", "kind": "paused", "service": "a"}));
    assert_eq!(health(&daemon), (200, Vec::new()), "it was asked for");
    assert!(
        net.cli(&["status", "--interval", "0s"])
            .exits(0)
            .stdout
            .contains("is paused by")
    );
    net.cli(&["resume", "a"]).exits(0);
    daemon.hears(
        before,
        &json!({"event": "problem_ended", "kind": "paused", "service": "a"}),
    );
}

#[test]
fn without_a_daemon_status_looks_itself() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))])).ok();
    net.tcpgw(&["status", "--interval", "0s"]).exits(0);
    net.sh("gateway", "sysctl -w net.ipv4.ip_forward=0").ok();
    assert!(!is_served(&net, at(PUBLIC[0], 2001)));
    let told = net.tcpgw(&["status", "--interval", "0s"]).exits(1);
    assert!(told.stdout.contains("error: net.ipv4"), "{told}");
    net.sh("gateway", "sysctl -w net.ipv4.ip_forward=1").ok();
    net.tcpgw(&["status", "--interval", "0s"]).exits(0);
}

/// Returns the findings of `doctor`, which asks the daemon.
fn findings(net: &Net) -> Vec<(String, String)> {
    findings_of(&net.cli(&["doctor", "-o", "json"]))
}

fn findings_of(ran: &Ran) -> Vec<(String, String)> {
    let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
    let all = said["findings"].as_array().expect("a list").iter();
    all.map(|finding| (text(finding, "id"), text(finding, "severity")))
        .collect()
}

/// A problem with the severity `error` makes both `status` and `doctor` fail, and no other problem does.
#[test]
fn doctor_and_status_agree_about_what_is_an_error() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let chosen = json!({"addresses": [PUBLIC_2[0]]});
    net.want(state([
        service("a", 2001, &["b1", "b2"], 3000, json!({})),
        service("b", 2002, &["b3"], 3000, chosen),
    ]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(6);
    // The way to clients far away.
    net.sh("gateway", "ip route replace default via 203.0.113.10").ok();
    let is_alone = Cell::new(false);
    let ask = |args: &[&str]| {
        if is_alone.get() {
            net.tcpgw(&[&["--socket", "none"], args].concat())
        } else {
            net.cli(args)
        }
    };
    let status = || {
        let ran = ask(&["status", "-o", "json", "--interval", "0s"]);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        (ran.status, said["problems"].clone())
    };
    let about = |kind: &str| {
        let (_, problems) = status();
        let all = problems.as_array().expect("a list").clone();
        let found = all.into_iter().find(|problem| problem["kind"] == kind);
        found.map(|problem| problem["severity"] == "error")
    };
    let agree = |kind: &str, is_error: bool, with: &str| {
        assert!(
            wait_until(PATIENCE, || about(kind) == Some(is_error)),
            "{kind} {with}: {:#}",
            status().1
        );
        let doctor = findings_of(&ask(&["doctor", "-o", "json"]));
        let same = (
            kind.replace('_', "-"),
            if is_error { "broken" } else { "warning" }.to_owned(),
        );
        assert!(doctor.contains(&same), "{kind} {with}: {doctor:?}");
        let exit = i32::from(is_error);
        assert_eq!(status().0, exit, "{kind} {with}: {:#}", status().1);
        ask(&["doctor"]).exits(exit);
    };
    let facts = [
        (
            "address_not_local",
            ["del", "add"].map(|to| format!("ip address {to} 203.0.113.2/24 dev ext")),
            [true, true],
        ),
        (
            "backend_without_route",
            ["add", "del"].map(|to| format!("ip route {to} unreachable 10.2.0.11/32")),
            // Without a daemon nothing takes it out of the balance.
            [false, true],
        ),
        (
            "backend_is_gateway",
            ["add", "del"].map(|to| format!("ip address {to} 10.2.0.11/32 dev lo")),
            [true, true],
        ),
        (
            "answers_without_route",
            ["add", "del"].map(|to| format!("ip rule {to} from 10.2.0.0/24 blackhole prio 100")),
            [true, true],
        ),
        (
            "ip_forward_off",
            [0, 1].map(|on| format!("sysctl -qw net.ipv4.ip_forward={on}")),
            [true, true],
        ),
    ];
    for (kind, [provoke, mend], [is_error, _]) in &facts {
        net.sh("gateway", provoke).ok();
        agree(kind, *is_error, "with a daemon");
        net.sh("gateway", mend).ok();
        let is_over = || status().0 == 0 && about(kind).is_none();
        assert!(wait_until(PATIENCE, is_over), "{kind}: {:#}", status().1);
        assert!(wait_until(PATIENCE, || ask(&["doctor"]).status == 0), "{kind}");
    }
    daemon.stop();
    is_alone.set(true);
    for (kind, [provoke, mend], [_, is_error]) in &facts {
        net.sh("gateway", provoke).ok();
        agree(kind, *is_error, "without a daemon");
        net.sh("gateway", mend).ok();
        assert_eq!((status().0, ask(&["doctor"]).status), (0, 0), "{kind}");
    }
}

#[test]
fn the_doctor_asks_the_daemon() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(&[]);
    daemon.settles(2);
    let says = |id: &str, severity: &str| findings(&net).contains(&(id.to_owned(), severity.to_owned()));
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    assert!(says("paused", "warning"), "{:?}", findings(&net));
    net.cli(&["resume", "a"]).exits(0);
    assert!(!says("paused", "warning"), "{:?}", findings(&net));
    net.want("{");
    assert!(
        wait_until(PATIENCE, || says("rejected-state", "broken")),
        "{:?}",
        findings(&net)
    );
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    assert!(
        wait_until(PATIENCE, || !says("rejected-state", "broken")),
        "{:?}",
        findings(&net)
    );
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let silent = says("daemon-not-answering", "broken");
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(silent, "it hangs, and nothing says so");
    daemon.stop();
    let ended = net.tcpgw(&["doctor"]);
    assert!(!ended.stdout.contains("daemon-"), "{ended}");
}

#[test]
fn the_doctor_tells_of_each_trouble_of_the_daemon() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let config = net.file("config.toml");
    std::fs::write(&config, "").expect("a file");
    // A store that cannot be read.
    std::fs::write(net.file("store.db"), "x".repeat(4096)).expect("a file");
    let mut daemon = net.daemon(&["--config", config.to_str().expect("text")]);
    daemon.settles(2);
    let says = |id: &str, severity: &str| findings(&net).contains(&(id.to_owned(), severity.to_owned()));
    assert!(says("store", "broken"), "{:?}", findings(&net));
    std::fs::write(&config, "[daemon]\nprobes = 1\n").expect("a file");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(
        wait_until(PATIENCE, || says("rejected-configuration", "warning")),
        "{:?}",
        findings(&net)
    );
    net.cli(&["teardown"]).exits(0);
    assert!(says("torn-down", "broken"), "{:?}", findings(&net));
    net.cli(&["resume"]).exits(0);
    assert!(
        wait_until(PATIENCE, || !says("torn-down", "broken")),
        "{:?}",
        findings(&net)
    );

    let pid = daemon.id();
    net.cli(&["pause", "a", "--for", "60s"]).exits(0);
    daemon.kill();
    let status = net
        .tcpgw(&["--socket", "none", "status", "--interval", "0s"])
        .exits(1)
        .stdout;
    let first = status.lines().next().unwrap_or_default();
    assert!(first.contains("1 service (1 paused)"), "{status}");
    let gone = net.tcpgw(&["doctor"]).exits(1);
    assert!(gone.stdout.contains("broken [daemon-gone]"), "{gone}");
    assert!(gone.stdout.contains(&format!("(process {pid}) was killed")), "{gone}");
}

#[test]
fn orphans_are_told_with_a_daemon_and_without() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let direct = |args: &[&str]| {
        let ran = net.tcpgw(&[&["--socket", "none"], args, &["-o", "json"]].concat());
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
    };
    let provider = || direct(&["status", "--interval", "0s"])["services"][0]["provider"].clone();
    assert_eq!(provider(), "file", "as the record says");
    let mut daemon = net.daemon_without_state(&[]);
    daemon.settles(2);
    assert!(
        findings(&net).contains(&("orphaned".to_owned(), "warning".to_owned())),
        "{:?}",
        findings(&net)
    );
    // The daemon writes its record a while later.
    assert!(wait_until(PATIENCE, || provider() == "orphan"), "{}", provider());
    daemon.kill();
    let status = direct(&["status", "--interval", "0s"]);
    assert_eq!(status["services"][0]["provider"], "orphan", "{status:#}");
    let problems = status["problems"].as_array().expect("a list").iter();
    let kinds: Vec<(&Value, &Value)> = problems
        .map(|problem| (&problem["kind"], &problem["severity"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("daemon_gone"), &json!("error")),
            (&json!("orphaned"), &json!("warning"))
        ]
    );
    let doctor = net.tcpgw(&["doctor"]);
    assert!(
        doctor
            .stdout
            .contains("[orphaned] 1 service that no provider defines any more"),
        "{doctor}"
    );
}

#[test]
fn a_daemon_of_another_namespace_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    // Its socket at the place where one is looked for; only this command sees it there.
    let run = |command: &str| {
        let socket = net.socket();
        let line = format!(
            "mount -t tmpfs none /run && mkdir /run/tcpgw && ln -s {} /run/tcpgw/tcpgw.sock && exec {} {command}",
            socket.to_str().expect("text"),
            crate::harness::shell::TCPGW
        );
        let ran = net.sh("client", &line);
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
    };
    let status = run("status -o json --interval 0s");
    let problems = status["problems"].as_array().expect("a list");
    let kinds: Vec<&Value> = problems.iter().map(|problem| &problem["kind"]).collect();
    assert_eq!(kinds, ["other_namespace"], "it does not look as if nothing was applied");
    let told = problems[0]["message"].as_str().expect("text");
    assert!(
        told.contains("/run/tcpgw/tcpgw.sock serves another network namespace"),
        "{told}"
    );
    for doctor in [
        run("doctor -o json"),
        run(&format!(
            "--socket {} doctor -o json",
            net.socket().to_str().expect("text")
        )),
    ] {
        let found = doctor["findings"].as_array().expect("a list");
        let found = found.iter().find(|finding| finding["id"] == "other-namespace");
        assert_eq!(found.expect("it is found")["severity"], "warning", "{doctor:#}");
    }
}

#[test]
fn a_daemon_whose_socket_is_gone_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    std::fs::rename(net.socket(), net.file("elsewhere.sock")).expect("it is there");
    let told = net.tcpgw(&["status", "--interval", "0s"]).ok();
    assert!(told.contains("was not asked: it listens on"), "{told}");
    let doctor = net.tcpgw(&["doctor"]);
    assert!(doctor.stdout.contains("daemon-unreachable"), "{doctor}");
}

#[test]
fn a_service_that_was_removed_and_drains_is_no_problem() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let stays = || service("stays", 2001, &["b1"], 3000, json!({}));
    net.want(state([stays(), service("goes", 2002, &["b2"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    daemon.settles(4);
    let _held = net.connect("client", at(PUBLIC[0], 2002)).expect("it is served");
    net.want(state([stays()]));
    let leaves = || {
        let status = net.told(&["status", "--interval", "0s"]);
        assert_eq!(
            (&status["ok"], &status["problems"]),
            (&json!(true), &json!([])),
            "{status:#}"
        );
        let services = status["services"].as_array().expect("a list");
        services
            .iter()
            .any(|service| service["name"] == "goes" && service["leaving"] == true)
    };
    assert!(wait_until(PATIENCE, leaves), "{:#}", daemon.get("/v1/status"));
    assert_eq!(health(&daemon), (200, Vec::new()));
}
