//! A store, or its copy, that is damaged or lost.

use std::fs;

use serde_json::json;

use super::{begin, orphaned, provider_of, serves, serves_soon};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// A damaged copy of the last services is a problem and is kept, when a machine boots with it and with a lost store.
#[test]
fn a_damaged_copy_of_what_was_desired_is_a_problem_and_is_kept() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let add = ["service", "add", "api", "--port", "2002", "--backend", "10.2.0.11:3000"];
    net.cli(&add).ok();
    let copy = net.file("store.db.last");
    assert!(wait_until(PATIENCE, || fs::read_to_string(&copy)
        .is_ok_and(|text| text.contains("2002"))));
    daemon.stop();
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(net.file(file));
    }
    fs::remove_dir_all(net.file("run")).expect("it is there");
    net.run("gateway", &["nft", "delete", "table", "inet", "tcpgw"]).ok();
    let text = fs::read(&copy).expect("it is there");
    let damaged = &text[..text.len() - 3];
    fs::write(&copy, damaged).expect("written");
    daemon.start();
    let healthz = |daemon: &Daemon<'_>| daemon.ask("GET", "/v1/healthz", "").map_or(0, |told| told.status);
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 503), "{}", daemon.logged());
    let status = net.cli(&["status", "--interval", "0s"]).exits(1);
    assert!(status.stdout.contains("store.db.last.damaged"), "{status}");
    let doctor = net.cli(&["doctor"]);
    assert!(doctor.stdout.contains("store.db.last.damaged"), "{doctor}");
    // A new one is written, and the old one is kept, over a restart, too.
    assert!(wait_until(PATIENCE, || copy.exists()));
    daemon.kill();
    daemon.start();
    assert_eq!(
        fs::read(net.file("store.db.last.damaged")).expect("it is there"),
        damaged
    );
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 503), "{}", daemon.logged());
    fs::remove_file(net.file("store.db.last.damaged")).expect("it is there");
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 200), "{}", daemon.logged());
}

/// A lost store takes no service with it when the printed steps are followed: move the store away, start, export, apply.
#[test]
fn a_store_that_is_lost_takes_no_service_with_it() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    let exported = net.cli(&["export"]).ok();
    daemon.kill();
    fs::write(net.file("store.db"), "damaged").expect("a store");
    daemon.start();
    serves(&net, &[2001, 2002]);
    assert!(daemon.get("/v1/daemon")["store"].is_string());
    daemon.kill();
    fs::rename(net.file("store.db"), net.file("away.db")).expect("it is there");
    let record = fs::read_dir(net.file("run")).expect("a directory").flatten();
    for file in record.filter(|file| file.file_name().to_string_lossy().ends_with(".state")) {
        fs::remove_file(file.path()).expect("it is there");
    }
    daemon.start();
    serves(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
    provider_of(&net, "file", "file");
    assert_eq!(net.cli(&["export"]).ok(), exported, "labels and timeouts, too");
    let file = net.file("exported.json");
    fs::write(&file, &exported).expect("a file");
    net.cli(&["apply", file.to_str().expect("text")]).ok();
    provider_of(&net, "api", "api");
    serves(&net, &[2001, 2002]);
    // The problem is reported until `store.db.lost` is removed, also after a restart.
    daemon.kill();
    daemon.start();
    assert!(wait_until(PATIENCE, || net
        .cli(&["status"])
        .stdout
        .contains("store.db.lost")));
    fs::remove_file(net.file("store.db.lost")).expect("it is there");
    assert!(wait_until(PATIENCE, || !net
        .cli(&["status"])
        .stdout
        .contains("store.db.lost")));
}

/// An orphan is not pruned while the file of last services cannot be written, because only that file tells that it was pruned.
#[test]
fn an_orphan_that_cannot_be_forgotten_is_not_pruned() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = orphaned(&net);
    daemon.kill();
    let blocked = net.file("store.db.last.new");
    fs::create_dir(&blocked).expect("a directory");
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone_with(&other, "--prune").exits(1);
    assert!(
        ran.stderr.contains("store.db.last") && ran.stderr.contains("nothing was changed"),
        "{ran}"
    );
    serves(&net, &[2001]);
    fs::remove_dir(&blocked).expect("it is there");
    // An orphan is not pruned either while the record cannot be written, from which the next daemon would serve it again.
    let run = fs::read_dir(net.file("run")).expect("it is there");
    let mut records = run.map(|entry| entry.expect("an entry").path());
    let record = records.find(|path| path.extension().is_some_and(|ending| ending == "state"));
    let record = record.expect("a record");
    let blocked = ["new", "journal.new"].map(|ending| record.with_extension(ending));
    for path in &blocked {
        fs::create_dir(path).expect("a directory");
    }
    let ran = net.apply_alone_with(&other, "--prune").exits(1);
    assert!(
        ran.stderr.contains(".journal") && ran.stderr.contains("nothing was changed"),
        "{ran}"
    );
    serves(&net, &[2001]);
    for path in &blocked {
        fs::remove_dir(path).expect("it is there");
    }
    net.apply_alone_with(&other, "--prune").exits(0);
    serves(&net, &[2003]);
    daemon.start();
    serves_soon(&net, &[2003]);
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
}
