//! `tcpgw up` ends in each documented way and leaves no process or file behind.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{PATIENCE, TCP};
use crate::harness::{Net, wait_until};

/// Shell with children, one of them in the background, as `npm` has it. A signal to the shell alone reaches none of them.
const FAMILY: &str = "sh -c 'sleep 1000 & sleep 1000; echo never' & sh -c 'sleep 1000; echo never'; echo never";

#[test]
fn the_whole_family_of_a_shell_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let net = Net::new();
        let mut app = net.app("app", &format!("web: {FAMILY}\ntcp: {TCP}\n"));
        app.start(&[], 1);
        assert!(
            wait_until(PATIENCE, || app.processes().len() >= 7),
            "{:?}",
            app.processes()
        );
        let begin = Instant::now();
        app.stop(signal);
        assert!(
            begin.elapsed() < Duration::from_secs(9),
            "nothing was waited for until SIGKILL"
        );
        assert_eq!(app.processes(), Vec::<i32>::new());
        assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", app.printed());
        let printed = app.printed();
        assert!(
            printed.contains(&format!("{signal} received, starting shutdown")),
            "{printed}"
        );
        assert!(!printed.contains("never") && !printed.contains("SIGKILL"), "{printed}");
        assert_eq!(
            net.sh("gateway", "cat /proc/sys/net/ipv4/ip_forward").ok().trim(),
            "1",
            "as it was"
        );
    }
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace() {
    let net = Net::new();
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
    let mut app = net.app("app", &format!("web: {deaf}\nquick: exec sleep 1000\n"));
    app.launch(&["--grace", "1s"]);
    app.prints("web.1   | deaf");
    let begin = Instant::now();
    app.stop(Signal::SIGINT);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    app.prints("web.1 has not ended within 1s: sending SIGKILL");
    assert_eq!(app.processes(), Vec::<i32>::new());
    assert_eq!(net.left_by_up(), Vec::<String>::new());
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let net = Net::new();
    let deaf = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & while :; do sleep 0.1; done";
    let mut app = net.app("app", &format!("web: {deaf}\ntcp: {TCP}\n"));
    app.start(&["--grace", "5m"], 1);
    app.signal(Signal::SIGINT);
    app.prints("sending SIGTERM to all processes");
    app.signal(Signal::SIGINT);
    assert_eq!(app.ended(), Some(130), "{}", app.printed());
    assert_eq!(app.processes(), Vec::<i32>::new());
    assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", app.printed());
}

#[test]
fn stop_ends_it_from_elsewhere() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&[], 1);
    app.cli(&["stop"]).ok();
    assert_eq!(app.ended(), Some(0));
    assert_eq!(net.left_by_up(), Vec::<String>::new());
    app.cli(&["stop"]).ok();
    let refused = app.cli(&["ps"]).exits(1);
    assert!(
        refused.stderr.contains("no `tcpgw up` runs in this directory"),
        "{refused}"
    );
}

#[test]
fn forwarding_that_was_off_is_off_again() {
    let net = Net::new();
    net.sh("gateway", "echo 0 >/proc/sys/net/ipv4/ip_forward").ok();
    let mut app = net.app("app", "worker: exec sleep 1000\n");
    app.launch(&[]);
    app.prints("worker.1 | started");
    let forwarding = || net.sh("gateway", "cat /proc/sys/net/ipv4/ip_forward").ok();
    assert_eq!(forwarding().trim(), "1");
    app.stop(Signal::SIGINT);
    assert_eq!(forwarding().trim(), "0");
    assert!(app.printed().contains("no process type tcp"), "{}", app.printed());

    // Another program begins to need it meanwhile.
    app.launch(&[]);
    assert!(wait_until(PATIENCE, || forwarding().trim() == "1"), "{}", app.printed());
    net.sh("gateway", "ip link add docker0 type bridge").ok();
    app.stop(Signal::SIGINT);
    assert_eq!(forwarding().trim(), "1");
    app.prints("stays on, since links have appeared that may need it: docker0");
}
