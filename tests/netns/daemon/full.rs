//! Reports about conntrack's table while it fills, and the fate of connections when it is full.
//!
//! `nf_conntrack_max` is the machine's, and no network namespace can have another (`nf_conntrack_standalone_init_net`), but each counts its
//! own entries against it. So the table of this gateway is filled for real.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};
use crate::injector::{Injected, inject};

/// Largest table that is filled. More entries would take too long, and too much memory.
const MOST: u32 = 1_000_000;

fn setting(name: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).expect("conntrack is there");
    text.trim().parse().expect("a number")
}

/// Established connections of others, which conntrack does not drop to make room.
struct Crowd<'n> {
    net: &'n Net,
    max: u32,
    next: u32,
}

impl Crowd<'_> {
    /// Adds entries until there are so many but for some.
    fn fill(&mut self, parts_of_1000: u32, but: u32) {
        let wanted = u32::try_from(u64::from(self.max) * u64::from(parts_of_1000) / 1000).expect("it fits") - but;
        let (next, max) = (&mut self.next, wanted);
        self.net.within("gateway", || {
            let more = max.saturating_sub(setting("count"));
            inject((*next..*next + more).map(entry));
            *next += more;
        });
    }
}

fn entry(number: u32) -> Injected {
    let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 51, 0, 0)) + number / 60_000);
    let port = 1024 + u16::try_from(number % 60_000).expect("a port");
    let public = at("192.0.2.1", 443);
    Injected {
        client: SocketAddr::new(IpAddr::V4(client), port),
        public,
        backend: public,
        seen_as: public,
        mark: 0,
        zone: 0,
        translated: false,
        state: 3,
    }
}

/// Returns the statuses of healthz and `status`, and the problems of conntrack.
fn told(net: &Net, daemon: &Daemon<'_>) -> (u16, i32, Vec<(String, String)>) {
    let ran = net.cli(&["status", "-o", "json", "--interval", "0s"]);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let health = daemon.ask("GET", "/v1/healthz", "").expect("an answer");
    let all = status["problems"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = all.map(|problem| (text(&problem["severity"]), text(&problem["kind"])));
    let of_conntrack = all.filter(|(_, kind)| kind.starts_with("conntrack_"));
    (health.status, ran.status, of_conntrack.collect())
}

#[test]
fn a_table_that_fills_is_told_before_it_is_full() {
    let max = setting("max");
    if max > MOST {
        println!("nf_conntrack_max is {max}: too many to fill");
        return;
    }
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&["--check-interval", "1s"]);
    daemon.settles(2);
    let mut crowd = Crowd {
        net: &net,
        max,
        next: 0,
    };
    let is = |status: u16, code: i32, problem: Option<[&str; 2]>| {
        let problem = problem.map(|[severity, kind]| (severity.to_owned(), kind.to_owned()));
        let expected = (status, code, problem.into_iter().collect::<Vec<_>>());
        let is_told = wait_until(PATIENCE, || told(&net, &daemon) == expected);
        assert!(is_told, "{expected:?}, and not {:?}", told(&net, &daemon));
    };
    let connect = || {
        net.connect("client", at(PUBLIC[0], 2001))
            .and_then(|mut conn| conn.greeting().map(|_| conn))
    };
    crowd.fill(790, 0);
    is(200, 0, None);
    crowd.fill(810, 0);
    is(200, 0, Some(["warning", "conntrack_filling"]));
    crowd.fill(945, 0);
    is(200, 0, Some(["warning", "conntrack_filling"]));
    connect().expect("there is room");
    crowd.fill(955, 0);
    let before = daemon.last();
    is(503, 1, Some(["error", "conntrack_full"]));
    daemon.hears(
        before,
        &json!({"event": "problem", "kind": "conntrack_full", "severity": "error"}),
    );

    crowd.fill(1000, 20);
    let mut held = Vec::new();
    while let Ok(conn) = connect() {
        held.push(conn);
        assert!(
            held.len() < 100,
            "no connection is dropped, and the table has {max} entries"
        );
    }
    is(503, 1, Some(["error", "conntrack_full"]));
    for conn in &mut held {
        conn.echo(b"on").expect("established connections go on");
    }
    net.sh("gateway", "conntrack -D -p tcp --orig-dst 192.0.2.1 >/dev/null")
        .ok();
    is(200, 0, None);
    connect().expect("there is room again");
}
