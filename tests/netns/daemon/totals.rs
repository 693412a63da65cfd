//! Totals of services: they never fall, and are what the kernel and conntrack counted.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const COUNTING: &[&str] = &["--count-traffic"];

fn wanted() -> Value {
    state([
        service("a", 2001, &["b1"], 3000, json!({})),
        service("b", 2002, &["b1", "b2"], 3000, json!({"balance": "round-robin"})),
    ])
}

/// Returns the totals of a service, without waiting for a sample that is due to a second query within one second.
fn totals(daemon: &Daemon<'_>, name: &str) -> Value {
    std::thread::sleep(Duration::from_millis(1050));
    let status = daemon.get("/v1/status");
    let services = status["services"].as_array().expect("a list");
    services
        .iter()
        .find(|service| service["name"] == name)
        .expect("the service")["totals"]
        .clone()
}

/// Connects, sends and receives, and ends the connection.
fn connect(net: &Net, port: u16, times: usize) {
    for address in PUBLIC.iter().take(2) {
        for _ in 0..times {
            let mut conn = net.connect("client", at(address, port)).expect("a connection");
            conn.greeting().expect("a greeting");
            conn.echo(&[7; 5000]).expect("an echo");
            // The flow ends at once.
            conn.reset().expect("a reset");
        }
    }
}

fn kept(net: &Net) -> PathBuf {
    let ends_well = |path: &PathBuf| path.extension().is_some_and(|end| end == "totals");
    let run = net.file("run");
    let entries = fs::read_dir(&run).expect("the run directory");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(ends_well).expect("the totals")
}

#[test]
fn totals_go_on_over_ends_of_flows_and_of_daemons() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = ["b1", "b2"].map(|host| net.serve(host, 3000, Behaviour::Greet));
    net.want(wanted());
    let mut daemon = net.daemon(COUNTING);
    daemon.settles(4);
    // The first sample begins to count.
    totals(&daemon, "a");
    connect(&net, 2001, 5);
    let of_a = totals(&daemon, "a");
    assert_eq!(
        (&of_a["connections"], &of_a["answered"]),
        (&json!(10), &json!(10)),
        "{of_a}"
    );
    assert_eq!(of_a["unanswered"], 0);
    let bytes = |of: &Value| of["to_backend"]["bytes"].as_u64().expect("a number");
    assert!(bytes(&of_a) > 50_000 && bytes(&of_a) < 100_000, "{of_a}");
    let of_b = totals(&daemon, "b");
    assert_eq!((&of_b["connections"], bytes(&of_b)), (&json!(0), 0));

    // A live flow counts as far as it has come, and no more when it has ended.
    let mut conn = net.connect("client", at(PUBLIC[0], 2002)).expect("a connection");
    conn.greeting().expect("a greeting");
    conn.echo(&vec![7; 100_000]).expect("an echo");
    assert!(wait_until(PATIENCE, || bytes(&totals(&daemon, "b")) > 100_000));
    let live = bytes(&totals(&daemon, "b"));
    let more = totals(&daemon, "b");
    assert_eq!(
        (bytes(&more), &more["connections"]),
        (live, &json!(1)),
        "it is counted once"
    );
    conn.reset().expect("a reset");
    let ended = bytes(&totals(&daemon, "b"));
    assert!((live..live + 200).contains(&ended), "{live} and then {ended}");

    // What is connected while no daemon runs is not lost, and neither is what the last one knew.
    for _ in 0..3 {
        // Samples are kept every 2 s.
        totals(&daemon, "b");
    }
    daemon.kill();
    connect(&net, 2001, 3);
    daemon.start();
    let after = totals(&daemon, "a");
    assert_eq!(after["connections"], 16);
    assert!(bytes(&after) >= bytes(&of_a), "{after}");
    assert_eq!(totals(&daemon, "b")["connections"], 1);

    // So it is when the table is made anew, and when a service comes again.
    daemon.stop();
    net.tcpgw(&["teardown"]).ok();
    net.forget();
    daemon.start();
    daemon.post("/v1/resume", json!({}));
    daemon.settles(4);
    connect(&net, 2001, 1);
    assert_eq!(totals(&daemon, "a")["connections"], 18);
    net.want(state([service(
        "b",
        2002,
        &["b1"],
        3000,
        json!({"drain_timeout": "1s"}),
    )]));
    let names = || {
        let status = daemon.get("/v1/status");
        status["services"].as_array().expect("a list").len()
    };
    assert!(wait_until(PATIENCE * 3, || names() == 1), "its backends drain");
    net.want(wanted());
    daemon.settles(4);
    connect(&net, 2001, 1);
    let again = totals(&daemon, "a");
    assert_eq!(again["connections"], 20);
    assert!(bytes(&again) > bytes(&after), "{again}");

    // A file that is damaged is said, and all begins anew.
    daemon.stop();
    fs::write(kept(&net), b"nonsense").expect("written");
    daemon.start();
    assert!(
        daemon.logged().contains("all totals begin at zero"),
        "{}",
        daemon.logged()
    );
    let anew = totals(&daemon, "a");
    assert!(
        anew["connections"].as_u64().is_some_and(|connections| connections < 20),
        "{anew}"
    );
}

#[test]
fn handshakes_that_no_backend_answers_are_counted_where_that_is_wanted() {
    let net = Net::new();
    let _server = net.serve("b3", 3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b3"], 3000, json!({}))]));
    let mut daemon = net.daemon(&[]);
    daemon.settles(2);
    let of = totals(&daemon, "a");
    assert_eq!(
        (&of["answered"], &of["to_backend"]),
        (&Value::Null, &Value::Null),
        "{of}"
    );
    daemon.stop();
    drop(daemon);
    let mut daemon = net.daemon(COUNTING);
    daemon.settles(2);
    totals(&daemon, "a");
    net.nft(
        "b3",
        "table inet silent {\nchain input {\ntype filter hook input priority 0\ntcp dport 3000 drop\n}\n}",
    );
    for public in PUBLIC {
        let brief = Duration::from_millis(300);
        let connected = net.within("client", || crate::harness::client::connect(at(public, 2001), brief));
        connected.expect_err("nobody answers");
    }
    // conntrack forgets them after 7 s.
    assert!(
        wait_until(PATIENCE * 3, || totals(&daemon, "a")["unanswered"] == 2),
        "{}",
        totals(&daemon, "a")
    );
    let of = totals(&daemon, "a");
    assert_eq!((&of["connections"], &of["answered"]), (&json!(2), &json!(0)), "{of}");
    // Packets and bytes are known only where conntrack accounts.
    assert_eq!(of["to_backend"], Value::Null);
    daemon.stop();
}
