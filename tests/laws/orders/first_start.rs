//! The first daemon of a machine, which is killed early.

use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::Fake;

use super::clients::Orders;
use super::{Event, World};
use crate::world;
use crate::world::storage::{Kill, Writes};

impl World {
    /// Returns the message that the file of last services was missing, if it is told.
    fn missing(&self) -> Option<String> {
        let problem = self.core.problems().get(ProblemKind::LastServices)?;
        Some(problem.message.clone())
    }
}

/// A store that the first daemon has just made is not one that has lost its file of last services, whichever write the daemon is
/// killed at, and whether that write was made.
#[test]
fn a_first_daemon_that_is_killed_early_has_lost_nothing() {
    for is_made in [false, true] {
        for after in 1..=6 {
            let mut world = world::World::without_daemon(Orders::default());
            world.storage().kill = Some(Kill {
                after,
                of: Writes::All,
                is_made,
            });
            world.start(Fake::default());
            // The first order comes while the daemon starts.
            world.clients.is_held = true;
            world.happen(Event::Put(0, vec![1, 2]));
            world.clients.is_held = false;
            world.run();
            world.happen(Event::Put(1, vec![7, 8]));
            for _ in 0..2 {
                world.restart();
                world.run();
                assert_eq!(world.missing(), None, "killed at write {after}, made: {is_made}");
            }
        }
    }
}
