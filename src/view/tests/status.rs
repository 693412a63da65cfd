//! Tests of the whole status: its figures and its problems.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SECOND, WEB, as_json, at, counted, flow, services, summary};
use crate::view::drops::DropCounts;
use crate::view::facts::StatusFacts;
use crate::view::flow_rates::FirstSample;
use crate::view::snapshot::{DaemonView, HealthView, Snapshot};
use crate::view::status::Status;
use crate::view::tally::{BackendIndex, Tally};
use crate::view::totals::ConnectionCounts;
use crate::view::{ConntrackSettings, ServicesView};
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{ProblemKind, Severity};
use tcpgw_kernel::conntrack::{Flow, TcpState};

#[test]
fn all_is_well() {
    let services = ServicesView {
        summary: summary(WEB),
        ..services()
    };
    let places = BackendIndex::new(&services.summary);
    let (mut tally, mut first) = (Tally::new(&services, &places), FirstSample::default());
    let quiet = counted(1, 5, 50);
    first.note(&quiet);
    let mut second = first.end(places.len());
    for flow in [
        counted(1, 105, 200_050),
        Flow {
            tcp_state: Some(TcpState::SynSent),
            ..counted(2, 1, 60)
        },
        Flow {
            tcp_state: Some(TcpState::TimeWait),
            ..counted(3, 10, 600)
        },
    ] {
        let place = tally.count(&flow).unwrap();
        second.note(place, &flow);
    }
    let status = as_json(&Status::new(&StatusFacts {
        traffic: Some(second),
        earlier: Some(DropCounts::default()),
        time: SECOND,
        ..facts(&services, &places, tally)
    }));
    assert_eq!(
        (&status["ok"], &status["problems"]),
        (&json!(true), &json!([])),
        "{status:#}"
    );
    let flows = json!({"handshake": 1, "established": 1, "closing": 1});
    assert_eq!((&status["flows"], &status["services"][0]["flows"]), (&flows, &flows));
    let service = &status["services"][0];
    assert_eq!(
        service["limit"],
        json!({"packets_per_second": 100, "bytes_per_second": 150_000, "burst": 1000, "shared": false})
    );
    let backend = &service["backends"][0];
    assert_eq!(
        (&backend["state"], &backend["weight"], &backend["health"]),
        (&json!("active"), &json!(1), &Value::Null)
    );
    let rate = json!({"packets_per_second": 111.0, "bytes_per_second": 200_660.0});
    assert_eq!(backend["rates"], json!({"to": rate, "from": rate}));
    assert_eq!(
        backend["of_limit"],
        json!({"to": 1.338, "from": 1.338, "shared": null}),
        "of bytes, not of packets"
    );
    assert_eq!(
        backend["source_ports"],
        json!([{"address": "10.0.0.254", "used": 3, "of": 64_512}])
    );
    assert_eq!(status["sample"], json!({"seconds": 1.0, "flows_not_counted": 0}));
    assert_eq!(status["applied"], json!({"at": 77, "origin": "/etc/state.json"}));
    assert_eq!(status["table"]["flags"], json!(["persist"]));
}

#[test]
fn what_is_unhealthy_comes_first() {
    let services = services();
    let places = BackendIndex::new(&services.summary);
    let mut tally = Tally::new(&services, &places);
    for n in 0..3 {
        tally.count(&flow(n, "203.0.113.1:2000", "10.0.0.9:80"));
    }
    for n in 0..52_000 {
        tally.count(&flow(n, "203.0.113.1:2000", "10.0.0.1:80"));
    }
    let status = Status::new(&facts(&services, &places, tally));
    assert!(!status.ok);
    let kinds: Vec<_> = status
        .problems
        .iter()
        .map(|problem| (problem.severity, problem.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (Severity::Error, ProblemKind::NoActiveBackend),
            (Severity::Error, ProblemKind::NoActiveBackend),
            (Severity::Error, ProblemKind::StaleFlows),
            (Severity::Warning, ProblemKind::SourcePorts),
        ]
    );
    let empty: Vec<_> = status.problems[..2]
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        empty,
        [
            "void :2002 has no active backend: clients time out",
            "other-family 203.0.113.1:2004 has no active backend of a family that it listens on: clients are refused",
        ]
    );
    assert!(
        status.problems[2]
            .message
            .starts_with("3 flows to port 2000 are still at 10.0.0.9:80")
    );
    assert!(
        status.problems[3]
            .message
            .contains("52000 of 64512 source ports from 10.0.0.254 to 10.0.0.1:80")
    );

    let tally = Tally::new(&services, &places);
    let only = Status::new(&StatusFacts {
        only: Some(0),
        ..facts(&services, &places, tally)
    });
    assert!(
        only.ok && only.services.len() == 1,
        "the service that is asked for is well"
    );
}

/// Clients are expected in each family of a service's backends, or of its chosen addresses.
#[test]
fn a_family_that_nobody_serves_is_an_error() {
    let dual = |ipv4: &str| {
        format!(
            r#"{{"name":"dual","port":2000,"backends":[{{"address":"10.0.0.1","port":80,"state":"{ipv4}"}},"[fd00::1]:80"]}}"#
        )
    };
    let both = r#"{"name":"both","port":2000,"addresses":["203.0.113.1","2001:db8::1"],"backends":["10.0.0.1:80"]}"#;
    let refused = |family: &str| format!("no active backend for {family} clients: these clients are refused");
    for (text, words) in [
        (dual("active"), None),
        (dual("draining"), Some(refused("IPv4"))),
        (both.to_owned(), Some(refused("IPv6"))),
    ] {
        let services = ServicesView {
            summary: summary(&text),
            ..services()
        };
        let places = BackendIndex::new(&services.summary);
        let status = Status::new(&facts(&services, &places, Tally::new(&services, &places)));
        let problems: Vec<_> = status.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            (status.ok, problems.len()),
            (words.is_none(), usize::from(words.is_some())),
            "{problems:?}"
        );
        assert!(words.iter().all(|words| problems[0].contains(words)), "{problems:?}");
    }
}

#[test]
fn flows_of_leaving_backends_are_no_problem() {
    let mut services = services();
    services.summary.services.truncate(1);
    services.unplaced.insert(at("10.0.0.9:80"));
    let places = BackendIndex::new(&services.summary);
    let mut tally = Tally::new(&services, &places);
    assert_eq!(tally.count(&flow(1, "203.0.113.1:2009", "10.0.0.9:80")), None);
    let status = Status::new(&facts(&services, &places, tally));
    assert!(status.ok, "{:?}", status.problems);
    assert_eq!((status.leaving.flows, status.stale.flows), (1, 0));
}

#[test]
fn many_strangers_are_counted_and_not_all_told() {
    let services = services();
    let places = BackendIndex::new(&services.summary);
    let mut tally = Tally::new(&services, &places);
    for n in 0..5000_u16 {
        let [high, low] = n.to_be_bytes();
        tally.count(&flow(1, "203.0.113.1:2000", &format!("10.9.{high}.{low}:80")));
    }
    let status = Status::new(&facts(&services, &places, tally));
    assert_eq!((status.stale.flows, status.stale.pairs.len()), (5000, 1000));
    let last = &status
        .problems
        .iter()
        .rfind(|problem| problem.kind == ProblemKind::StaleFlows)
        .unwrap()
        .message;
    assert_eq!(last, "4990 more flows should have been flushed");
}

/// A pause does not end by itself without a daemon.
#[test]
fn a_pause_without_a_daemon_is_called_so() {
    let mut services = services();
    services.pauses = vec![crate::record::RecordedPause {
        service: "void".into(),
        since: 1_700_000_000,
        uid: 7,
        browser: None,
        until: Duration::from_secs(99),
        time: Duration::from_secs(60),
    }];
    let places = BackendIndex::new(&services.summary);
    let status = Status::new(&facts(&services, &places, Tally::new(&services, &places)));
    let of_void = |problem: &&tcpgw_core::problem::Problem| problem.service.as_deref() == Some("void");
    let problems: Vec<_> = status.problems.iter().filter(of_void).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        (problems[0].kind, problems[0].severity),
        (ProblemKind::Paused, Severity::Error)
    );
    for part in [
        "void :2002 is paused by uid 7 since 2023-11-14 22:13:20 UTC, until 2023-11-14 22:14:20 UTC",
        "until one runs again",
    ] {
        assert!(problems[0].message.contains(part), "{}", problems[0].message);
    }
    // A service that gets connections is not paused, whatever an old record says.
    services.pauses[0].service = "web".into();
    let status = Status::new(&facts(&services, &places, Tally::new(&services, &places)));
    assert!(
        status
            .problems
            .iter()
            .all(|problem| problem.kind != ProblemKind::Paused)
    );
}

/// Tests a tenth of the largest gateway, all of whose backends are dead: a client accepts at most 128 MiB.
#[test]
fn a_status_of_many_dead_backends_is_of_moderate_size() {
    const SERVICES: usize = 1000;
    let text: Vec<String> = (0..SERVICES)
        .map(|n| {
            let backends = (1..9).map(|host| format!("\"10.{}.{}.{host}:3000\"", n / 250, n % 250));
            let backends = backends.collect::<Vec<_>>().join(",");
            format!(r#"{{"name": "service-of-somebody-{n}", "port": {}, "limit": {{"pps": 1000}}, "backends": [{backends}]}}"#, 2000 + n)
        })
        .collect();
    let services = ServicesView {
        summary: summary(&text.join(",")),
        ..services()
    };
    let places = BackendIndex::new(&services.summary);
    let dead = |backend: std::net::SocketAddr| {
        let view = HealthView {
            state: "unhealthy",
            reason: Some("unreachable (network is unreachable)".into()),
            since: 1_700_000_000,
        };
        (backend, view)
    };
    let of_daemon = (0..1000_u16).map(|n| {
        let message =
            format!("service-of-somebody-{n} has no healthy backend: none of 8 answers probes, see health_reason");
        tcpgw_core::problem::Problem::new(ProblemKind::NoHealthyBackend, message)
            .of_service(format!("service-of-somebody-{n}"), 2000 + n)
    });
    let known = Snapshot {
        health: services
            .summary
            .services
            .iter()
            .flat_map(|of| of.active.keys().copied().map(dead))
            .collect(),
        daemon: DaemonView {
            problems: of_daemon.collect(),
            ..DaemonView::default()
        },
        ..Snapshot::default()
    };
    let status = Status::new(&StatusFacts {
        traffic: Some(FirstSample::default().end(places.len())),
        earlier: Some(DropCounts::default()),
        time: SECOND,
        daemon: Some(&known),
        ..facts(&services, &places, Tally::new(&services, &places))
    });
    assert!(!status.ok);
    let count = |kind| status.problems.iter().filter(|problem| problem.kind == kind).count();
    assert_eq!(
        (
            count(ProblemKind::NoHealthyBackend),
            count(ProblemKind::BackendUnhealthy)
        ),
        (1000, 1001)
    );
    let mut json = Vec::new();
    crate::observe::write_status(&mut json, &status).unwrap();
    // The number of problems does not grow further with the gateway.
    let problems = serde_json::to_vec(&(&status.problems, &known.daemon)).unwrap().len();
    println!("{} bytes, {problems} of them problems", json.len());
    let largest = (json.len() - problems) * 10 + problems;
    assert!(
        largest < 80 << 20,
        "{} and {problems} of problems come to {largest}",
        json.len()
    );
    let read: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(read["services"][999]["backends"][7]["health"], "unhealthy");
}

#[test]
fn no_table_is_a_problem_and_so_is_another_mark() {
    let nothing = ServicesView {
        table: None,
        ..ServicesView::default()
    };
    let places = BackendIndex::new(&nothing.summary);
    let status = Status::new(&facts(&nothing, &places, Tally::new(&nothing, &places)));
    assert_eq!(
        status.problems.iter().map(|p| p.kind).collect::<Vec<_>>(),
        [ProblemKind::NoTable]
    );
    assert!(!status.ok);

    let mut services = services();
    services.summary.services.truncate(1);
    services.configured = FlowMark::new(1, 1).unwrap();
    services.changed = Some("the table in the kernel has other rules (tcpgw 0.0.1, ...)".into());
    let places = BackendIndex::new(&services.summary);
    let status = Status::new(&facts(&services, &places, Tally::new(&services, &places)));
    let kinds: Vec<_> = status.problems.iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ProblemKind::TableChanged, ProblemKind::OtherMark]);
    assert!(status.ok, "another version's table serves");
    services.is_edited = true;
    let places = BackendIndex::new(&services.summary);
    let status = Status::new(&facts(&services, &places, Tally::new(&services, &places)));
    assert!(!status.ok, "nobody knows what the rules do");
}

fn facts<'a>(services: &'a ServicesView, places: &'a BackendIndex, tally: Tally<'a>) -> StatusFacts<'a> {
    StatusFacts {
        services,
        places,
        tally,
        traffic: None,
        connections: ConnectionCounts::default(),
        totals: None,
        drops: DropCounts::default(),
        earlier: None,
        time: Duration::ZERO,
        noted: ConntrackSettings::default(),
        only: None,
        daemon: None,
        found: &[],
    }
}
