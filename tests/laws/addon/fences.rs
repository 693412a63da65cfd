//! Resources that configured fences exclude.

use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use tcpgw::addon::{AddonRequest, Dialect, Provision, Refusal};
use tcpgw::config::Config;
use tcpgw::control::request::{AddonRefused, Refused, ServiceEdit};
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{DIALECTS, Event, FIRST, LAST, PLANS, World, config, config_with};
use crate::world::clients::take as take_answer;

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
            let port = world.resource(0).port;
            assert_eq!(port.get(), FIRST + 1);
            world.config = config_with(&fence, first, &PLANS);
            if is_read_again {
                world.reload();
            } else {
                world.restart();
            }
            world.wait(Duration::from_secs(70));
            let problems = world.core.problems().iter();
            let message: Vec<&str> = problems
                .filter(|problem| problem.kind == ProblemKind::OutsideFences)
                .map(|problem| &*problem.message)
                .collect();
            // Among too many services the message names any one.
            let names_cure = message
                .iter()
                .any(|message| message.contains("tcpgw addon deprovision app-0"));
            assert!(
                !message.is_empty() && (names_cure || fence.contains("max_")),
                "{message:?}"
            );
            for _ in 0..2 {
                world.does([Event::Suspend(0)]);
                assert_eq!(world.connect_to(port), ConnectOutcome::Empty { reset: true }, "{fence}");
                world.does([Event::Resume(0)]);
                assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)), "{fence}");
            }
            world.does([Event::Plan(0, 1)]);
            let service = world.resource(0).id.service();
            world.edit(&service, ServiceEdit::Drain(Vec::new()));
            world.run();
            assert_eq!(world.clients.refused, Vec::<Refused>::new(), "{fence}");
            // One more backend is another matter for those fences that are about backends.
            world.does([Event::Register(0, 3)]);
            let is_about_backends = fence.contains("backends");
            assert_eq!(
                world.clients.refused.len(),
                usize::from(is_about_backends),
                "{:?}",
                world.clients.refused
            );
            world.edit(
                &service,
                ServiceEdit::Patch(br#"{"backends": ["10.9.0.1:80"]}"#.to_vec()),
            );
            world.run();
            assert_eq!(
                world.clients.refused.len(),
                usize::from(is_about_backends),
                "{:?}",
                world.clients.refused
            );
            world.check().unwrap();
            world.does([Event::Deprovision(0)]);
            assert_eq!(world.clients.known[&0], None);
        }
    }
}

/// What is said of services that are too many has the number that the fence would have to allow.
#[test]
fn problems_about_fences_have_the_number_of_all_services_and_backends() {
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
        world.reload_with(config_with(fence, FIRST, &PLANS));
        world.wait(Duration::from_secs(70));
        let problems = world.core.problems().iter();
        let mut found = problems
            .filter(|problem| problem.kind == ProblemKind::OutsideFences)
            .peekable();
        assert!(found.peek().is_some(), "{fence}");
        for problem in found {
            assert!(problem.message.contains(expected), "{fence}: {problem:?}");
        }
    }
    world.reload_with(config_with("max_services = 5\nmax_backends = 9", FIRST, &PLANS));
    world.wait(Duration::from_secs(70));
    assert!(world.core.problems().get(ProblemKind::OutsideFences).is_none());
}

/// A resource outside of the fences is not served after a boot, and the orders of its platform are carried out all the same.
#[test]
fn a_resource_that_the_fences_hold_back_follows_its_platform_and_stays_held_back() {
    let mut world = World::new();
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
    let port = world.resource(0).port;
    world.config = config_with(&format!("ports = \"{}-{LAST}\"", FIRST + 2), FIRST + 2, &PLANS);
    world.wait(Duration::from_secs(10));
    drop(world.kill());
    let kernel = world.boot();
    world.start(kernel);
    world.wait(Duration::from_secs(10));
    for event in [
        Event::Suspend(0),
        Event::Plan(0, 1),
        Event::Resume(0),
        Event::Plan(0, 2),
    ] {
        world.does([event]);
        assert!(!matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
        assert!(world.core.problems().get(ProblemKind::HeldBack).is_some());
    }
    world.check().unwrap();
    world.config = config();
    world.reload();
    world.wait(Duration::from_secs(70));
    assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
}

/// A reload takes the fences, and `[addon]` stays as it was, because it cannot be used as configured: resources get those ports of the
/// range in use that the fences allow, and where these allow none, that is the reason.
#[test]
fn resources_get_ports_that_the_fences_allow() {
    let mut world = World::new();
    let fenced = |ports: &str| {
        let text = format!("[fences]\nports = \"{ports}\"");
        let mut fenced = Config::parse(Path::new("config.toml"), text.as_bytes()).unwrap();
        fenced.addon = config_with("", LAST, &PLANS).addon;
        fenced
    };
    let take = |world: &mut World, ports: &str| {
        let now = world.time();
        world.core.reload(world.settings(), fenced(ports), now);
        world.core.provider_api(Err("the file cannot be used".into()), now);
        world.wait(Duration::from_secs(70));
    };
    take(&mut world, &format!("{}-{LAST}", FIRST + 3));
    for dialect in DIALECTS.into_iter().take(2) {
        world.does([Event::Provision(dialect, 0, 0, None)]);
        assert_eq!(world.resource(0).port.get(), FIRST + 3);
        world.does([Event::Provision(dialect, 1, 0, Some(LAST)), Event::Deprovision(1)]);
        world.does([Event::Deprovision(0)]);
        world.wait(super::QUARANTINE + Duration::from_secs(10));
    }
    let usage = world.core.resource_list(world.time()).unwrap().ports.unwrap();
    assert_eq!((usage.all, usage.used, usage.fenced, usage.free()), (5, 1, 2, 2));
    // A port that is wished outside of them, and no port at all.
    let refused = |world: &mut World, port: Option<u16>| {
        let mut answer = world.order_request(AddonRequest::Provision(Provision {
            dialect: Dialect::Scalingo,
            app: super::app(2),
            uuid: None,
            owner: None,
            plan: super::plan_named(0),
            port: port.and_then(NonZeroU16::new),
            asked: None,
        }));
        world.run();
        match take_answer(&mut answer) {
            Some(Err(AddonRefused::Resource(Refusal::Port(refusal)))) => (refusal.to_string(), refusal.for_platform()),
            other => panic!("{other:?}"),
        }
    };
    let told = refused(&mut world, Some(FIRST + 1));
    assert!(
        told.0.contains("fences.ports") && told.1.contains("fences.ports"),
        "{told:?}"
    );
    take(&mut world, &format!("{}-{}", LAST + 1, LAST + 5));
    let told = refused(&mut world, None);
    assert!(told.0.contains("`fences.ports` does not allow 4"), "{told:?}");
    assert!(told.1.starts_with("no public port is left"), "{told:?}");
    let problem = world.core.problems().get(ProblemKind::AddonPorts).expect("it is told");
    assert!(
        problem.message.contains("`fences.ports` does not allow 4"),
        "{problem:?}"
    );
}
