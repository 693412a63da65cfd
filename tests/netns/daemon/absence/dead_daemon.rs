//! Commands beside a daemon that is dead.

use std::{fs, thread};

use serde_json::json;

use super::{RECORDED, begin, of_file, provider_of, serves, serves_soon};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};

/// `apply` while no daemon runs replaces what a state file has made, and nothing of the API's.
#[test]
fn apply_beside_a_dead_daemon_leaves_the_services_of_its_api() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(0);
    assert!(ran.stderr.contains("api") && ran.stderr.contains("--prune"), "{ran}");
    serves(&net, &[2002, 2003]);
    assert!(
        net.connect("client", at(PUBLIC[0], 2001)).is_err(),
        "the file's was replaced"
    );
    let again = net.apply_alone(&other).exits(0);
    assert!(again.stdout.contains("0 elements"), "{again}");
    // The next daemon finds all of it consistent: a service of another file has no provider.
    daemon.start();
    serves_soon(&net, &[2001, 2002, 2003]);
    provider_of(&net, "api", "api");
    provider_of(&net, "file", "file");
    provider_of(&net, "other", "orphan");
    let empty = net.state_file("empty.json", state([]));
    net.cli(&["apply", "--prune", "--allow-empty", &empty]).ok();
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2003))
        .is_err()));
    serves(&net, &[2001]);
}

/// What was served last can be exported, in whatever way the daemon has ended.
#[test]
fn export_beside_a_dead_daemon_works_from_what_was_served_last() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    let arguments: [&[&str]; 4] = [&[], &["--all"], &["--provider", "file"], &["--provider", "docker"]];
    let export = |options: &[&str]| net.cli(&[&["export"], options].concat()).exits(0);
    let living = arguments.map(|options| export(options).stdout);
    daemon.kill();
    for _ in 0..2 {
        for (options, expected) in arguments.iter().zip(&living) {
            let ran = net
                .tcpgw(&[&["--socket", "none", "export"], *options].concat())
                .exits(0);
            assert_eq!(ran.stdout, *expected, "{options:?}");
            assert!(ran.stderr.contains("no daemon runs"), "{ran}");
        }
        daemon.start();
        daemon.stop();
    }
}

/// A state file beside a dead daemon takes no name, port or backend of the API's services, and may share their backends.
#[test]
fn apply_beside_a_dead_daemon_takes_nothing_from_its_api() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    let before = net.rules();
    for (other, why) in [
        (
            service("api", 2003, &["b3"], 3000, json!({})),
            "is a service of the daemon's API",
        ),
        (
            service("other", 2002, &["b3"], 3000, json!({})),
            "port 2002 is already taken",
        ),
        (
            service("other", 2003, &["b2"], 3000, json!({"limit": {"pps": 500}})),
            "is also a backend of service \"api\"",
        ),
    ] {
        let ran = net.apply_alone(&state([other])).exits(2);
        assert!(ran.stderr.contains(why) && ran.stderr.contains("--prune"), "{ran}");
        serves(&net, &[2001, 2002]);
    }
    assert_eq!(net.rules(), before);
    net.apply_alone(&state([service("other", 2003, &["b2", "b3"], 3000, json!({}))]))
        .exits(0);
    serves(&net, &[2002, 2003]);
    daemon.start();
    serves_soon(&net, &[2001, 2002, 2003]);
    provider_of(&net, "api", "api");
}

/// Services of a file are served again after a boot; `status` names the services that only a daemon can restore.
#[test]
fn status_names_what_only_a_daemon_would_serve() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    thread::sleep(RECORDED);
    let ask = |command: &str| net.sh("gateway", &format!("{TCPGW} --socket none {command}"));
    daemon.stop();
    let status = ask("status --interval 0s").exits(0);
    assert!(!status.stdout.contains("not served"), "{status}");
    net.sh("gateway", "nft delete table inet tcpgw; conntrack -F").ok();
    let _ = fs::remove_dir_all(net.file("run"));
    net.apply_alone(&of_file()).exits(0);
    let status = ask("status --interval 0s").exits(1);
    let said = "1 service of the daemon's API, or that no provider defines, is not served";
    assert!(
        status.stdout.contains(said) && status.stdout.contains(": api;"),
        "{status}"
    );
    let doctor = ask("doctor").exits(1);
    assert!(
        doctor.stdout.contains("broken [not-served]") && doctor.stdout.contains(said),
        "{doctor}"
    );
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    net.cli(&["status", "--interval", "0s"]).exits(0);
}

/// Without any record `apply` removes none of the services in the kernel, because they may be other than a state file's.
#[test]
fn apply_with_no_record_at_all_removes_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    fs::remove_dir_all(net.file("run")).expect("a run directory");
    for entry in fs::read_dir(net.file("")).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("store.db") {
            fs::remove_file(entry.path()).expect("it is removed");
        }
    }
    let ran = net
        .apply_alone(&state([service("other", 2003, &["b3"], 3000, json!({}))]))
        .exits(0);
    assert!(ran.stderr.contains("stay") && ran.stderr.contains("--prune"), "{ran}");
    serves(&net, &[2001, 2002, 2003]);
}

/// Services return after the map of slots was flushed while no daemon ran, although the file that defines one of them is absent.
#[test]
fn what_is_taken_out_of_the_table_without_a_daemon_comes_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    fs::remove_file(net.wanted()).expect("it is there");
    net.sh("gateway", "nft flush map inet tcpgw slots_v4").ok();
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    // The restored services are on record, too.
    thread::sleep(RECORDED);
    daemon.kill();
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
}
