//! `tcpgw status`: its verdict, and its figures.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::flows::put;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::forge::Segment;
use crate::harness::plan::{self, INTERNAL, NOBODY, PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::views::parsed;
use crate::harness::wire::{ACK, RST, SYN};
use crate::harness::{Net, wait_until};

const QUICK: &[&str] = &["status", "--interval", "0s"];

/// Returns the problems' severities and kinds, except the one that every limit here causes: clients could reach the containers
/// without the gateway.
fn kinds(status: &Value) -> Vec<String> {
    let problems = status["problems"].as_array().expect("a list");
    let problems = problems.iter().filter(|problem| problem["kind"] != "backends_exposed");
    let text = |problem: &Value| format!("{} {}", problem["severity"], problem["kind"]).replace('"', "");
    problems.map(text).collect()
}

#[test]
fn it_is_1_when_something_is_unhealthy() {
    let net = Net::new();
    let status = net.json(QUICK, 1);
    assert_eq!(kinds(&status), ["error no_table"]);
    assert_eq!((&status["ok"], &status["table"]), (&json!(false), &Value::Null));
    assert!(net.tcpgw(QUICK).exits(1).stdout.starts_with("unhealthy: 0 services"));

    let web = || service("web", 8000, &["b1", "b2"], 3000, json!({"limit": {"pps": 100}}));
    net.apply(state([web()]));
    let status = net.json(QUICK, 0);
    assert_eq!(
        (&status["ok"], &status["problems"][0]["kind"]),
        (&json!(true), &json!("backends_exposed"))
    );
    let service_ = &status["services"][0];
    assert_eq!((&service_["name"], &service_["healthy"]), (&json!("web"), &json!(true)));
    assert_eq!(service_["limit"]["bytes_per_second"], 150_000);
    let backends: Vec<&str> = service_["backends"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|b| b["backend"].as_str())
        .collect();
    assert_eq!(
        backends,
        [
            "10.2.0.11:3000",
            "10.2.0.12:3000",
            "[fd00:2::11]:3000",
            "[fd00:2::12]:3000"
        ]
    );
    let origin = status["applied"]["origin"].as_str().expect("text");
    assert!(origin.starts_with('/') && origin.ends_with("state.json"), "{origin}");
    assert!(
        net.tcpgw(QUICK)
            .ok()
            .starts_with("ok: 1 service, 4 backends, 0 flows\n")
    );

    let void = service("void", 8001, &[], 3000, json!({}));
    let at_v4 = service(
        "at",
        8002,
        &[],
        3000,
        json!({"addresses": [PUBLIC[0]], "backends": ["[fd00:2::11]:3001"]}),
    );
    net.apply(state([web(), void.clone(), at_v4]));
    let status = net.json(QUICK, 1);
    assert_eq!(kinds(&status), ["error no_active_backend", "error no_active_backend"]);
    assert_eq!(
        net.json(&["status", "--interval", "0s", "--service", "web"], 0)["services"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    net.json(&["status", "--interval", "0s", "--service", ":8001"], 1);
    net.tcpgw(&["status", "--service", "nobody"]).exits(1);

    net.apply(state([web()]));
    put(
        &net,
        [
            ("10.2.0.14:3000", 8000),
            ("10.2.0.11:3000", 8000),
            ("10.2.0.11:3000", 8009),
        ],
    );
    let status = net.json(QUICK, 1);
    assert_eq!(kinds(&status), ["error stale_flows", "error stale_flows"]);
    assert_eq!(
        (&status["stale"]["flows"], &status["flows"]["established"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        status["services"][0]["backends"][0]["source_ports"],
        json!([{"address": INTERNAL[0], "used": 1, "of": 64_512}])
    );
    net.apply(state([web()]));
    net.json(QUICK, 0);

    // Another program writes to another table, and to ours.
    net.nft("gateway", "table inet foreign {}");
    assert_eq!(net.json(QUICK, 0)["services"][0]["name"], "web");
    net.nft("gateway", "add chain inet tcpgw odd");
    assert_eq!(kinds(&net.json(QUICK, 1)), ["error table_changed"]);
    net.forget();
    let status = net.json(QUICK, 1);
    assert_eq!(
        (&status["services"][0]["name"], &status["applied"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn waiting_ends_when_all_is_well_or_the_time_is_over() {
    let net = Net::new();
    let over = net
        .tcpgw(&["status", "--interval", "0s", "--wait", "--timeout", "300ms"])
        .exits(1);
    assert!(over.stderr.contains("still unhealthy after 300ms"), "{over}");
    assert!(over.took >= Duration::from_millis(300), "{over}");
    let argv = [TCPGW, "status", "--interval", "0s", "--wait", "--service", "web"];
    let mut waiting = net.spawn("gateway", &argv);
    net.apply(state([service("web", 8000, &[], 3000, json!({}))]));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.ended(), "there is no backend yet");
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    assert!(waiting.wait().exits(0).stdout.starts_with("ok: 1 service"));
    net.tcpgw(&["status", "--timeout", "1s"]).exits(2);
}

/// Flows of a backend that drains are no problem, while stale flows would be one.
#[test]
fn backends_that_leave_are_no_problem_while_they_may() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let stays = || service("stays", 8000, &["b1"], 3000, json!({}));
    net.apply(state([stays(), service("goes", 8001, &["b2"], 3000, json!({}))]));
    let held = net.hold("client", at(PUBLIC[0], 8001));
    let file = net.state_file("next.json", state([stays()]));
    let mut draining = net.spawn("gateway", &[TCPGW, "apply", "--drain", "60s", &file]);
    let mut status = Value::Null;
    let leaves = wait_until(PATIENCE, || {
        status = parsed(&net.tcpgw(&[QUICK, &["-o", "json"]].concat()));
        status["leaving"]["flows"] == 1
    });
    assert!(
        leaves && status["ok"] == true && status["stale"]["flows"] == 0,
        "{status:#}"
    );
    let pair = json!([{"port": 8001, "backend": "10.2.0.12:3000", "flows": 1}]);
    assert_eq!(status["leaving"]["pairs"], pair);
    assert_eq!(net.flows(&[])[0]["verdict"], "draining");
    assert!(!draining.ended(), "it waits");
    drop(held);
    draining.wait().exits(0);
    assert_eq!(net.json(QUICK, 0)["leaving"]["flows"], 0);
}

#[test]
fn a_known_load_is_what_is_told() {
    const PPS: u32 = 200;
    let net = Net::alone();
    let _servers = net.serve_all(3000, Behaviour::Silent);
    net.apply(state([
        service("busy", 8000, &["b1"], 3000, json!({"limit": {"pps": 400, "mtu": 1500}})),
        service("idle", 8001, &["b2"], 3000, json!({})),
    ]));
    net.sysctl("net.netfilter.nf_conntrack_acct", 0);
    let old = net.connect("client", at(PUBLIC[0], 8001)).expect("a connection");
    let status = net.json(&["status", "--interval", "50ms"], 0);
    let of_idle = &status["services"][1]["backends"][0];
    assert_eq!((&of_idle["rates"], &of_idle["of_limit"]), (&Value::Null, &Value::Null));
    assert_eq!(status["hints"][0]["sysctl"], "net.netfilter.nf_conntrack_acct=1");
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let mut conns = PUBLIC.map(|public| net.connect("client", at(public, 8000)).expect("a connection"));
    let begin = Instant::now();
    let mut sent = 0;
    let mut status = None;
    thread::scope(|scope| {
        let looking = scope.spawn(|| net.json(&["status", "--interval", "2s"], 0));
        while !looking.is_finished() {
            let due = begin.elapsed().as_micros() * u128::from(PPS) / 1_000_000;
            while sent < due {
                conns[(sent % 2) as usize].send(&[7; 948]).expect("it is taken");
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        status = looking.join().ok();
    });
    let status = status.expect("a status");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{status:#}"));
    let expected = |told: f64, due: f64| assert!((0.4..1.8).contains(&(told / due)), "{told} of {due}: {status:#}");
    let of = |service: usize| status["services"][service]["backends"].as_array().expect("a list");
    for backend in of(0) {
        let to = &backend["rates"]["to"];
        expected(number(&to["packets_per_second"]), f64::from(PPS) / 2.0);
        expected(number(&to["bytes_per_second"]), 1000.0 * f64::from(PPS) / 2.0);
        expected(number(&backend["of_limit"]["to"]), 0.25);
    }
    assert_eq!(of(1)[0]["rates"]["to"]["packets_per_second"], 0.0);
    assert_eq!(
        status["sample"]["flows_not_counted"],
        1,
        "{:?} began before",
        old.local()
    );
    assert!(number(&status["sample"]["seconds"]) >= 2.0);
}

#[test]
fn what_is_dropped_is_told_by_reason() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let _talker = net.serve("b3", 3001, Behaviour::Source);
    let small = json!({"pps": 1, "burst": 10, "mtu": 68});
    net.apply(state([
        service(
            "web",
            2001,
            &["b1"],
            3000,
            json!({"deny": ["198.18.0.0/16"], "limit": small}),
        ),
        service("void", 2002, &[], 3000, json!({"on_empty": "drop"})),
        service(
            "at",
            2003,
            &["b2"],
            3000,
            json!({"addresses": PUBLIC, "source": "preserve"}),
        ),
        service("talks", 2004, &["b3"], 3001, json!({"limit": small})),
    ]));
    let drops = |service: usize, reason: &str| {
        let status = net.tcpgw(&[QUICK, &["-o", "json"]].concat());
        parsed(&status)["services"][service]["drops"][reason]["packets"]
            .as_u64()
            .expect("a number")
    };
    let forge = |from, to, flags| net.forge("client", &Segment::new(from, to, flags));
    for (family, public) in PUBLIC.into_iter().enumerate() {
        let nobody = at(NOBODY[family], 6000);
        forge(at("198.18.0.1", 6000), at(PUBLIC[0], 2001), SYN);
        forge(nobody, at(public, 2002), SYN);
        for port in [2001, 2003] {
            forge(nobody, at(public, port), ACK);
            forge(nobody, at(public, port), RST);
            forge(nobody, at(public, port), RST);
        }
    }
    for (service, reason, packets) in [
        (0, "refused", 2),
        (1, "no_backend", 2),
        (0, "stale", 2),
        (2, "stale", 2),
        (0, "invalid", 4),
        (2, "invalid", 4),
    ] {
        assert!(
            wait_until(PATIENCE, || drops(service, reason) == packets),
            "{service} {reason}: {}",
            drops(service, reason)
        );
    }

    let backend = |service: usize, reason: &str| {
        let status = parsed(&net.tcpgw(&[QUICK, &["-o", "json"]].concat()));
        let drops = &status["services"][service]["backends"][0]["drops"];
        drops[reason]["packets"].as_u64().expect("a number")
    };
    let mut conn = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    conn.patience(Duration::from_millis(300));
    conn.echo(&vec![7; 20_000]).expect_err("the limit holds");
    let talks = net.connect("client", at(PUBLIC[0], 2004)).expect("a connection");
    for (service, set, key, reason) in [
        (0, "over_to_v4", "10.2.0.11 . 3000", "over_limit_to"),
        (3, "over_from_v4", "10.2.0.13 . 3001", "over_limit_from"),
    ] {
        assert!(wait_until(PATIENCE, || backend(service, reason) > 0), "{reason}");
        let told = backend(service, reason);
        assert!(told <= net.tallied(set, key), "{reason}: {told}");
    }
    drop(talks);
    // Packets of no flow from a backend that sees its clients.
    let container = at(&plan::addresses("b2")[0].to_string(), 3000);
    net.forge("b2", &Segment::new(container, at("203.0.113.10", 6000), ACK));
    net.forge("b2", &Segment::new(container, at("203.0.113.10", 6001), RST));
    assert!(wait_until(PATIENCE, || (
        backend(2, "stale_from"),
        backend(2, "invalid_from")
    ) == (1, 1)));
    let wide = [QUICK, &["-o", "wide"]].concat();
    let table = net.tcpgw(&wide).exits(1).stdout;
    for words in [
        "refused by allow or deny",
        "over the limit to it",
        "1 of flushed flows from it",
        "2 no backend",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
}
