//! The public ports that resources get.

use std::time::Duration;

use tcpgw::addon::Dialect;
use tcpgw_core::problem::Kind;

use super::{Event, FIRST, LAST, World};

/// A request that is refused for lack of a port raises a problem for the operator. Ports on which local programs listen count as
/// used.
#[test]
fn ports_on_which_local_programs_listen_count_as_used() {
    let mut world = World::new();
    world.surroundings.listening = (FIRST..=LAST).collect();
    let usage = |world: &World| {
        let ports = world.core.resource_list(world.time()).unwrap().ports.unwrap();
        (ports.used, ports.free())
    };
    assert_eq!(usage(&world), (1, 4), "nobody has asked");
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
    assert!(!world.clients.known.contains_key(&0), "it is refused");
    world.wait(Duration::from_secs(5));
    assert_eq!(usage(&world), (5, 0));
    let told = world.core.problems().get(Kind::AddonPorts).expect("it is told");
    assert!(told.message.contains("5 of 5 are in use"), "{told:?}");
    // One is free again, which the next request finds; it says nothing of those behind.
    world.surroundings.listening.remove(&(FIRST + 2));
    world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
    assert_eq!(world.resource(0).port.get(), FIRST + 2);
    assert_eq!(usage(&world), (5, 0));
    world.surroundings.listening.clear();
    world.does([Event::Provision(Dialect::Scalingo, 1, 0, None)]);
    assert_eq!(world.resource(1).port.get(), FIRST + 1);
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
