//! Wrong wall clocks: a machine with an empty battery boots in 1970, and dates after 2038 have to work.
//!
//! The wall clock belongs to the machine and no namespace has its own, so libfaketime gives a process another one.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;

const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];
/// Wall clocks, each of which begins with its year.
const CLOCKS: [&str; 4] = [
    "1971-01-01 00:00:00",
    "2038-01-19 03:14:00",
    "2069-06-01 00:00:00",
    "2099-12-31 23:59:50",
];

/// Returns variables with which libfaketime changes the wall clock only.
fn with_clock(library: &str, clock: &str) -> [(&'static str, String); 4] {
    [
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME", format!("@{clock}")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

#[test]
fn clocks_from_1971_to_2099_are_no_trouble() {
    let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime: vagrant/provision installs it");
    for (number, clock) in CLOCKS.into_iter().enumerate() {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        net.want(state([service(
            "a",
            2001,
            &["b1", "b2"],
            3000,
            json!({"drain_timeout": "1s"}),
        )]));
        let mut daemon = net.daemon_within(&with_clock(library, clock));
        daemon.settles(4);
        let year: u64 = clock[..4].parse().expect("a year");
        let since_1970 = daemon.get("/v1/daemon")["started"].as_u64().expect("a number");
        let of_year = 1970 + since_1970 / 31_556_952;
        assert!(of_year.abs_diff(year) <= 1, "{clock}: it says {since_1970}");
        // A client, by the clock of another time: each command, and then one by its own.
        let other = CLOCKS[CLOCKS.len() - 1 - number];
        for (clock, args) in [
            (other, "status --interval 0s"),
            (clock, "status -o json --interval 0s"),
            (other, "events"),
            (other, "history"),
            (other, "doctor"),
            (clock, "deploys"),
        ] {
            let variables = with_clock(library, clock);
            let variables = variables.map(|(name, value)| format!("{name}='{value}'")).join(" ");
            let socket = net.socket();
            let socket = socket.to_str().expect("text");
            let ran = net.sh("gateway", &format!("{variables} {TCPGW} --socket {socket} {args}"));
            assert!(ran.status <= 2 && !ran.stderr.contains("panicked"), "{clock}: {ran}");
            if args.starts_with("status -o") {
                let status: Value = serde_json::from_str(&ran.stdout).expect("JSON");
                assert_eq!(status["ok"], true, "{clock}: {status:#}");
            }
        }
        // A drain ends, and a restart by another clock goes on.
        net.want(state([service(
            "a",
            2001,
            &["b1"],
            3000,
            json!({"drain_timeout": "1s"}),
        )]));
        daemon.settles(2);
        daemon.kill();
        daemon.start();
        daemon.settles(2);
        let conn = net
            .connect("client", at(PUBLIC[0], 2001))
            .and_then(|mut conn| conn.greeting());
        conn.unwrap_or_else(|error| panic!("{clock}: {error}"));
    }
}
