//! The add-on in the daemon's core, with a store on disk and a kernel in memory: whatever is requested through any provider API,
//! and whenever the daemon dies or the store fails, acknowledged requests are neither lost nor doubled, ports are distinct, and
//! the kernel serves each resource according to its status and plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;
use tcpgw::addon::id::{PlatformId, ResourceId};
use tcpgw::addon::{
    AddonOutcome, AddonRequest, Binding, Dialect, Provision, Refusal, Resource, ResourceChange, ResourceOwner,
    ResourceStatus, ResourceTarget, WantedPlan,
};
use tcpgw::config::Config;
use tcpgw::config::daemon::DaemonSettings;
use tcpgw::control::core::{Core, Now, Order};
use tcpgw::control::request::{AddonOrder, AddonRefused, EditOrder, Edited, Peer, Refused, ServiceEdit};
use tcpgw::control::storage::{Write, Written};
use tcpgw::daemon::kernel_thread::perform;
use tcpgw::reconcile::engine::Engine;
use tcpgw::record;
use tcpgw::store::last::Last;
use tcpgw::store::{By, Edit, Expect, Store, StoreError};
use tcpgw_core::health;
use tcpgw_core::model::{FlowMark, PacketRefusal, Service, State};
use tcpgw_core::problem::Kind;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_kernel::fake::{ConnectOutcome, Fail, Fake, KernelCall, Syn};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::states::{desired, links};
use crate::world::clock::next_step;
use crate::world::looking::{IsKnown, Looking};
use tcpgw::daemon::{store_opening, store_work};

mod deploys;
mod paused;
mod refusing;

const NAMESPACE: u64 = 9;
const FIRST: u16 = 9001;
const LAST: u16 = 9005;
const APPS: usize = 4;
const QUARANTINE: Duration = Duration::from_secs(300);
/// Time that is longer than any drain, timeout or retry.
const LONG: Duration = Duration::from_secs(180);
fn plan_named(at: usize) -> WantedPlan {
    WantedPlan::Named(PLANS[at].0.parse().unwrap())
}

const PLANS: [(&str, u32); 3] = [("small", 100), ("medium", 1000), ("large", 10_000)];
const DIALECTS: [Dialect; 5] = [
    Dialect::Osb,
    Dialect::Scalingo,
    Dialect::Heroku,
    Dialect::CleverCloud,
    Dialect::Local,
];
const PEER: Peer = Peer {
    uid: 0,
    gid: 0,
    pid: None,
};

#[derive(Debug, Clone)]
enum Event {
    /// An app asks for a resource, of this plan, and perhaps with a port of its choice.
    Provision(Dialect, usize, usize, Option<u16>),
    /// The last request for a resource of that app is sent again.
    Again(usize),
    Plan(usize, usize),
    Suspend(usize),
    Resume(usize),
    Deprovision(usize),
    Bind(usize, u8),
    Unbind(usize, u8),
    /// The platform registers so many containers of the app.
    Register(usize, u8),
    Wait(u64),
    /// The kernel refuses the next transaction, or its answer is lost.
    Fail(Fail),
    /// The next write fails; the flag tells whether it took effect all the same.
    Store(bool),
    /// The daemon is killed before or after the next write, and another one starts.
    Kill(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let app = || 0..APPS;
    let plan = || 0..PLANS.len();
    let port = prop::option::weighted(0.2, FIRST - 1..=LAST);
    let fail = prop::sample::select(vec![Fail::Outdated, Fail::UnknownBefore, Fail::UnknownAfter]);
    prop_oneof![
        8 => (prop::sample::select(DIALECTS.to_vec()), app(), plan(), port)
            .prop_map(|(dialect, app, plan, port)| Event::Provision(dialect, app, plan, port)),
        3 => app().prop_map(Event::Again),
        4 => (app(), plan()).prop_map(|(app, plan)| Event::Plan(app, plan)),
        3 => app().prop_map(Event::Suspend),
        3 => app().prop_map(Event::Resume),
        3 => app().prop_map(Event::Deprovision),
        2 => (app(), 0..3_u8).prop_map(|(app, id)| Event::Bind(app, id)),
        1 => (app(), 0..3_u8).prop_map(|(app, id)| Event::Unbind(app, id)),
        4 => (app(), 0..3_u8).prop_map(|(app, count)| Event::Register(app, count)),
        3 => (0..400_u64).prop_map(Event::Wait),
        1 => fail.prop_map(Event::Fail),
        2 => any::<bool>().prop_map(Event::Store),
        3 => any::<bool>().prop_map(Event::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_acknowledged_is_neither_lost_nor_doubled(
        events in prop::collection::vec((event(), prop::bool::weighted(0.25)), 1..40),
    ) {
        let mut world = World::new();
        for (event, held) in events {
            world.held = held;
            world.happen(&event);
            if !held {
                world.run();
                world.check()?;
            }
        }
        world.end()?;
    }
}

/// A suspension or a resumption that was made though its write failed is carried out when the store is read.
#[test]
fn what_was_made_by_a_write_that_failed_is_carried_out() {
    for resumes in [false, true] {
        let mut world = World::new();
        let mut events = vec![Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)];
        if resumes {
            events.extend([Event::Suspend(0), Event::Store(true), Event::Resume(0)]);
        } else {
            events.extend([Event::Store(true), Event::Suspend(0)]);
        }
        for event in events {
            world.happen(&event);
            world.run();
        }
        assert!(world.uncertain.contains(&0), "it was answered by an error");
        world.end().unwrap();
    }
}

/// A suspended service stays suspended when the store and its second copy are lost.
#[test]
fn a_suspension_outlives_the_store_and_its_second_copy() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Scalingo, 0, 0, None),
        Event::Register(0, 2),
        Event::Wait(10),
        Event::Suspend(0),
        Event::Wait(10),
    ] {
        world.happen(&event);
        world.run();
    }
    let port = world.known[&0].as_ref().unwrap().port;
    assert_eq!(world.connect(port), ConnectOutcome::Empty { reset: true });
    let path = world.directory.path().join("store.db");
    for _ in 0..2 {
        world.store = Err(StoreError::NoDeploy(0));
        for lost in [path.clone(), Last::path(&path)] {
            std::fs::remove_file(lost).unwrap();
        }
        world.restart();
        world.wait(LONG);
        assert_eq!(world.connect(port), ConnectOutcome::Empty { reset: true });
        let told = world.core.problems().get(Kind::NoActiveBackend).expect("it is told");
        assert_eq!(told.port, Some(port.get()));
    }
}

/// A service whose store was replaced by another one is an orphan, and is named with its app as long as it is served.
#[test]
fn the_app_of_an_orphan_is_known_to_every_daemon() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Scalingo, 0, 0, None),
        Event::Register(0, 2),
        Event::Wait(10),
    ] {
        world.happen(&event);
        world.run();
    }
    let (name, revision): (Box<str>, u64) = {
        let resource = world.known[&0].as_ref().unwrap();
        let stored = world.store.as_mut().unwrap().load().unwrap();
        (resource.id.service().into(), stored.revision)
    };
    let path = world.directory.path().join("store.db");
    world.store = Err(StoreError::NoDeploy(0));
    std::fs::remove_file(&path).unwrap();
    // Without this file the other store does not count as an older state of this one.
    std::fs::remove_file(path.with_extension("db.written")).unwrap();
    let mut other = Store::open(&path).unwrap();
    for port in 0..=revision {
        let text = json!({"name": "own", "port": 3000 + port, "backends": ["10.9.9.9:80"]}).to_string();
        let own = tcpgw_core::model::parse_service(text.as_bytes()).unwrap();
        let change = tcpgw::store::Change {
            edits: vec![Edit::Put(Arc::new(own), Expect::Anything)],
            ..tcpgw::store::Change::default()
        };
        let by = By {
            uid: 0,
            pid: 0,
            what: "test".into(),
        };
        other.commit(&change, &by, world.unix).unwrap();
    }
    drop(other);
    for _ in 0..3 {
        world.restart();
        world.wait(LONG);
        assert!(world.core.resources().is_empty());
        let orphaned = world.core.problems().get(Kind::Orphaned).expect("it is told");
        assert!(orphaned.message.contains(&*name), "{orphaned:?}");
        let apps = world.core.apps_of_services(&[name.clone()].into());
        assert_eq!(apps.get(&name), Some(&app(0)));
    }
}

/// Changes that were acknowledged before the second copy was written are restored from the record, whether the store is lost or
/// cannot be read.
#[test]
fn what_the_record_knows_better_than_the_copy_of_a_lost_store_counts() {
    for is_damaged in [false, true] {
        let mut world = World::new();
        for (at, dialect) in DIALECTS.into_iter().take(4).enumerate() {
            world.happen(&Event::Provision(dialect, at, at % 3, None));
            world.run();
            world.happen(&Event::Register(at, 2));
            world.run();
        }
        world.happen(&Event::Suspend(0));
        world.wait(Duration::from_secs(10));
        let ports: Vec<NonZeroU16> = (0..4).map(|at| world.known[&at].as_ref().unwrap().port).collect();
        for event in [Event::Resume(0), Event::Suspend(1), Event::Deprovision(2)] {
            world.happen(&event);
            world.run();
        }
        world.store = Err(StoreError::NoDeploy(0));
        let path = world.directory.path().join("store.db");
        std::fs::remove_file(&path).unwrap();
        if is_damaged {
            std::fs::write(&path, "damaged").unwrap();
        }
        // The second copy is written from what was corrected.
        for _ in 0..2 {
            world.restart();
            world.run();
            assert!(
                !matches!(world.connect(ports[2]), ConnectOutcome::Backend(_)),
                "it drains"
            );
            for _ in 0..2 {
                world.wait(LONG);
                assert!(matches!(world.connect(ports[0]), ConnectOutcome::Backend(_)));
                assert_eq!(world.connect(ports[1]), ConnectOutcome::Empty { reset: true });
                assert!(
                    !matches!(world.connect(ports[2]), ConnectOutcome::Backend(_)),
                    "{is_damaged}"
                );
                assert!(matches!(world.connect(ports[3]), ConnectOutcome::Backend(_)));
                let mut resources: Vec<(String, ResourceStatus)> = world
                    .core
                    .resources()
                    .iter()
                    .map(|one| (one.app.to_string(), one.status))
                    .collect();
                resources.sort();
                let status = [
                    (0, ResourceStatus::Active),
                    (1, ResourceStatus::Suspended),
                    (3, ResourceStatus::Active),
                ];
                assert_eq!(resources, status.map(|(at, status)| (app(at).to_string(), status)));
            }
            let _ = std::fs::remove_file(world.directory.path().join(format!("netns-{NAMESPACE}.state")));
        }
        if !is_damaged {
            assert_eq!(world.store.as_mut().unwrap().resources().unwrap().resources.len(), 3);
            let told = tcpgw::store::lost::problem(&path).expect("it is told");
            assert!(told.message.contains("addon ls"), "{told:?}");
            world.check().unwrap();
        }
    }
}

/// A write that failed stays reported when a later write of other data succeeds at once.
#[test]
fn a_write_that_goes_well_does_not_hide_one_that_failed() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Osb, 0, 0, None),
        Event::Provision(Dialect::Osb, 1, 0, None),
        Event::Store(true),
        Event::Plan(0, 1),
        Event::Register(1, 1),
    ] {
        world.happen(&event);
        world.run();
    }
    assert!(world.uncertain.contains(&0), "it was answered by an error");
    world.end().unwrap();
}

/// A request about one resource causes no judgement of the others, however many there are.
#[test]
fn a_request_about_one_resource_has_no_other_judged_again() {
    let mut world = World::new();
    world.happen(&Event::Provision(Dialect::Scalingo, 0, 0, None));
    world.run();
    assert!(world.judgements > 0, "at the start all are judged");
    let before = world.judgements;
    for event in [
        Event::Provision(Dialect::Osb, 1, 0, None),
        Event::Plan(1, 1),
        Event::Suspend(1),
        Event::Resume(1),
        Event::Register(1, 2),
        Event::Deprovision(1),
    ] {
        world.happen(&event);
        world.run();
    }
    assert_eq!(world.judgements, before);
    assert_eq!(world.known.get(&1), Some(&None), "all of it was carried out");
    world.end().unwrap();
}

/// Requests that wait together are written with one flush of the disk, and a refused one does not affect the others.
#[test]
fn requests_that_wait_together_are_one_write() {
    let mut world = World::new();
    let provision = |app: usize, port| Event::Provision(DIALECTS[app], app, 0, port);
    world.happen(&provision(0, None));
    world.happen(&provision(1, Some(FIRST + 2)));
    world.edit("own", ServiceEdit::Patch(br#"{"limit": {"pps": 6}}"#.to_vec()));
    // This request asks for a port that an earlier one gets.
    world.happen(&provision(2, Some(FIRST + 2)));
    world.happen(&provision(3, None));
    world.run();
    assert_eq!(world.most_together, 3, "up to the one that is refused");
    assert_eq!(world.known.keys().collect::<Vec<_>>(), [&0, &1, &3]);
    assert!(world.edits.is_empty(), "all are answered");
    let own = world.core.service("own", world.time());
    assert_eq!(own.unwrap().listed.service.limit.unwrap().pps, 6);
    world.most_together = 0;
    for event in [
        Event::Bind(0, 1),
        Event::Register(1, 1),
        Event::Bind(3, 1),
        Event::Bind(0, 2),
    ] {
        world.happen(&event);
    }
    world.run();
    assert_eq!(world.most_together, 3, "one resource's are one after the other");
    let bindings = |world: &World, at: usize| world.known[&at].as_ref().unwrap().bindings.len();
    assert_eq!((bindings(&world, 0), bindings(&world, 3)), (2, 1));
    world.check().unwrap();
    world.end().unwrap();
}

/// None of the requests that were written together is acknowledged when the flush fails, whether the write took effect or not.
#[test]
fn a_flush_that_fails_acknowledges_none_of_those_that_were_written_together() {
    for made in [false, true] {
        let mut world = World::new();
        world.happen(&Event::Store(made));
        for (app, dialect) in DIALECTS.into_iter().take(3).enumerate() {
            world.happen(&Event::Provision(dialect, app, 0, None));
        }
        world.run();
        assert_eq!(world.most_together, 3);
        assert!(world.asked.is_empty() && world.known.is_empty(), "{:?}", world.known);
        assert_eq!(world.uncertain.len(), 3);
        world.wait(LONG);
        assert_eq!(world.core.resources().len(), if made { 3 } else { 0 });
        world.check().unwrap();
        world.end().unwrap();
    }
}

/// A resource outside of narrowed fences stays and follows its platform: the fences are judged for additions only.
#[test]
fn a_resource_outside_of_narrowed_fences_follows_its_platform() {
    let fences = [
        (format!("ports = \"{}-{LAST}\"", FIRST + 2), FIRST + 2),
        ("backends = [\"10.9.0.1\", \"10.9.9.9\"]".to_owned(), FIRST),
        ("max_services = 1".to_owned(), FIRST),
        ("max_backends = 1".to_owned(), FIRST),
    ];
    for (fence, first) in fences {
        for is_read_again in [true, false] {
            let mut world = World::new();
            world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
            let port = world.known[&0].as_ref().unwrap().port;
            assert_eq!(port.get(), FIRST + 1);
            world.config = config_with(&fence, first, &PLANS);
            if is_read_again {
                world.reload(world.config.clone());
            } else {
                world.restart();
            }
            world.wait(Duration::from_secs(70));
            let problems = world.core.problems().iter();
            let told: Vec<&str> = problems
                .filter(|problem| problem.kind == Kind::OutsideFences)
                .map(|problem| &*problem.message)
                .collect();
            // Among too many services the message names any one.
            let names_cure = told.iter().any(|told| told.contains("tcpgw addon deprovision app-0"));
            assert!(!told.is_empty() && (names_cure || fence.contains("max_")), "{told:?}");
            for _ in 0..2 {
                world.does([Event::Suspend(0)]);
                assert_eq!(world.connect(port), ConnectOutcome::Empty { reset: true }, "{fence}");
                world.does([Event::Resume(0)]);
                assert!(matches!(world.connect(port), ConnectOutcome::Backend(_)), "{fence}");
            }
            world.does([Event::Plan(0, 1)]);
            let service = world.known[&0].as_ref().unwrap().id.service();
            world.edit(&service, ServiceEdit::Drain(Vec::new()));
            world.run();
            assert_eq!(world.refused, Vec::<Refused>::new(), "{fence}");
            // One more backend is another matter for those fences that are about backends.
            world.does([Event::Register(0, 3)]);
            let is_about_backends = fence.contains("backends");
            assert_eq!(
                world.refused.len(),
                usize::from(is_about_backends),
                "{:?}",
                world.refused
            );
            world.edit(
                &service,
                ServiceEdit::Patch(br#"{"backends": ["10.9.0.1:80"]}"#.to_vec()),
            );
            world.run();
            assert_eq!(
                world.refused.len(),
                usize::from(is_about_backends),
                "{:?}",
                world.refused
            );
            world.check().unwrap();
            world.does([Event::Deprovision(0)]);
            assert_eq!(world.known[&0], None);
        }
    }
}

/// What is said of services that are too many has the number that the fence would have to allow.
#[test]
fn the_fences_are_told_with_the_number_of_all_services_and_backends() {
    let mut world = World::new();
    for at in 0..4 {
        world.does([Event::Provision(DIALECTS[at % 2], at, 0, None), Event::Register(at, 2)]);
    }
    for (fence, expected) in [
        ("max_services = 2", "there are 5 services; fences.max_services"),
        ("max_backends = 3", "there are 9 backends; fences.max_backends"),
        (
            "max_services = 4\nmax_backends = 9",
            "there are 5 services; fences.max_services",
        ),
    ] {
        world.reload(config_with(fence, FIRST, &PLANS));
        world.wait(Duration::from_secs(70));
        let problems = world.core.problems().iter();
        let mut told = problems
            .filter(|problem| problem.kind == Kind::OutsideFences)
            .peekable();
        assert!(told.peek().is_some(), "{fence}");
        for problem in told {
            assert!(problem.message.contains(expected), "{fence}: {problem:?}");
        }
    }
    world.reload(config_with("max_services = 5\nmax_backends = 9", FIRST, &PLANS));
    world.wait(Duration::from_secs(70));
    assert!(world.core.problems().get(Kind::OutsideFences).is_none());
}

/// A resource outside of the fences is not served after a boot, and the orders of its platform are carried out all the same.
#[test]
fn a_resource_that_the_fences_hold_back_follows_its_platform_and_stays_held_back() {
    let mut world = World::new();
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
    let port = world.known[&0].as_ref().unwrap().port;
    world.config = config_with(&format!("ports = \"{}-{LAST}\"", FIRST + 2), FIRST + 2, &PLANS);
    world.boot();
    world.wait(Duration::from_secs(10));
    for event in [
        Event::Suspend(0),
        Event::Plan(0, 1),
        Event::Resume(0),
        Event::Plan(0, 2),
    ] {
        world.does([event]);
        assert!(!matches!(world.connect(port), ConnectOutcome::Backend(_)));
        assert!(world.core.problems().get(Kind::HeldBack).is_some());
    }
    world.check().unwrap();
    world.config = config();
    world.reload(config());
    world.wait(Duration::from_secs(70));
    assert!(matches!(world.connect(port), ConnectOutcome::Backend(_)));
}

/// Two apps share a container with one limit, and their plan's limit was changed in the configuration, so that neither can have
/// the new limit: they are suspended and resumed all the same.
#[test]
fn apps_that_share_a_container_are_suspended_and_resumed_though_their_plan_was_changed() {
    let mut world = World::new();
    world.does([
        Event::Provision(Dialect::Scalingo, 0, 0, None),
        Event::Provision(Dialect::Scalingo, 1, 0, None),
        Event::Register(0, 1),
    ]);
    let resources = [0, 1].map(|at| world.known[&at].clone().unwrap());
    world.edit(
        &resources[1].id.service(),
        ServiceEdit::Patch(br#"{"backends": ["10.9.0.1:80"]}"#.to_vec()),
    );
    world.does([Event::Suspend(1)]);
    let mut plans = PLANS;
    plans[0].1 = 123;
    world.config = config_with("", FIRST, &plans);
    world.reload(world.config.clone());
    let limit = |world: &World, at: usize| {
        let service = world.core.service(&resources[at].id.service(), world.time());
        service.unwrap().listed.service.limit.unwrap().pps
    };
    for event in [
        Event::Resume(1),
        Event::Suspend(0),
        Event::Suspend(1),
        Event::Resume(0),
        Event::Resume(1),
    ] {
        world.does([event]);
        assert_eq!((limit(&world, 0), limit(&world, 1)), (100, 100));
    }
    assert_eq!(world.refused, []);
    for resource in &resources {
        assert!(matches!(world.connect(resource.port), ConnectOutcome::Backend(_)));
    }
    // Alone it gets the new one.
    world.does([
        Event::Deprovision(1),
        Event::Wait(400),
        Event::Suspend(0),
        Event::Resume(0),
    ]);
    assert_eq!(limit(&world, 0), 123);
}

/// Resources can be removed while the add-on is switched off, and their ports rest when it is back.
#[test]
fn resources_are_suspended_and_removed_while_the_add_on_is_off() {
    for is_read_again in [true, false] {
        let mut world = World::new();
        world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
        let port = world.known[&0].as_ref().unwrap().port;
        world.config = Config::default();
        if is_read_again {
            world.reload(Config::default());
        } else {
            world.restart();
        }
        world.wait(Duration::from_secs(70));
        let told = |world: &World| {
            let problem = world.core.problems().get(Kind::ProviderApi);
            problem.is_some_and(|problem| problem.message.contains("has 1 resource of the add-on"))
        };
        let now = world.time();
        world.core.provider_api(Ok(()), now);
        assert!(told(&world));
        world.does([Event::Suspend(0)]);
        assert_eq!(world.connect(port), ConnectOutcome::Empty { reset: true });
        world.does([Event::Resume(0)]);
        assert!(matches!(world.connect(port), ConnectOutcome::Backend(_)));
        let service = world
            .core
            .service(&world.known[&0].as_ref().unwrap().id.service(), world.time());
        assert_eq!(
            service.unwrap().listed.service.limit.unwrap().pps,
            100,
            "its plan stays"
        );
        world.does([Event::Deprovision(0)]);
        assert_eq!(world.known[&0], None);
        world.wait(Duration::from_secs(70));
        assert!(!told(&world));
        world.config = config();
        world.reload(config());
        // The port is given again after the configured quarantine.
        world.does([Event::Provision(Dialect::Scalingo, 1, 0, None)]);
        assert_ne!(world.known[&1].as_ref().unwrap().port, port);
        world.wait(QUARANTINE + Duration::from_secs(10));
        world.does([Event::Provision(Dialect::Scalingo, 2, 0, None)]);
        assert_eq!(world.known[&2].as_ref().unwrap().port, port);
        world.end().unwrap();
    }
}

/// A section whose provider API cannot be served is not in use at all: plans, ports and host are those that platforms were offered.
#[test]
fn a_section_that_cannot_be_served_is_taken_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
    let other = config_with("", FIRST + 3, &[("tiny", 100), PLANS[1], PLANS[2], ("xl", 20_000)]);
    let mut other = other;
    other.addon.as_mut().unwrap().host = "moved.example.com".into();
    let url = |world: &World, at| world.core.resource_view(&target(at)).unwrap().url;
    let now = world.time();
    world.core.reload(world.settings(), other.clone(), now);
    world.core.provider_api(Err("the file cannot be used".into()), now);
    for _ in 0..2 {
        let told = world.core.problems().get(Kind::ProviderApi).expect("it is told");
        assert!(
            told.message.contains("the file cannot be used; all of [addon] stays"),
            "{told:?}"
        );
        world.does([
            Event::Again(0),
            Event::Plan(0, 0),
            Event::Provision(Dialect::Osb, 1, 0, None),
        ]);
        let ports = [0, 1].map(|at| world.known[&at].as_ref().unwrap().port.get());
        assert_eq!(ports, [FIRST + 1, FIRST + 2]);
        for at in [0, 1] {
            assert_eq!(
                url(&world, at).unwrap(),
                format!("tcp://gateway.example.com:{}", ports[at])
            );
            assert_eq!(world.known[&at].as_ref().unwrap().plan.as_str(), "small");
        }
        world.wait(Duration::from_secs(10));
        let now = world.time();
        world.core.provider_api(Err("the file cannot be used".into()), now);
    }
    world.reload(other);
    world.wait(Duration::from_secs(10));
    assert!(world.core.problems().get(Kind::ProviderApi).is_none());
    assert_eq!(
        url(&world, 0).unwrap(),
        format!("tcp://moved.example.com:{}", FIRST + 1)
    );
    let plans = world.core.resources();
    assert!(
        plans.iter().all(|resource| resource.plan.as_str() == "tiny"),
        "{plans:?}"
    );
    // A section that is taken out needs nothing that can fail.
    let now = world.time();
    world.core.reload(world.settings(), config(), now);
    world.core.provider_api(Err("the file cannot be used".into()), now);
    world.reload(Config::default());
    let told = |world: &World| {
        world
            .core
            .problems()
            .get(Kind::ProviderApi)
            .map(|told| told.message.clone())
    };
    world.wait(Duration::from_secs(70));
    assert!(told(&world).unwrap().contains("the configuration has no [addon]"));
    // Where there was none, none is in use.
    let now = world.time();
    world.core.reload(world.settings(), config(), now);
    world.core.provider_api(Err("the file cannot be used".into()), now);
    world.wait(Duration::from_secs(70));
    assert!(
        told(&world)
            .unwrap()
            .contains("the file cannot be used; the add-on stays off")
    );
    assert_eq!(url(&world, 0), None);
}

/// Plans are identified by their ids: a resource keeps its plan when the plan's name changes, and a new plan with the old name
/// does not take it over. A store of an earlier version, which has names only, gets the ids when it is first read.
#[test]
fn a_plan_whose_name_was_changed_keeps_its_resources() {
    for is_read_again in [true, false] {
        let mut world = World::new();
        world.does([Event::Provision(Dialect::Osb, 0, 0, None), Event::Register(0, 2)]);
        let made = world.known[&0].clone().unwrap();
        let service = made.id.service();
        let earlier = Resource {
            plan_id: None,
            ..Resource::clone(&made)
        };
        let change = tcpgw::store::Change {
            resources: vec![ResourceChange::Put(Arc::new(earlier))],
            ..tcpgw::store::Change::default()
        };
        let by = By {
            uid: 0,
            pid: 0,
            what: "test".into(),
        };
        world.store.as_mut().unwrap().commit(&change, &by, world.unix).unwrap();
        world.restart();
        world.wait(Duration::from_secs(10));
        let stored = |world: &mut World| {
            let store = world.store.as_mut().unwrap();
            store.resources().unwrap().resources.pop().unwrap()
        };
        assert_eq!(stored(&mut world), *made);
        for (small, pps) in [(None, 100), (Some(("small", 7)), 150)] {
            let plans: Vec<(&str, u32)> = [("tiny", pps), PLANS[1], PLANS[2]].into_iter().chain(small).collect();
            world.config = config_with("", FIRST, &plans);
            if is_read_again {
                world.reload(world.config.clone());
            } else {
                world.restart();
            }
            world.wait(Duration::from_secs(10));
            world.does([Event::Suspend(0), Event::Resume(0)]);
            for resource in [stored(&mut world), Resource::clone(&world.core.resources()[0])] {
                assert_eq!((resource.plan.as_str(), &resource.plan_id), ("tiny", &made.plan_id));
            }
            let limit = world.core.service(&service, world.time()).unwrap().listed.service.limit;
            assert_eq!(limit.unwrap().pps, pps);
        }
    }
}

/// A request that is refused for lack of a port raises a problem for the operator. Ports on which local programs listen count as
/// used.
#[test]
fn ports_on_which_local_programs_listen_are_no_free_ones() {
    let mut world = World::new();
    world.listening = (FIRST..=LAST).collect();
    let usage = |world: &World| {
        let ports = world.core.resource_list(world.time()).unwrap().ports.unwrap();
        (ports.used, ports.free())
    };
    assert_eq!(usage(&world), (1, 4), "nobody has asked");
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
    assert!(!world.known.contains_key(&0), "it is refused");
    world.wait(Duration::from_secs(5));
    assert_eq!(usage(&world), (5, 0));
    let told = world.core.problems().get(Kind::AddonPorts).expect("it is told");
    assert!(told.message.contains("5 of 5 are in use"), "{told:?}");
    // One is free again, which the next request finds; it says nothing of those behind.
    world.listening.remove(&(FIRST + 2));
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
    assert_eq!(world.known[&0].as_ref().unwrap().port.get(), FIRST + 2);
    assert_eq!(usage(&world), (5, 0));
    world.listening.clear();
    world.does([Event::Provision(Dialect::Scalingo, 1, 0, None)]);
    assert_eq!(world.known[&1].as_ref().unwrap().port.get(), FIRST + 1);
    world.wait(Duration::from_secs(3600));
    assert_eq!(usage(&world), (3, 2));
    world.wait(Duration::from_secs(5));
    assert!(
        world
            .core
            .problems()
            .get(Kind::AddonPorts)
            .is_none_or(|told| !told.message.contains("no public"))
    );
    world.end().unwrap();
}

/// A request without an answer yet.
struct Asked {
    app: usize,
    request: AddonRequest,
    answer: oneshot::Receiver<Result<AddonOutcome, AddonRefused>>,
}

struct World {
    core: Core,
    /// Configuration that the next daemon reads.
    config: Config,
    boot: String,
    engine: Option<Engine<Fake>>,
    store: Result<Store, StoreError>,
    directory: tempfile::TempDir,
    now: Instant,
    unix: Duration,
    looking: Looking,
    begin: Instant,
    asked: Vec<Asked>,
    edits: Vec<oneshot::Receiver<Result<Edited, Refused>>>,
    /// Edits that were refused.
    refused: Vec<Refused>,
    /// Last acknowledged resource of each app, or `None` when its absence was acknowledged.
    known: BTreeMap<usize, Option<Arc<Resource>>>,
    /// Apps of which a request was not answered, or with an error of the store.
    uncertain: BTreeSet<usize>,
    /// The last request for a resource that was acknowledged.
    provisions: BTreeMap<usize, Provision>,
    /// Ports that came back, and when.
    back: BTreeMap<NonZeroU16, Duration>,
    /// Number of requests so far.
    requests: u64,
    troubled: bool,
    fail_write: Option<bool>,
    /// While the store refuses all changes, the number of those; it can be read, and written in a trial.
    full: Option<usize>,
    kill: Option<bool>,
    held: bool,
    /// Number of times that all services were judged by the state of the gateway.
    judgements: usize,
    /// Most changes that were written in one transaction.
    most_together: usize,
    /// Ports on which local programs listen.
    listening: BTreeSet<u16>,
    /// True when no backend answers probes.
    silent: bool,
}

fn config() -> Config {
    config_with("", FIRST, &PLANS)
}

/// Returns a configuration with these fences, ports from `first` on, and plans: name and packets per second.
fn config_with(fences: &str, first: u16, plans: &[(&str, u32)]) -> Config {
    let plans: Vec<String> = plans
        .iter()
        .enumerate()
        .map(|(at, (name, pps))| {
            format!("{{name = \"{name}\", id = \"5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c1{at}\", pps = {pps}}}")
        })
        .collect();
    let text = format!(
        "[fences]\n{fences}\n[addon]\nlisten = \"127.0.0.1:9443\"\nhost = \"gateway.example.com\"\nports = \"{first}-{LAST}\"\n\
         quarantine = \"{}s\"\ncredentials = \"/nowhere\"\nplans = [{}]",
        QUARANTINE.as_secs(),
        plans.join(", ")
    );
    Config::parse(Path::new("config.toml"), text.as_bytes()).unwrap()
}

fn app(at: usize) -> PlatformId {
    format!("app-{at}").parse().unwrap()
}

fn target(at: usize) -> ResourceTarget {
    ResourceTarget::Any(app(at))
}

fn owner() -> ResourceOwner {
    ResourceOwner {
        organization: "org".parse().unwrap(),
        space: "space".parse().unwrap(),
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let (now, unix) = (Instant::now(), Duration::from_secs(1_000_000));
        let time = Now {
            instant: now,
            unix,
            boot: Duration::ZERO,
        };
        let mut world = Self {
            core: Core::new(DaemonSettings::default(), config(), NAMESPACE, time),
            config: config(),
            boot: record::boot_id(),
            engine: None,
            store: Err(StoreError::NoDeploy(0)),
            directory,
            now,
            unix,
            looking: Looking::default(),
            begin: now,
            asked: Vec::new(),
            edits: Vec::new(),
            refused: Vec::new(),
            known: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            provisions: BTreeMap::new(),
            back: BTreeMap::new(),
            requests: 0,
            troubled: false,
            fail_write: None,
            full: None,
            kill: None,
            held: false,
            judgements: 0,
            most_together: 0,
            listening: BTreeSet::new(),
            silent: false,
        };
        world.start(Fake::default());
        world.run();
        // A service that is no resource's has a port of the range.
        let text = json!({"name": "own", "port": FIRST, "limit": {"pps": 5}, "backends": ["10.9.9.9:80"]}).to_string();
        world.edit("own", ServiceEdit::Put(text.into_bytes()));
        world.run();
        world
    }

    fn settings(&self) -> DaemonSettings {
        DaemonSettings {
            store: self.directory.path().join("store.db"),
            ..DaemonSettings::default()
        }
    }

    fn start(&mut self, fake: Fake) {
        let path = self.settings().store;
        let record = record::RecordFile::new(self.directory.path(), NAMESPACE);
        let mut engine = Engine::new(fake, record, NAMESPACE, FlowMark::default());
        engine.set_links(links());
        self.engine = Some(engine);
        self.core = Core::new(self.settings(), self.config.clone(), NAMESPACE, self.time());
        let last = Last::load(&Last::path(&path)).unwrap().unwrap_or_default();
        let opened = match store_opening::open(&path, &last, 0, self.unix) {
            Ok((store, opened)) => {
                self.store = Ok(store);
                Ok(opened)
            }
            Err(error) => {
                self.store = Err(error.clone());
                Err(error)
            }
        };
        self.core.opened(opened, self.time());
        self.core.served_last(last, self.boot.clone());
        self.looking.restart();
        self.core.begin(self.time());
    }

    /// Reads another configuration, with a provider API that can be served.
    fn reload(&mut self, config: Config) {
        let now = self.time();
        self.core.reload(self.settings(), config, now);
        self.core.provider_api(Ok(()), now);
    }

    fn restart(&mut self) {
        // A client without an answer does not know whether its request was carried out.
        self.uncertain.extend(self.asked.drain(..).map(|asked| asked.app));
        self.edits.clear();
        (self.kill, self.fail_write) = (None, None);
        self.store = Err(StoreError::NoDeploy(0));
        let mut fake = self.engine.take().unwrap().into_kernel();
        fake.restart();
        self.start(fake);
    }

    /// Boots the machine and starts another daemon.
    fn boot(&mut self) {
        self.wait(Duration::from_secs(10));
        let record = self.directory.path().join(format!("netns-{NAMESPACE}.state"));
        std::fs::remove_file(record).unwrap();
        self.boot = format!("after {}", self.boot);
        self.engine = None;
        self.store = Err(StoreError::NoDeploy(0));
        self.start(Fake::default());
    }

    fn does(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.happen(&event);
            self.run();
        }
    }

    fn time(&self) -> Now {
        Now {
            instant: self.now,
            unix: self.unix,
            boot: self.now - self.begin,
        }
    }

    fn kernel(&mut self) -> &mut Fake {
        self.engine.as_mut().unwrap().kernel()
    }

    fn edit(&mut self, name: &str, edit: ServiceEdit) {
        let (reply, answer) = oneshot::channel();
        let order = EditOrder {
            name: name.into(),
            edit,
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Edit(order, reply));
        self.edits.push(answer);
    }

    fn request(&mut self, app: usize, request: AddonRequest) {
        let (reply, answer) = oneshot::channel();
        // Ids that collide are made distinct: every fourth one is that of the request before.
        self.requests += 1;
        let order = AddonOrder {
            request: request.clone(),
            through: Dialect::Local,
            random: self.requests - self.requests / 4,
            by: PEER,
        };
        self.core.order(Order::Addon(order, reply));
        self.asked.push(Asked { app, request, answer });
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Provision(dialect, at, plan, port) => {
                let provision = Provision {
                    dialect,
                    app: app(at),
                    uuid: None,
                    owner: (dialect == Dialect::Osb).then(owner),
                    plan: plan_named(plan),
                    port: port.and_then(NonZeroU16::new),
                    asked: None,
                };
                self.request(at, AddonRequest::Provision(provision));
            }
            Event::Again(at) => {
                if let Some(provision) = self.provisions.get(&at) {
                    self.request(at, AddonRequest::Provision(provision.clone()));
                }
            }
            Event::Plan(at, plan) => {
                self.request(at, AddonRequest::ChangePlan(target(at), plan_named(plan)));
            }
            Event::Suspend(at) => self.request(at, AddonRequest::Suspend(target(at))),
            Event::Resume(at) => self.request(at, AddonRequest::Resume(target(at))),
            Event::Deprovision(at) => self.request(at, AddonRequest::Deprovision(target(at))),
            Event::Bind(at, id) => {
                let id = format!("binding-{id}").parse().unwrap();
                let binding = Binding {
                    app: Some("bound".parse().unwrap()),
                    asked: None,
                };
                let known = self.known.get(&at).cloned().flatten();
                // As a platform asks, which names its own plan; and as the command line does, of which there is none.
                let request = match known {
                    Some(known) => AddonRequest::Bind(
                        ResourceTarget::App(known.dialect, app(at)),
                        id,
                        known.plan.clone().into(),
                        binding,
                    ),
                    None => AddonRequest::Bind(target(at), id, WantedPlan::Id(None), binding),
                };
                self.request(at, request);
            }
            Event::Unbind(at, id) => {
                self.request(
                    at,
                    AddonRequest::Unbind(target(at), format!("binding-{id}").parse().unwrap()),
                );
            }
            Event::Register(at, count) => {
                if let Some(Some(resource)) = self.known.get(&at) {
                    let backends: Vec<String> = (0..count).map(|n| format!("10.9.{at}.{}:80", n + 1)).collect();
                    let name = resource.id.service();
                    let patch = json!({"backends": backends}).to_string();
                    self.edit(&name, ServiceEdit::Patch(patch.into_bytes()));
                }
            }
            Event::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Event::Fail(fail) => {
                self.kernel().fail_next(KernelCall::Commit, fail);
                self.troubled = true;
            }
            Event::Store(made) => self.fail_write = Some(made),
            Event::Kill(made) => self.kill = Some(made),
        }
    }

    /// Carries out everything that is due now.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let now = self.time();
            let mut idle = true;
            let looking = &mut self.looking;
            let listening = &self.listening;
            let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
                looking.vet(now.instant, || crate::absence::vetted(listening, state, is_known))
            };
            if self.core.is_judgement_due(now) {
                self.judgements += 1;
                self.core.judge_surroundings(vet, now);
            }
            let write = self.core.next_write(vet, now);
            if self.looking.take_ended(now.instant) {
                idle = false;
                self.core.look_ended(now);
            }
            if let Some(write) = write {
                idle = false;
                if !self.keep(write, now) {
                    continue;
                }
            }
            if let Some(job) = self.core.next_job(now) {
                idle = false;
                let done = perform(self.engine.as_mut().unwrap(), job);
                let outcome = tcpgw::control::job::JobOutcome {
                    done,
                    at: self.now,
                    took: Duration::ZERO,
                    table: None,
                    record_trouble: None,
                };
                self.core.done(outcome, now);
            }
            self.hear();
            let probes = self.core.health().due(self.now);
            if probes.is_empty() && idle {
                return;
            }
            for probe in probes {
                let outcome = if self.silent {
                    health::ProbeOutcome::TimedOut
                } else {
                    health::ProbeOutcome::Accepted
                };
                self.core.probed(probe.id, outcome, now);
            }
        }
        panic!("it never rests");
    }

    /// Performs a write as the store's thread does. Returns false when the daemon was killed before it got the result.
    fn keep(&mut self, write: Write, now: Now) -> bool {
        let is_change = matches!(write, Write::Change(..) | Write::Together(..));
        let together = match &write {
            Write::Together(changes, _) => Some(changes.len()),
            _ => None,
        };
        self.most_together = self.most_together.max(together.unwrap_or(1));
        if let Some(made) = self.kill.take_if(|_| is_change) {
            if made {
                store_work::perform(&mut self.store, write);
            }
            self.restart();
            return false;
        }
        let full = || StoreError::Full("store.db".into());
        if let Some(refused) = &mut self.full
            && !matches!(write, Write::Refresh | Write::Remember(..))
        {
            *refused += 1;
            let written = match (write, together) {
                (Write::Begin(..), _) => Written::Began(Err(full())),
                (Write::Step(..), _) => Written::Stepped(Err(full())),
                (_, Some(count)) => Written::Together((0..count).map(|_| Err(full())).collect()),
                (_, None) => Written::Changed(Err(full())),
            };
            self.core.written(written, now);
            return true;
        }
        let written = match self.fail_write.take_if(|_| is_change) {
            None => store_work::perform(&mut self.store, write),
            Some(made) => {
                if made {
                    store_work::perform(&mut self.store, write);
                }
                match together {
                    Some(count) => Written::Together((0..count).map(|_| Err(full())).collect()),
                    None => Written::Changed(Err(full())),
                }
            }
        };
        self.core.written(written, now);
        true
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let wakes = [self.core.wakes_at(), self.core.health().next_at()];
            let Some(next) = next_step(wakes, self.now, end) else {
                break;
            };
            self.unix += next - self.now;
            self.now = next;
        }
        self.unix += end - self.now;
        self.now = end;
        self.run();
    }

    /// Receives the answers so far, in the order of their requests.
    fn hear(&mut self) {
        let mut asked = std::mem::take(&mut self.asked);
        asked.retain_mut(|asked| match asked.answer.try_recv() {
            Ok(answer) => {
                self.heard(asked.app, &asked.request, answer);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => panic!("a request is not answered"),
        });
        self.asked = asked;
        let refused = &mut self.refused;
        self.edits.retain_mut(|answer| match answer.try_recv() {
            Err(TryRecvError::Empty) => true,
            Ok(Err(why)) => {
                refused.push(why);
                false
            }
            Ok(Ok(_)) | Err(TryRecvError::Closed) => false,
        });
    }

    fn heard(&mut self, app: usize, request: &AddonRequest, answer: Result<AddonOutcome, AddonRefused>) {
        let before = self.known.get(&app).cloned().flatten();
        let is_certain = !self.uncertain.contains(&app);
        match answer {
            Ok(AddonOutcome::Removed(resource)) => {
                self.back.insert(resource.port, self.unix);
                self.known.insert(app, None);
                self.provisions.remove(&app);
                self.uncertain.remove(&app);
            }
            Ok(
                AddonOutcome::Created(resource) | AddonOutcome::Changed(resource) | AddonOutcome::Unchanged(resource),
            ) => {
                match (&before, request) {
                    // The same id, app, port and birth for as long as it lives.
                    (Some(before), _) if is_certain => {
                        assert_eq!(
                            (before.id, before.port, before.created),
                            (resource.id, resource.port, resource.created)
                        );
                    }
                    (None, AddonRequest::Provision(_)) if is_certain => {
                        let back = self.back.get(&resource.port);
                        assert!(
                            back.is_none_or(|back| *back + QUARANTINE <= self.unix),
                            "port {} rests",
                            resource.port
                        );
                    }
                    (None, _) if is_certain => panic!("{request:?} of nothing came to {resource:?}"),
                    _ => {}
                }
                if let AddonRequest::Provision(provision) = request {
                    assert_eq!(provision.plan, resource.plan.clone().into());
                    assert!(provision.port.is_none_or(|port| port == resource.port));
                    self.provisions.insert(app, provision.clone());
                }
                // After a change of plan, also one that was made though its write failed, the old request asks for another plan.
                self.provisions
                    .retain(|of, provision| *of != app || provision.plan == resource.plan.clone().into());
                self.known.insert(app, Some(resource));
                self.uncertain.remove(&app);
            }
            Err(AddonRefused::Resource(refusal)) => {
                let is_repeated = self
                    .provisions
                    .get(&app)
                    .is_some_and(|provision| matches!(request, AddonRequest::Provision(wanted) if wanted == provision));
                assert!(
                    !(is_repeated && is_certain && before.is_some()),
                    "the same request again is refused: {refusal}"
                );
                if refusal == Refusal::NotFound && is_certain {
                    assert_eq!(before, None);
                }
            }
            Err(AddonRefused::Daemon(Refused::Store(_))) => drop(self.uncertain.insert(app)),
            Err(other) => panic!("{request:?}: {other:?}"),
        }
    }

    /// Checks the invariants that hold whenever all requests have been answered.
    fn check(&mut self) -> Result<(), TestCaseError> {
        if !self.asked.is_empty() {
            // A request may wait only for a kernel that failed, until the next attempt.
            prop_assert!(self.troubled, "a request is not answered");
            return Ok(());
        }
        let store = self.store.as_mut().unwrap();
        let (resources, services) = (store.resources().unwrap().resources, store.load().unwrap().services);
        let mut ports = BTreeSet::from([FIRST]);
        for resource in &resources {
            prop_assert!(
                ports.insert(resource.port.get()),
                "port {} is given twice",
                resource.port
            );
            prop_assert!((FIRST..=LAST).contains(&resource.port.get()));
            let name = resource.id.service();
            let service = services.iter().find(|stored| *stored.service.name == *name);
            let Some(service) = service else {
                return Err(TestCaseError::fail(format!("{name} has no service")));
            };
            let pps = PLANS.iter().find(|(plan, _)| *plan == resource.plan.as_str());
            prop_assert_eq!(service.service.port, resource.port);
            prop_assert_eq!(service.service.limit.map(|limit| limit.pps), pps.map(|(_, pps)| *pps));
        }
        let of_resources = services
            .iter()
            .filter(|stored| ResourceId::of_service(&stored.service.name).is_some());
        prop_assert_eq!(of_resources.count(), resources.len(), "a service has no resource");
        for at in 0..APPS {
            let there: Vec<&Resource> = resources.iter().filter(|one| one.app == app(at)).collect();
            prop_assert!(there.len() <= 1, "{} has two resources", app(at));
            if self.uncertain.contains(&at) {
                continue;
            }
            let known = self.known.get(&at).and_then(Option::as_deref);
            prop_assert_eq!(there.first().copied(), known, "{} is not as acknowledged", app(at));
        }
        Ok(())
    }

    /// Ends all trouble and checks that the core, the store and the kernel agree.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.kernel().restart();
        (self.troubled, self.kill, self.fail_write) = (false, None, None);
        self.held = false;
        self.wait(LONG);
        prop_assert!(self.asked.is_empty(), "a request is not answered");
        self.check()?;
        prop_assert!(self.core.in_sync());
        let store = self.store.as_mut().unwrap();
        let resources = store.resources().unwrap().resources;
        let cores: Vec<Resource> = self.core.resources().iter().map(|one| Resource::clone(one)).collect();
        prop_assert_eq!(&cores, &resources);
        let suspended: BTreeSet<String> = resources
            .iter()
            .filter(|resource| resource.status == ResourceStatus::Suspended)
            .map(|resource| resource.id.service())
            .collect();
        let services = store.load().unwrap().services.into_iter().map(|stored| {
            let service = Service::clone(&stored.service);
            if suspended.contains(&*service.name) {
                Service {
                    backends: Vec::new(),
                    on_empty: PacketRefusal::Reset,
                    ..service
                }
            } else {
                service
            }
        });
        let want = State::new(services).unwrap();
        prop_assert_eq!(&self.kernel().ruleset(), &desired(&want).ruleset);
        for resource in &resources {
            let name = resource.id.service();
            let fate = self.connect(resource.port);
            let service = want.services.iter().find(|service| *service.name == *name);
            let is_empty = service.is_none_or(|service| service.backends.is_empty());
            match fate {
                ConnectOutcome::Backend(_) => prop_assert!(!is_empty),
                other => prop_assert!(
                    is_empty && other == (ConnectOutcome::Empty { reset: true }),
                    "{:?}",
                    other
                ),
            }
        }
        self.plans_change_in_place()
    }

    fn connect(&mut self, port: NonZeroU16) -> ConnectOutcome {
        let syn = Syn {
            client: SocketAddr::new([198, 51, 100, 7].into(), 40_000),
            public: SocketAddr::new([192, 0, 2, 1].into(), port.get()),
        };
        self.kernel().connect(&syn, 0)
    }

    /// Checks that a change of a plan touches no element that stays the same: buckets, counters and flows of others stay.
    fn plans_change_in_place(mut self) -> Result<(), TestCaseError> {
        for at in 0..APPS {
            for plan in 0..PLANS.len() {
                let before = self.kernel().ruleset();
                let born = born(self.kernel(), &before);
                self.happen(&Event::Plan(at, plan));
                self.wait(Duration::from_secs(1));
                let after = self.kernel().ruleset();
                let now = self::born(self.kernel(), &after);
                for (key, generation) in &born {
                    let is_same = row(&before, key) == row(&after, key);
                    prop_assert!(!is_same || now.get(key) == Some(generation), "{:?} was touched", key);
                }
            }
        }
        self.check()
    }
}

type Key = (tcpgw_core::ruleset::name::SetName, Vec<u8>);

fn born(kernel: &Fake, ruleset: &Ruleset) -> BTreeMap<Key, u32> {
    let mut all = BTreeMap::new();
    for (name, rows) in ruleset.sets() {
        let length = SetSpec::of(*name).identity_len();
        for row in rows {
            let identity = &row[..length];
            if let Some(generation) = kernel.born(*name, identity) {
                all.insert((*name, identity.to_vec()), generation);
            }
        }
    }
    all
}

fn row(ruleset: &Ruleset, (name, identity): &Key) -> Option<Vec<u8>> {
    ruleset
        .rows(*name)
        .and_then(|rows| rows.find(identity))
        .map(<[u8]>::to_vec)
}
