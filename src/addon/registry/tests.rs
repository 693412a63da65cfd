mod letters;

use super::*;
use crate::addon::plan::AddonPlan;
use crate::addon::ports::{PortRefusal, PortSet};
use crate::addon::removed::MAX_REMOVED;
use crate::addon::resource::ResourceOwner;
use std::num::NonZeroU16;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn id(text: &str) -> PlatformId {
    text.parse().unwrap()
}

fn plan(name: &str) -> WantedPlan {
    WantedPlan::Named(name.parse().unwrap())
}

const FREE: &str = "00000000-0000-0000-0000-000000000000";
const LARGE: &str = "00000000-0000-0000-0000-000000000001";
const OTHER: &str = "00000000-0000-0000-0000-0000000000ab";

fn plans() -> Plans {
    plans_of(&[("free", FREE), ("large", LARGE)])
}

fn plans_of(plans: &[(&str, &str)]) -> Plans {
    Plans::new(plans.iter().map(|(name, id)| AddonPlan::example(name, id)).collect()).unwrap()
}

/// A registry with what its requests depend on.
struct World {
    registry: Registry,
    plans: Plans,
    busy: PortSet,
    now: Duration,
}

impl World {
    fn new(last: u16) -> Self {
        let range = PortRange::new(port(20_000), port(last)).unwrap();
        Self {
            registry: Registry::new(range, HOUR, [], [], NOW),
            plans: plans(),
            busy: PortSet::default(),
            now: NOW,
        }
    }

    fn request(&mut self, request: &AddonRequest) -> Result<AddonOutcome, Refusal> {
        let facts = RegistryFacts {
            plans: &self.plans,
            busy: &self.busy,
            random: 7,
            now: self.now,
        };
        let decision = self.registry.decide(request, facts)?;
        if let Some(change) = &decision.change {
            self.registry.commit(change, self.now);
        }
        Ok(decision.outcome)
    }

    /// Replaces the plans of the configuration by these, given by name and id.
    fn configure(&mut self, plans: &[(&str, &str)]) {
        self.plans = plans_of(plans);
        for change in self.registry.with_plans_named(&self.plans) {
            self.registry.commit(&change, self.now);
        }
    }

    fn provision(&mut self, dialect: Dialect, app: &str) -> Result<AddonOutcome, Refusal> {
        self.request(&AddonRequest::Provision(wanted(dialect, app)))
    }
}

fn wanted(dialect: Dialect, app: &str) -> Provision {
    Provision {
        dialect,
        app: id(app),
        uuid: None,
        owner: None,
        plan: plan("free"),
        port: None,
        asked: None,
    }
}

fn binding_of(app: &str, parameters: Option<&serde_json::Value>) -> Binding {
    Binding {
        app: Some(id(app)),
        asked: parameters.map(Fingerprint::of),
    }
}

#[track_caller]
fn created(outcome: Result<AddonOutcome, Refusal>) -> Arc<Resource> {
    match outcome {
        Ok(AddonOutcome::Created(resource)) => resource,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_request_again_gets_the_same_answer() {
    let mut world = World::new(20_009);
    let first = created(world.provision(Dialect::Heroku, "app"));
    assert_eq!(
        world.provision(Dialect::Heroku, "app"),
        Ok(AddonOutcome::Unchanged(Arc::clone(&first)))
    );
    let other = created(world.provision(Dialect::Heroku, "other"));
    assert_ne!(
        (first.id, first.port),
        (other.id, other.port),
        "though the random bits are the same"
    );
}

/// Parameters that an older store does not have are not compared.
#[test]
fn other_parameters_are_a_conflict_where_they_are_known() {
    let mut world = World::new(20_009);
    let asked = |number: Option<u32>| number.map(|number| Fingerprint::of(&serde_json::json!({"foo": number})));
    let with = |app, number| {
        AddonRequest::Provision(Provision {
            asked: asked(number),
            ..wanted(Dialect::Osb, app)
        })
    };
    let bind = |app, number: Option<u32>| {
        let parameters = number.map(|number| serde_json::json!({"foo": number}));
        let binding = binding_of("bound", parameters.as_ref());
        AddonRequest::Bind(
            ResourceTarget::App(Dialect::Osb, id(app)),
            id("b"),
            plan("free"),
            binding,
        )
    };
    for (app, first, other, is_refused) in [
        ("a", Some(1), Some(2), true),
        ("b", Some(1), Some(1), false),
        ("c", None, Some(2), false),
        ("d", Some(1), None, false),
    ] {
        created(world.request(&with(app, first)));
        created(world.request(&bind(app, first)));
        for again in [with(app, other), bind(app, other)] {
            match world.request(&again) {
                Err(Refusal::Conflict(_)) => assert!(is_refused, "{again:?}"),
                Ok(AddonOutcome::Unchanged(_)) => assert!(!is_refused, "{again:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// OSB names plans by ids. A plan that has left the catalog and whose id is not known has none.
#[test]
fn an_instance_whose_plan_left_the_catalog_is_bound_and_asked_for_again() {
    let mut world = World::new(20_009);
    let wanted = |plan| Provision {
        plan,
        ..wanted(Dialect::Osb, "app")
    };
    let left_plan = || WantedPlan::Id(Some(FREE.parse().unwrap()));
    let listed = WantedPlan::Id(Some(LARGE.parse().unwrap()));
    for none in [WantedPlan::Id(None), WantedPlan::Id(Some(OTHER.parse().unwrap()))] {
        let refused = world.request(&AddonRequest::Provision(wanted(none)));
        assert_eq!(refused, Err(Refusal::UnlistedPlan));
    }
    let made = created(world.request(&AddonRequest::Provision(wanted(left_plan()))));
    let target = ResourceTarget::App(Dialect::Osb, id("app"));
    let bind = AddonRequest::Bind(target.clone(), id("b"), left_plan(), binding_of("bound", None));
    let change = AddonRequest::ChangePlan(target.clone(), left_plan());
    let former = AddonPlan::example("large", "00000000-0000-0000-0000-000000000001");
    world.plans = Plans::new(vec![former]).unwrap();
    assert_eq!(
        world.request(&AddonRequest::Provision(wanted(left_plan()))),
        Ok(AddonOutcome::Unchanged(Arc::clone(&made)))
    );
    assert_eq!(world.request(&change), Ok(AddonOutcome::Unchanged(made)));
    created(world.request(&bind));
    // Another plan is another one, whether it is in the catalog or not.
    for other in [WantedPlan::Id(None), WantedPlan::Id(Some(OTHER.parse().unwrap()))] {
        assert!(matches!(
            world.request(&AddonRequest::Provision(wanted(other.clone()))),
            Err(Refusal::Conflict(_))
        ));
        let bind = AddonRequest::Bind(target.clone(), id("c"), other.clone(), binding_of("bound", None));
        assert_eq!(world.request(&bind), Err(Refusal::UnlistedPlan));
        let change = AddonRequest::ChangePlan(target.clone(), other);
        assert_eq!(world.request(&change), Err(Refusal::UnlistedPlan));
    }
    assert!(matches!(
        world.request(&AddonRequest::Provision(wanted(listed))),
        Err(Refusal::Conflict(_))
    ));
}

/// A request that names plans by id gets the same answers after a change of the name; a name means the plan that has it now.
#[test]
fn a_plan_whose_name_was_changed_is_the_same_plan() {
    let mut world = World::new(20_009);
    let by_id = |id: &str| WantedPlan::Id(Some(id.to_ascii_uppercase().parse().unwrap()));
    let of_broker = |plan| {
        AddonRequest::Provision(Provision {
            plan,
            ..wanted(Dialect::Osb, "osb")
        })
    };
    created(world.request(&of_broker(by_id(FREE))));
    created(world.provision(Dialect::Scalingo, "app"));
    // The old name is that of another plan now.
    world.configure(&[("tiny", FREE), ("free", OTHER), ("large", LARGE)]);
    let names: Vec<&str> = world.registry.iter().map(|resource| resource.plan.as_str()).collect();
    assert_eq!(names, ["tiny", "tiny"]);
    assert!(world.registry.with_plans_named(&world.plans).is_empty(), "once");
    let is_unchanged = |outcome| matches!(outcome, Ok(AddonOutcome::Unchanged(_)));
    assert!(is_unchanged(world.request(&of_broker(by_id(FREE)))));
    assert!(matches!(
        world.request(&of_broker(by_id(OTHER))),
        Err(Refusal::Conflict(_))
    ));
    let broker = ResourceTarget::App(Dialect::Osb, id("osb"));
    assert!(is_unchanged(
        world.request(&AddonRequest::ChangePlan(broker.clone(), by_id(FREE)))
    ));
    let app = ResourceTarget::App(Dialect::Scalingo, id("app"));
    assert!(is_unchanged(
        world.request(&AddonRequest::ChangePlan(app.clone(), plan("tiny")))
    ));
    let again = Provision {
        plan: plan("tiny"),
        ..wanted(Dialect::Scalingo, "app")
    };
    assert!(is_unchanged(world.request(&AddonRequest::Provision(again))));
    for (target, other) in [(broker, by_id(OTHER)), (app, plan("free"))] {
        match world.request(&AddonRequest::ChangePlan(target, other)) {
            Ok(AddonOutcome::Changed(resource)) => {
                assert_eq!(resource.plan.as_str(), "free");
                assert!(resource.plan_id.as_ref().unwrap().is(OTHER));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A new plan with the name of an earlier one does not take over the earlier plan's resources.
#[test]
fn a_plan_that_left_is_not_the_next_one_of_its_name() {
    let mut world = World::new(20_009);
    let made = created(world.provision(Dialect::Scalingo, "app"));
    world.configure(&[("free", OTHER)]);
    let there = world.registry.get(made.id).unwrap();
    assert_eq!((there, world.plans.of(there)), (&made, None));
    // A platform that knows plans by name sends the same again; and its user chooses the new one.
    let again = world.provision(Dialect::Scalingo, "app");
    assert_eq!(again, Ok(AddonOutcome::Unchanged(made)));
    let change = AddonRequest::ChangePlan(ResourceTarget::App(Dialect::Scalingo, id("app")), plan("free"));
    match world.request(&change) {
        Ok(AddonOutcome::Changed(resource)) => assert!(resource.plan_id.as_ref().unwrap().is(OTHER)),
        other => panic!("{other:?}"),
    }
}

/// A store of an earlier version has names only: a plan gets the id of the plan that has its name at the first start.
#[test]
fn a_plan_that_is_known_by_its_name_gets_its_id() {
    let mut world = World::new(20_009);
    let made = created(world.provision(Dialect::Osb, "app"));
    let earlier = Arc::new(Resource {
        plan_id: None,
        ..Resource::clone(&made)
    });
    world.registry.commit(&ResourceChange::Put(Arc::clone(&earlier)), NOW);
    // Requests find it the same plan before, too.
    let by_id = Provision {
        plan: WantedPlan::Id(Some(FREE.parse().unwrap())),
        ..wanted(Dialect::Osb, "app")
    };
    let again = world.request(&AddonRequest::Provision(by_id));
    assert_eq!(again, Ok(AddonOutcome::Unchanged(Arc::clone(&earlier))));
    world.configure(&[("large", LARGE)]);
    assert_eq!(world.registry.get(made.id), Some(&earlier), "it is not known");
    world.configure(&[("free", FREE)]);
    assert_eq!(world.registry.get(made.id), Some(&made));
    world.configure(&[("tiny", FREE)]);
    assert_eq!(world.registry.get(made.id).unwrap().plan.as_str(), "tiny");
}

/// A request can be delivered again at any time.
#[test]
fn a_plan_that_left_the_configuration_stays_with_those_who_have_it() {
    let mut world = World::new(20_009);
    let made = created(world.provision(Dialect::Heroku, "app"));
    let former = AddonPlan::example("large", "00000000-0000-0000-0000-000000000001");
    world.plans = Plans::new(vec![former]).unwrap();
    let unchanged = Ok(AddonOutcome::Unchanged(Arc::clone(&made)));
    assert_eq!(world.provision(Dialect::Heroku, "app"), unchanged);
    let target = ResourceTarget::App(Dialect::Heroku, id("app"));
    assert_eq!(
        world.request(&AddonRequest::ChangePlan(target.clone(), plan("free"))),
        unchanged
    );
    // No new resource can get the plan any more.
    let new = world.provision(Dialect::Heroku, "other");
    assert!(matches!(new, Err(Refusal::UnknownPlan { .. })), "{new:?}");
    assert!(matches!(
        world.request(&AddonRequest::ChangePlan(target.clone(), plan("large"))),
        Ok(AddonOutcome::Changed(_))
    ));
    let back = world.request(&AddonRequest::ChangePlan(target, plan("free")));
    assert!(matches!(back, Err(Refusal::UnknownPlan { .. })), "{back:?}");
}

#[test]
fn the_same_id_with_other_values_is_a_conflict_and_changes_nothing() {
    let mut world = World::new(20_009);
    let owner = |organization| {
        Some(ResourceOwner {
            organization: id(organization),
            space: id("space"),
        })
    };
    let first = Provision {
        owner: owner("org"),
        ..wanted(Dialect::Osb, "app")
    };
    let there = created(world.request(&AddonRequest::Provision(first.clone())));
    let others = [
        Provision {
            owner: owner("else"),
            ..first.clone()
        },
        Provision {
            plan: plan("large"),
            ..first.clone()
        },
        Provision {
            port: Some(port(20_005)),
            ..first.clone()
        },
        Provision {
            dialect: Dialect::Scalingo,
            owner: None,
            ..first.clone()
        },
    ];
    for other in others {
        let refused = world.request(&AddonRequest::Provision(other.clone()));
        assert!(matches!(refused, Err(Refusal::Conflict(_))), "{other:?}: {refused:?}");
    }
    let again = Provision {
        port: Some(there.port),
        ..first
    };
    assert_eq!(
        world.request(&AddonRequest::Provision(again)),
        Ok(AddonOutcome::Unchanged(there))
    );
}

#[test]
fn scalingo_tells_requests_apart_by_uuid_and_has_one_resource_for_an_app() {
    let mut world = World::new(20_009);
    let with = |uuid, app| {
        AddonRequest::Provision(Provision {
            uuid: Some(id(uuid)),
            ..wanted(Dialect::Scalingo, app)
        })
    };
    let first = created(world.request(&with("u1", "app")));
    assert_eq!(
        world.request(&with("u1", "app")),
        Ok(AddonOutcome::Unchanged(Arc::clone(&first)))
    );
    assert!(matches!(world.request(&with("u2", "app")), Err(Refusal::Conflict(_))));
    assert!(matches!(world.request(&with("u1", "other")), Err(Refusal::Conflict(_))));
    assert_eq!(
        world.provision(Dialect::Scalingo, "app"),
        Ok(AddonOutcome::Unchanged(first))
    );
}

#[test]
fn a_port_stays_through_all_that_a_resource_goes_through_and_rests_afterwards() {
    let mut world = World::new(20_000);
    let resource = created(world.provision(Dialect::Scalingo, "app"));
    let target = ResourceTarget::Id(Dialect::Scalingo, resource.id);
    let requests = [
        AddonRequest::Suspend(target.clone()),
        AddonRequest::ChangePlan(target.clone(), plan("large")),
        AddonRequest::Resume(target.clone()),
    ];
    for request in requests {
        let Ok(AddonOutcome::Changed(after)) = world.request(&request) else {
            panic!("{request:?}");
        };
        assert_eq!(after.port, resource.port);
        assert!(
            matches!(world.request(&request), Ok(AddonOutcome::Unchanged(_))),
            "{request:?} again"
        );
    }
    assert!(matches!(
        world.provision(Dialect::Heroku, "next"),
        Err(Refusal::Port(PortRefusal::Exhausted { .. }))
    ));
    assert!(matches!(
        world.request(&AddonRequest::Deprovision(target.clone())),
        Ok(AddonOutcome::Removed(_))
    ));
    assert_eq!(
        world.request(&AddonRequest::Deprovision(target.clone())),
        Err(Refusal::Gone)
    );
    assert_eq!(world.request(&AddonRequest::Resume(target)), Err(Refusal::Gone));
    let refused = world.provision(Dialect::Heroku, "next");
    assert!(
        matches!(
            refused,
            Err(Refusal::Port(PortRefusal::Exhausted {
                used: 0,
                resting: 1,
                ..
            }))
        ),
        "{refused:?}"
    );
    world.now += HOUR;
    assert_eq!(created(world.provision(Dialect::Heroku, "next")).port, resource.port);
}

#[test]
fn an_id_that_was_removed_is_free_again_but_for_heroku() {
    for dialect in [Dialect::Osb, Dialect::Scalingo, Dialect::CleverCloud, Dialect::Heroku] {
        let mut world = World::new(20_009);
        let first = created(world.provision(dialect, "app"));
        let target = ResourceTarget::App(dialect, id("app"));
        world.request(&AddonRequest::Deprovision(target.clone())).unwrap();
        assert_eq!(world.request(&AddonRequest::Suspend(target)), Err(Refusal::Gone));
        let again = world.provision(dialect, "app");
        if dialect == Dialect::Heroku {
            assert_eq!(again, Err(Refusal::Gone));
        } else {
            assert_ne!(created(again).id, first.id, "{dialect:?}");
        }
    }
}

#[test]
fn a_dialect_sees_its_own_resources_only() {
    let mut world = World::new(20_009);
    let resource = created(world.provision(Dialect::Heroku, "app"));
    let others = [
        ResourceTarget::App(Dialect::Osb, id("app")),
        ResourceTarget::Id(Dialect::Scalingo, resource.id),
    ];
    for target in others {
        assert_eq!(
            world.request(&AddonRequest::Deprovision(target)),
            Err(Refusal::NotFound)
        );
    }
    assert_eq!(world.registry.find(&ResourceTarget::Any(id("app"))), Ok(&resource));
}

#[test]
fn a_binding_names_its_app_until_it_ends() {
    let mut world = World::new(20_009);
    let bind = |world: &mut World, instance: &str, binding: &str, app: &str| {
        let target = ResourceTarget::App(Dialect::Osb, id(instance));
        world.request(&AddonRequest::Bind(
            target,
            id(binding),
            plan("free"),
            binding_of(app, None),
        ))
    };
    created(world.provision(Dialect::Osb, "one"));
    created(world.provision(Dialect::Osb, "two"));
    created(bind(&mut world, "one", "b1", "app"));
    assert!(matches!(
        bind(&mut world, "one", "b1", "app"),
        Ok(AddonOutcome::Unchanged(_))
    ));
    assert!(matches!(
        bind(&mut world, "one", "b1", "other"),
        Err(Refusal::Conflict(_))
    ));
    let any = ResourceTarget::Any(id("app"));
    assert_eq!(world.registry.find(&any).unwrap().app, id("one"));
    created(bind(&mut world, "two", "b2", "app"));
    assert_eq!(world.registry.find(&any), Err(Refusal::Ambiguous(id("app"))));
    let unbind = AddonRequest::Unbind(ResourceTarget::App(Dialect::Osb, id("two")), id("b2"));
    assert!(matches!(world.request(&unbind), Ok(AddonOutcome::Changed(_))));
    assert_eq!(world.request(&unbind), Err(Refusal::NoBinding));
    assert_eq!(world.registry.find(&any).unwrap().app, id("one"));
}

#[test]
fn what_is_removed_is_forgotten_in_the_end() {
    let mut world = World::new(20_009);
    let removed = |at: usize| Removed {
        id: ResourceId::from_random(at as u64),
        dialect: Dialect::Heroku,
        app: id(&format!("app-{at}")),
        port: Quarantined {
            port: port(20_000),
            until: NOW,
        },
        at: NOW,
    };
    for at in 0..=MAX_REMOVED {
        world.registry.commit(&ResourceChange::Remove(removed(at)), NOW);
    }
    created(world.provision(Dialect::Heroku, "app-0"));
    assert_eq!(world.provision(Dialect::Heroku, "app-1"), Err(Refusal::Gone));
}

/// An id that begins with `app:` is refused for a new app. One that the store has stays, and can be removed.
#[test]
fn new_apps_do_not_begin_with_the_prefix_of_commands() {
    for dialect in [
        Dialect::Osb,
        Dialect::Scalingo,
        Dialect::Heroku,
        Dialect::CleverCloud,
        Dialect::Local,
    ] {
        let mut world = World::new(20_009);
        assert_eq!(world.provision(dialect, "app:zz"), Err(Refusal::Prefixed));
        let Ok(AddonOutcome::Created(made)) = world.provision(dialect, "zz") else {
            panic!("zz is an id")
        };
        let mut older = Resource::clone(&made);
        (older.id, older.app, older.port) = (ResourceId::from_random(99), id("app:zz"), port(20_009));
        world.registry.commit(&ResourceChange::Put(Arc::new(older)), NOW);
        let again = world.provision(dialect, "app:zz");
        assert!(matches!(again, Ok(AddonOutcome::Unchanged(_))), "{again:?}");
        let target = ResourceTarget::Any(id("app:zz"));
        let removed = world.request(&AddonRequest::Deprovision(target));
        assert!(matches!(removed, Ok(AddonOutcome::Removed(_))), "{removed:?}");
        assert!(
            world.registry.find(&ResourceTarget::Any(id("zz"))).is_ok(),
            "the other app is there"
        );
    }
}
