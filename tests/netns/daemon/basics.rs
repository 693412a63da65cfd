//! Backends that get connections at each moment, and the events about them.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};

/// Probes that find out soon.
fn eager() -> Value {
    json!({"health": {"interval": "100ms", "timeout": "1s", "fall": 2}, "drain_timeout": "2s"})
}

/// Returns the IPv4 endpoint of a backend, as health events name it.
fn four(host: &str) -> String {
    crate::harness::brief::endpoints(host, 3000)[0].clone()
}

/// Returns a service whose backends are IPv4 only.
fn ipv4(name: &str, port: u16, hosts: &[&str], more: &Value) -> Value {
    let backends: Vec<String> = hosts.iter().map(|host| four(host)).collect();
    let mut fields = more.clone();
    fields["backends"] = backends.into();
    service(name, port, &[], 0, fields)
}

/// Asserts that exactly these hosts get connections.
#[track_caller]
fn served_by(net: &Net, hosts: &[&str]) {
    let expected: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let served: BTreeMap<String, usize> = net.spread("client", at(PUBLIC[0], 2001), 60);
    assert_eq!(served.into_keys().collect::<Vec<_>>(), expected);
}

fn becomes(daemon: &Daemon<'_>, after: u64, host: &str, state: &str) -> Value {
    daemon.hears(
        after,
        &json!({"event": "health", "backend": four(host), "state": state}),
    )
}

#[test]
fn nobody_gets_connections_before_its_first_handshake() {
    let net = Net::new();
    let _b1 = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([ipv4("a", 2001, &["b1", "b2", "b3"], &eager())]));
    let daemon = net.daemon(&[]);
    becomes(&daemon, 0, "b1", "healthy");
    // b2 will never listen; b3 does not yet.
    let refused = becomes(&daemon, 0, "b2", "unhealthy");
    assert_eq!(refused["reason"], "refused", "{refused}");
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    served_by(&net, &["b1"]);
    let late = net.spread_during("client", at(PUBLIC[0], 2001), 1, || {
        let server = net.serve("b3", 3000, Behaviour::Greet);
        becomes(&daemon, 0, "b3", "healthy");
        server
    });
    let (spread, _b3) = late;
    assert!(spread.failures.is_empty(), "{spread:?}");
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    served_by(&net, &["b1", "b3"]);
    assert_eq!(net.syns_again("client"), 0);

    // A new one that replaces the others: they serve until it has answered.
    let before = daemon.last();
    net.want(state([ipv4("a", 2001, &["b4"], &eager())]));
    daemon.hears(
        before,
        &json!({"event": "health", "backend": four("b4"), "state": "unhealthy"}),
    );
    assert_eq!(daemon.get("/v1/drains")["drains"][0]["waits_for"], "replacement");
    served_by(&net, &["b1", "b3"]);
    let _b4 = net.serve("b4", 3000, Behaviour::Greet);
    daemon.hears(
        before,
        &json!({"event": "draining", "backend": four("b1"), "service": "a"}),
    );
    daemon.settles(1);
    served_by(&net, &["b4"]);
    assert_eq!(net.syns_again("client"), 0);
}

#[test]
fn backends_die_and_come_back() {
    let net = Net::new();
    let mut b1 = Some(net.serve("b1", 3000, Behaviour::Greet));
    let _b2 = net.serve("b2", 3000, Behaviour::Greet);
    net.want(state([ipv4("a", 2001, &["b1", "b2"], &eager())]));
    let daemon = net.daemon(&[]);
    daemon.settles(2);
    served_by(&net, &["b1", "b2"]);
    // The process is killed, three times over.
    for _ in 0..3 {
        let before = daemon.last();
        drop(b1.take());
        assert_eq!(becomes(&daemon, before, "b1", "unhealthy")["reason"], "refused");
        assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
        served_by(&net, &["b2"]);
        b1 = Some(net.serve("b1", 3000, Behaviour::Greet));
        becomes(&daemon, before, "b1", "healthy");
        daemon.settles(2);
        served_by(&net, &["b1", "b2"]);
    }
    // The host is gone: first it swallows everything, then the network says so.
    for (gone, back, reason) in [
        ("", "", "timed out"),
        (
            "ip route add unreachable 10.2.0.12",
            "ip route del unreachable 10.2.0.12",
            "unreachable (no route to host)",
        ),
    ] {
        let before = daemon.last();
        if gone.is_empty() {
            net.mute("b2");
        } else {
            net.sh("gateway", gone).ok();
        }
        assert_eq!(becomes(&daemon, before, "b2", "unhealthy")["reason"], reason);
        assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
        served_by(&net, &["b1"]);
        if back.is_empty() {
            net.unmute("b2");
        } else {
            net.sh("gateway", back).ok();
        }
        becomes(&daemon, before, "b2", "healthy");
        daemon.settles(2);
        served_by(&net, &["b1", "b2"]);
    }
}

/// A backend that hangs after the handshake stays in the balance, because a probe sees the handshake only.
#[test]
fn one_that_hangs_after_the_handshake_stays() {
    let net = Net::new();
    let silent = net.serve("b1", 3000, Behaviour::Silent);
    net.want(state([ipv4("a", 2001, &["b1"], &eager())]));
    let daemon = net.daemon(&[]);
    daemon.settles(1);
    let _conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a handshake");
    assert!(wait_until(PATIENCE, || silent.accepted() == 1));
    is_probed(&net, "b1", 20);
    // Probes end before the program hears of them.
    assert_eq!((daemon.is_settled(1), silent.accepted()), (true, 1));
}

#[test]
fn when_all_fail_together_all_stay_or_the_service_is_empty() {
    for (option, kept) in [("--all-failed=keep", 2), ("--all-failed=empty", 0)] {
        let net = Net::new();
        let servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
        net.want(state([ipv4("a", 2001, &["b1", "b2"], &eager())]));
        let daemon = net.daemon(&[option]);
        daemon.settles(2);
        let before = daemon.last();
        drop(servers);
        let none = daemon.hears(before, &json!({"event": "none_healthy", "service": "a"}));
        assert_eq!(none["kept"], kept, "they died together: {none}");
        assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
        // The connection is refused by the gateway or by a backend, and does not hang.
        let refused = net.connect("client", at(PUBLIC[0], 2001)).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{option}");
        let slots = net.sh("gateway", "nft list map inet tcpgw slots_v4").ok();
        assert_eq!(slots.contains("10.2.0.1"), kept > 0, "{option}: {slots}");
        let status = daemon.get("/v1/status");
        assert_eq!(status["services"][0]["healthy"], false, "{status:#}");
        let _back = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
        daemon.settles(2);
        served_by(&net, &["b1", "b2"]);
    }
}

#[test]
fn probes_are_not_limited_and_everybody_reaches_services() {
    let net = Net::new();
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    let limit = json!({
        "limit": {"pps": 20, "burst": 20},
        "health": {"interval": "10ms", "timeout": "1s"},
    });
    let free = json!({"health": {"interval": "10ms", "timeout": "1s"}, "source": "preserve"});
    net.want(state([
        service("limited", 2001, &["b1"], 3000, limit),
        service("free", 2002, &["b2"], 3000, free),
    ]));
    let daemon = net.daemon(&[]);
    daemon.settles(4);
    // Hairpin, local clients, clients from outside; IPv4 and IPv6.
    for address in PUBLIC {
        for host in ["client", "b1", "b2", "gateway", "routed"] {
            assert_eq!(net.spread(host, at(address, 2002), 2)["b2"], 2, "{host} {address}");
        }
    }
    let _conn = net.hold("client", at(PUBLIC[0], 2001));
    // Probes are no packets of clients, however many.
    is_probed(&net, "b1", 300);
    for set in ["over_to_v4", "over_from_v4", "over_to_v6", "over_from_v6"] {
        assert_eq!(net.tally(set).values().sum::<u64>(), 0, "{set}");
    }
    assert!(
        daemon
            .events_of("health")
            .iter()
            .all(|event| event["state"] == "healthy")
    );
    assert!(
        net.conntrack()
            .iter()
            .all(|flow| flow.public.port() != 3000 || flow.mark == 0)
    );
}

/// Waits until a host has had so many packets more.
#[track_caller]
fn is_probed(net: &Net, host: &str, packets: u64) {
    let received = || net.counters(host, "eth0").received.packets;
    let before = received();
    assert!(
        wait_until(PATIENCE * 2, || received() > before + packets),
        "{host} is not probed"
    );
}

#[test]
fn one_daemon_for_one_namespace() {
    let net = Net::new();
    let _b1 = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([ipv4("a", 2001, &["b1"], &eager())]));
    let daemon = net.daemon(&[]);
    daemon.settles(1);
    let [state, socket, store] =
        ["wanted.json", "other.sock", "other.db"].map(|name| net.file(name).to_string_lossy().into_owned());
    let argv = [
        TCPGW, "daemon", "--state", &state, "--socket", &socket, "--store", &store,
    ];
    let second = net.run("gateway", &argv).exits(1);
    assert!(second.stderr.contains(&format!("process {}", daemon.id())), "{second}");
    assert!(daemon.is_settled(1));
    served_by(&net, &["b1"]);
    daemon.signal(Signal::SIGHUP);
    served_by(&net, &["b1"]);
}

/// A daemon under systemd sends the messages of a `Type=notify-reload` service with a watchdog (`sd_notify(3)`).
#[test]
fn the_service_manager_is_told() {
    let net = Net::new();
    net.want(state([ipv4("a", 2001, &["b1"], &json!({}))]));
    let path = net.file("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let variables = [
        ("NOTIFY_SOCKET", path.to_string_lossy().to_string()),
        ("WATCHDOG_USEC", "400000".to_owned()),
    ];
    let mut daemon = net.daemon_within(&variables);
    let hears = |wanted: &str| {
        let mut heard = Vec::new();
        // The watchdog speaks in between.
        for _ in 0..100 {
            let mut told = [0; 1024];
            let length = manager
                .recv(&mut told)
                .unwrap_or_else(|e| panic!("no {wanted}, but {heard:?}: {e}"));
            heard.extend(String::from_utf8_lossy(&told[..length]).lines().map(ToOwned::to_owned));
            if heard.iter().any(|line| line == wanted) {
                return heard;
            }
        }
        panic!("no {wanted}, but {heard:?}");
    };
    let ready = hears("READY=1");
    assert!(
        ready.iter().any(|line| line.starts_with("STATUS=1 service")),
        "{ready:?}"
    );
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP);
    let reloading = hears("RELOADING=1");
    let is_clock = |line: &String| line.starts_with("MONOTONIC_USEC=");
    assert!(reloading.iter().any(is_clock), "{reloading:?}");
    hears("READY=1");
    daemon.stop();
    hears("STOPPING=1");
}
