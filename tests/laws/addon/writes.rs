//! Writes of requests: together, repeated, and when they fail.

use tcpgw::addon::Dialect;
use tcpgw::control::request::ServiceEdit;

use super::{DIALECTS, Event, FIRST, LONG, World};

/// A suspension or a resumption that was made though its write failed is carried out when the store is read.
#[test]
fn a_change_made_by_a_write_that_failed_is_carried_out() {
    for resumes in [false, true] {
        let mut world = World::new();
        let mut events = vec![Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Register(0, 2)];
        if resumes {
            events.extend([Event::Suspend(0), Event::Store(true), Event::Resume(0)]);
        } else {
            events.extend([Event::Store(true), Event::Suspend(0)]);
        }
        for event in events {
            world.happen(&event);
            world.run();
        }
        assert!(world.clients.uncertain.contains(&0), "it was answered by an error");
        world.end().unwrap();
    }
}

/// A write that failed stays reported when a later write of other data succeeds at once.
#[test]
fn a_write_that_goes_well_does_not_hide_one_that_failed() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Osb, 0, 0, None),
        Event::Provision(Dialect::Osb, 1, 0, None),
        Event::Store(true),
        Event::Plan(0, 1),
        Event::Register(1, 1),
    ] {
        world.happen(&event);
        world.run();
    }
    assert!(world.clients.uncertain.contains(&0), "it was answered by an error");
    world.end().unwrap();
}

/// A request about one resource causes no judgement of the others, however many there are.
#[test]
fn a_request_about_one_resource_has_no_other_judged_again() {
    let mut world = World::new();
    world.happen(&Event::Provision(Dialect::Scalingo, 0, 0, None));
    world.run();
    assert!(world.judgements > 0, "at the start all are judged");
    let before = world.judgements;
    for event in [
        Event::Provision(Dialect::Osb, 1, 0, None),
        Event::Plan(1, 1),
        Event::Suspend(1),
        Event::Resume(1),
        Event::Register(1, 2),
        Event::Deprovision(1),
    ] {
        world.happen(&event);
        world.run();
    }
    assert_eq!(world.judgements, before);
    assert_eq!(world.clients.known.get(&1), Some(&None), "all of it was carried out");
    world.end().unwrap();
}

/// Requests that wait together are written with one flush of the disk, and a refused one does not affect the others.
#[test]
fn requests_that_wait_together_are_one_write() {
    let mut world = World::new();
    let provision = |app: usize, port| Event::Provision(DIALECTS[app], app, 0, port);
    world.happen(&provision(0, None));
    world.happen(&provision(1, Some(FIRST + 2)));
    world.edit("own", ServiceEdit::Patch(br#"{"limit": {"pps": 6}}"#.to_vec()));
    // This request asks for a port that an earlier one gets.
    world.happen(&provision(2, Some(FIRST + 2)));
    world.happen(&provision(3, None));
    world.run();
    assert_eq!(world.storage().most_together, 3, "up to the one that is refused");
    assert_eq!(world.clients.known.keys().collect::<Vec<_>>(), [&0, &1, &3]);
    assert!(world.clients.edits.is_empty(), "all are answered");
    let own = world.core.service("own", world.time());
    assert_eq!(own.unwrap().listed.service.limit.unwrap().pps, 6);
    world.storage().most_together = 0;
    for event in [
        Event::Bind(0, 1),
        Event::Register(1, 1),
        Event::Bind(3, 1),
        Event::Bind(0, 2),
    ] {
        world.happen(&event);
    }
    world.run();
    assert_eq!(
        world.storage().most_together,
        3,
        "one resource's are one after the other"
    );
    let bindings = |world: &World, at: usize| world.resource(at).bindings.len();
    assert_eq!((bindings(&world, 0), bindings(&world, 3)), (2, 1));
    world.check().unwrap();
    world.end().unwrap();
}

/// None of the requests that were written together is acknowledged when the flush fails, whether the write took effect or not.
#[test]
fn a_flush_that_fails_acknowledges_none_of_those_that_were_written_together() {
    for made in [false, true] {
        let mut world = World::new();
        world.happen(&Event::Store(made));
        for (app, dialect) in DIALECTS.into_iter().take(3).enumerate() {
            world.happen(&Event::Provision(dialect, app, 0, None));
        }
        world.run();
        assert_eq!(world.storage().most_together, 3);
        assert!(
            world.clients.asked.is_empty() && world.clients.known.is_empty(),
            "{:?}",
            world.clients.known
        );
        assert_eq!(world.clients.uncertain.len(), 3);
        world.wait(LONG);
        assert_eq!(world.core.resources().len(), if made { 3 } else { 0 });
        world.check().unwrap();
        world.end().unwrap();
    }
}
