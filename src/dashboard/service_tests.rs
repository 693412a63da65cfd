//! Pages of a service, of its deploys, of its app, and of the doctor's findings.

use std::sync::Arc;
use std::time::Duration;

use super::tests::{HOSTILE, is_clean, small};
use super::*;
use crate::addon::id::ResourceId;
use crate::addon::{Dialect, ServiceState};
use crate::control::events::{Event, EventContent, Events};
use crate::control::request::{
    AddonView, BackendView, DeployView, ListedService, ResourceView, ServiceView, TargetView,
};
use crate::control::storage::DeployRecord;
use crate::doctor::{Diagnosis, Finding, FindingSeverity, Fix, Unchecked};
use crate::metrics::Reading;
use crate::store::{DeployPhase, HistoryEntry, StoredDeploy};
use tcpgw_core::model::{Service, parse_service};
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::conntrack::{Counters, CtStatus, Flow, TcpState, Traffic};

const NAME: &str = "service-00002";
const ESCAPED: &str = "&lt;img src=x onerror=alert(1)&gt;";

fn backend(last: u8) -> BackendView {
    BackendView {
        backend: ([10, 1, 2, last], 3000).into(),
        desired: "active".into(),
        balanced: true,
        health: Some("healthy".into()),
        reason: None,
        leaving: false,
        flows: None,
        seconds_left: None,
    }
}

fn view() -> ServiceView {
    let text = format!(r#"{{"name": "{NAME}", "port": 2002, "drain_timeout": "90s", "backends": ["10.1.2.1:3000"]}}"#);
    let mut service: Service = parse_service(text.as_bytes()).unwrap();
    service.labels.insert("team".into(), HOSTILE.into());
    let unhealthy = BackendView {
        health: Some("unhealthy".into()),
        reason: Some(HOSTILE.into()),
        balanced: false,
        ..backend(2)
    };
    let leaving = BackendView {
        desired: "gone".into(),
        balanced: false,
        leaving: true,
        flows: Some(17),
        seconds_left: Some(75),
        ..backend(3)
    };
    ServiceView {
        listed: ListedService {
            service: Arc::new(service),
            provider: "api",
            revision: Some(41),
            held_back: vec![HOSTILE.into()],
            paused: None,
            addon: Some(AddonView {
                id: ResourceId::from_random(1),
                app: "my-app".parse().unwrap(),
                plan: "small".parse().unwrap(),
                state: ServiceState::Active,
            }),
        },
        paused_for: Some(61),
        backends: vec![backend(1), unhealthy, leaving],
        in_kernel: true,
        deploy: Some(progress()),
    }
}

fn progress() -> DeployView {
    DeployView {
        id: 7,
        service: NAME.into(),
        phase: "switched".into(),
        reason: None,
        targets: vec![TargetView {
            backend: backend(1).backend,
            health: "healthy".into(),
            reason: Some(HOSTILE.into()),
        }],
        old: vec![backend(2).backend, backend(3).backend],
        left: 1,
        flows: Some(17),
        seconds_left: Some(30),
    }
}

fn stored() -> StoredDeploy {
    StoredDeploy {
        id: 7,
        service: NAME.into(),
        targets: vec![backend(1).backend.try_into().unwrap()],
        details: serde_json::Value::Null,
        uid: 1000,
        pid: 0,
        what: HOSTILE.into(),
        phase: DeployPhase::Switched,
        reason: Some(HOSTILE.into()),
        began: Duration::from_secs(1_700_000_000),
        updated: Duration::from_secs(1_700_000_010),
        revision: Some(41),
    }
}

fn history() -> HistoryEntry {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.into()).ok();
    HistoryEntry {
        id: 3,
        revision: 41,
        at: Duration::from_secs(1_700_000_000),
        uid: 1000,
        pid: 0,
        what: HOSTILE.into(),
        deploy: Some(7),
        service: NAME.into(),
        old: raw(r#"{"port": 2002, "limit": {"pps": 1}, "<b>": 1}"#),
        new: raw(r#"{"port": 2002, "limit": {"pps": 2}}"#),
    }
}

fn flow(client: u16, public: &str, backend: [u8; 4]) -> Flow {
    Flow {
        client: ([198, 51, 100, 1], client).into(),
        public: public.parse().unwrap(),
        backend: (backend, 3000).into(),
        seen_as: ([10, 1, 0, 1], client).into(),
        id: client.into(),
        mark: 0,
        status: CtStatus::default(),
        tcp_state: Some(TcpState::Established),
        zone: 0,
        timeout: None,
        counters: Some(Counters {
            to: Traffic {
                packets: 1,
                bytes: 1500,
            },
            from: Traffic {
                packets: 2,
                bytes: 3000,
            },
        }),
        started: Some(1_000_000_000),
    }
}

fn flows(reading: &Reading) -> FlowList {
    FlowList::new(reading.services[1].clone(), 66_000_000_000)
}

/// Returns a page of all that is known.
fn page(reading: &Reading, view: Option<&ServiceView>, flows: &FlowList) -> String {
    let mut events = Events::new("epoch");
    let retired = EventContent::Retired {
        service: NAME.into(),
        backend: backend(3).backend,
        reason: "deadline",
        flows: Some(4),
    };
    let health = EventContent::Health {
        service: NAME.into(),
        backend: backend(2).backend,
        state: "unhealthy",
        reason: Some(HOSTILE.into()),
    };
    let events = [retired, health].map(|what| events.note(what, None, Duration::from_secs(1_700_000_000)));
    let events: Vec<&Event> = events.iter().map(|event| &**event).collect();
    let service = ServicePage {
        name: NAME,
        reading,
        sample: reading.services.iter().find(|of| &*of.name == NAME),
        view,
        flows: Ok(flows),
        deploys: Some(&[stored()]),
        history: Some(&[history()]),
        events: Some(&events),
        last_hour: None,
        may_order: true,
    };
    service.page().document().into_string()
}

#[test]
fn a_services_page_tells_all_that_is_known_of_it() {
    let mut reading = small();
    reading.listed_problems = vec![
        Problem::new(ProblemKind::NoHealthyBackend, HOSTILE).of_service(NAME, 2002),
        Problem::new(ProblemKind::NoHealthyBackend, "of another").of_service("other", 1),
    ];
    let mut flows = flows(&reading);
    for client in 0..150 {
        flows.add(&flow(client, "203.0.113.1:2002", [10, 1, 2, 1]));
    }
    let text = page(&reading, Some(&view()), &flows);
    is_clean(&text);
    for expected in [
        "<h1>Service service-00002</h1>",
        "class=\"state empty\"",
        "New connections wait for 1 min 1 s more.",
        "<a href=\"/deploys/7\">Deploy 7</a> is under way: switched, at most 30 s more. 1 of 1 new backends answer.",
        "3 backends",
        "ends in at most 1 min 15 s",
        "class=\"meter below\"",
        "Each backend may receive and send 1,000 packets and 1.5 MB per second, each way.",
        "no backend",
        "150 in conntrack; these are the first 100",
        "198.51.100.1:0",
        "10.1.0.1:7",
        ">1 min 5 s<",
        ">1.5 kB<",
        "reason deadline",
        "&lt;b&gt;, limit",
        ">90s<",
        &format!("href=\"/apps/{}\"", ResourceId::from_random(1)),
        ">41<",
        ESCAPED,
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("of another"), "{text}");
    // Those that need attention come first.
    let place = |backend: &str| text.find(&format!("data-label=\"Backend\">{backend}"));
    assert!(place("10.1.2.2:3000") < place("10.1.2.1:3000"), "{text}");
}

#[test]
fn a_services_page_says_what_is_not_known() {
    let mut reading = small();
    let flows = flows(&reading);
    let leaving = page(&reading, None, &flows);
    is_clean(&leaving);
    assert!(
        leaving.contains("No provider has it any more") && leaving.contains("There are none."),
        "{leaving}"
    );
    reading.services.clear();
    reading.kernel = None;
    reading.totals = None;
    let absent = page(&reading, Some(&view()), &flows);
    is_clean(&absent);
    for expected in [
        "not served",
        "The kernel does not have it.",
        "They are not known now.",
        "Totals could not be read",
    ] {
        assert!(absent.contains(expected), "{expected}: {absent}");
    }
    let silent = ServicePage {
        name: NAME,
        reading: &reading,
        sample: None,
        view: Some(&view()),
        flows: Err(HOSTILE),
        deploys: None,
        history: None,
        events: None,
        last_hour: None,
        may_order: true,
    };
    let silent = silent.page().document().into_string();
    is_clean(&silent);
    assert_eq!(silent.matches("Not known at the moment.").count(), 3, "{silent}");
    assert!(
        silent.contains(&format!("They cannot be shown now: {ESCAPED}")),
        "{silent}"
    );
}

#[test]
fn flows_of_other_services_are_not_listed() {
    let mut reading = small();
    reading.services[1].addresses = vec!["203.0.113.1".parse().unwrap()];
    let mut flows = flows(&reading);
    assert_eq!(flows.selection().public_port, Some(2002));
    flows.add(&flow(1, "203.0.113.1:2002", [10, 1, 2, 9]));
    flows.add(&flow(2, "203.0.113.2:2002", [10, 1, 2, 1]));
    flows.add(&flow(3, "203.0.113.1:2003", [10, 1, 2, 1]));
    let text = flows.markup().into_string();
    assert!(
        text.contains("1 in conntrack<") && text.contains("of a backend that has left"),
        "{text}"
    );
}

#[test]
fn a_page_with_many_backends_shows_the_first_ones() {
    let reading = small();
    let mut view = view();
    view.backends = (0..=255).flat_map(|last| [backend(last)]).collect();
    view.backends.extend((0..=255).map(|last| BackendView {
        backend: ([10, 9, 9, last], 80).into(),
        ..backend(0)
    }));
    let text = page(&reading, Some(&view), &flows(&reading));
    assert!(text.contains("512 backends; these are the first 200"), "{}", text.len());
    assert!(text.len() < 256 << 10, "{}", text.len());
}

#[test]
fn a_deploys_page_shows_the_swap_and_its_end() {
    let reading = small();
    let record = |phase, reason: Option<&str>| DeployRecord {
        deploy: StoredDeploy {
            phase,
            reason: reason.map(str::to_owned),
            ..stored()
        },
        old: vec![backend(2).backend.try_into().unwrap()],
    };
    let text = |record: &DeployRecord, progress: Option<&DeployView>| {
        let reading = &reading;
        let page = DeployPage {
            record,
            progress,
            reading,
            may_order: true,
        };
        let text = page.page().document().into_string();
        is_clean(&text);
        text
    };
    let switched = text(&record(DeployPhase::Probing, None), Some(&progress()));
    for expected in [
        "<h1>Deploy 7</h1>",
        "href=\"/services/service-00002\"",
        "<li aria-current=\"step\"><strong>switched</strong>",
        "At most 30 s more.",
        "10.1.2.1:3000",
        "10.1.2.2:3000",
        "1 of 2 have drained; 17 connections are left.",
        ESCAPED,
    ] {
        assert!(switched.contains(expected), "{expected}: {switched}");
    }
    let deciding = DeployView {
        phase: "switching".into(),
        old: Vec::new(),
        ..progress()
    };
    let switching = text(&record(DeployPhase::Probing, None), Some(&deciding));
    assert!(
        switching.contains("<li aria-current=\"step\"><strong>probing</strong>"),
        "{switching}"
    );
    // The store knows the end, and the answer of the loop was older.
    let drained = text(&record(DeployPhase::Drained, None), Some(&progress()));
    assert!(
        drained.contains("The old backends have left.") && !drained.contains("At most"),
        "{drained}"
    );
    for phase in [DeployPhase::Failed, DeployPhase::Undone] {
        let failed = text(&record(phase, Some(HOSTILE)), None);
        assert!(
            failed.contains("is served as before.") && !failed.contains("aria-current=\"step\""),
            "{failed}"
        );
        assert!(failed.contains(&format!("Reason: {ESCAPED}")), "{failed}");
    }
}

#[test]
fn an_apps_page_has_its_address_and_its_service() {
    let reading = small();
    let view = view();
    let service = ServicePage {
        name: NAME,
        reading: &reading,
        sample: Some(&reading.services[1]),
        view: Some(&view),
        flows: Err("no flows"),
        deploys: None,
        history: None,
        events: None,
        last_hour: None,
        may_order: true,
    };
    let mut resource = ResourceView {
        id: ResourceId::from_random(1),
        app: "my-app".parse().unwrap(),
        dialect: Dialect::Scalingo,
        plan: "small".parse().unwrap(),
        port: 2002.try_into().unwrap(),
        url: Some("tcp://gateway.example.com:2002".into()),
        service: NAME.into(),
        state: ServiceState::Active,
        created: 1_700_000_000,
        bindings: Vec::new(),
        warning: None,
    };
    let page_of = |resource: &ResourceView| {
        let service = &service;
        let text = ResourcePage { resource, service }.page().document().into_string();
        is_clean(&text);
        text
    };
    let text = page_of(&resource);
    for expected in [
        "<h1>App my-app</h1>",
        "TCP_URL=tcp://gateway.example.com:2002",
        "scalingo",
        "href=\"/services/service-00002\"",
        "10.1.2.2:3000",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    resource.url = None;
    resource.warning = Some(HOSTILE.into());
    let off = page_of(&resource);
    assert!(off.contains("The add-on is off") && off.contains(ESCAPED), "{off}");
}

#[test]
fn the_doctors_page_has_each_finding_with_its_cure() {
    let finding = |id, severity, fix| Finding {
        id,
        severity,
        seen: HOSTILE.into(),
        cause: HOSTILE.into(),
        fix,
    };
    let command = Fix::Command("sysctl -w net.ipv4.ip_forward=1".into());
    let diagnosis = Diagnosis {
        findings: vec![
            finding("ip-forward-off", FindingSeverity::Broken, Some(command)),
            finding("path-mtu", FindingSeverity::Note, Some(Fix::Advice(HOSTILE.into()))),
            finding("kernel-fallback", FindingSeverity::Note, None),
        ],
        unchecked: vec![Unchecked {
            check: HOSTILE.into(),
            reason: HOSTILE.into(),
        }],
    };
    let page_of = |diagnosis: &Diagnosis| DoctorPage { diagnosis }.page().document().into_string();
    let text = page_of(&diagnosis);
    is_clean(&text);
    for expected in [
        "1 broken, 0 warnings, 2 notes.",
        "class=\"state broken\">broken</span> ip-forward-off",
        "As root: <code>sysctl -w net.ipv4.ip_forward=1</code>",
        &format!("To do: {ESCAPED}"),
        "Checks that could not be made",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(page_of(&Diagnosis::default()).contains("Nothing was found."));
}
