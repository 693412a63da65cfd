//! Pauses of services over the death of a daemon.

use std::time::Duration;

use super::{Event, World, at, file};
use crate::world::clients::PEER;

/// A pause lasts for its time, also when the daemon is killed and the clock is set meanwhile.
#[test]
fn a_pause_outlives_the_daemon() {
    let mut world = World::new(file(&[("web", 20001, &[1, 2])]));
    world.wait(Duration::from_secs(30));
    let mut answer = world.order_pause("web", Some(Duration::from_secs(60)));
    world.run();
    assert_eq!(answer.try_recv(), Ok(Ok(Vec::new())));
    let paused = |world: &World| world.core.services().services[0].paused;
    let pause = paused(&world).expect("it is paused");
    assert_eq!((pause.until - pause.since, pause.uid), (60, PEER.uid));
    // At once: before any record could follow.
    world.happen(Event::Restart);
    assert_eq!(paused(&world), Some(pause));
    world.wait(Duration::from_secs(30));
    world.happen(Event::Clock(3600));
    world.happen(Event::Restart);
    world.wait(Duration::from_secs(29));
    assert_eq!(paused(&world), Some(pause));
    assert_eq!(world.balanced("web"), [].into());
    world.check().unwrap();
    world.wait(Duration::from_secs(2));
    assert_eq!(paused(&world), None);
    assert_eq!(world.balanced("web"), [at(1), at(2)].into());
    world.end().unwrap();
}
