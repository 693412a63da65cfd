//! Changes of single services: many at once, and with a store that cannot take them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tcpgw::store::Store;
use tcpgw_core::model::write::service_value;

use crate::faults::random::Random;
use crate::faults::rounds;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::{Daemon, request_with};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::Ran;
use crate::harness::{Net, wait_until};
use crate::store::with_own_mounts;

const SERVICES: u16 = 8;
const CLIENTS: usize = 16;

fn name(at: u16) -> String {
    format!("s{at}")
}

/// A requested change, and its response.
#[derive(Debug)]
struct Asked {
    begin: Instant,
    end: Instant,
    service: String,
    /// Revision that the request expected.
    expected: Option<u64>,
    /// Label that is set, whose value no other request sets.
    label: (String, String),
    is_patch: bool,
    status: u16,
    body: Value,
}

impl Asked {
    /// Returns the service's revision according to the response.
    fn revision(&self) -> u64 {
        let told = match self.status {
            200 => &self.body["revision"],
            _ => &self.body["error"]["current"]["revision"],
        };
        told.as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// Sends the random changes of one client.
fn change(net: &Net, client: usize, changes: usize, asked: &Mutex<Vec<Asked>>) {
    let mut random = Random::of(client as u64);
    for change in 0..changes {
        let at = u16::try_from(random.below(SERVICES.into())).expect("it is small");
        let (service, target) = (name(at), format!("/v1/services/{}", name(at)));
        let (is_patch, is_conditional) = (random.below(2) == 0, random.below(2) == 0);
        let label = (format!("c{client}"), change.to_string());
        let ask = |request: &[u8]| {
            let answer = net.ask_by("relay.sock", request).expect("an answer");
            (answer.status, answer.json())
        };
        let expected = is_conditional.then(|| {
            let (_, seen) = ask(&request_with("GET", &target, "", ""));
            seen["revision"].as_u64().expect("a revision")
        });
        let headers = expected.map(|revision| format!("if-match: \"{revision}\"\r\n"));
        let labels = json!({"labels": {&label.0: &label.1}});
        let (method, body) = if is_patch {
            ("PATCH", labels)
        } else {
            let backend = format!("10.9.{client}.{at}:80");
            (
                "PUT",
                json!({"port": 2001 + at, "backends": [backend], "labels": labels["labels"]}),
            )
        };
        let request = request_with(method, &target, &headers.unwrap_or_default(), &body.to_string());
        let begin = Instant::now();
        let (status, body) = ask(&request);
        asked.lock().expect("nobody panics").push(Asked {
            begin,
            end: Instant::now(),
            service,
            expected,
            label,
            is_patch,
            status,
            body,
        });
    }
}

/// Returns the history of a service, the oldest first.
fn history(daemon: &Daemon<'_>, service: &str) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let before = entries.last().map(|entry| format!("&before={}", entry["id"]));
        let before = before.unwrap_or_default();
        let page = daemon.get(&format!("/v1/history?service={service}&limit=500{before}"));
        let page = page["entries"].as_array().expect("a list");
        if page.is_empty() {
            entries.reverse();
            return entries;
        }
        entries.extend(page.iter().cloned());
    }
}

/// Asserts that one service's history explains every answer, in an order in which no change comes after one that began when it
/// was over.
#[track_caller]
fn explains(history: &[Value], asked: &[&Asked]) {
    for pair in history.windows(2) {
        assert_eq!(pair[0]["new"], pair[1]["old"], "{pair:#?}");
        let [Some(first), Some(second)] = [&pair[0], &pair[1]].map(|change| change["revision"].as_u64()) else {
            panic!("{pair:#?}")
        };
        assert!(first < second, "{pair:#?}");
    }
    let by_revision: BTreeMap<u64, &Value> = history
        .iter()
        .map(|entry| (entry["revision"].as_u64().expect("a revision"), entry))
        .collect();
    let mut acknowledged = 0;
    for one in asked {
        let entry = by_revision.get(&one.revision()).unwrap_or_else(|| panic!("{one:?}"));
        let (label, value) = (&one.label.0, &one.label.1);
        let is_its = entry["new"]["labels"][label] == **value && entry["old"]["labels"][label] != **value;
        match one.status {
            200 => {
                acknowledged += 1;
                assert!(is_its && entry["new"] == one.body["service"], "{one:?}: {entry:#}");
                let before = by_revision
                    .range(..one.revision())
                    .next_back()
                    .map(|(revision, _)| *revision);
                assert!(one.expected.is_none() || one.expected == before, "{one:?}: {before:?}");
                let mut patched = entry["old"].clone();
                patched["labels"][label] = value.clone().into();
                assert!(!one.is_patch || patched == entry["new"], "{one:?}: {entry:#}");
            }
            412 => {
                let current = &one.body["error"]["current"];
                assert_eq!(entry["new"], current["service"], "{one:?}");
                assert!(
                    one.expected.is_some_and(|expected| expected < one.revision()),
                    "{one:?}"
                );
            }
            _ => panic!("{one:?}"),
        }
    }
    // Each acknowledged request has changed something, and nothing else has; one entry is of the beginning.
    assert_eq!(acknowledged + 1, history.len());
    let mut by_begin = asked.to_vec();
    by_begin.sort_by_key(|one| one.begin);
    let mut by_end = asked.to_vec();
    by_end.sort_by_key(|one| one.end);
    let (mut over, mut newest) = (by_end.iter().peekable(), 0);
    for one in by_begin {
        while let Some(ended) = over.next_if(|ended| ended.end < one.begin) {
            newest = newest.max(ended.revision());
        }
        let is_later = match one.status {
            200 => one.revision() > newest,
            _ => one.revision() >= newest,
        };
        assert!(is_later, "{newest} was known before {one:?}");
    }
}

#[test]
fn concurrent_changes_are_linearizable() {
    let net = Net::new();
    let total = rounds("TCPGW_CHANGES", 400);
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    for at in 0..SERVICES {
        let body = json!({"port": 2001 + at, "backends": [], "labels": {"first": "0"}}).to_string();
        let made = daemon.ask("PUT", &format!("/v1/services/{}", name(at)), &body);
        assert_eq!(made.expect("an answer").status, 201);
    }
    let asked = Mutex::default();
    let begin = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (net, asked) = (&net, &asked);
            let share = total / CLIENTS + usize::from(client < total % CLIENTS);
            scope.spawn(move || change(net, client, share, asked));
        }
    });
    let took = begin.elapsed();
    let asked: Vec<Asked> = asked.into_inner().expect("nobody panics");
    let refused = asked.iter().filter(|one| one.status == 412).count();
    eprintln!("{} changes, {refused} of them refused, in {took:?}", asked.len());
    assert_eq!(asked.len(), total);
    assert!(refused > 0 && refused < total / 2, "{refused}");
    let mut last = BTreeMap::new();
    for at in 0..SERVICES {
        let history = history(&daemon, &name(at));
        let of_it: Vec<&Asked> = asked.iter().filter(|one| one.service == name(at)).collect();
        explains(&history, &of_it);
        let newest = history.last().expect("it was made").clone();
        let answer = daemon.get(&format!("/v1/services/{}", name(at)));
        assert_eq!(
            (&answer["service"], &answer["revision"]),
            (&newest["new"], &newest["revision"])
        );
        last.insert(name(at), answer["service"].clone());
    }
    let exported = net.cli(&["export"]).ok();
    daemon.kill();
    // Acknowledged changes are on the disk.
    let mut store = Store::open(&net.file("store.db")).expect("a store");
    let loaded = store.load().expect("it can be read").services;
    let stored = loaded
        .iter()
        .map(|stored| (stored.service.name.to_string(), service_value(&stored.service)));
    assert_eq!(stored.collect::<BTreeMap<_, _>>(), last);
    drop(store);
    daemon.start();
    assert_eq!(net.cli(&["export"]).ok(), exported);
}

fn tmpfs(at: &Path, options: &str) {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("a tmpfs");
}

fn remount(at: &Path, flags: MsFlags) {
    let none = None::<&str>;
    mount(none, at, none, MsFlags::MS_REMOUNT | flags, none).expect("it can be remounted");
}

/// Remounts a directory in the daemon's mounts, because `ip netns exec` has given the daemon its own.
fn remount_for(daemon: &Daemon<'_>, at: &Path, option: &str) {
    let mut command = Command::new("nsenter");
    command.args(["-m", "-t", &daemon.id().to_string(), "mount", "-o"]);
    let status = command.arg(format!("remount,{option}")).arg(at).status();
    assert!(status.expect("nsenter runs").success());
}

/// Asserts that both kinds of change are refused with this reason, that `status` fails with the same reason, and that services
/// stay served.
#[track_caller]
fn refuses(net: &Net, why: &str) {
    let is_told = |ran: &Ran| ran.stderr.contains(why) && ran.stderr.contains("store");
    let set = net.cli(&["service", "set", "a", "--pps", "500"]).exits(1);
    assert!(is_told(&set), "{set}");
    let deploy = net
        .cli(&["deploy", "a", "--target", "10.2.0.12:3000", "--timeout", "2s"])
        .exits(1);
    assert!(is_told(&deploy), "{deploy}");
    let status = net.cli(&["status", "--interval", "0s"]).exits(1);
    let stderr = format!("{}{}", status.stdout, status.stderr);
    assert!(
        stderr.contains("the store refuses changes") && stderr.contains(why),
        "{status}"
    );
    let status = net.cli(&["status", "--interval", "0s", "-o", "json"]).exits(1);
    let output: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert!(
        output["daemon"]["store"]
            .as_str()
            .is_some_and(|output| output.contains(why)),
        "{output:#}"
    );
    serves(net, "b1");
}

#[track_caller]
fn serves(net: &Net, host: &str) {
    for address in PUBLIC {
        assert_eq!(net.spread("client", at(address, 2001), 5)[host], 5);
    }
}

/// Asserts that the daemon accepts changes, by a deploy to that host.
#[track_caller]
fn takes(net: &Net, host: &str) {
    let is_well = || net.cli(&["status", "--interval", "0s"]).status == 0;
    assert!(
        wait_until(PATIENCE, is_well),
        "{}",
        net.cli(&["status", "--interval", "0s"])
    );
    let [v4, v6] = crate::harness::brief::endpoints(host, 3000);
    net.cli(&["deploy", "a", "--target", &v4, "--target", &v6, "--until", "switched"])
        .ok();
    net.cli(&["service", "set", "a", "--pps", "1000"]).ok();
    serves(net, host);
    net.cli(&[
        "deploy",
        "a",
        "--target",
        &endpoint("b1", 0),
        "--target",
        &endpoint("b1", 1),
    ])
    .ok();
    net.cli(&["wait", "a", "--for", "drained"]).ok();
}

fn endpoint(host: &str, family: usize) -> String {
    crate::harness::brief::endpoints(host, 3000)[family].clone()
}

#[test]
fn a_store_that_refuses() {
    with_own_mounts(|| {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        let directory = net.file("store");
        fs::create_dir(&directory).expect("a directory");
        tmpfs(&directory, "size=2m,mode=0700");
        let path = directory.join("store.db");
        net.want(state([]));
        let mut daemon = net.daemon_storing(path.clone(), &[]);
        let a = service("a", 2001, &["b1"], 3000, json!({"drain_timeout": "1s"}));
        let made = daemon.ask("PUT", "/v1/services/a", &a.to_string());
        assert_eq!(made.expect("an answer").status, 201);
        net.cli(&["wait", "a", "--for", "healthy"]).ok();
        takes(&net, "b2");

        // There is no room, neither on the disk nor in the store's log, which is empty once it has been moved into its file.
        let fillers = [directory.join("filler"), directory.join("filler-2")];
        let fill = |filler: &Path| {
            let log = directory.join("store.db-wal");
            let is_empty = || fs::metadata(&log).map_or(0, |log| log.len()) == 0;
            assert!(wait_until(PATIENCE * 2, is_empty), "the log is moved into its file");
            drop(fs::write(filler, vec![0; 4 << 20]));
        };
        fill(&fillers[0]);
        refuses(&net, "no space is left");
        // And so does one that starts there.
        daemon.kill();
        daemon.start();
        fill(&fillers[1]);
        refuses(&net, "no space is left");
        for filler in &fillers {
            drop(fs::remove_file(filler));
        }
        takes(&net, "b2");

        // Files that are open for writing keep it from becoming read-only.
        daemon.kill();
        remount(&directory, MsFlags::MS_RDONLY);
        daemon.start();
        refuses(&net, "read-only");
        remount(&directory, MsFlags::empty());
        remount_for(&daemon, &directory, "rw");
        takes(&net, "b3");

        // Something else has written into it.
        daemon.stop();
        let whole = fs::read(&path).expect("a store");
        let mut damaged = whole.clone();
        for at in (512..damaged.len()).step_by(64) {
            damaged[at] ^= 0x55;
        }
        fs::write(&path, &damaged).expect("it can be written");
        daemon.start();
        refuses(&net, "damaged");
        daemon.stop();
        serves(&net, "b1");
        fs::write(&path, &whole).expect("it can be written");
        daemon.start();
        takes(&net, "b4");
        daemon.kill();
        umount2(&directory, MntFlags::MNT_DETACH).expect("it is mounted");
    });
}
