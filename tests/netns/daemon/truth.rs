//! While clients are not served, whatever the cause, `status`, healthz and events report it; after the repair they report that.

mod doctor;
mod files;
mod handshakes;
mod public_address;
mod restarted;
mod surroundings;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{addresses, crowd};
use crate::harness::server::{Behaviour, Server};
use crate::harness::{Net, wait_until};
use crate::metrics;

/// Time to wait for a connection that is expected to fail.
const SHORT: Duration = Duration::from_millis(400);
/// Pause between clients that wait for the handshake, each of which sends its SYN four times in so long.
const WAITS: Duration = Duration::from_secs(7);
/// Time between two rounds of clients.
const ROUND: Duration = Duration::from_secs(9);
const OPTIONS: &[&str] = &["--check-interval", "1s"];

/// Starts servers on all containers, and a daemon with these options for the service `a` on port 2001 with a backend at b1 and these
/// further fields. When this function returns, its backends are healthy.
#[track_caller]
fn daemon_of<'n>(net: &'n Net, options: &[&str], more: Value) -> ([Server; 4], Daemon<'n>) {
    let servers = net.serve_all(3000, Behaviour::Greet);
    let service = service("a", 2001, &["b1"], 3000, more);
    let backends = service["backends"].as_array().expect("a list").len();
    net.want(state([service]));
    let daemon = net.daemon(options);
    daemon.settles(u64::try_from(backends).expect("a few"));
    (servers, daemon)
}

/// Starts such a daemon that checks its surroundings each second and serves metrics, too.
#[track_caller]
fn daemon_with_metrics(net: &Net, more: Value) -> ([Server; 4], Daemon<'_>) {
    let config = net.file("config.toml");
    fs::write(&config, format!("[web]\nlisten = \"{}\"\n", metrics::loopback()))
        .expect("failed to write a configuration");
    let config = config.to_string_lossy();
    let begun = daemon_of(net, &[OPTIONS, &["--config", &config]].concat(), more);
    metrics::listens(net);
    begun
}

/// Returns true when a client gets a greeting.
fn is_served(net: &Net, to: SocketAddr) -> bool {
    net.within("client", || {
        connect(to, SHORT).and_then(|mut client| client.greeting()).is_ok()
    })
}

/// Sends a SYN of each of some clients, and again as long as the sockets are held.
fn begin_to_connect(net: &Net, to: SocketAddr) -> Vec<Socket> {
    let others = [20, 21].map(|n| crowd(n)[usize::from(to.is_ipv6())]);
    let from = [addresses("client")[usize::from(to.is_ipv6())]]
        .into_iter()
        .chain(others);
    from.map(|from| begin_from(net, from, to)).collect()
}

pub(super) fn begin_from(net: &Net, from: IpAddr, to: SocketAddr) -> Socket {
    net.within("client", || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not block");
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .expect("an address of the client");
        // It goes on, or is refused at once.
        let _ = socket.connect(&to.into());
        socket
    })
}

/// Returns the status of healthz, and its errors.
pub(super) fn health(daemon: &Daemon<'_>) -> (u16, Vec<Value>) {
    let answer = daemon.ask("GET", "/v1/healthz", "").expect("an answer");
    let reply = answer.json();
    let problems = reply["problems"].as_array().expect("a list").iter();
    let errors = problems.filter(|problem| problem["severity"] == "error").cloned();
    (answer.status, errors.collect())
}

/// Returns whether the metrics, from which the alerts are made, have an error of that kind.
fn is_in_metrics(net: &Net, kind: &str) -> bool {
    let answer = metrics::get(net, metrics::loopback(), "/metrics", "").expect("an answer");
    let expected = format!("tcpgw_problems{{kind=\"{kind}\",severity=\"error\"}} ");
    answer.body.lines().any(|line| line.starts_with(&expected))
}

/// Breaks the gateway for real, and asserts that all ways to ask say so with an error of that kind; then mends it. The daemon is one
/// [with metrics](daemon_with_metrics).
#[track_caller]
fn breaks_and_mends(
    net: &Net,
    daemon: &Daemon<'_>,
    to: SocketAddr,
    kind: &str,
    host: &str,
    [breaks, mends]: [&str; 2],
) {
    assert!(wait_until(PATIENCE, || is_served(net, to)), "{breaks}: before");
    let before = daemon.last();
    net.sh(host, breaks).ok();
    let mut waiting: Vec<(Instant, Vec<Socket>)> = Vec::new();
    let is_known = || {
        assert!(!is_served(net, to), "{breaks}: it breaks nothing");
        // The flow of a client that gives up at once is gone after some seconds, and a daemon that is slow may look at it only once.
        if waiting.last().is_none_or(|(since, _)| since.elapsed() > WAITS) {
            waiting.push((Instant::now(), begin_to_connect(net, to)));
        }
        let (status, errors) = health(daemon);
        status == 503 && errors.iter().any(|problem| problem["kind"] == kind)
    };
    assert!(wait_until(PATIENCE * 6, is_known), "{breaks}: {:?}", health(daemon));
    drop(waiting);
    assert!(
        wait_until(PATIENCE, || is_in_metrics(net, kind)),
        "{breaks}: not in the metrics"
    );
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]).exits(1);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["ok"], false);
    let problems = status["problems"].as_array().expect("a list");
    assert!(problems.iter().any(|problem| problem["kind"] == kind), "{status:#}");
    daemon.hears(before, &json!({"event": "problem", "kind": kind, "severity": "error"}));

    let before = daemon.last();
    net.sh(host, mends).ok();
    let is_well = || is_served(net, to) && health(daemon) == (200, Vec::new());
    assert!(wait_until(PATIENCE * 6, is_well), "{mends}: {:?}", health(daemon));
    net.cli(&["status", "--interval", "0s"]).exits(0);
    daemon.hears(before, &json!({"event": "problem_ended", "kind": kind}));
}

/// Returns the problem of a kind that `status` reports, if there is one.
fn problem(net: &Net, kind: &str) -> Option<Value> {
    let status = net.cli(&["status", "-o", "json", "--interval", "0s"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status}"));
    let problems = status["problems"].as_array().expect("a list");
    problems.iter().find(|problem| problem["kind"] == kind).cloned()
}
