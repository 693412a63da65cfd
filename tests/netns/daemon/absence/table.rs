//! A table that is gone: after a boot, a teardown, or by another program.

use std::{fs, thread};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{RECORDED, begin, of_file, orphaned, provider_of, serves, serves_soon};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// A daemon without a state file serves what `apply` has left.
#[test]
fn a_daemon_without_a_file_serves_what_apply_has_left() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(of_file());
    let mut daemon = net.daemon_without_state(&[]);
    serves(&net, &[2001]);
    provider_of(&net, "file", "orphan");
    daemon.settles(2);
    let status = net.cli(&["status"]).exits(0);
    assert!(
        status.stdout.contains("orphan") && status.stdout.contains("tcpgw service rm"),
        "{status}"
    );
    for _ in 0..2 {
        daemon.kill();
        daemon.start();
        serves(&net, &[2001]);
    }
    provider_of(&net, "file", "orphan");
    // The orphan ends by its name, and does not return.
    net.cli(&["service", "rm", "file"]).ok();
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2001))
        .is_err()));
    thread::sleep(RECORDED);
    daemon.kill();
    daemon.start();
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
    assert!(wait_until(PATIENCE, || net.told(&["service", "ls"])["services"] == json!([])));
}

/// A machine that boots without its files serves.
#[test]
fn a_machine_that_boots_without_its_files_serves() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.stop();
    // As after a boot, there are neither rules nor a run directory.
    net.sh("gateway", "nft delete table inet tcpgw; conntrack -F").ok();
    let _ = fs::remove_dir_all(net.file("run"));
    fs::rename(net.file("store.db"), net.file("away.db")).expect("it is there");
    fs::remove_file(net.wanted()).expect("it is there");
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
    net.want(of_file());
    daemon.settles(3);
    serves(&net, &[2001, 2002]);
}

/// A teardown ends with `tcpgw resume`, and with nothing else.
#[test]
fn a_teardown_ends_by_a_word_alone() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    net.cli(&["teardown"]).ok();
    assert_eq!(daemon.events_of("torn_down")[0]["uid"], 0);
    let closed = |net: &Net| {
        [2001, 2002]
            .iter()
            .all(|port| net.connect("client", at(PUBLIC[0], *port)).is_err())
    };
    assert!(closed(&net));
    let set = net.cli(&["service", "set", "api", "--label", "x=y"]).exits(0);
    assert!(set.stderr.contains("tcpgw resume"), "{set}");
    net.want(state([service("file", 2001, &["b1", "b3"], 3000, json!({}))]));
    daemon.signal(Signal::SIGHUP);
    let status = net.cli(&["status"]).exits(1);
    assert!(status.stdout.contains("tcpgw resume"), "{status}");
    daemon.kill();
    daemon.start();
    assert!(closed(&net), "a restart is no word");
    net.cli(&["status"]).exits(1);
    net.cli(&["resume"]).ok();
    daemon.settles(5);
    serves(&net, &[2001, 2002]);
}

/// An orphan that the kernel has lost is not forgotten by an `apply` that comes before the next daemon.
#[test]
fn an_orphan_outlives_a_lost_table_and_an_apply() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = orphaned(&net);
    daemon.stop();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(0);
    assert!(ran.stderr.contains("does not hold: file"), "{ran}");
    serves(&net, &[2003]);
    daemon.start();
    serves_soon(&net, &[2001, 2003]);
    provider_of(&net, "file", "orphan");
}

/// After the kernel has lost its table, the first `apply` does not take the port of an API service either.
#[test]
fn a_port_of_the_api_is_not_taken_after_the_table_was_lost() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    thread::sleep(RECORDED);
    daemon.kill();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    let other = state([service("other", 2002, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(2);
    assert!(
        ran.stderr.contains("port 2002 is already taken by service \"api\""),
        "{ran}"
    );
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
}

/// A service of the API is served again after the table and the store were lost, with an `apply` in between.
#[test]
fn a_service_of_the_api_outlives_a_lost_table_an_apply_and_a_lost_store() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    // Twice: the second one finds no table that lacks it, and no record that has it.
    for _ in 0..2 {
        let ran = net.apply_alone(&of_file()).exits(0);
        assert!(ran.stderr.contains("does not hold: api"), "{ran}");
    }
    fs::remove_file(net.file("store.db")).expect("a store");
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
}
