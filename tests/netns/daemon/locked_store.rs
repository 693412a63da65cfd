//! A store that another process, a backup say, has locked when the daemon starts.

use std::fs;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// Returns the message of the problem about the store, if there is one.
fn trouble(daemon: &Daemon<'_>) -> Option<String> {
    let view = daemon.get("/v1/daemon");
    let mut problems = view["problems"].as_array().into_iter().flatten();
    let store = problems.find(|problem| problem["kind"] == "store")?;
    Some(store["message"].as_str().expect("text").to_owned())
}

#[track_caller]
fn serves(net: &Net) {
    for port in [2001, 2002, 2003] {
        let spread = net.spread("client", at(PUBLIC[0], port), 5);
        assert_eq!(spread.values().sum::<usize>(), 5, "port {port}: {spread:?}");
    }
}

/// Services go on while the store is locked, also when it turns out to be older than the last services. An operator who accepts
/// it can change services again, and services that it does not have are orphans.
#[test]
fn a_store_that_is_locked_at_the_start_is_taken_when_it_can_be_read() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("file", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(&[]);
    let [backend, _] = endpoints("b2", 3000);
    let add = |name: &str, port: &str| {
        net.cli(&["service", "add", name, "--port", port, "--backend", &backend])
            .ok();
        net.cli(&["wait", name, "--for", "healthy"]).ok();
    };
    add("known", "2002");
    let (store, older) = (net.file("store.db"), net.file("older.db"));
    let log = net.file("store.db-wal");
    let is_whole = || fs::metadata(&log).is_ok_and(|log| log.len() == 0);
    assert!(
        wait_until(PATIENCE, is_whole),
        "the file alone is the store after a second"
    );
    fs::copy(&store, &older).expect("a copy");
    add("late", "2003");
    // The record follows a change after a second.
    thread::sleep(Duration::from_millis(2500));
    let revision = net.told(&["service", "show", "known"])["revision"].clone();
    daemon.kill();
    fs::copy(&older, &store).expect("the copy in its place");
    let backup = Connection::open(&store).expect("a store");
    backup.execute_batch("BEGIN EXCLUSIVE").expect("it is free");
    daemon.start();
    assert!(wait_until(PATIENCE, || trouble(&daemon).is_some()));
    let problem = trouble(&daemon).expect("the store is locked");
    assert!(
        problem.contains(&format!("process {}", std::process::id())),
        "{problem}"
    );
    serves(&net);
    let refused = net.cli(&["service", "set", "known", "--pps", "500"]);
    assert!(refused.status == 1 && refused.stderr.contains("in use by"), "{refused}");

    drop(backup);
    let is_older = || trouble(&daemon).is_some_and(|problem| problem.contains("is older than what was served last"));
    assert!(wait_until(PATIENCE, is_older), "{:?}", trouble(&daemon));
    serves(&net);
    // As the message says.
    daemon.stop();
    fs::remove_file(net.file("store.db.last")).expect("it is there");
    daemon.start();
    assert!(
        wait_until(PATIENCE, || trouble(&daemon).is_none()),
        "{:?}",
        trouble(&daemon)
    );
    serves(&net);
    let answer = net.told(&["service", "show", "known"]);
    assert_eq!(
        (&answer["revision"], &answer["provider"]),
        (&revision, &json!("api")),
        "{answer:#}"
    );
    assert_eq!(net.told(&["service", "show", "late"])["provider"], "orphan");
    net.cli(&["service", "set", "known", "--label", "a=b"]).ok();
    serves(&net);
    daemon.stop();
}
