//! Resources that configured fences exclude.

use std::time::Duration;

use tcpgw::addon::Dialect;
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{DIALECTS, Event, FIRST, LAST, PLANS, World, config, config_with};

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
            let told: Vec<&str> = problems
                .filter(|problem| problem.kind == ProblemKind::OutsideFences)
                .map(|problem| &*problem.message)
                .collect();
            // Among too many services the message names any one.
            let names_cure = told.iter().any(|told| told.contains("tcpgw addon deprovision app-0"));
            assert!(!told.is_empty() && (names_cure || fence.contains("max_")), "{told:?}");
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
        let mut told = problems
            .filter(|problem| problem.kind == ProblemKind::OutsideFences)
            .peekable();
        assert!(told.peek().is_some(), "{fence}");
        for problem in told {
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
