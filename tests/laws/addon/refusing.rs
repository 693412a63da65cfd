//! A store that refuses writes and can be read, as on a disk without room: whatever is ordered is answered at once, that it cannot be
//! stored, or as always if it changes nothing; and what the daemon itself has to write does not stand in the way.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tcpgw::addon::{
    AddonOutcome, AddonRequest, Dialect, Provision, Resource, ResourceStatus, ResourceTarget, WantedPlan,
};
use tcpgw::control::request::{AddonRefused, DeployOrder, Refused, ServiceEdit};
use tcpgw_core::problem::ProblemKind;

use super::apps::owner;
use super::{APPS, DIALECTS, Event, FIRST, LONG, PLANS, World, app, config, config_with, event, target};
use crate::world::clients::PEER;

/// Time within which a store that takes changes again gets what it has refused.
const AGAIN: Duration = Duration::from_secs(10);

/// Names of the plans, as configured one after the other.
const NAMES: [[&str; 3]; 3] = [
    ["small", "medium", "large"],
    ["tiny", "medium", "large"],
    ["medium", "tiny", "huge"],
];

#[derive(Debug, Clone)]
enum Step {
    /// The configuration is read again, with other names of plans.
    Reload(usize),
    /// The store takes changes, or not.
    Full(bool),
    /// An order that changes something, or nothing.
    Order(Event),
    /// A deploy of an app's service.
    Deploy(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let is_order = |event: &Event| {
        !matches!(
            event,
            Event::Wait(_) | Event::Fail(_) | Event::Store(_) | Event::Kill(_)
        )
    };
    prop_oneof![
        2 => (0..NAMES.len()).prop_map(Step::Reload),
        1 => prop::bool::weighted(0.7).prop_map(Step::Full),
        8 => event().prop_filter("an order", is_order).prop_map(Step::Order),
        1 => (0..APPS).prop_map(Step::Deploy),
        2 => (0..20_u64).prop_map(Step::Wait),
    ]
}

impl World {
    fn name_plans(&mut self, names: usize) {
        let plans: Vec<(&str, u32)> = NAMES[names]
            .into_iter()
            .zip(PLANS)
            .map(|(name, (_, pps))| (name, pps))
            .collect();
        self.config = config_with("", FIRST, &plans);
        self.reload();
        // A request names plans as they are called now.
        self.clients.provisions.clear();
        self.run();
    }

    /// Sends a request, and returns its answer, for which no time has to pass.
    fn ask(&mut self, request: AddonRequest) -> Result<AddonOutcome, AddonRefused> {
        let mut answer = self.order_request(request);
        self.run();
        answer.try_recv().expect("it is answered at once")
    }

    fn deploy_at_once(&mut self, at: usize) {
        let Some(Some(resource)) = self.clients.known.get(&at) else {
            return;
        };
        let order = DeployOrder {
            service: resource.id.service().into(),
            targets: vec![format!("10.9.{at}.9:80").into()],
            min: None,
            timeout: Duration::from_secs(10),
            drain: None,
            supersede: true,
            by: PEER,
        };
        let mut answer = self.order_deploy(order);
        self.run();
        let _ = answer.try_recv().expect("it is answered at once");
    }

    fn status_of(&self, at: usize) -> Option<ResourceStatus> {
        let resources = self.core.resources();
        resources.iter().find(|one| one.app == app(at)).map(|one| one.status)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_is_ordered_while_the_store_refuses_is_answered_at_once(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        let mut names = 0;
        for (at, dialect) in DIALECTS.into_iter().enumerate().take(APPS / 2) {
            world.does([Event::Provision(dialect, at, 0, None), Event::Register(at, 2)]);
        }
        for step in steps {
            match step {
                Step::Reload(other) => {
                    names = other;
                    world.name_plans(names);
                }
                Step::Full(is_full) => world.storage().refuses = is_full.then_some(0),
                Step::Wait(seconds) => world.wait(Duration::from_secs(seconds)),
                Step::Deploy(at) => world.deploy_at_once(at),
                Step::Order(Event::Provision(dialect, at, plan, port)) => {
                    let provision = Provision {
                        dialect,
                        app: app(at),
                        uuid: None,
                        owner: (dialect == Dialect::Osb).then(owner),
                        plan: WantedPlan::Named(NAMES[names][plan].parse().unwrap()),
                        port: port.and_then(std::num::NonZeroU16::new),
                        asked: None,
                    };
                    world.request(at, AddonRequest::Provision(provision));
                }
                Step::Order(Event::Plan(at, plan)) => {
                    let plan = WantedPlan::Named(NAMES[names][plan].parse().unwrap());
                    world.request(at, AddonRequest::ChangePlan(target(at), plan));
                }
                Step::Order(order) => world.happen(&order),
            }
            world.run();
            prop_assert!(world.clients.asked.is_empty() && world.clients.edits.is_empty(), "an order is not answered");
            // What is there already is the answer, whatever the store does.
            for resource in world.core.resources() {
                let plan = WantedPlan::Named(resource.plan.clone());
                let answer = world.ask(AddonRequest::ChangePlan(ResourceTarget::Any(resource.app.clone()), plan));
                prop_assert_eq!(answer, Ok(AddonOutcome::Unchanged(resource)));
            }
        }
        world.storage().refuses = None;
        world.name_plans(0);
        world.wait(LONG);
        for known in world.clients.known.values_mut().flatten() {
            // The same plan, as it is called now.
            let of_plan = known.plan_id.as_ref().and_then(|id| id.as_str().chars().last()).and_then(|last| last.to_digit(10));
            let plan = PLANS[usize::try_from(of_plan.unwrap()).unwrap()].0.parse().unwrap();
            *known = Arc::new(Resource { plan, ..Resource::clone(known) });
        }
        world.end()?;
    }
}

/// Other names of plans hold at once, and the store gets them when it takes changes again.
#[test]
fn a_store_that_refuses_the_names_of_plans_holds_no_order_up() {
    let mut world = World::new();
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)]);
    world.storage().refuses = Some(0);
    world.name_plans(1);
    assert_eq!(world.storage().refuses, Some(1), "it was tried");
    for _ in 0..3 {
        let answer = world.ask(AddonRequest::ChangePlan(
            target(0),
            WantedPlan::Named("tiny".parse().unwrap()),
        ));
        assert!(matches!(answer, Ok(AddonOutcome::Unchanged(_))), "{answer:?}");
        let answer = world.ask(AddonRequest::Suspend(target(0)));
        assert!(
            matches!(answer, Err(AddonRefused::Daemon(Refused::Store(_)))),
            "{answer:?}"
        );
    }
    assert_eq!(world.storage().refuses, Some(4), "only what was ordered");
    for _ in 0..10 {
        world.wait(Duration::from_secs(1));
        assert!(
            world.core.problems().get(ProblemKind::Store).is_some(),
            "it refuses still"
        );
    }
    let refused = world.storage().refuses;
    assert!(
        refused.is_some_and(|refused| refused <= 7),
        "the attempts have pauses: {refused:?}"
    );
    world.storage().refuses = None;
    world.wait(AGAIN);
    assert!(world.core.problems().get(ProblemKind::Store).is_none());
    let stored = world.store().resources().unwrap().resources;
    assert_eq!(stored[0].plan.as_str(), "tiny");
}

/// What the record knows better than the copy of a lost store stays so while the new store refuses it, and is in it later.
#[test]
fn a_new_store_that_refuses_what_the_record_knows_better_changes_nothing_of_it() {
    let mut world = World::new();
    for (at, dialect) in DIALECTS.into_iter().enumerate().take(3) {
        world.does([Event::Provision(dialect, at, at, None), Event::Register(at, 2)]);
    }
    world.wait(AGAIN);
    world.does([Event::Suspend(0), Event::Deprovision(1)]);
    world.storage().close();
    fs::remove_file(world.store_path()).unwrap();
    world.restart();
    world.storage().refuses = Some(0);
    let corrected = |world: &World| {
        let is_corrected = [0, 1, 2].map(|at| world.status_of(at))
            == [Some(ResourceStatus::Suspended), None, Some(ResourceStatus::Active)];
        assert!(is_corrected, "{:?}", world.core.resources());
    };
    for seconds in [0, 1, 30] {
        world.wait(Duration::from_secs(seconds));
        let answer = world.ask(AddonRequest::Suspend(target(0)));
        assert!(matches!(answer, Ok(AddonOutcome::Unchanged(_))), "{answer:?}");
        let answer = world.ask(AddonRequest::Suspend(target(2)));
        assert!(
            matches!(answer, Err(AddonRefused::Daemon(Refused::Store(_)))),
            "{answer:?}"
        );
        world.edit("own", ServiceEdit::Patch(br#"{"limit": {"pps": 6}}"#.to_vec()));
        world.run();
        assert!(world.clients.edits.is_empty(), "it is answered at once");
        corrected(&world);
    }
    world.storage().refuses = None;
    world.wait(AGAIN);
    corrected(&world);
    let stored = world.store().resources().unwrap();
    let apps: BTreeSet<String> = stored.resources.iter().map(|one| one.app.to_string()).collect();
    assert_eq!(apps, [0, 2].map(|at| app(at).to_string()).into());
    let removed = stored.removed.iter().filter(|removed| removed.app == app(1));
    assert_eq!(removed.count(), 1);
    // A later order about one of them is not undone by what was refused.
    world.does([Event::Resume(0)]);
    world.wait(LONG);
    assert_eq!(world.status_of(0), Some(ResourceStatus::Active));
    world.config = config();
    world.restart();
    world.wait(AGAIN);
    assert_eq!(world.status_of(0), Some(ResourceStatus::Active));
}
