//! Recovery of an app after its `tcpgw up` was killed.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, TCP};
use crate::harness::{Net, wait_until};

#[test]
fn its_processes_die_with_it_and_the_next_one_takes_its_place() {
    let net = Net::new();
    let stray = "setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & exec sleep 1000";
    let mut app = net.app("app", &format!("web: {stray}\ntcp: {TCP}\n"));
    app.start(&["-m", "tcp=2,web=1"], 2);
    let port = app.port();
    app.signal(Signal::SIGKILL);
    assert_eq!(app.ended(), None);
    assert!(
        wait_until(PATIENCE, || app.processes().is_empty()),
        "{:?}",
        app.processes()
    );
    assert_ne!(net.left_by_up(), Vec::<String>::new(), "the check can fail");

    std::fs::remove_file(app.log()).expect("there is a log");
    // The stray one hears of no signal to the group: it is killed after the grace.
    app.start(&["-m", "tcp=2,web=1", "--grace", "1s"], 2);
    assert_eq!(app.port(), port, "the resource is the same");
    assert!(
        app.ask().expect("an answer").starts_with("tcp."),
        "they answered before they got connections"
    );
    app.stop(Signal::SIGINT);
    assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", app.printed());
}

#[test]
fn stop_cleans_up_after_it() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&[], 1);
    app.signal(Signal::SIGKILL);
    assert_eq!(app.ended(), None);
    let cleaned = app.cli(&["stop"]).exits(0);
    assert!(
        cleaned.stderr.contains("cleaned up after a `tcpgw up` that was killed"),
        "{cleaned}"
    );
    assert_eq!(net.left_by_up(), Vec::<String>::new());
    assert_eq!(app.processes(), Vec::<i32>::new());
}

/// Returns true when a daemon of this test runs or is about to end.
fn has_daemon(net: &Net) -> bool {
    let socket = net.socket().to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").expect("there is /proc").flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains(&socket))
}

/// Simulates a boot: removes links, tables and the run directory, and keeps the store.
fn boot(net: &Net) {
    assert!(wait_until(PATIENCE, || !has_daemon(net)), "the daemon lives on");
    let links = "for l in $(ip -o link | cut -d: -f2 | cut -d@ -f1 | grep -E '^ *(tu[0-9a-f]{8}-|tcpup)'); do ip link del $l 2>/dev/null; done";
    net.sh("gateway", &format!("{links}; nft flush ruleset")).ok();
    std::fs::remove_dir_all(net.file("run")).expect("there is a run directory");
    for file in [net.socket(), net.socket().with_extension("sock.lock")] {
        // The daemon takes its socket with it, if there is time.
        drop(std::fs::remove_file(file));
    }
    assert_eq!(net.left_by_up(), ["the store"]);
}

#[test]
fn what_only_the_store_knows_after_a_boot_is_removed_by_the_next_one_or_by_stop() {
    let net = Net::new();
    let mut killed = net.app("killed", &format!("tcp: {TCP}\n"));
    let mut later = net.app("later", &format!("tcp: {TCP}\n"));
    for is_stop in [true, false] {
        killed.start(&[], 1);
        killed.signal(Signal::SIGKILL);
        assert_eq!(killed.ended(), None);
        assert!(wait_until(PATIENCE, || killed.processes().is_empty()));
        boot(&net);
        if is_stop {
            let cleaned = later.cli(&["stop"]).exits(0);
            assert!(cleaned.stderr.contains("cleaned up after"), "{cleaned}");
            let again = later.cli(&["stop"]).exits(0);
            assert_eq!(again.stderr, "");
        } else {
            later.start(&[], 1);
            later.prints("removed the resource of up-killed-");
            assert_eq!(later.port(), killed.port(), "the port is free again");
            later.stop(Signal::SIGINT);
            let printed = later.printed();
            // The machine has not booted, but has lost what an earlier daemon remembered.
            let mut lines = printed.lines().filter(|line| !line.contains(".memory is missing"));
            assert!(
                !lines.any(|line| line.contains("problem") || line.contains("ERROR")),
                "{printed}"
            );
        }
        assert_eq!(net.left_by_up(), Vec::<String>::new(), "{is_stop}");
    }
}

/// Remains of another network namespace in a shared store are removed: a store and a run directory may be used in several network
/// namespaces, one after the other.
#[test]
fn what_another_network_namespace_has_left_in_the_store_is_removed() {
    let net = Net::new();
    let mut killed = net.app("killed", &format!("tcp: {TCP}\n"));
    killed.start(&[], 1);
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.ended(), None);
    assert!(wait_until(PATIENCE, || killed.processes().is_empty()));
    assert!(wait_until(PATIENCE, || !has_daemon(&net)), "the daemon lives on");
    let mut other = net.app("other", &format!("tcp: {TCP}\n"));
    let command = other.command_in("client", &[]);
    other.launch_as(command);
    other.prints("TCP_URL=");
    other.prints("removed the resource of up-killed-");
    other.stop(Signal::SIGINT);
    let tables = net.sh("client", "nft list tables").ok();
    assert_eq!(tables, "", "{}", other.printed());
    let cleaned = killed.cli(&["stop"]).exits(0);
    assert!(cleaned.stderr.contains("cleaned up after"), "{cleaned}");
    assert_eq!(net.left_by_up(), Vec::<String>::new());
}

#[test]
fn whenever_it_is_killed_stop_leaves_nothing() {
    let net = Net::new();
    let mut app = net.app("app", &format!("web: exec sleep 1000\ntcp: {TCP}\n"));
    // While it begins, and while it ends.
    for (run, end) in [
        (20, None),
        (120, None),
        (300, None),
        (700, None),
        (2000, Some(20)),
        (2000, Some(100)),
        (2000, Some(250)),
    ] {
        app.launch(&["-m", "web=1,tcp=2"]);
        std::thread::sleep(Duration::from_millis(run));
        if let Some(end) = end {
            app.signal(Signal::SIGINT);
            std::thread::sleep(Duration::from_millis(end));
        }
        app.signal(Signal::SIGKILL);
        app.ended();
        assert!(
            wait_until(PATIENCE, || app.processes().is_empty()),
            "{run} {end:?}: {:?}",
            app.processes()
        );
        let cleaned = app.cli(&["stop"]);
        assert_eq!(cleaned.status, 0, "{run} {end:?}: {cleaned}");
        assert_eq!(net.left_by_up(), Vec::<String>::new(), "{run} {end:?}: {cleaned}");
    }
}

#[test]
fn a_helper_that_is_killed_takes_its_process_with_it() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&[], 1);
    // The shell's parent is the first process of its namespace, whose parent is the helper.
    let shell = app.ps()[0]["pid"].as_i64().expect("a number");
    let parent = |pid: i64| -> i64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let after = stat
            .rsplit(')')
            .next()
            .expect("a name")
            .split_whitespace()
            .nth(1)
            .expect("a parent");
        after.parse().expect("a number")
    };
    let helper = parent(parent(shell));
    let before = app.processes();
    kill(Pid::from_raw(i32::try_from(helper).expect("a number")), Signal::SIGKILL).expect("it runs");
    app.prints("is started again in 1s");
    let are_gone = || app.processes().iter().all(|pid| !before.contains(pid));
    assert!(wait_until(PATIENCE, are_gone), "{before:?} {:?}", app.processes());
    assert!(wait_until(PATIENCE, || app.serving() == 1), "{}", app.printed());
    app.stop(Signal::SIGINT);
}

/// Links and the resource of a running `tcpgw up` stay its own with any run directory, because they name their owner themselves.
#[test]
fn what_a_living_one_has_made_is_its_own_in_whatever_run_directory() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.start(&[], 1);
    let elsewhere = |app: &super::App<'_>, args: &[&str]| {
        let mut command = app.command(args);
        let output = command.env("TCPGW_RUN_DIR", net.file("elsewhere")).output();
        let output = output.expect("failed to run tcpgw up");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, told) = elsewhere(&app, &[]);
    let running = format!("runs in this directory already (process {})", app.pid());
    assert!(code == Some(1) && told.contains(&running), "{told}");
    assert_eq!(elsewhere(&app, &["stop"]), (Some(0), String::new()));
    assert_eq!(app.serving(), 1);
    assert_eq!(app.ask().expect("an answer"), "tcp.1");

    app.signal(Signal::SIGKILL);
    assert_eq!(app.ended(), None);
    assert!(wait_until(PATIENCE, || app.processes().is_empty()));
    assert!(wait_until(PATIENCE, || !has_daemon(&net)), "the daemon lives on");
    std::fs::remove_dir_all(net.file("run")).expect("there is a run directory");
    drop(std::fs::remove_file(net.socket().with_extension("sock.lock")));
    let (code, told) = elsewhere(&app, &["stop"]);
    assert!(code == Some(0) && told.contains("cleaned up after"), "{told}");
    assert_eq!(net.left_by_up(), Vec::<String>::new());
}

/// The next `tcpgw up` waits for the daemon of one that was killed: that daemon holds the socket and the lock of the network
/// namespace until it ends.
#[test]
fn the_next_one_waits_for_the_daemon_of_one_that_was_killed() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    for is_stop in [false, true] {
        app.start(&[], 1);
        let daemon = Pid::from_raw(net.daemon_of_up().expect("it is noted"));
        kill(daemon, Signal::SIGSTOP).expect("it runs");
        app.signal(Signal::SIGKILL);
        assert_eq!(app.ended(), None);
        assert!(wait_until(PATIENCE, || app.processes().is_empty()));
        let goes_on = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3500));
            kill(daemon, Signal::SIGCONT)
        });
        std::fs::remove_file(app.log()).expect("there is a log");
        let stderr = if is_stop {
            app.cli(&["stop"]).exits(0).stderr
        } else {
            app.start(&[], 1);
            app.printed()
        };
        assert!(
            stderr.contains("waiting for the daemon of a `tcpgw up` that was killed to end"),
            "{stderr}"
        );
        goes_on.join().expect("no panic").expect("it was there");
        if !is_stop {
            app.stop(Signal::SIGINT);
        }
        assert_eq!(net.left_by_up(), Vec::<String>::new(), "{}", app.printed());
    }
}
