use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::addon::id::ResourceId;
use crate::addon::{AddonPlan, Dialect, Plans, Price, Resource};
use crate::control::request::{BackendView, ListedService, ServiceView};
use crate::store::DeployPhase;
use crate::view::app::BackendReading;
use crate::view::flow_rates::{Rate, Rates};
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::ProblemKind;

const HOSTILE: &str = "</p><script>alert(1)</script>\u{202e}";

fn limit(pps: u32) -> Limit {
    Limit {
        pps,
        burst: pps * 10,
        direction: LimitDirection::Each,
        mtu: 1500,
    }
}

fn plans() -> Plans {
    let plan = AddonPlan {
        name: "small".parse().unwrap(),
        id: "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11".parse().unwrap(),
        limit: limit(500),
        price: Price::try_from(0.0).unwrap(),
        description: HOSTILE.into(),
    };
    Plans::new(vec![plan]).unwrap()
}

fn backend() -> BackendView {
    BackendView {
        backend: "10.2.0.11:3000".parse().unwrap(),
        desired: "active".into(),
        balanced: true,
        health: Some("healthy".into()),
        reason: None,
        leaving: false,
        flows: None,
        seconds_left: None,
    }
}

fn app(backends: Vec<BackendView>) -> AppView {
    let id = ResourceId::from_random(1);
    let text = format!(r#"{{"name": "{}", "port": 20003, "backends": []}}"#, id.service());
    let service = tcpgw_core::model::parse_service(text.as_bytes()).unwrap();
    let service = Arc::new(Service {
        limit: Some(limit(500)),
        ..service
    });
    let listed = ListedService {
        service: Arc::clone(&service),
        provider: "api",
        revision: Some(1),
        held_back: Vec::new(),
        paused: None,
        addon: None,
    };
    AppView {
        resource: Arc::new(Resource {
            id,
            dialect: Dialect::Scalingo,
            app: "my-app".parse().unwrap(),
            uuid: None,
            owner: None,
            plan: "small".parse().unwrap(),
            plan_id: None,
            port: service.port,
            status: ResourceStatus::Active,
            bindings: std::collections::BTreeMap::new(),
            created: Duration::ZERO,
            asked: None,
        }),
        service: Some(ServiceView {
            listed,
            paused_for: None,
            backends,
            in_kernel: true,
            deploy: None,
        }),
        served: Some(service),
        is_torn_down: false,
        shared_backends: BTreeSet::new(),
        errors: BTreeSet::new(),
        mark: FlowMark::default(),
    }
}

fn content(app: &AppView, seen: Option<&LastReading>, deploys: Option<&[StoredDeploy]>) -> String {
    let plans = plans();
    let page = AppPage {
        app,
        gateway: GatewayProperties {
            host: "gateway.example.com",
            pages: None,
            plans: &plans,
        },
        platform: None,
        seen,
        age: Duration::ZERO,
        deploys,
        now: 0,
    };
    page.content().into_string()
}

fn seen(reading: Result<AppReading, String>) -> LastReading {
    LastReading {
        at: std::time::Instant::now(),
        counts_traffic: Some(true),
        reading,
    }
}

#[test]
fn what_others_wrote_is_text() {
    let failed = StoredDeploy {
        id: 1,
        service: "addon-x".into(),
        targets: Vec::new(),
        details: serde_json::Value::Null,
        uid: 0,
        pid: 0,
        what: HOSTILE.into(),
        phase: DeployPhase::Failed,
        reason: Some(HOSTILE.into()),
        began: Duration::from_secs(u64::MAX),
        updated: Duration::ZERO,
        revision: None,
    };
    let page = content(&app(vec![backend()]), None, Some(&[failed]));
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    assert_eq!(page.matches("&lt;script&gt;").count(), 2, "plan and reason: {page}");
    assert!(page.contains("failed: the app is served as before"), "{page}");
}

#[test]
fn traffic_stands_beside_the_limit() {
    let rate = |packets_per_second, bytes_per_second| Rate {
        packets_per_second,
        bytes_per_second,
    };
    let read = BackendReading {
        rates: Some(Rates {
            to: rate(600.0, 100_000.0),
            from: rate(10.0, 375_000.0),
        }),
        ..BackendReading::default()
    };
    let reading = AppReading {
        interval: Some(Duration::from_secs(1)),
        backends: [(backend().backend, read)].into(),
        ..AppReading::default()
    };
    let page = content(&app(vec![backend()]), Some(&seen(Ok(reading))), Some(&[]));
    for expected in [
        "600 packets/s",
        "120 %, over the limit",
        "375 kB/s",
        ">50 %<",
        "Nothing.",
        "None yet.",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(!page.contains("data-measuring"), "{page}");
}

#[test]
fn drops_of_an_address_that_another_service_has_are_not_shown() {
    let mut read = BackendReading::default();
    read.drops.over_limit_to.packets = 618;
    let reading = AppReading {
        backends: [(backend().backend, read)].into(),
        ..AppReading::default()
    };
    let mut app = app(vec![backend()]);
    let page = content(&app, Some(&seen(Ok(reading.clone()))), Some(&[]));
    assert!(page.contains("618") && !page.contains("Without packets"), "{page}");
    app.shared_backends.insert(backend().backend);
    let page = content(&app, Some(&seen(Ok(reading))), Some(&[]));
    assert!(page.contains("Without packets to and from 1 container: "), "{page}");
    assert!(!page.contains("618") && page.contains("Nothing."), "{page}");
}

#[test]
fn what_is_not_known_is_said() {
    let app = app(vec![backend()]);
    let page = content(&app, None, None);
    assert!(
        page.contains("data-measuring") && page.contains("are being read"),
        "{page}"
    );
    assert!(page.contains("Last deploys</h2><p>Not known at the moment."), "{page}");
    let page = content(&app, Some(&seen(Err("secret".into()))), None);
    assert!(
        page.contains("cannot be read at the moment") && !page.contains("secret"),
        "{page}"
    );
    let first = AppReading {
        backends: [(backend().backend, BackendReading::default())].into(),
        ..AppReading::default()
    };
    let page = content(&app, Some(&seen(Ok(first.clone()))), None);
    assert!(
        page.contains("data-measuring") && page.contains("Rates need a second reading"),
        "{page}"
    );
    let uncounted = LastReading {
        counts_traffic: Some(false),
        ..seen(Ok(first))
    };
    assert!(content(&app, Some(&uncounted), None).contains("does not count the traffic"));
}

#[test]
fn each_state_has_its_words() {
    type Change = fn(&mut AppView);
    let cases: [(Change, &str); 10] = [
        (|app| app.is_torn_down = true, "its operator has switched it off"),
        (
            |app| app.errors = [ProblemKind::IpForwardOff].into(),
            "The gateway has a fault",
        ),
        (
            |app| app.errors = [ProblemKind::Store].into(),
            "Deploys and other changes are not possible",
        ),
        (
            |app| app.errors = [ProblemKind::Unanswered].into(),
            "leave connections of clients unanswered",
        ),
        (
            |app| Arc::make_mut(&mut app.resource).status = ResourceStatus::Suspended,
            "The add-on is suspended",
        ),
        (|app| app.service = None, "does not know the service"),
        (
            |app| {
                app.service
                    .as_mut()
                    .unwrap()
                    .listed
                    .held_back
                    .push("port of other-app".into());
            },
            "what was there before stays",
        ),
        (
            |app| {
                app.served = None;
                app.service
                    .as_mut()
                    .unwrap()
                    .listed
                    .held_back
                    .push("port of other-app".into());
            },
            "cannot serve this address now",
        ),
        (
            |app| app.service.as_mut().unwrap().in_kernel = false,
            "until then all is as before",
        ),
        (|app| app.service.as_mut().unwrap().paused_for = Some(7), "for 7 s more"),
    ];
    for (change, expected) in cases {
        let mut app = app(vec![backend()]);
        assert!(!content(&app, None, None).contains(expected));
        change(&mut app);
        let page = content(&app, None, None);
        assert!(page.contains(expected), "{expected}: {page}");
        assert!(!page.contains("other-app"), "{page}");
    }
    let silent = BackendView {
        balanced: false,
        health: Some("unhealthy".into()),
        reason: Some("refused".into()),
        ..backend()
    };
    let page = content(&app(vec![silent]), None, None);
    assert!(
        page.contains("No container gets new connections") && page.contains("refused"),
        "{page}"
    );
    let page = content(&app(Vec::new()), None, None);
    assert!(
        page.contains("None is registered") && !page.contains("class=\"notice\""),
        "{page}"
    );
}

/// The page does not blame containers while no connections are let in, since those that answer get none either.
#[test]
fn a_container_is_not_blamed_while_nobody_is_let_in() {
    type Change = fn(&mut AppView);
    let closed: [Change; 3] = [
        |app| app.is_torn_down = true,
        |app| app.served = None,
        |app| app.service.as_mut().unwrap().paused_for = Some(7),
    ];
    let waiting = BackendView {
        balanced: false,
        ..backend()
    };
    for change in closed {
        let mut app = app(vec![waiting.clone()]);
        change(&mut app);
        let page = content(&app, None, None);
        assert!(!page.contains("none of them answers"), "{page}");
        assert!(!page.contains("until it answers"), "{page}");
        assert!(page.contains("the app gets no new connections now"), "{page}");
        assert!(!page.contains("refuses new connections"), "{page}");
    }
    let page = content(&app(vec![waiting.clone()]), None, None);
    assert!(!page.contains("none of them answers"), "it answers: {page}");
    let drained = BackendView {
        desired: "draining".into(),
        ..waiting
    };
    let page = content(&app(vec![drained]), None, None);
    assert!(page.contains("all of them are set aside or drain"), "{page}");
}

/// The page of a suspended app says only that it is suspended: the owner has nothing to wait for or to mend.
#[test]
fn a_suspended_app_is_told_so_and_nothing_else() {
    let waiting = BackendView {
        balanced: false,
        health: None,
        ..backend()
    };
    let mut suspended = app(vec![waiting]);
    Arc::make_mut(&mut suspended.resource).status = ResourceStatus::Suspended;
    let mut reading = AppReading::default();
    reading.drops.no_backend.packets = 7;
    let seen = seen(Ok(reading));
    let page = content(&suspended, Some(&seen), Some(&[]));
    for expected in [
        ">suspended<small>gets new connections again when the add-on is resumed</small></div>",
        ">not probed</div>",
        "They are refused until the add-on is resumed.",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    for unfit in [
        "not probed yet",
        "until it answers",
        "look again in a few seconds",
        "data-measuring",
        "Containers that answer",
        "deploy.</p>",
    ] {
        assert!(!page.contains(unfit), "{unfit}: {page}");
    }
    suspended.service.as_mut().unwrap().backends.clear();
    let page = content(&suspended, Some(&seen), Some(&[]));
    assert!(page.contains("<p>None is registered.</p>"), "{page}");
    Arc::make_mut(&mut suspended.resource).status = ResourceStatus::Active;
    let page = content(&suspended, Some(&seen), Some(&[]));
    assert!(
        page.contains("Containers that answer") && page.contains("Declare a"),
        "{page}"
    );
}

#[test]
fn a_limit_that_follows_later_is_explained() {
    let mut app = app(vec![backend()]);
    let served = Arc::make_mut(app.served.as_mut().unwrap());
    served.limit = Some(limit(100));
    let page = content(&app, None, None);
    assert!(
        page.contains("100 packets and 150 kB per second"),
        "what is served: {page}"
    );
    assert!(page.contains("The plan's limit was changed since"), "{page}");
    Arc::make_mut(&mut app.resource).plan = "old".parse().unwrap();
    assert!(content(&app, None, None).contains("This plan is not offered any more"));
}
