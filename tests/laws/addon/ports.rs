//! The public ports that resources get.

use std::time::Duration;

use tcpgw::addon::Dialect;
use tcpgw::config::Config;
use tcpgw_core::problem::ProblemKind;

use super::{Event, FIRST, LAST, World, config};

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
    let problems = world.core.problems().get(ProblemKind::AddonPorts).expect("it is told");
    assert!(problems.message.contains("5 of 5 are in use"), "{problems:?}");
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
            .get(ProblemKind::AddonPorts)
            .is_none_or(|problems| !problems.message.contains("no public"))
    );
    world.end().unwrap();
}

/// A port rests for one quarantine at most, from when it was given back or, where the clock was set back after that, from when this was
/// seen: daemons that start meanwhile do not let it begin anew.
#[test]
fn a_rest_does_not_begin_anew_when_a_daemon_starts() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for (is_clock_set_back, is_full) in [(true, false), (true, true), (false, false)] {
        let mut world = World::new();
        world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
        let port = world.resource(0).port;
        if is_clock_set_back {
            world.clock.unix += DAY;
            world.does([Event::Deprovision(0)]);
            world.clock.unix -= DAY;
        } else {
            world.reload_with(Config::default());
            world.does([Event::Deprovision(0)]);
            world.reload_with(config());
        }
        if is_full {
            world.storage().refuses = Some(0);
            world.wait(Duration::from_secs(12));
            world.storage().refuses = None;
        }
        world.wait(Duration::from_secs(8));
        let until = |world: &World| {
            let usage = world.core.resource_list(world.time()).unwrap().ports.unwrap();
            usage
                .resting
                .iter()
                .find(|resting| resting.port == port)
                .map(|resting| resting.until)
        };
        let begun = until(&world).expect("it rests");
        let now = world.clock.unix.as_secs();
        assert!((now + 270..=now + 300).contains(&begun), "{now}: {begun}");
        for _ in 0..3 {
            world.restart();
            world.wait(Duration::from_secs(60));
            assert_eq!(until(&world), Some(begun), "{is_clock_set_back}");
        }
        world.wait(Duration::from_secs(120));
        assert_eq!(until(&world), None);
        world.clients.back.clear();
        world.does([Event::Provision(Dialect::Scalingo, 1, 0, Some(port.get()))]);
        assert_eq!(world.resource(1).port, port);
        world.end().unwrap();
    }
}
