//! Deploys of services that are removed, suspended or another provider's before their targets have answered.
use std::time::Duration;

use tcpgw::addon::Dialect;
use tcpgw::control::request::{DeployOrder, ServiceEdit};
use tcpgw::store::DeployPhase;

use super::{Event, World};
use crate::world::clients::PEER;

/// Time that the targets of a deploy have to become healthy.
const TIMEOUT: Duration = Duration::from_secs(600);

impl World {
    /// Begins a deploy to a target of which nothing is heard, and returns its id.
    fn deploy(&mut self, service: &str) -> u64 {
        let order = DeployOrder {
            service: service.into(),
            targets: vec!["10.9.8.7:80".into()],
            min: None,
            timeout: TIMEOUT,
            drain: None,
            supersede: false,
            by: PEER,
        };
        self.containers.are_silent = true;
        let mut answer = self.order_deploy(order);
        self.run();
        answer.try_recv().expect("an answer").expect("it begins")
    }

    /// Returns how a deploy stands in the store, and why.
    fn deploy_of(&mut self, id: u64) -> (DeployPhase, Option<String>) {
        let deploy = self.store().deploy(id).expect("it can be read").expect("it is known");
        (deploy.phase, deploy.reason)
    }
}

#[test]
fn a_deploy_ends_at_once_when_its_resource_is_removed_or_suspended() {
    for (event, reason) in [
        (
            Event::Deprovision(0),
            "the add-on of app app-0 was deprovisioned; nothing was switched",
        ),
        (
            Event::Suspend(0),
            "the add-on of app app-0 is suspended; resume it first; nothing was switched",
        ),
    ] {
        let mut world = World::new();
        world.happen(&Event::Provision(Dialect::Scalingo, 0, 0, None));
        world.run();
        let service = world.resource(0).id.service();
        let id = world.deploy(&service);
        world.happen(&Event::Plan(0, 1));
        world.wait(Duration::from_secs(5));
        assert_eq!(
            world.deploy_of(id),
            (DeployPhase::Probing, None),
            "another plan is no end"
        );
        world.happen(&event);
        world.run();
        assert_eq!(world.deploy_of(id), (DeployPhase::Failed, Some(reason.to_owned())));
        world.containers.are_silent = false;
        world.end().expect("all is as it is said");
    }
}

#[test]
fn a_deploy_of_a_service_that_is_removed_ends_at_once() {
    let mut world = World::new();
    let id = world.deploy("own");
    world.edit("own", ServiceEdit::Delete);
    world.run();
    let reason = "service \"own\" was removed; nothing was switched".to_owned();
    assert_eq!(world.deploy_of(id), (DeployPhase::Failed, Some(reason)));
}
