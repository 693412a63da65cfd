//! A daemon that hangs or was killed, and its watchdog.

use std::fs::{self};

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::timed;
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// The watchdog is fed while no work is due in the loop: without services, after a teardown, and without checks.
#[test]
fn an_idle_daemon_keeps_its_watchdog_fed() {
    const WATCHDOG: Duration = Duration::from_secs(4);
    let net = Net::new();
    net.want(state([]));
    let path = net.file("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let variables = [
        ("NOTIFY_SOCKET", path.to_string_lossy().into_owned()),
        ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ("TCPGW_CHECK_INTERVAL", "0s".to_owned()),
    ];
    let mut daemon = net.daemon_within(&variables);
    let is_fed = |time: Duration, what: &str| {
        let begin = Instant::now();
        let mut last = begin;
        while begin.elapsed() < time {
            let mut told = [0; 1024];
            let length = manager
                .recv(&mut told)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            if String::from_utf8_lossy(&told[..length])
                .lines()
                .any(|line| line == "WATCHDOG=1")
            {
                let gap = last.elapsed();
                assert!(gap < WATCHDOG / 2, "{what}: {gap:?}");
                last = Instant::now();
            }
        }
        assert!(last > begin, "{what}: the watchdog was told nothing");
    };
    is_fed(WATCHDOG * 2, "no services");
    daemon.post("/v1/teardown", "").ok();
    is_fed(WATCHDOG * 2, "torn down");
    daemon.stop();
}

/// A stopped daemon, which accepts connections without answering, is named soon.
#[test]
fn a_daemon_that_hangs_is_named_soon() {
    let net = Net::new();
    net.want(state([]));
    let daemon = net.daemon(&[]);
    daemon.signal(Signal::SIGSTOP);
    let (hung, took) = timed(|| net.cli(&["status"]));
    daemon.signal(Signal::SIGCONT);
    assert_eq!(hung.status, 1, "{hung}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(hung.stderr.contains(&format!("process {}", daemon.id())), "{hung}");
    assert!(hung.stderr.contains("tcpgw --socket none status"), "{hung}");
    // A command that already has `--socket none` gets other advice: the daemon holds the lock.
    daemon.signal(Signal::SIGSTOP);
    let held = net
        .tcpgw(&["--socket", "none", "teardown", "--lock-timeout", "0s"])
        .exits(1);
    daemon.signal(Signal::SIGCONT);
    assert!(held.stderr.contains("systemctl stop tcpgw"), "{held}");
    assert!(net.cli(&["events"]).status == 0);
}

/// The last change of a daemon that then hangs is in its journal and not in its record, so the change is not reported as another
/// program's.
#[test]
fn a_daemon_that_hangs_after_a_change_is_what_the_doctor_says_first() {
    for options in [&["--no-owner"][..], &[]] {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
        let daemon = net.daemon(options);
        daemon.settles(2);
        let ask = |words: &[&str]| -> Value {
            let ran = net.tcpgw(&[words, &["-o", "json"]].concat());
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
        };
        let socket = net.socket().to_string_lossy().into_owned();
        let doctor = |socket: &str| ask(&["--socket", socket, "doctor"])["findings"].clone();
        let ids = |findings: &Value| -> Vec<String> {
            let findings = findings.as_array().expect("a list").iter();
            findings.map(|finding| finding["id"].to_string()).collect()
        };
        let of_table = |findings: &Value| ids(findings).iter().any(|id| id.contains("table-"));
        let journal = || {
            let files = fs::read_dir(net.file("run")).into_iter().flatten().flatten();
            let mut paths = files.map(|file| file.path());
            paths.any(|path| path.extension().is_some_and(|ending| ending == "journal"))
        };
        assert!(wait_until(PATIENCE, || !journal()), "no record is written");
        // Within a second, after which the record is written.
        let add = ["service", "add", "api", "--port", "2002", "--backend", "10.2.0.12:3000"];
        net.cli(&add).ok();
        daemon.signal(Signal::SIGSTOP);
        assert!(journal(), "the record has been written already");
        let found = doctor(&socket);
        assert_eq!(found[0]["id"], "daemon-not-answering", "{found:#}");
        let accuses = |findings: &Value| ids(findings).iter().any(|id| id.contains("table-changed"));
        assert!(!accuses(&found), "{found:#}");
        assert!(!accuses(&doctor("none")));
        let status = ask(&["--socket", "none", "status", "--interval", "0s"]);
        assert!(!status["problems"].to_string().contains("table_changed"), "{status:#}");
        assert_eq!(status["services"][1]["name"], "api", "{status:#}");
        if options.is_empty() {
            // A note, where the kernel can do that.
            assert!(!found.to_string().contains("a running program owns"), "{found:#}");
        } else {
            assert!(!of_table(&found), "{found:#}");
            // A change that the journal does not explain is another program's.
            net.nft("gateway", "flush map inet tcpgw slots_v4");
            let found = doctor(&socket);
            assert_eq!(found[0]["id"], "daemon-not-answering", "{found:#}");
            assert!(accuses(&found), "{found:#}");
        }
        daemon.signal(Signal::SIGCONT);
        assert!(wait_until(PATIENCE * 2, || !accuses(&doctor(&socket))));
        net.cli(&["service", "rm", "api"]).ok();
        assert!(wait_until(PATIENCE, || daemon
            .get("/v1/services")
            .to_string()
            .matches("\"provider\"")
            .count()
            == 1));
    }
}

#[test]
fn a_daemon_that_was_killed_is_told_by_status() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let without = |args: &[&str]| net.tcpgw(&[&["--socket", "none"], args].concat());
    let running = without(&["status", "-o", "json", "--interval", "0s"]);
    assert!(running.stdout.contains("daemon_unreachable"), "{running}");
    let needs = without(&["service", "ls"]).exits(1);
    assert!(needs.stderr.contains(&format!("process {}", daemon.id())), "{needs}");
    let pid = daemon.id();
    daemon.kill();
    let gone = without(&["status", "--interval", "0s"]).exits(1);
    let text = format!("(process {pid}) was killed or has crashed");
    assert!(gone.stdout.contains(&text), "{gone}");
    let needs = without(&["service", "ls"]).exits(1);
    assert!(needs.stderr.contains(&text), "{needs}");
    daemon.start();
    daemon.stop();
    let ended = without(&["status", "-o", "json", "--interval", "0s"]);
    assert!(!ended.stdout.contains("daemon_"), "{ended}");
}
