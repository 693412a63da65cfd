//! The backends that get new connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tcpgw_core::model::BackendState;

use super::{Event, LONG, World, at, file};

impl World {
    /// Returns the backends that get the connections of a service.
    pub(super) fn balanced(&self, name: &str) -> BTreeSet<SocketAddr> {
        let service = self.core.membership().serving().get(name);
        let backends = service.iter().flat_map(|service| &service.backends);
        let active = backends.filter(|backend| backend.state == BackendState::Active);
        active.map(|backend| backend.endpoint.into()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15))]

    /// All backends that were in the balance stay in it when they fail by one cause, at any moment between their probes.
    #[test]
    fn all_that_fail_by_one_cause_stay_in_the_balance(
        count in 1_u8..12, dead in 0_u8..4, wait in 0_u64..60_000,
    ) {
        let dead = dead.min(count - 1);
        let all: Vec<u8> = (1..=count).collect();
        let mut world = World::new(file(&[("web", 20001, &all)]));
        world.run();
        world.containers.down.extend((1..=dead).map(at));
        world.wait(Duration::from_secs(60) + Duration::from_millis(wait));
        let before = world.balanced("web");
        prop_assert_eq!(before.len(), usize::from(count - dead));
        world.containers.down.extend(all.iter().copied().map(at));
        world.wait(LONG);
        prop_assert_eq!(world.balanced("web"), before);
        world.check()?;
    }
}

/// A backend that moves to another service gets no connections there before it has answered a probe.
#[test]
fn a_backend_that_moves_to_another_service_has_to_answer_first() {
    let before = file(&[("web", 20001, &[1, 2]), ("shop", 20002, &[3])]);
    let moved = file(&[("web", 20001, &[2]), ("shop", 20002, &[1, 3])]);
    let renamed = file(&[("www", 20001, &[1, 2]), ("shop", 20002, &[3])]);
    let mut world = World::new(before);
    world.wait(Duration::from_secs(30));
    world.happen(Event::File(Box::new(renamed)));
    assert_eq!(world.balanced("www"), [at(1), at(2)].into(), "it only has another name");
    world.happen(Event::File(Box::new(file(&[
        ("web", 20001, &[1, 2]),
        ("shop", 20002, &[3]),
    ]))));
    world.containers.down.insert(at(1));
    world.happen(Event::File(Box::new(moved)));
    for _ in 0..40 {
        assert_eq!(world.balanced("shop"), [at(3)].into());
        world.wait(Duration::from_millis(500));
    }
    world.containers.down.remove(&at(1));
    world.wait(Duration::from_secs(4));
    assert_eq!(world.balanced("shop"), [at(1), at(3)].into());
}

/// A backend that is added to a second service gets no connections there before it has answered another probe, although the first
/// service knows it as healthy: the address may belong to another container by now.
#[test]
fn a_backend_that_is_added_to_a_second_service_has_to_answer_first() {
    let mut world = World::new(file(&[("web", 20001, &[1, 2]), ("shop", 20002, &[3])]));
    world.wait(Duration::from_secs(30));
    assert_eq!(world.balanced("web"), [at(1), at(2)].into());
    world.containers.down.insert(at(1));
    world.happen(Event::File(Box::new(file(&[
        ("web", 20001, &[1, 2]),
        ("shop", 20002, &[1, 3]),
    ]))));
    assert!(world.balanced("web").contains(&at(1)), "its failure is not known yet");
    for _ in 0..40 {
        assert_eq!(world.balanced("shop"), [at(3)].into());
        world.wait(Duration::from_millis(500));
    }
    world.containers.down.remove(&at(1));
    world.wait(Duration::from_secs(15));
    assert_eq!(world.balanced("shop"), [at(1), at(3)].into());
}

/// A backend that moved while no daemon ran gets no connections before it has answered a probe.
#[test]
fn a_backend_that_moved_while_no_daemon_ran_has_to_answer_first() {
    let mut world = World::new(file(&[("web", 20001, &[1, 2]), ("shop", 20002, &[3])]));
    world.wait(Duration::from_secs(30));
    world.containers.down.insert(at(1));
    world.file.content = Some(file(&[("web", 20001, &[2]), ("shop", 20002, &[1, 3])]));
    world.happen(Event::Restart);
    for _ in 0..40 {
        assert_eq!(world.balanced("shop"), [at(3)].into());
        assert_eq!(world.balanced("web"), [at(2)].into());
        world.wait(Duration::from_millis(500));
    }
}
