//! Clients that conntrack no longer lists count as served, and each service is judged by its own clients.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::truth::{begin_from, health};
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const OPTIONS: &[&str] = &["--check-interval", "1s"];
/// Rule that lets only probes in, which come from the gateway itself.
const ONLY_PROBES: &str = "nft 'table ip fw { chain in { type filter hook input priority 0; tcp dport 3000 tcp flags syn ip ttl != 64 drop; }; }'";

/// Returns the problem about unanswered handshakes, if the daemon reports one.
fn unanswered(daemon: &Daemon<'_>) -> Option<Value> {
    let status = daemon.get("/v1/daemon");
    let problems = status["problems"].as_array().expect("a list");
    problems.iter().find(|problem| problem["kind"] == "unanswered").cloned()
}

/// Clients that end their connections with a reset count as served, although conntrack forgets such connections at once, so that
/// no read of its flows finds one.
#[test]
fn clients_that_end_with_a_reset_are_served() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let preserve = service("a", 2001, &["b1"], 3000, json!({"source": "preserve"}));
    net.want(state([preserve]));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let to = at(PUBLIC[0], 2001);
    let is_served = || {
        net.within("client", || {
            let mut client = connect(to, Duration::from_millis(400))?;
            client.greeting()?;
            client.reset()
        })
        .is_ok()
    };
    assert!(wait_until(PATIENCE, is_served), "before");
    // One is banned, and tries again and again.
    let banned = crowd(20)[0];
    let ban =
        format!("nft 'table ip fw {{ chain in {{ type filter hook input priority 0; ip saddr {banned} drop; }}; }}'");
    net.sh("b1", &ban).ok();
    let mut waiting = vec![begin_from(&net, banned, to)];
    let begin = Instant::now();
    let mut is_warned = false;
    while begin.elapsed() < Duration::from_secs(12) {
        assert!(is_served(), "after {:?}", begin.elapsed());
        assert_eq!(health(&daemon), (200, Vec::new()), "after {:?}", begin.elapsed());
        is_warned |= unanswered(&daemon).is_some_and(|problem| problem["severity"] == "warning");
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(is_warned, "{:#}", daemon.get("/v1/daemon"));
    // All are, and then none.
    net.sh("b1", "nft delete table ip fw").ok();
    net.sh("b1", ONLY_PROBES).ok();
    waiting.push(begin_from(&net, crowd(21)[0], to));
    let is_error = || health(&daemon).1.iter().any(|problem| problem["kind"] == "unanswered");
    assert!(wait_until(PATIENCE * 2, is_error), "{:#}", daemon.get("/v1/daemon"));
    net.sh("b1", "nft delete table ip fw").ok();
    let mended = Instant::now();
    let is_well = || is_served() && health(&daemon) == (200, Vec::new());
    assert!(
        wait_until(Duration::from_secs(12), is_well),
        "after {:?}: {:?}",
        mended.elapsed(),
        health(&daemon)
    );
}

/// Lost answers of one service are an error of that service, however many clients another service has.
#[test]
fn lost_answers_of_one_service_are_told_while_another_is_served() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let services = [
        service("a", 2001, &["b1"], 3000, json!({})),
        service("b", 2002, &["b2"], 3000, json!({})),
    ];
    net.want(state(services));
    let daemon = net.daemon(OPTIONS);
    daemon.settles(4);
    let (lost, served) = (at(PUBLIC[0], 2001), at(PUBLIC[0], 2002));
    net.sh(
        "client",
        "nft 'table ip up { chain in { type filter hook prerouting priority -400; tcp sport 2001 drop; }; }'",
    )
    .ok();
    let begin = Instant::now();
    let (mut waiting, mut rounds) = (Vec::new(), 0);
    let is_error = || {
        if begin.elapsed() > Duration::from_secs(2) * rounds {
            rounds += 1;
            waiting.extend([20, 21, 22].map(|client| begin_from(&net, crowd(client)[0], lost)));
        }
        let is_served = net.within("client", || connect(served, Duration::from_millis(400)).is_ok());
        assert!(is_served, "b");
        health(&daemon).1.iter().any(|problem| problem["service"] == "a")
    };
    assert!(wait_until(PATIENCE * 2, is_error), "{:#}", daemon.get("/v1/daemon"));
    net.sh("client", "nft delete table ip up").ok();
    let is_well = || {
        net.within("client", || connect(lost, Duration::from_millis(400)).is_ok())
            && health(&daemon) == (200, Vec::new())
    };
    assert!(wait_until(Duration::from_secs(12), is_well), "{:?}", health(&daemon));
}
