//! From `tcpgw apply` to the daemon and back, and from one daemon to the next.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::retire::{flows, open, until};

/// Time within which the daemon has written its record.
const RECORDED: Duration = Duration::from_millis(2500);

#[test]
fn the_daemon_takes_over_and_gives_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let before = state([
        service("a", 2001, &["b1", "b2"], 3000, json!({"limit": {"pps": 5000}})),
        service("empty", 2002, &[], 3000, json!({"on_empty": "reset"})),
    ]);
    net.apply(&before);
    for address in PUBLIC {
        assert!(net.connect("client", at(address, 2002)).is_err());
    }
    let counted = |net: &Net| net.tally("no_backend");
    let (table, counters) = (net.identity().table, counted(&net));
    assert!(counters.values().any(|count| *count > 0), "{counters:?}");
    let mut held = PUBLIC.map(|address| until(&net, at(address, 2001), "b1"));
    net.want(&before);
    let (spread, mut daemon) = net.spread_during("client", at(PUBLIC[0], 2001), 4, || {
        let daemon = net.daemon(&[]);
        daemon.settles(4);
        daemon
    });
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    assert_eq!((net.identity().table, counted(&net)), (table, counters.clone()));
    let started = daemon.events_of("started");
    assert_eq!(started[0]["in_kernel"], "2 services with 4 backends", "{started:?}");
    assert_eq!(
        daemon.events_of("committed"),
        Vec::<Value>::new(),
        "there was nothing to change"
    );
    assert_eq!(daemon.get("/v1/daemon")["owns_table"], true);

    // The daemon ends, the kernel goes on, and the CLI may write again.
    let (spread, ()) = net.spread_during("client", at(PUBLIC[1], 2001), 4, || {
        daemon.stop();
        let again = net.apply(&before);
        assert!(
            again.stdout.contains("0 elements") || again.stdout.contains("nothing"),
            "{again}"
        );
        net.apply(state([
            service("a", 2001, &["b1", "b2", "b3"], 3000, json!({"limit": {"pps": 5000}})),
            service("empty", 2002, &[], 3000, json!({"on_empty": "reset"})),
        ]));
    });
    assert!(spread.failures.is_empty() && spread.served() > 0, "{spread:?}");
    go_on(&mut held);
    assert_eq!((net.identity().table, counted(&net)), (table, counters.clone()));
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 60).len(), 3);

    // The next one finds b3, which its file does not have.
    daemon.start();
    daemon.settles(4);
    assert_eq!(net.spread("client", at(PUBLIC[0], 2001), 40).len(), 2);
    assert_eq!((net.identity().table, counted(&net)), (table, counters));
    go_on(&mut held);
    assert_eq!(net.syns_again("client"), 0);
}

fn go_on(conns: &mut [Conn]) {
    for conn in conns {
        conn.echo(b"on").expect("it goes on");
    }
}

fn left(daemon: &Daemon<'_>) -> Option<u64> {
    daemon.get("/v1/drains")["drains"][0]["seconds_left"].as_u64()
}

/// A restart keeps the deadlines of drains, because a deadline is a point in time and not a duration from the daemon's start.
#[test]
fn a_restart_keeps_the_deadlines_of_drains() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let drain = json!({"drain_timeout": "100s"});
    net.want(state([service("a", 2001, &["b1", "b2"], 3000, drain.clone())]));
    let mut daemon = net.daemon(&[]);
    daemon.settles(4);
    let mut held = PUBLIC.map(|address| until(&net, at(address, 2001), "b1"));
    let before = daemon.last();
    net.want(state([service("a", 2001, &["b2"], 3000, drain)]));
    daemon.hears(before, &json!({"event": "draining"}));
    let at_first = left(&daemon).expect("it drains");
    assert!(at_first <= 100, "{at_first}");
    // Nothing was written yet of when it began: it has all its time again.
    daemon.kill();
    daemon.start();
    assert!(wait_until(PATIENCE, || left(&daemon).is_some()));
    let again = left(&daemon);
    assert!(again.is_some_and(|again| (61..=100).contains(&again)), "{again:?}");
    thread::sleep(RECORDED);
    for kill in [true, false] {
        let before = left(&daemon).expect("it drains");
        if kill {
            daemon.kill();
        } else {
            daemon.stop();
        }
        thread::sleep(RECORDED);
        daemon.start();
        assert!(wait_until(PATIENCE, || left(&daemon).is_some()));
        let now = left(&daemon).expect("it drains");
        assert!(now < before, "{now} s of {before} s are left, kill: {kill}");
        assert!(now + 60 > before, "{now} s of {before} s are left, kill: {kill}");
        go_on(&mut held);
    }
    // The flows end by themselves: nothing is left to wait for.
    drop(held);
    daemon.settles(2);
    assert!(wait_until(PATIENCE, || flows(&net, "b1") == 0));
    let _conn = open(&net, at(PUBLIC[0], 2001), "b2");
}
