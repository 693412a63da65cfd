//! Services and changes that are held back, because a port is in use or the gateway cannot be examined.

use std::time::Duration;

use tcpgw_core::problem::ProblemKind;

use super::expected::problem_of;
use super::services::port;
use super::{Event, LISTENERS, Loss, World, restart, serves_after};
use crate::world::examinations::PATIENCE;

/// Services that are held back are remembered over several restarts of one boot, like those that are served.
#[test]
fn services_that_are_held_back_are_remembered() {
    let held = |name| Event::Listen(name, true);
    let over = |name| Event::Listen(name, false);
    serves_after(vec![
        Event::KeyGone(false),
        held("f1"),
        restart([Loss::Reboot]),
        restart([]),
        restart([]),
        over("f1"),
    ]);
    serves_after(vec![
        held("a1"),
        restart([Loss::Reboot, Loss::StoreDamaged]),
        restart([]),
        restart([Loss::RecordGone]),
        over("a1"),
    ]);
    serves_after(vec![
        held("f1"),
        restart([Loss::Reboot]),
        Event::FileGone,
        restart([]),
        restart([]),
        over("f1"),
    ]);
    // An explicit order or a provider says otherwise.
    let mut world = World::new();
    for event in [
        Event::KeyGone(false),
        held("f1"),
        restart([Loss::Reboot]),
        Event::Remove("f1"),
        restart([]),
        over("f1"),
    ] {
        world.happen(event);
        world.check().unwrap();
    }
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}

/// A change that is held back ends no service, also over a boot: the old form is served until the change is possible.
#[test]
fn the_old_form_of_a_service_whose_change_is_held_back_is_served_after_a_boot() {
    for name in ["f1", "a1"] {
        let moves = || Event::Move(name, true);
        for loss in [Loss::Reboot, Loss::RecordGone, Loss::StoreGone, Loss::StoreDamaged] {
            serves_after(vec![
                moves(),
                restart([Loss::Reboot, loss]),
                restart([]),
                restart([Loss::Reboot]),
            ]);
            serves_after(vec![moves(), Event::FileGone, restart([Loss::Reboot, loss])]);
        }
        serves_after(vec![moves(), Event::KeyGone(true), restart([Loss::Reboot])]);
        // Without a record, what is kept of it has its name still.
        let mut world = World::new();
        for event in [moves(), restart([Loss::RecordGone])] {
            world.happen(event);
            world.check().unwrap();
        }
        assert_eq!(world.providers(), World::new().providers());
        // While neither its own port nor the one that is wanted of it can be had, its file goes and comes back.
        if name == "f1" {
            serves_after(vec![
                moves(),
                Event::Listen(name, true),
                Event::FileGone,
                restart([]),
                restart([Loss::Reboot]),
                Event::File([0].into()),
            ]);
        }
        serves_after(vec![moves(), Event::Blind(15), restart([Loss::Reboot])]);
        serves_after(vec![
            moves(),
            Event::Blind(15),
            Event::FileGone,
            restart([Loss::Reboot]),
            restart([]),
        ]);
        serves_after(vec![moves(), Event::Blind(9), restart([]), restart([Loss::Reboot])]);
        // The service's own port is in use when the machine has booted, and is free again later, or after another restart.
        let listens = |begins| Event::Listen(name, begins);
        for between in [vec![], vec![restart([])], vec![restart([Loss::Reboot])]] {
            let first = [moves(), listens(true), restart([Loss::Reboot])];
            let all = first.into_iter().chain(between).chain([listens(false)]);
            serves_after(all.collect());
        }
        // An explicit order or a provider says otherwise.
        for says in [Event::Remove(name), Event::Move(name, false)] {
            // A service that the file defines is not removed by an order.
            let (is_removed, is_held) = match says {
                Event::Remove(_) => (name == "a1", name == "f1"),
                _ => (false, false),
            };
            let mut world = World::new();
            for event in [moves(), restart([Loss::Reboot]), says, restart([Loss::Reboot])] {
                world.happen(event);
                world.check().unwrap();
            }
            assert_eq!(world.served().contains(&port(name)), !is_removed);
            assert_eq!(problem_of(&world, ProblemKind::HeldBack).len(), usize::from(is_held));
        }
    }
    // The change is possible in the end, and what was kept is not served any more.
    let mut world = World::new();
    for event in [Event::Move("a1", true), restart([Loss::Reboot])] {
        world.happen(event);
    }
    world.listen_elsewhere(false);
    world.wait(LISTENERS);
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    world.happen(restart([Loss::Reboot]));
    world.listen_elsewhere(true);
    world.happen(restart([Loss::Reboot]));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
}

/// A daemon that cannot examine the gateway at its start keeps the services that are served, and takes no other port.
#[test]
fn a_daemon_that_cannot_examine_the_gateway_takes_no_other_port() {
    for loss in [None, Some(Loss::RecordGone), Some(Loss::Reboot)] {
        for seconds in [5, 15, 25] {
            serves_after(vec![
                Event::Listen("f1", true),
                Event::Listen("a2", true),
                Event::Blind(seconds),
                Event::Restart(loss.into_iter().collect()),
            ]);
        }
    }
    serves_after(vec![
        Event::Blind(10),
        restart([Loss::Reboot]),
        Event::KeyGone(false),
        Event::Put(0),
    ]);
    let mut world = World::new();
    world.happen(Event::Listen("f1", true));
    world.happen(Event::Blind(40));
    world.happen(restart([Loss::Reboot]));
    world.wait(PATIENCE);
    assert_eq!(world.served(), [].into());
    let problems = world
        .core
        .problems()
        .iter()
        .filter(|problem| problem.kind == ProblemKind::HeldBack);
    let held: Vec<&str> = problems.map(|problem| &*problem.message).collect();
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(
        held.iter().all(|message| message.contains("could not be examined")),
        "{held:?}"
    );
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}
