//! Problems whose evidence the kernel has no more, over restarts of the daemon.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{OPTIONS, problem};
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at, crowd};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// Ends the daemon by SIGKILL and by SIGTERM, and sees each time that the next one reports the problem.
#[track_caller]
fn stays<'a>(net: &Net, daemon: &mut Daemon<'a>, kind: &str, severity: &str, says: &str) {
    let ends: [fn(&mut Daemon<'a>); 2] = [Daemon::kill, Daemon::stop];
    for end in ends {
        end(daemon);
        daemon.start();
        let reported = || problem(net, kind).filter(|told| told["severity"] == severity);
        assert!(wait_until(PATIENCE * 3, || reported().is_some()), "{kind} is not told");
        let answer = reported().expect("it stays");
        assert!(answer["message"].to_string().contains(says), "{answer}");
    }
}

/// Returns the path of the file in which the daemon keeps what it remembers for the next one.
fn memory(net: &Net) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(net.file("run")).expect("the run directory").flatten();
    let file = files.find(|entry| entry.file_name().to_string_lossy().ends_with(".memory"));
    file.map(|file| file.path())
}

/// Returns the numbers of the address families that such a file names.
fn families(memory: &str) -> Vec<u64> {
    let memory: Value = serde_json::from_str(memory).unwrap_or_default();
    let families = memory["memory"]["families"].as_array().cloned().unwrap_or_default();
    families.iter().filter_map(|family| family[0].as_u64()).collect()
}

#[test]
fn a_lost_address_and_family_are_told_after_restarts() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    // The file is there from the start; the family is in it once the addresses were read.
    let kept = || {
        memory(&net)
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default()
    };
    assert!(wait_until(PATIENCE * 3, || families(&kept()).contains(&6)));
    let _open = net.within("client", || {
        crate::harness::client::connect(at(PUBLIC[1], 2001), PATIENCE)
    });
    net.sh(
        "gateway",
        "ip addr del 2001:db8:1::1/64 dev ext; ip addr del 2001:db8:1::2/64 dev ext; ip -6 addr flush dev far scope global",
    )
    .ok();
    assert!(wait_until(PATIENCE * 3, || problem(&net, "no_public_address").is_some()));
    stays(&net, &mut daemon, "no_public_address", "error", "its only IPv6 address");
    stays(&net, &mut daemon, "address_lost", "warning", "2001:db8:1::1");
    net.sh(
        "gateway",
        "ip addr add 2001:db8:1::1/64 dev ext nodad; ip addr add 2001:db8:1::2/64 dev ext nodad",
    )
    .ok();
    assert!(wait_until(PATIENCE * 3, || problem(&net, "no_public_address").is_none()));
    assert!(wait_until(PATIENCE * 3, || problem(&net, "address_lost").is_none()));
}

/// conntrack has no connection any more of the clients that were served, as after resets.
#[test]
fn rules_that_drop_all_who_were_served_are_told_after_restarts() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    let serve = || {
        for n in 1..=4 {
            let conn = net.connect_from("client", crowd(n)[0], at(PUBLIC[0], 2001));
            conn.and_then(|mut conn| conn.greeting()).expect("it is served");
        }
    };
    serve();
    // The daemon has to have seen them.
    std::thread::sleep(std::time::Duration::from_secs(3));
    net.nft(
        "gateway",
        "table ip mine { chain c { type filter hook forward priority 0; ip saddr 198.18.0.0/15 drop; }; }",
    );
    net.sh("gateway", "conntrack -F 2>/dev/null").ok();
    let is_told = || problem(&net, "packets_dropped").is_some_and(|told| told["severity"] == "error");
    assert!(wait_until(PATIENCE * 3, is_told));
    stays(&net, &mut daemon, "packets_dropped", "error", "4 of 4 clients");
    net.sh("gateway", "nft delete table ip mine").ok();
    assert!(wait_until(PATIENCE * 3, || problem(&net, "packets_dropped").is_none()));
    // Clients are served again, and all is well after a restart.
    serve();
    daemon.kill();
    daemon.start();
    assert!(wait_until(PATIENCE * 3, || net
        .cli(&["status", "--interval", "0s"])
        .status
        == 0));
    assert_eq!(problem(&net, "packets_dropped"), None);
}

/// Without what the daemon before remembered it is not known which clients were served.
#[test]
fn a_memory_that_is_lost_is_told() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let mut daemon = net.daemon(OPTIONS);
    daemon.settles(2);
    assert!(wait_until(PATIENCE * 3, || memory(&net).is_some()));
    let path = memory(&net).expect("it is there");
    let is_told = || problem(&net, "record").is_some();
    assert!(!is_told(), "a new gateway has lost nothing");
    daemon.kill();
    daemon.start();
    daemon.settles(2);
    assert!(!is_told(), "nothing was lost");
    daemon.kill();
    std::fs::write(&path, "garbage").expect("the file is damaged");
    let answer = net.tcpgw(&["--socket", "none", "-o", "json", "status", "--interval", "0s"]);
    assert!(
        answer.stdout.contains(".memory is damaged"),
        "{} {}",
        answer.stdout,
        answer.stderr
    );
    daemon.start();
    assert!(wait_until(PATIENCE * 3, is_told));
    let told = problem(&net, "record").expect("it stays");
    assert!(told["message"].to_string().contains(".memory is damaged"), "{told}");
    daemon.kill();
    std::fs::remove_file(&path).expect("the file is removed");
    daemon.start();
    assert!(wait_until(PATIENCE * 3, is_told));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(wait_until(PATIENCE * 3, || !is_told()), "the operator knows");
}
