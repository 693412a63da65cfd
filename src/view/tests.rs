//! Tests of the views with artificial flows and counters.

mod status;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::drops::DropCounts;
use super::flow_rates::{FirstSample, SecondSample};
use super::flows::{FlowSelection, FlowView};
use super::tally::BackendIndex;
use super::{ConntrackSettings, NoService, ServiceName, ServicesView, TableView, UnmarkedFlows};
use crate::record::ApplyNote;
use crate::traffic::drop_sets;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{Family, Scope, SetName};
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{Counters, CtStatus, Flow, TcpState, Traffic};
use tcpgw_kernel::{Counted, TableProperties};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_flow_is_shown_with_what_is_known_of_it() {
    let services = services();
    let mut flow = flow(1, "203.0.113.1:2000", "10.0.0.1:80");
    let view = as_json(&FlowView::new(&flow, &services, 0));
    let bare = json!({
        "client": "198.51.100.1:1", "public": "203.0.113.1:2000", "service": "web", "backend": "10.0.0.1:80",
        "seen_as": "10.0.0.254:1", "verdict": "active", "state": "ESTABLISHED", "age_seconds": null,
        "timeout_seconds": 60, "to_backend": null, "from_backend": null,
    });
    assert_eq!(view, bare);
    flow.started = Some(5_000_000_000);
    flow.counters = Some(counters((1, 2), (3, 4)));
    flow.tcp_state = None;
    let view = as_json(&FlowView::new(&flow, &services, 65_900_000_000));
    assert_eq!((&view["age_seconds"], &view["state"]), (&json!(60), &Value::Null));
    assert_eq!(view["to_backend"], json!({"packets": 1, "bytes": 2}));
    assert_eq!(view["from_backend"], json!({"packets": 3, "bytes": 4}));
    assert_eq!(
        FlowView::new(&flow, &services, 4).age_seconds,
        Some(0),
        "a clock that was set back"
    );
}

#[test]
fn standing_is_that_of_the_pair_and_leaving_backends_drain() {
    let mut services = services();
    services.unplaced.insert(at("10.0.0.8:80"));
    let cases = [
        ("203.0.113.1:2000", "10.0.0.1:80", FlowVerdict::Active),
        ("203.0.113.9:2000", "10.0.0.3:80", FlowVerdict::Draining),
        ("203.0.113.1:2000", "10.0.0.9:80", FlowVerdict::Stale),
        ("203.0.113.1:2000", "10.0.0.8:80", FlowVerdict::Draining),
        // The endpoint belongs to another service.
        ("203.0.113.1:2000", "10.0.0.4:80", FlowVerdict::Stale),
        ("203.0.113.1:2001", "10.0.0.4:80", FlowVerdict::Active),
        ("203.0.113.2:2001", "10.0.0.4:80", FlowVerdict::Stale),
        ("203.0.113.1:2009", "10.0.0.1:80", FlowVerdict::Stale),
    ];
    for (public, backend, verdict) in cases {
        assert_eq!(
            FlowView::new(&flow(1, public, backend), &services, 0).verdict,
            verdict,
            "{public} {backend}"
        );
    }
}

#[test]
fn services_are_named_by_name_or_by_door() {
    let services = services();
    let find = |text: &str| {
        let name: ServiceName = text.parse().unwrap();
        name.find(&services.summary).map(|service| service.port)
    };
    assert_eq!(find("web"), Ok(2000));
    assert_eq!(find(":2001"), Ok(2001));
    assert_eq!(find("203.0.113.1:2001"), Ok(2001));
    assert_eq!(find("[2001:db8::1]:2000"), Ok(2000));
    assert_eq!(find("203.0.113.2:2001"), Err(NoService::ListensAt(2001)));
    assert_eq!(find("nobody"), Err(NoService::Name("nobody".into())));
    for wrong in ["", ":", ":0", ":70000", "a b", "web/1", "[::1]"] {
        assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
    }
    let mut unnamed = services.summary.clone();
    unnamed.services[0].name = None;
    let nobody = ServiceName::Name("web".into()).find(&unnamed).unwrap_err();
    assert_eq!(nobody, NoService::Unnamed("web".into(), 1));
}

#[test]
fn the_kernel_is_asked_for_a_service_by_port_and_the_rest_is_picked_here() {
    let services = services();
    let wanted = |name: &str| FlowSelection::new(Some(&name.parse().unwrap()), None, None, &services).unwrap();
    let of_two = wanted("pair");
    assert_eq!(
        (of_two.selection().public, of_two.selection().public_port),
        (None, Some(2003))
    );
    assert!(of_two.matches(&flow(1, "203.0.113.5:2003", "10.0.0.5:80")));
    assert!(!of_two.matches(&flow(1, "203.0.113.7:2003", "10.0.0.5:80")));
    assert_eq!(wanted("at").selection().public, Some("203.0.113.1".parse().unwrap()));
    assert_eq!(
        wanted(":9").selection().public_port,
        Some(9),
        "of a service that is gone"
    );
    let selection = *FlowSelection::new(
        None,
        Some(at("10.0.0.1:80")),
        Some("198.51.100.0/24".parse().unwrap()),
        &services,
    )
    .unwrap()
    .selection();
    assert!(selection.matches(&flow(1, "203.0.113.1:2000", "10.0.0.1:80")));
    assert!(!selection.matches(&flow(1, "203.0.113.1:2000", "10.0.0.2:80")));
    let elsewhere = Flow {
        client: at("192.0.2.1:1"),
        ..flow(1, "203.0.113.1:2000", "10.0.0.1:80")
    };
    assert!(!selection.matches(&elsewhere));
}

#[test]
fn a_rate_is_what_each_flow_moved() {
    let mut first = FirstSample::default();
    let grown = |n: u16, before: u64| counted(n, before * 10, before * 1000);
    let (stays, ends, reused) = (grown(1, 100), grown(2, 1_000_000), grown(3, 5000));
    for flow in [&stays, &ends, &reused, &stays] {
        first.note(flow);
    }
    let mut second = first.end(2);
    second.note(0, &grown(1, 110));
    // A client reused its port, and the kernel its memory.
    second.note(0, &grown(3, 2));
    second.note(1, &grown(4, 7));
    second.note(1, &flow(5, "203.0.113.1:2000", "10.0.0.1:80"));
    let rates = |second: &SecondSample, place, time| {
        let rates = second.rates(place, time);
        (
            rates.to.packets_per_second,
            rates.to.bytes_per_second,
            rates.from.packets_per_second,
        )
    };
    assert_eq!(
        rates(&second, 0, SECOND),
        (120.0, 12_000.0, 120.0),
        "what ended takes nothing away"
    );
    assert_eq!(
        rates(&second, 1, SECOND * 2),
        (35.0, 3500.0, 35.0),
        "what began counts whole"
    );
    assert_eq!(second.uncounted, 1);
    second.note(0, &grown(1, 110));
    assert_eq!(
        rates(&second, 0, SECOND),
        (120.0, 12_000.0, 120.0),
        "shown twice, counted once"
    );
}

#[test]
fn packet_counters_may_wrap() {
    let mut first = FirstSample::default();
    first.note(&counted(1, u64::from(u32::MAX) - 4, 1000));
    let mut second = first.end(1);
    second.note(0, &counted(1, u64::from(u32::MAX) + 6, 2000));
    let rate = second.rates(0, SECOND).to;
    assert_eq!((rate.packets_per_second, rate.bytes_per_second), (10.0, 1000.0));
}

#[test]
fn drops_are_told_by_reason() {
    let services = services();
    let places = BackendIndex::new(&services.summary);
    let mut counts = DropCounts::default();
    let service = |port: u16| [&[6, 0, 0, 0][..], &port.to_be_bytes(), &[0, 0]].concat();
    let backend = |last: u8, port: u16| [&[10, 0, 0, last][..], &port.to_be_bytes(), &[0, 0]].concat();
    let at_one = [&[203, 0, 113, 1][..], &2001_u16.to_be_bytes(), &[0, 0]].concat();
    let mut add = |set, key: Vec<u8>, packets| {
        let counted = Counted {
            key: key.into(),
            packets,
            bytes: packets * 60,
        };
        assert!(drop_sets::sets().contains(&set), "{set}");
        counts.add(set, &[counted], &services.summary, &places);
    };
    for (number, packets) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)] {
        let of = |scope| {
            [
                SetName::Refused(scope),
                SetName::NoBackend(scope),
                SetName::Stale(scope),
                SetName::Invalid(scope),
                SetName::OverClient(scope),
                SetName::OverFlows(scope),
            ][number]
        };
        add(of(Scope::Any), service(2000), packets);
        add(of(Scope::At(Family::V4)), at_one.clone(), packets * 10);
    }
    let [v4, _] = Family::BOTH;
    let over = [
        SetName::OverTo(v4),
        SetName::OverFrom(v4),
        SetName::InvalidFrom(v4),
        SetName::StaleFrom(v4),
        SetName::Reused(v4),
        SetName::Direct(v4),
    ];
    for (set, packets) in over.into_iter().zip([5, 6, 7, 8, 11, 12]) {
        add(set, backend(1, 80), packets);
    }
    add(SetName::OverTo(v4), backend(77, 80), 9);
    add(SetName::Refused(Scope::Any), service(2001), 10);
    assert_eq!(counts.others, 19, "of a backend and a service that are gone");
    let packets = |reasons: &[(&str, super::drops::Dropped)]| {
        reasons.iter().map(|(_, dropped)| dropped.packets).collect::<Vec<_>>()
    };
    assert_eq!(packets(&counts.of_service(0, None).reasons()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(packets(&counts.of_service(1, None).reasons()), [10, 20, 30, 40, 50, 60]);
    let place = places.of_backend(at("10.0.0.1:80")).next().unwrap();
    let earlier = DropCounts::default();
    let drops = counts.of_backend(place, Some((&earlier, SECOND * 2)));
    assert_eq!(packets(&drops.reasons()), [5, 6, 7, 8, 11, 12]);
    assert_eq!(
        (drops.over_limit_to.bytes, drops.over_limit_to.packets_per_second),
        (300, Some(2.5))
    );
}

#[test]
fn hints_name_the_sysctl() {
    let noted = |traffic, begin| ConntrackSettings { traffic, begin }.hints();
    assert!(noted(Some(true), Some(true)).is_empty() && noted(None, None).is_empty());
    let hints = noted(Some(false), Some(false));
    assert_eq!(
        as_json(&hints),
        json!([
            {"missing": ["packets", "bytes"], "sysctl": "net.netfilter.nf_conntrack_acct=1"},
            {"missing": ["age"], "sysctl": "net.netfilter.nf_conntrack_timestamp=1"},
        ])
    );
    assert!(
        hints[0]
            .to_string()
            .contains("`sysctl -w net.netfilter.nf_conntrack_acct=1`")
    );
}

const WEB: &str = r#"{"name":"web","port":2000,"limit":{"pps":100},
    "backends":["10.0.0.1:80","10.0.0.2:80",{"address":"10.0.0.3","port":80,"state":"draining"}]}"#;

fn summary(services: &str) -> Summary {
    let text = format!(r#"{{"version":1,"services":[{services}]}}"#);
    Summary::from(&tcpgw_core::model::parse(text.as_bytes()).unwrap())
}

fn services() -> ServicesView {
    let rest = r#"{"name":"at","port":2001,"addresses":["203.0.113.1"],"backends":["10.0.0.4:80"]},
        {"name":"void","port":2002,"on_empty":"drop","backends":[]},
        {"name":"pair","port":2003,"addresses":["203.0.113.5","203.0.113.6"],"backends":["10.0.0.5:80"]},
        {"name":"other-family","port":2004,"addresses":["203.0.113.1"],"backends":["[fd00::6]:80"]}"#;
    let about = TableProperties {
        handle: 1,
        comment: Some(tcpgw_core::ruleset::skeleton::comment(
            FlowMark::default(),
            "0".parse().unwrap(),
        )),
        flags: 4,
        owner: None,
    };
    ServicesView {
        summary: summary(&format!("{WEB},{rest}")),
        table: Some(TableView::new(about, 3)),
        applied: Some(ApplyNote {
            at: 77,
            origin: "/etc/state.json".into(),
            known: Duration::ZERO,
            store: None,
            provider: None,
        }),
        ..ServicesView::default()
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(client: u16, public: &str, backend: &str) -> Flow {
    Flow {
        client: SocketAddr::new("198.51.100.1".parse().unwrap(), client),
        public: at(public),
        backend: at(backend),
        seen_as: SocketAddr::new("10.0.0.254".parse().unwrap(), client),
        id: client.into(),
        mark: FlowMark::default().value(),
        status: CtStatus(2 | 4 | 16 | 32),
        tcp_state: Some(TcpState::Established),
        zone: 0,
        timeout: Some(60),
        counters: None,
        started: None,
    }
}

fn counters(to: (u64, u64), from: (u64, u64)) -> Counters {
    let traffic = |(packets, bytes)| Traffic { packets, bytes };
    Counters {
        to: traffic(to),
        from: traffic(from),
    }
}

/// Returns a flow of `web` with the same traffic in both directions.
fn counted(client: u16, packets: u64, bytes: u64) -> Flow {
    Flow {
        counters: Some(counters((packets, bytes), (packets, bytes))),
        ..flow(client, "203.0.113.1:2000", "10.0.0.1:80")
    }
}

fn as_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn flows_without_our_mark_that_have_ended_do_not_count() {
    let services = Summary::from(
        &tcpgw_core::model::parse(
            br#"{"version": 1, "services": [{"name": "web", "port": 2000, "backends": ["10.0.0.1:80"]}]}"#,
        )
        .unwrap(),
    );
    let mut found = UnmarkedFlows::default();
    for (client, state) in [
        (1, TcpState::Established),
        (2, TcpState::TimeWait),
        (3, TcpState::Close),
        (4, TcpState::FinWait),
    ] {
        let flow = Flow {
            tcp_state: Some(state),
            ..flow(client, "203.0.113.1:2000", "10.0.0.1:80")
        };
        found.add(&services, &flow);
    }
    assert_eq!(found.count, 2);
}
