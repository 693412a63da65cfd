//! Metrics of a daemon that serves real traffic.

mod totals;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::{Net, wait_until};

const PORT: u16 = 9464;
const TOKEN: &str = "token-of-the-tests-0123456789";
/// Time for which a reading is shown at least, and a margin.
pub(crate) const SHOWN: Duration = Duration::from_millis(1100);

/// An answer: status, head in lower case, and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Values by series.
type Series = BTreeMap<String, f64>;

/// Writes a configuration with this section `[web]`. Returns its file.
fn configure(net: &Net, web: &str) -> String {
    let path = net.file("config.toml");
    fs::write(&path, format!("[web]\n{web}\n")).expect("failed to write a configuration");
    path.to_string_lossy().into_owned()
}

fn send(to: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Answer {
        status: head.get(9..12).and_then(|text| text.parse().ok()).unwrap_or_default(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Asks the listener at this address, from the gateway.
pub(crate) fn get(net: &Net, to: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    net.within("gateway", || send(to, &request))
}

pub(crate) fn loopback() -> SocketAddr {
    at("127.0.0.1", PORT)
}

/// Returns the text of a new reading.
#[track_caller]
fn scrape(net: &Net, query: &str) -> String {
    thread::sleep(SHOWN);
    let answer = get(net, loopback(), &format!("/metrics{query}"), "").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    answer.body
}

fn series(text: &str) -> Series {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (
            name.to_owned(),
            value.parse().unwrap_or_else(|error| panic!("{line}: {error}")),
        )
    });
    values.collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[track_caller]
fn value(series: &Series, name: &str) -> u64 {
    whole(*series.get(name).unwrap_or_else(|| panic!("no {name} in {series:#?}")))
}

pub(crate) fn listens(net: &Net) {
    let is_there = || net.within("gateway", || TcpStream::connect(loopback()).is_ok());
    assert!(wait_until(PATIENCE, is_there), "no listener");
}

fn daemon<'n>(net: &'n Net, web: &str) -> Daemon<'n> {
    let config = configure(net, web);
    let daemon = net.daemon(&["--config", &config]);
    listens(net);
    daemon
}

#[test]
fn metrics_are_what_the_gateway_does_and_promtool_accepts_them() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([
        service("plain", 2001, &["b1", "b2"], 3000, json!({"limit": {"pps": 1000}})),
        service("down", 2002, &["b3"], 3999, json!({})),
    ]));
    let daemon = daemon(&net, &format!("listen = \"{}\"", loopback()));
    daemon.settles(4);
    let mut held = Vec::new();
    for public in PUBLIC {
        for _ in 0..5 {
            let mut conn = net.connect("client", at(public, 2001)).expect("a connection");
            conn.greeting().expect("a greeting");
            held.push(conn);
        }
    }
    // Until the first probes of a new service have failed, it is a warning that none of its backends answers.
    let is_error = || scrape(&net, "").contains("tcpgw_problems{kind=\"no_healthy_backend\",severity=\"error\"} 1");
    assert!(wait_until(PATIENCE, is_error), "{}", scrape(&net, ""));
    let text = scrape(&net, "");
    let checked = net.run_with("gateway", &["promtool", "check", "metrics"], &text);
    checked.ok();
    let seen = series(&text);
    for (name, expected) in [
        ("tcpgw_service_flows{service=\"plain\",state=\"established\"}", 10),
        ("tcpgw_service_backends{service=\"plain\",state=\"healthy\"}", 4),
        ("tcpgw_service_backends{service=\"down\",state=\"healthy\"}", 0),
        ("tcpgw_service_backends{service=\"down\",state=\"unhealthy\"}", 2),
        ("tcpgw_service_limit_packets_per_second{service=\"plain\"}", 1000),
        (
            "tcpgw_service_info{service=\"plain\",port=\"2001\",provider=\"file\",plan=\"\"}",
            1,
        ),
        ("tcpgw_problems{kind=\"no_healthy_backend\",severity=\"error\"}", 1),
        ("tcpgw_in_sync", 1),
        ("tcpgw_draining_backends", 0),
        ("tcpgw_commit_failures_total", 0),
        ("tcpgw_kernel_read_failures_total", 0),
    ] {
        assert_eq!(value(&seen, name), expected, "{name}\n{text}");
    }
    let of_backends = seen
        .iter()
        .filter(|(name, _)| name.starts_with("tcpgw_backend_flows{service=\"plain\""));
    assert!(
        (of_backends.map(|(_, flows)| flows).sum::<f64>() - 10.0).abs() < 0.1,
        "{text}"
    );
    for name in [
        "tcpgw_conntrack_entries",
        "tcpgw_conntrack_entries_limit",
        "tcpgw_probe_duration_seconds_count",
        "tcpgw_commit_duration_seconds_count",
        "tcpgw_change_latency_seconds_count",
        "tcpgw_last_commit_timestamp_seconds",
    ] {
        assert!(value(&seen, name) > 0, "{name}\n{text}");
    }
    let used = seen["tcpgw_source_ports_used_ratio"];
    assert!(used > 0.0 && used < 0.01, "{text}");
    assert!(!scrape(&net, "?scope=service").contains("tcpgw_backend_"));
    // The format is that of OpenMetrics where it is asked for.
    let accept = "accept: application/openmetrics-text; version=1.0.0\r\n";
    let open = get(&net, loopback(), "/metrics", accept).expect("an answer");
    assert!(
        open.head.contains("content-type: application/openmetrics-text"),
        "{}",
        open.head
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    drop(held);
}

#[test]
fn a_deploy_and_a_drain_are_counted() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = configure(&net, &format!("listen = \"{}\"", loopback()));
    let daemon = net.daemon_without_state(&["--config", &config]);
    listens(&net);
    let own = service("own", 2001, &["b1"], 3000, json!({"drain_timeout": "1h"}));
    daemon.post("/v1/apply", state([own])).ok();
    daemon.settles(2);
    let before = series(&scrape(&net, ""));
    let mut held = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    held.greeting().expect("a greeting");
    let targets = crate::harness::brief::endpoints("b2", 3000);
    net.cli(&[
        "deploy",
        "own",
        "--target",
        &targets[0],
        "--target",
        &targets[1],
        "--until",
        "switched",
    ])
    .ok();
    let mut after = Series::new();
    assert!(
        wait_until(PATIENCE * 2, || {
            after = series(&scrape(&net, ""));
            value(&after, "tcpgw_draining_backends") == 1
        }),
        "{after:#?}"
    );
    let draining = "tcpgw_service_backends{service=\"own\",state=\"draining\"}";
    assert_eq!((value(&before, draining), value(&after, draining)), (0, 1));
    let commits = "tcpgw_commit_duration_seconds_count";
    assert!(value(&after, commits) > value(&before, commits));
    let drained = "tcpgw_deploys_total{outcome=\"drained\"}";
    assert_eq!((value(&before, drained), value(&after, drained)), (0, 0));
    drop(held);
    assert!(wait_until(PATIENCE * 3, || value(&series(&scrape(&net, "")), drained) == 1));
}

#[test]
fn a_hundred_scrapes_at_once_are_one_read() {
    let net = Net::new();
    let _daemon = daemon(&net, &format!("listen = \"{}\"", loopback()));
    let reads = "tcpgw_kernel_reads_total";
    let before = value(&series(&scrape(&net, "")), reads);
    thread::sleep(SHOWN);
    let begun = Instant::now();
    net.within("gateway", || {
        thread::scope(|scope| {
            let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            let asked: Vec<_> = (0..100).map(|_| scope.spawn(|| send(loopback(), request))).collect();
            for answer in asked {
                let answer = answer.join().expect("no panic").expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.body);
            }
        });
    });
    // A busy machine may need more than a second for all of them.
    let most = 1 + begun.elapsed().as_secs();
    let after = value(&series(&scrape(&net, "")), reads);
    let read = after - before - 1;
    assert!((1..=most).contains(&read), "{read} reads in {:?}", begun.elapsed());
}

/// Returns the message of the problem with the listener, if there is one.
fn trouble(daemon: &Daemon<'_>) -> Option<String> {
    let problems = daemon.get("/v1/daemon")["problems"].clone();
    let mut problems = problems.as_array().into_iter().flatten();
    let problem = problems.find(|problem| problem["kind"] == "web")?;
    assert_eq!(problem["severity"], "warning");
    problem["message"].as_str().map(str::to_owned)
}

#[test]
fn a_reload_moves_the_listener_and_keeps_it_where_it_cannot() {
    let net = Net::new();
    net.want(state([]));
    let config = configure(&net, &format!("listen = \"{}\"", loopback()));
    let daemon = net.daemon(&["--config", &config]);
    listens(&net);
    let token = net.file("token");
    let write_token = |text: &str, mode| {
        fs::write(&token, text).expect("failed to write a token");
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).expect("failed to set a mode");
    };
    let of_token = format!(
        "listen = \"0.0.0.0:{PORT}\"\nbehind_proxy = true\ntoken_file = \"{}\"",
        token.to_string_lossy()
    );
    // The file of the token is missing, or others may read it: the old address is served.
    for (mode, expected) in [(None, "No such file"), (Some(0o644), "0644")] {
        if let Some(mode) = mode {
            write_token(TOKEN, mode);
        }
        configure(&net, &of_token);
        daemon.signal(Signal::SIGHUP);
        let is_told = || trouble(&daemon).is_some_and(|why| why.contains(expected) && why.contains("web.token_file"));
        assert!(wait_until(PATIENCE * 2, is_told), "{expected}: {:?}", trouble(&daemon));
        let answer = get(&net, loopback(), "/metrics", "").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    // Once it can be used, all addresses are served, to those who have the token.
    write_token(TOKEN, 0o600);
    assert!(
        wait_until(PATIENCE * 3, || trouble(&daemon).is_none()),
        "{:?}",
        trouble(&daemon)
    );
    let public = at(PUBLIC[0], PORT);
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let status = |headers: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: gw.example.com\r\nconnection: close\r\n{headers}\r\n");
        net.within("client", || send(public, &request))
            .map(|answer| answer.status)
            .ok()
    };
    assert!(wait_until(PATIENCE, || status(&bearer(TOKEN)) == Some(200)));
    assert_eq!(status(""), Some(401));
    assert_eq!(status(&bearer("token-of-somebody-else-012345")), Some(401));
    // Another token is taken at a reload, without a new listener.
    let another = "another-token-of-the-tests-01234";
    write_token(another, 0o600);
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || status(&bearer(another)) == Some(200)));
    assert_eq!(status(&bearer(TOKEN)), Some(401));
    assert!(!daemon.logged().contains(TOKEN) && !daemon.logged().contains(another));
    // Another program has the port.
    let other = "127.0.0.2:9465";
    let _server = net.serve("gateway", 9465, Behaviour::Greet);
    configure(&net, &format!("listen = \"{other}\""));
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || trouble(&daemon)
        .is_some_and(|why| why.contains("ss -ltnp"))));
    assert_eq!(status(&bearer(another)), Some(200));
    // Without a section nothing listens, and nothing is amiss.
    fs::write(net.file("config.toml"), "").expect("failed to write a configuration");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || trouble(&daemon).is_none()
        && status(&bearer(another)).is_none()));
}

/// Runs promtool in the folder of the repository.
fn promtool(net: &Net, arguments: &str) {
    let folder = env!("CARGO_MANIFEST_DIR");
    net.sh("gateway", &format!("cd '{folder}' && promtool {arguments}"))
        .ok();
}

#[test]
fn promtool_accepts_the_alert_rules_and_each_fires() {
    let net = Net::new();
    promtool(&net, "check rules dist/prometheus/tcpgw.rules.yml");
    promtool(&net, "test rules tests/prometheus/tcpgw.rules.test.yml");
}
