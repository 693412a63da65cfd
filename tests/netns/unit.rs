//! The daemon does not need what the shipped systemd unit forbids.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::harness::shell::TCPGW;
use super::harness::state::state;
use super::harness::{Net, wait_until};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/systemd/tcpgw.service");
/// System calls that the unit refuses on purpose: `LimitNOFILE` has had their effect already, and the daemon goes on without
/// them.
const TOLERATED: [&str; 2] = ["prlimit64", "setrlimit"];

/// Returns the system calls of a group, as this machine's systemd knows them.
fn members(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return [name.to_owned()].into();
    }
    let listed = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", name])
        .output()
        .expect("systemd-analyze runs");
    assert!(listed.status.success(), "{name}: {listed:?}");
    let text = String::from_utf8(listed.stdout).expect("text");
    let words = text.lines().skip(1).map(str::trim);
    let words = words.filter(|word| !word.is_empty() && !word.starts_with('#') && *word != name);
    words.flat_map(members).collect()
}

/// Returns the system calls that `SystemCallFilter=` allows: see systemd.exec(5).
fn allowed(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denies, names) = match filter.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, filter),
        };
        for name in names.split_whitespace().flat_map(members) {
            if denies {
                allowed.remove(&name);
            } else {
                allowed.insert(name);
            }
        }
    }
    allowed
}

#[test]
fn the_daemon_makes_no_system_call_that_its_unit_forbids() {
    let net = Net::new();
    let file = |name: &str| net.file(name).to_string_lossy().into_owned();
    let (calls, socket) = (file("calls"), file("socket"));
    let wanted = net.state_file(
        "wanted.json",
        state(&[json!({"name": "a", "port": 20003, "backends": ["10.2.0.11:3000"]})]),
    );
    let (store, run) = (file("store.db"), file("run"));
    let daemon = net.spawn(
        "gateway",
        &[
            "strace", "-f", "-qq", "-c", "-S", "name", "-o", &calls, TCPGW, "daemon", "--state", &wanted, "--socket",
            &socket, "--store", &store,
        ],
    );
    let up = || net.tcpgw(&["--socket", &socket, "status"]).stdout.contains("20003");
    assert!(wait_until(Duration::from_secs(30), up), "it does not start");
    for words in [
        &["service", "add", "b", "--port", "20004", "--backend", "10.2.0.12:3000"][..],
        &["status", "-o", "json"],
        &["flows"],
        &["history"],
        &["service", "rm", "b"],
        &["doctor"],
    ] {
        net.tcpgw(&[&["--socket", &socket], words].concat());
    }
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.id())).expect("strace has a child");
    let pid: i32 = child.split_whitespace().next().expect("one").parse().expect("a number");
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
    signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    net.tcpgw(&["--socket", &socket, "teardown"]).exits(0);
    signal(Signal::SIGTERM);
    daemon.wait().exits(0);
    assert!(fs::metadata(run).is_ok());

    let table = fs::read_to_string(calls).expect("a summary");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // `% time  seconds  usecs/call  calls  [errors]  syscall`
    let rows = rows.filter(|row| row.len() >= 5 && row[0].parse::<f64>().is_ok() && row[row.len() - 1] != "total");
    let made: BTreeSet<String> = rows.map(|row| row[row.len() - 1].to_owned()).collect();
    assert!(made.contains("sendmsg") && made.len() > 30, "{table}");
    let allowed = allowed(&fs::read_to_string(UNIT).expect("the unit"));
    let of_start = ["execve".to_owned()];
    let forbidden: Vec<_> = made
        .iter()
        .filter(|name| !allowed.contains(*name) && !of_start.contains(name) && !TOLERATED.contains(&name.as_str()))
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}
