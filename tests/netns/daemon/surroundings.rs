//! Services that the gateway's addresses, ports or links make impossible: each is held back by itself, and judged again when
//! those change.

use std::fs;

use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// An address that the gateway has not yet.
const FLOATING: &str = "10.2.0.201";

/// Returns the messages of problems of that kind.
fn problems(daemon: &Daemon<'_>, kind: &str) -> Vec<Value> {
    let all = daemon.get("/v1/daemon")["problems"].clone();
    let mut problems = all.as_array().cloned().unwrap_or_default();
    problems.retain(|problem| problem["kind"] == kind);
    problems
}

#[track_caller]
fn has_problem(daemon: &Daemon<'_>, kind: &str, service: &str) -> String {
    let found = || {
        problems(daemon, kind)
            .into_iter()
            .find(|problem| problem["service"] == service)
    };
    assert!(
        wait_until(PATIENCE, || found().is_some()),
        "{kind} of {service}: {:#}",
        daemon.get("/v1/daemon")
    );
    found()
        .map(|problem| problem["message"].to_string())
        .unwrap_or_default()
}

#[track_caller]
fn has_no_problem(daemon: &Daemon<'_>, kind: &str) {
    assert!(
        wait_until(PATIENCE, || problems(daemon, kind).is_empty()),
        "{:?}",
        problems(daemon, kind)
    );
}

fn is_served(net: &Net, port: u16, by: &str) -> bool {
    let greeting = |public| net.connect("client", at(public, port))?.greeting();
    PUBLIC
        .into_iter()
        .all(|public| greeting(public).is_ok_and(|greeting| greeting.backend == by))
}

#[track_caller]
fn served(net: &Net, port: u16, by: &str) {
    assert!(
        wait_until(PATIENCE, || is_served(net, port, by)),
        "{port} is not served by {by}"
    );
}

#[test]
fn one_service_on_a_port_in_use_does_not_hold_back_the_others() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let program = net.serve("gateway", 2022, Behaviour::Silent);
    net.want(state([
        service("a", 2001, &["b1"], 3000, json!({})),
        service("ssh", 2022, &["b2"], 3000, json!({})),
    ]));
    let daemon = net.daemon(&[]);
    served(&net, 2001, "b1");
    let why = has_problem(&daemon, "held_back", "ssh");
    assert!(
        why.contains("port 2022 is in use") && why.contains("is not served"),
        "{why}"
    );
    assert_eq!(daemon.ask("GET", "/v1/healthz", "").expect("an answer").status, 503);
    daemon.hears(0, &json!({"event": "problem", "kind": "held_back", "service": "ssh"}));
    let status = net.cli(&["status"]);
    assert!(status.status == 1 && status.stdout.contains("ssh"), "{status}");
    let listed = net.cli(&["service", "ls"]).ok();
    assert!(listed.contains("file (held back)"), "{listed}");
    let answer = net.told(&["service", "show", "ssh"]);
    assert!(
        answer["held_back"][0].to_string().contains("2022") && answer["in_kernel"] == false,
        "{answer}"
    );
    assert!(daemon.events_of("rejected").is_empty());
    // Others change meanwhile.
    net.want(state([
        service("a", 2002, &["b1"], 3000, json!({})),
        service("ssh", 2022, &["b2"], 3000, json!({})),
    ]));
    served(&net, 2002, "b1");
    has_problem(&daemon, "held_back", "ssh");
    drop(program);
    served(&net, 2022, "b2");
    has_no_problem(&daemon, "held_back");
    daemon.hears(
        0,
        &json!({"event": "problem_ended", "kind": "held_back", "service": "ssh"}),
    );
}

#[test]
fn a_source_address_that_comes_later_is_waited_for() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let floating = json!({"source_addresses": [FLOATING]});
    let file = state([
        service("a", 2001, &["b1"], 3000, json!({})),
        service("b", 2002, &["b2"], 3000, floating.clone()),
    ]);
    net.want(&file);
    let mut daemon = net.daemon(&[]);
    served(&net, 2001, "b1");
    let why = has_problem(&daemon, "held_back", "b");
    assert!(why.contains(FLOATING), "{why}");
    // A standby takes over: long before the next check.
    net.sh("gateway", &format!("ip address add {FLOATING}/24 dev br0")).ok();
    served(&net, 2002, "b2");
    has_no_problem(&daemon, "held_back");
    daemon.settles(4);
    // A service stays served when its address is removed, over a restart, too, and is a problem.
    net.sh("gateway", &format!("ip address del {FLOATING}/24 dev br0")).ok();
    let why = has_problem(&daemon, "source_address_gone", "b");
    assert!(why.contains(FLOATING), "{why}");
    daemon.kill();
    daemon.start();
    has_problem(&daemon, "source_address_gone", "b");
    assert!(problems(&daemon, "held_back").is_empty());
    // A change of it is taken all the same, one that needs another address is held back.
    net.want(state([service(
        "b",
        2002,
        &["b3"],
        3000,
        json!({"source_addresses": [FLOATING], "drain_timeout": "1s"}),
    )]));
    daemon.settles(2);
    let other = json!({"source_addresses": [FLOATING, "10.2.0.202"]});
    net.want(state([service("b", 2002, &["b4"], 3000, other.clone())]));
    let why = has_problem(&daemon, "held_back", "b");
    assert!(
        why.contains("10.2.0.202") && why.contains("is served without this"),
        "{why}"
    );
    // Possible changes are made at once. By IPv6 the service is reached without the removed address.
    let reaches = || net.connect("client", at(PUBLIC[1], 2002)).is_ok();
    assert!(wait_until(PATIENCE, reaches));
    let denied = json!({"source_addresses": [FLOATING, "10.2.0.202"], "deny": ["0.0.0.0/0", "::/0"]});
    net.want(state([service("b", 2002, &["b4"], 3000, denied)]));
    assert!(wait_until(PATIENCE, || !reaches()), "all are denied");
    has_problem(&daemon, "held_back", "b");
    net.want(state([service("b", 2002, &["b4"], 3000, other)]));
    for address in [FLOATING, "10.2.0.202"] {
        net.sh("gateway", &format!("ip address add {address}/24 dev br0")).ok();
    }
    served(&net, 2002, "b4");
    has_no_problem(&daemon, "held_back");
}

#[test]
fn a_backend_that_becomes_the_gateway_itself_is_a_problem_and_a_new_one_is_held_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let with = |own: &str| json!({"name": "b", "port": 2002, "backends": [own]});
    net.want(state([
        service("a", 2001, &["b1"], 3000, json!({})),
        with("10.2.0.1:3000"),
    ]));
    let daemon = net.daemon(&[]);
    served(&net, 2001, "b1");
    has_problem(&daemon, "held_back", "b");
    let backend = "10.2.0.14:3000";
    net.want(state([service("a", 2001, &["b1"], 3000, json!({})), with(backend)]));
    has_no_problem(&daemon, "held_back");
    daemon.hears(0, &json!({"event": "health", "backend": backend, "state": "healthy"}));
    net.sh("gateway", "ip address add 10.2.0.14/32 dev lo").ok();
    has_problem(&daemon, "own_backend", "b");
    net.sh("gateway", "ip address del 10.2.0.14/32 dev lo").ok();
    has_no_problem(&daemon, "own_backend");
}

/// The API refuses an impossible request, because its client waits for the answer, unless the client asks to hold it back. At a
/// later start each impossible service is held back by itself.
#[test]
fn the_api_refuses_or_holds_back_as_it_is_asked() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(json!({"version": 1, "services": []}));
    let mut daemon = net.daemon(&["--allow-empty"]);
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    let file = net.file("api.json");
    let both = state([
        service("a", 2001, &["b1"], 3000, json!({})),
        service("b", 2002, &["b2"], 3000, json!({"source_addresses": [FLOATING]})),
    ]);
    fs::write(&file, both.to_string()).expect("a file");
    let file = file.to_str().expect("text");
    let refused = net.cli(&["apply", file]).exits(2);
    assert!(refused.stderr.contains(FLOATING), "{refused}");
    assert_eq!(net.told(&["service", "ls"])["services"], json!([]));
    let applied = net.cli(&["apply", "--hold-back", file]).exits(0);
    assert!(applied.stderr.contains("held back: service \"b\""), "{applied}");
    served(&net, 2001, "b1");
    has_problem(&daemon, "held_back", "b");
    // The same without is no yes.
    net.cli(&["apply", file]).exits(2);
    daemon.stop();
    // As after a boot: neither rules nor the record of them.
    net.sh("gateway", "nft delete table inet tcpgw");
    fs::remove_dir_all(net.file("run")).expect("a run directory");
    let _program = net.serve("gateway", 2001, Behaviour::Silent);
    daemon.start();
    let why = has_problem(&daemon, "held_back", "a");
    assert!(why.contains("2001"), "{why}");
    has_problem(&daemon, "held_back", "b");
    net.sh("gateway", &format!("ip address add {FLOATING}/24 dev br0")).ok();
    served(&net, 2002, "b2");
    // An explicit option takes the port over.
    net.cli(&["apply", file]).exits(1);
    net.cli(&["apply", "--take-over", file]).exits(0);
    served(&net, 2001, "b1");
    has_no_problem(&daemon, "held_back");
}

/// A change that is held back ends no service, also over a boot, whether `tcpgw-boot` runs before the daemon or not.
#[test]
fn what_is_kept_is_served_after_a_boot() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([
        service("a", 2001, &["b1"], 3000, json!({})),
        service("b", 2002, &["b2"], 3000, json!({})),
    ]));
    let mut daemon = net.daemon(&[]);
    served(&net, 2001, "b1");
    served(&net, 2002, "b2");
    let program = net.serve("gateway", 2012, Behaviour::Silent);
    let changed = state([
        service("a", 2012, &["b1"], 3000, json!({})),
        service("b", 2002, &["b3"], 3000, json!({"source_addresses": [FLOATING]})),
    ]);
    net.want(&changed);
    let is_as_before = |daemon: &Daemon<'_>| {
        has_problem(daemon, "held_back", "a");
        has_problem(daemon, "held_back", "b");
        served(&net, 2001, "b1");
        served(&net, 2002, "b2");
    };
    is_as_before(&daemon);
    for by_apply in [false, true] {
        daemon.stop();
        net.sh("gateway", "nft delete table inet tcpgw; conntrack -F").ok();
        fs::remove_dir_all(net.file("run")).expect("a run directory");
        if by_apply {
            let ran = net.apply_alone_with(&changed, "--hold-back").exits(0);
            assert!(ran.stderr.contains("held back (and served as before)"), "{ran}");
            assert!(is_served(&net, 2001, "b1") && is_served(&net, 2002, "b2"));
        }
        daemon.start();
        is_as_before(&daemon);
    }
    // The change is possible in the end.
    drop(program);
    served(&net, 2012, "b1");
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
    net.sh("gateway", &format!("ip address add {FLOATING}/24 dev br0")).ok();
    served(&net, 2002, "b3");
    has_no_problem(&daemon, "held_back");
}

/// An `apply` without a daemon leaves out services that are not possible yet, as `tcpgw-boot` needs it on a standby.
#[test]
fn apply_without_a_daemon_leaves_out_what_is_not_possible_yet() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let of = |host: &str, source: Value| {
        let both = state([
            service("a", 2001, &[host], 3000, json!({})),
            service("b", 2002, &[host], 3001, json!({"source_addresses": source})),
        ]);
        net.state_file("standby.json", both)
    };
    let file = of("b1", json!([FLOATING]));
    net.tcpgw(&["apply", &file]).exits(2);
    let applied = net.tcpgw(&["apply", "--hold-back", &file]).exits(0);
    assert!(applied.stderr.contains("held back: service \"b\""), "{applied}");
    assert!(is_served(&net, 2001, "b1"));
    let services = |net: &Net| net.sh("gateway", "nft list set inet tcpgw services").ok();
    assert!(!services(&net).contains("2002"), "{}", services(&net));
    net.sh("gateway", &format!("ip address add {FLOATING}/24 dev br0")).ok();
    net.tcpgw(&["apply", "--hold-back", &file]).exits(0);
    assert!(services(&net).contains("2002"));
    // Served services stay, and so does the old form of a changed one.
    net.sh("gateway", &format!("ip address del {FLOATING}/24 dev br0")).ok();
    net.tcpgw(&["apply", "--hold-back", &file]).exits(0);
    assert!(services(&net).contains("2002"));
    let file = of("b2", json!([FLOATING, "10.2.0.202"]));
    net.tcpgw(&["apply", "--hold-back", &file]).exits(0);
    assert!(is_served(&net, 2001, "b2") && services(&net).contains("2002"));
}

/// Returns a service that is impossible because of a backend of the gateway's own.
fn with_own(name: &str, port: u16, host: &str) -> Value {
    json!({"name": name, "port": port, "backends": [endpoints(host, 3000)[0], "10.2.0.1:3000"]})
}

fn is_served_by_v4(net: &Net, port: u16, by: &str) -> bool {
    let greeting = net
        .connect("client", at(PUBLIC[0], port))
        .and_then(|mut client| client.greeting());
    greeting.is_ok_and(|greeting| greeting.backend == by)
}

/// A service that is held back at a start gives way to the claims of all others.
#[test]
fn what_is_held_back_at_a_start_stands_in_nobodys_way() {
    for table_is_lost in [false, true] {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        net.want(state([
            service("a", 2001, &["b1"], 3000, json!({})),
            service("z", 2009, &["b3"], 3000, json!({})),
        ]));
        let mut daemon = net.daemon(&[]);
        served(&net, 2001, "b1");
        served(&net, 2009, "b3");
        daemon.stop();
        if table_is_lost {
            net.sh("gateway", "nft delete table inet tcpgw").ok();
        }
        net.want(state([
            with_own("a", 2011, "b1"),
            service("n", 2001, &["b2"], 3000, json!({})),
            service("y", 2008, &["b4"], 3000, json!({})),
            service("z", 2009, &["b3"], 3000, json!({})),
        ]));
        daemon.start();
        has_problem(&daemon, "held_back", "a");
        for (port, by) in [(2001, "b2"), (2008, "b4"), (2009, "b3")] {
            served(&net, port, by);
        }
        assert!(problems(&daemon, "kernel_refuses").is_empty());
        daemon.stop();
    }
}

/// A rename whose new service is not possible leaves the service in its old form.
#[test]
fn a_rename_that_is_held_back_ends_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(state([service("x", 2001, &["b1"], 3000, json!({}))]));
    let daemon = net.daemon(&[]);
    served(&net, 2001, "b1");
    net.want(state([with_own("a", 2001, "b1")]));
    has_problem(&daemon, "held_back", "a");
    served(&net, 2001, "b1");
}

/// Two services that share an endpoint and are held back keep the same settings of it.
#[test]
fn what_is_held_back_keeps_what_it_shares() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let limit = |pps: u32| json!({"limit": {"pps": pps}});
    net.want(state([
        service("a", 2001, &["b1", "b2"], 3000, limit(1000)),
        service("b", 2002, &["b1"], 3000, limit(1000)),
    ]));
    let daemon = net.daemon(&[]);
    served(&net, 2002, "b1");
    let limited = |mut service: Value, pps: u32| {
        service["limit"] = json!({"pps": pps});
        service
    };
    net.want(state([
        limited(with_own("a", 2001, "b2"), 1000),
        limited(
            json!({"name": "b", "port": 2002, "backends": [endpoints("b1", 3000)[0], "10.2.0.1:3001"]}),
            2000,
        ),
    ]));
    has_problem(&daemon, "held_back", "a");
    has_problem(&daemon, "held_back", "b");
    let status = net.cli(&["status", "--interval", "0s"]).exits(1).stdout;
    assert!(status.contains("1000") && !status.contains("2000"), "{status}");
}

/// A deploy to possible backends ends the holding back of its service.
#[test]
fn a_deploy_releases_what_is_held_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(json!({"version": 1, "services": []}));
    let daemon = net.daemon(&["--allow-empty", "--check-interval", "60s"]);
    let added = [
        "service",
        "add",
        "web",
        "--port",
        "2005",
        "--backend",
        &endpoints("b1", 3000)[0],
    ];
    net.cli(&added).ok();
    let held = net.state_file("held.json", state([with_own("web", 2005, "b1")]));
    net.cli(&["apply", "--hold-back", &held]).ok();
    has_problem(&daemon, "held_back", "web");
    assert!(wait_until(PATIENCE, || is_served_by_v4(&net, 2005, "b1")));
    net.cli(&["deploy", "web", "--target", &endpoints("b2", 3000)[0]]).ok();
    assert!(is_served_by_v4(&net, 2005, "b2"), "it was said to be switched");
    has_no_problem(&daemon, "held_back");
}
