//! Handshakes of clients that are not completed: told as an error, as a warning, or not at all.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{
    OPTIONS, ROUND, SHORT, begin_to_connect, breaks_and_mends, daemon_of, daemon_with_metrics, health, is_served,
};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::number;
use crate::harness::forge::Segment;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::wire::SYN;
use crate::harness::{Net, wait_until};

#[test]
fn handshakes_that_are_not_completed_are_told() {
    let net = Net::new();
    let (_servers, daemon) = daemon_with_metrics(&net, json!({}));
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
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
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
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
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
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({}));
    // conntrack forgets one that is not confirmed after 5 s, and a busy machine looks for them less often than each second.
    let port = Cell::new(40_000);
    let forge = |last: u8| {
        port.set(port.get() + 1);
        let nobody = at(&format!("192.0.2.{last}"), port.get());
        // Repeated as a client repeats it, so that conntrack keeps it for more than one observation.
        for port in [nobody.port(), 39_000 + u16::from(last)] {
            let nobody = SocketAddr::new(nobody.ip(), port);
            net.forge("client", &Segment::new(nobody, at(PUBLIC[0], 2001), SYN));
        }
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
    let reported = || {
        let problems = daemon.get("/v1/daemon")["problems"].clone();
        let mut problems = problems.as_array().cloned().unwrap_or_default();
        problems.retain(|problem| problem["kind"] == "unanswered");
        problems.pop()
    };
    assert!(
        forge_until(&[7], &|| reported().is_some()),
        "{:#}",
        daemon.get("/v1/daemon")
    );
    // The problem is a warning, and ends when conntrack forgets the flow.
    while let Some(problem) = reported() {
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
    let (_servers, daemon) = daemon_of(&net, OPTIONS, json!({"source": "preserve"}));
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
