//! States that are applied beside resources: what is told of an apply is what it does.

use tcpgw::addon::Dialect;
use tcpgw::apply_report::AnyReport;
use tcpgw::control::core::{ApplyOrder, Order};
use tcpgw::control::request::{Applied, Apply, ApplyOptions, Refused};
use tcpgw_core::model::{State, parse};
use tokio::sync::oneshot;

use super::{Event, World};
use crate::world::clients::PEER;

impl World {
    fn apply(&mut self, state: &State, options: ApplyOptions) -> Result<Applied, Refused> {
        let (reply, mut answer) = oneshot::channel();
        let apply = Apply {
            state: Vec::new(),
            origin: "test".into(),
            options,
            by: PEER,
        };
        let state = state.clone();
        self.core.order(Order::Apply(ApplyOrder { apply, state, reply }));
        self.run();
        answer.try_recv().expect("an answer")
    }

    /// Returns the names of the services that a dry run says would change, and its warnings.
    fn told(&mut self, state: &State) -> (Vec<String>, Vec<String>) {
        let options = ApplyOptions {
            dry_run: true,
            allow_empty: true,
            ..ApplyOptions::default()
        };
        let applied = self.apply(state, options).expect("a dry run");
        let AnyReport::Diff(report) = applied.report else {
            panic!("{:?}", applied.report)
        };
        let names = report.services.iter().map(|change| format!("{change:?}"));
        (names.collect(), applied.warnings)
    }
}

#[test]
fn a_state_without_the_services_of_resources_neither_removes_them_nor_says_so() {
    let mut world = World::new();
    for event in [Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)] {
        world.happen(&event);
        world.run();
    }
    let addon = world.resource(0).id.service();
    let web = parse(br#"{"version": 1, "services": [{"name": "web", "port": 8000, "backends": []}]}"#).unwrap();
    let is_of_addon = |text: &String| text.contains(&*addon);
    // A service of an operator goes, as an apply removes it.
    let (changes, _) = world.told(&web);
    assert!(changes.len() == 2 && !changes.iter().any(is_of_addon), "{changes:?}");
    world.apply(&web, ApplyOptions::default()).unwrap();
    assert_eq!(world.told(&web).0, Vec::<String>::new());
    let (changes, warnings) = world.told(&State::default());
    assert!(changes.len() == 1 && !changes.iter().any(is_of_addon), "{changes:?}");
    assert!(warnings.len() == 1 && !warnings.iter().any(is_of_addon), "{warnings:?}");
    let options = ApplyOptions {
        allow_empty: true,
        ..ApplyOptions::default()
    };
    world.apply(&State::default(), options).unwrap();
    let listed = world.core.services().services;
    let of_api = listed.iter().filter(|of| of.provider == "api");
    let names: Vec<&str> = of_api.map(|of| &*of.service.name).collect();
    assert_eq!(names, [&*addon]);
    // Nothing is left that an empty state would remove, so that it needs no confirmation.
    let applied = world.apply(&State::default(), ApplyOptions::default()).unwrap();
    assert!(applied.warnings.is_empty(), "{:?}", applied.warnings);
}
