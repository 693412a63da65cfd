//! Resources while the configuration of the add-on changes.

use std::sync::Arc;
use std::time::Duration;

use tcpgw::addon::{Dialect, Resource, ResourceChange};
use tcpgw::config::Config;
use tcpgw::control::request::ServiceEdit;
use tcpgw::store::ChangeAuthor;
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{Event, FIRST, PLANS, QUARANTINE, World, config, config_with, target};

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
    let resources = [0, 1].map(|at| world.clients.known[&at].clone().unwrap());
    world.edit(
        &resources[1].id.service(),
        ServiceEdit::Patch(br#"{"backends": ["10.9.0.1:80"]}"#.to_vec()),
    );
    world.does([Event::Suspend(1)]);
    let mut plans = PLANS;
    plans[0].1 = 123;
    world.config = config_with("", FIRST, &plans);
    world.reload();
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
    assert_eq!(world.clients.refused, []);
    for resource in &resources {
        assert!(matches!(world.connect_to(resource.port), ConnectOutcome::Backend(_)));
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
        let port = world.resource(0).port;
        world.config = Config::default();
        if is_read_again {
            world.reload();
        } else {
            world.restart();
        }
        world.wait(Duration::from_secs(70));
        let reported = |world: &World| {
            let problem = world.core.problems().get(ProblemKind::ProviderApi);
            problem.is_some_and(|problem| problem.message.contains("has 1 resource of the add-on"))
        };
        let now = world.time();
        world.core.provider_api(Ok(()), now);
        assert!(reported(&world));
        world.does([Event::Suspend(0)]);
        assert_eq!(world.connect_to(port), ConnectOutcome::Empty { reset: true });
        world.does([Event::Resume(0)]);
        assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
        let service = world.core.service(&world.resource(0).id.service(), world.time());
        assert_eq!(
            service.unwrap().listed.service.limit.unwrap().pps,
            100,
            "its plan stays"
        );
        world.does([Event::Deprovision(0)]);
        assert_eq!(world.clients.known[&0], None);
        world.wait(Duration::from_secs(70));
        assert!(!reported(&world));
        world.config = config();
        world.reload();
        // The port is given again after the configured quarantine.
        world.does([Event::Provision(Dialect::Scalingo, 1, 0, None)]);
        assert_ne!(world.resource(1).port, port);
        world.wait(QUARANTINE + Duration::from_secs(10));
        world.does([Event::Provision(Dialect::Scalingo, 2, 0, None)]);
        assert_eq!(world.resource(2).port, port);
        world.end().unwrap();
    }
}

/// A section whose provider API cannot be served is not in use at all: plans, ports and host are those that platforms were offered.
#[test]
fn a_section_that_cannot_be_served_is_taken_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
    let mut other = config_with("", FIRST + 3, &[("tiny", 100), PLANS[1], PLANS[2], ("xl", 20_000)]);
    other.addon.as_mut().unwrap().host = "moved.example.com".into();
    let url = |world: &World, at| world.core.resource_view(&target(at)).unwrap().url;
    let now = world.time();
    world.core.reload(world.settings(), other.clone(), now);
    world.core.provider_api(Err("the file cannot be used".into()), now);
    for _ in 0..2 {
        let problems = world.core.problems().get(ProblemKind::ProviderApi).expect("it is told");
        assert!(
            problems
                .message
                .contains("the file cannot be used; all of [addon] stays"),
            "{problems:?}"
        );
        world.does([
            Event::Again(0),
            Event::Plan(0, 0),
            Event::Provision(Dialect::Osb, 1, 0, None),
        ]);
        let ports = [0, 1].map(|at| world.resource(at).port.get());
        assert_eq!(ports, [FIRST + 1, FIRST + 2]);
        for at in [0, 1] {
            assert_eq!(
                url(&world, at).unwrap(),
                format!("tcp://gateway.example.com:{}", ports[at])
            );
            assert_eq!(world.resource(at).plan.as_str(), "small");
        }
        world.wait(Duration::from_secs(10));
        let now = world.time();
        world.core.provider_api(Err("the file cannot be used".into()), now);
    }
    world.reload_with(other);
    world.wait(Duration::from_secs(10));
    assert!(world.core.problems().get(ProblemKind::ProviderApi).is_none());
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
    world.reload_with(Config::default());
    let reported = |world: &World| {
        world
            .core
            .problems()
            .get(ProblemKind::ProviderApi)
            .map(|told| told.message.clone())
    };
    world.wait(Duration::from_secs(70));
    assert!(reported(&world).unwrap().contains("the configuration has no [addon]"));
    // Where there was none, none is in use.
    let now = world.time();
    world.core.reload(world.settings(), config(), now);
    world.core.provider_api(Err("the file cannot be used".into()), now);
    world.wait(Duration::from_secs(70));
    assert!(
        reported(&world)
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
        let made = world.clients.known[&0].clone().unwrap();
        let service = made.id.service();
        let earlier = Resource {
            plan_id: None,
            ..Resource::clone(&made)
        };
        let change = tcpgw::store::StoreChange {
            resources: vec![ResourceChange::Put(Arc::new(earlier))],
            ..tcpgw::store::StoreChange::default()
        };
        let by = ChangeAuthor {
            uid: 0,
            pid: 0,
            what: "test".into(),
        };
        let now = world.clock.unix;
        world.store().commit(&change, &by, now).unwrap();
        world.restart();
        world.wait(Duration::from_secs(10));
        let stored = |world: &mut World| {
            let store = world.store();
            store.resources().unwrap().resources.pop().unwrap()
        };
        assert_eq!(stored(&mut world), *made);
        for (small, pps) in [(None, 100), (Some(("small", 7)), 150)] {
            let plans: Vec<(&str, u32)> = [("tiny", pps), PLANS[1], PLANS[2]].into_iter().chain(small).collect();
            world.config = config_with("", FIRST, &plans);
            if is_read_again {
                world.reload();
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
