//! The flow log: a line for each connection that has ended.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::store::{tmpfs, with_own_mounts};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn each_connection_that_has_ended_is_a_line() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    net.sysctl("net.netfilter.nf_conntrack_timestamp", 1);
    let _server = net.serve("b1", 3000, Behaviour::Greet);
    net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
    let (log, moved) = (net.file("flows.log"), net.file("flows.log.1"));
    let option = format!("--flow-log={}", log.to_str().expect("text"));
    let mut daemon = net.daemon(&[&option]);
    daemon.settles(2);
    // It listens from its first sample on, which is made before the file can be asked for.
    assert!(wait_until(PATIENCE, || log.exists()));
    daemon.get("/v1/status");

    // A service that is younger than the daemon's last sample has no name yet.
    let mut first = 0;
    assert!(wait_until(PATIENCE, || {
        first += 1;
        let conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
        conn.reset().expect("a reset");
        lines(&log).iter().any(|line| line["service"] == "web")
    }));
    assert!(wait_until(PATIENCE, || lines(&log).len() == first));

    let mut locals = Vec::new();
    for public in PUBLIC {
        let mut conn = net.connect("client", at(public, 2001)).expect("a connection");
        conn.greeting().expect("a greeting");
        conn.echo(&[7].repeat(100_000)).expect("an echo");
        locals.push(conn.local().to_string());
        conn.reset().expect("a reset");
    }
    assert!(
        wait_until(PATIENCE, || lines(&log).len() == first + 2),
        "{:?}",
        lines(&log)
    );
    // conntrack may report flows that end at the same time in any order.
    let all = lines(&log);
    for local in &locals {
        let line = all.iter().find(|line| line["client"] == **local);
        let line = line.unwrap_or_else(|| panic!("{local}: {all:?}"));
        assert_eq!(line["service"], "web", "{line}");
        assert_eq!(line["ended"], "reset", "{line}");
        for way in ["to_backend", "from_backend"] {
            let bytes = line[way]["bytes"].as_u64().expect("a number");
            // Segments may be sent again.
            assert!((100_000..400_000).contains(&bytes), "{line}");
        }
        let lasted = line["seconds"].as_f64().expect("a number");
        assert!(lasted < 30.0 && line["start"].as_f64() > Some(1.7e9), "{line}");
    }

    // logrotate moves the file away and tells the daemon.
    fs::rename(&log, &moved).expect("moved");
    daemon.signal(Signal::SIGUSR1);
    assert!(wait_until(PATIENCE, || log.exists()), "it is opened anew");
    let conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    conn.reset().expect("a reset");
    assert!(wait_until(PATIENCE, || lines(&log).len() == 1));
    assert_eq!(lines(&moved).len(), first + 2);

    // A place that takes nothing is a problem, and nothing else.
    let problems = || daemon.get("/v1/daemon")["problems"].to_string();
    assert!(!problems().contains("flow_log"), "{}", problems());
    fs::remove_file(&log).expect("removed");
    fs::create_dir(&log).expect("a directory");
    daemon.signal(Signal::SIGUSR1);
    assert!(
        wait_until(PATIENCE, || problems().contains("flow_log")),
        "{}",
        problems()
    );
    net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    daemon.stop();
}

/// A disk that is full for a time tears no line. What waited is written when there is room.
#[test]
fn a_full_disk_leaves_whole_lines() {
    with_own_mounts(|| {
        let net = Net::new();
        let _server = net.serve("b1", 3000, Behaviour::Greet);
        net.want(state([service("web", 2001, &["b1"], 3000, json!({}))]));
        let directory = net.file("log");
        fs::create_dir(&directory).expect("a directory");
        tmpfs(&directory, "64k");
        let (log, filler) = (directory.join("flows.log"), directory.join("filler"));
        let option = format!("--flow-log={}", log.to_str().expect("text"));
        let mut daemon = net.daemon(&[&option]);
        daemon.settles(2);
        assert!(wait_until(PATIENCE, || log.exists()));
        daemon.get("/v1/status");
        let reset = |times: usize| {
            for _ in 0..times {
                let conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
                conn.reset().expect("a reset");
            }
        };
        reset(1);
        assert!(wait_until(PATIENCE, || !lines(&log).is_empty()));

        drop(fs::write(&filler, vec![0; 64 << 10]));
        let problems = || daemon.get("/v1/daemon")["problems"].to_string();
        // A line has about 200 bytes, and the file's last page room for 4,096 at most.
        reset(60);
        assert!(wait_until(PATIENCE, || problems().contains("No space left on device")));
        let there = fs::read_to_string(&log).expect("text");
        assert!(there.ends_with("}\n") && lines(&log).len() < 61, "{there}");

        fs::remove_file(&filler).expect("removed");
        reset(20);
        assert!(
            wait_until(PATIENCE, || lines(&log).len() == 81),
            "{}",
            lines(&log).len()
        );
        assert!(
            wait_until(PATIENCE, || !problems().contains("flow_log")),
            "{}",
            problems()
        );
        daemon.stop();
    });
}

/// Connects, sends and receives, and resets. Returns the client's address.
fn load(net: &Net, port: u16) -> String {
    let mut conn = net.connect("client", at(PUBLIC[0], port)).expect("a connection");
    conn.greeting().expect("a greeting");
    conn.echo(&[7; 2000]).expect("an echo");
    let local = conn.local().to_string();
    conn.reset().expect("a reset");
    local
}

#[test]
fn ports_that_change_hands_take_flows_and_totals_along_at_once() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    let wanted = |first: &str, second: &str| {
        net.want(state([
            service(first, 2001, &["b1"], 3000, json!({})),
            service(second, 2002, &["b1"], 3000, json!({})),
            service("other", 2003, &["b2"], 3000, json!({})),
        ]));
    };
    wanted("a", "b");
    let log = net.file("flows.log");
    let option = format!("--flow-log={}", log.to_str().expect("text"));
    let daemon = net.daemon(&[&option, "--count-traffic"]);
    daemon.settles(4);
    assert!(wait_until(PATIENCE, || log.exists()));
    daemon.get("/v1/status");
    let mut expected: Vec<(String, &str)> = vec![(load(&net, 2001), "a"), (load(&net, 2002), "b")];
    // One that goes on over the change.
    let mut held = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    held.greeting().expect("a greeting");
    let has = |name: &str, port: u16| {
        let services = daemon.get("/v1/status")["services"].clone();
        let mut services = services.as_array().into_iter().flatten();
        services.any(|of| of["name"] == name && of["port"] == port) && daemon.get("/v1/daemon")["in_sync"] == true
    };
    wanted("b", "a");
    assert!(wait_until(PATIENCE, || has("b", 2001) && has("a", 2002)));
    for _ in 0..3 {
        expected.push((load(&net, 2001), "b"));
        expected.push((load(&net, 2002), "a"));
    }
    expected.push((held.local().to_string(), "a"));
    held.reset().expect("a reset");
    // Renamed.
    wanted("b", "renamed");
    assert!(wait_until(PATIENCE, || has("renamed", 2002)));
    expected.push((load(&net, 2002), "renamed"));
    assert!(
        wait_until(PATIENCE, || lines(&log).len() == expected.len()),
        "{:?}",
        lines(&log)
    );
    for (local, name) in &expected {
        let all = lines(&log);
        let line = all.iter().find(|line| line["client"] == **local).expect("a line");
        assert_eq!(line["service"], *name, "{line}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let status = daemon.get("/v1/status");
    for service in status["services"].as_array().expect("services") {
        let name = service["name"].as_str().expect("a name");
        let of = lines(&log);
        let of = of.iter().filter(|line| line["service"] == name);
        let bytes: u64 = of.clone().filter_map(|line| line["to_backend"]["bytes"].as_u64()).sum();
        let totals = &service["totals"];
        let found = (&totals["connections"], &totals["to_backend"]["bytes"]);
        assert_eq!(found, (&json!(of.count()), &json!(bytes)), "{name}: {totals}");
    }
}
