//! Services after the loss of the store, or of its latest changes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::ServiceEdit;
use tcpgw::store::last_services::LastServices;
use tcpgw::store::{Expect, Store};
use tcpgw_core::problem::ProblemKind;

use super::services::{owned, port, state};
use super::{Event, Loss, WRITTEN, World};

/// A store that is replaced by an older copy takes back none of the later orders.
#[test]
fn an_older_store_reverts_no_later_order() {
    let mut world = World::new();
    world.storage().close();
    let older = fs::read(world.store_path()).unwrap();
    world.restart_after(&BTreeSet::new());
    world.happen(Event::Remove("a2"));
    let all = BTreeSet::from([9001, 9002, 9003]);
    assert_eq!(world.served(), all);
    for _ in 0..2 {
        world.storage().close();
        fs::write(world.store_path(), &older).unwrap();
        world.restart_after(&BTreeSet::new());
        assert_eq!(world.served(), all);
        let problems = world.core.problems().get(ProblemKind::Store).expect("it is told");
        assert!(
            problems.message.contains("is older than what was served last"),
            "{problems:?}"
        );
    }
    // The older store is accepted when the file of last services is removed.
    fs::remove_file(LastServices::path(&world.store_path())).unwrap();
    world.restart_after(&BTreeSet::new());
    assert_eq!(world.core.problems().get(ProblemKind::Store), None);
}

/// A store from before a service was added again knows that it was removed, and so does that of another gateway which had a service of
/// that name. Whoever accepts such a store does not order that the present service ends.
#[test]
fn a_store_that_is_accepted_ends_no_service_of_the_name_of_a_removed_one() {
    for (is_foreign, is_rebooted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new();
        world.happen(Event::Remove("a2"));
        world.storage().close();
        let older = fs::read(world.store_path()).unwrap();
        world.restart_after(&BTreeSet::new());
        world.happen(Event::Put(1));
        world.restart_after(&BTreeSet::new());
        assert!(world.served().contains(&port("a2")));
        world.storage().close();
        if is_foreign {
            world.put_foreign_store_that_removed("a2");
        } else {
            fs::write(world.store_path(), &older).unwrap();
        }
        let reboot = is_rebooted.then_some(Loss::Reboot);
        world.restart_after(&reboot.into_iter().collect());
        assert!(world.core.problems().get(ProblemKind::Store).is_some());
        fs::remove_file(LastServices::path(&world.store_path())).unwrap();
        for _ in 0..3 {
            world.restart_after(&BTreeSet::new());
            let problems = world.core.problems();
            assert_eq!(problems.get(ProblemKind::Store), None);
            assert_eq!(
                problems.get(ProblemKind::LastServices),
                None,
                "who followed the message is not blamed"
            );
            assert!(world.served().contains(&port("a2")), "{is_foreign} {is_rebooted}");
            assert!(
                world.providers().contains(&owned(("a2", "orphan"))),
                "{:?}",
                world.providers()
            );
        }
    }
}

/// The store of another gateway ends no service, though its revision is higher, whether it came alone or with its file of last
/// services. It is taken when somebody removes that file.
#[test]
fn the_store_of_another_gateway_ends_no_service() {
    for (is_alone, is_rebooted) in [(true, false), (true, true), (false, false)] {
        let mut world = World::new();
        world.restart_after(&BTreeSet::new());
        let (all, providers) = (world.served(), world.providers());
        let last = LastServices::path(&world.store_path());
        world.storage().close();
        let ours = fs::read(world.store_path()).unwrap();
        world.put_foreign_store();
        if !is_alone {
            let theirs = LastServices {
                boot: "theirs".into(),
                revision: 7,
                identity: Store::open(&world.store_path()).unwrap().identity(),
                ..LastServices::default()
            };
            theirs.save(&last).unwrap();
        }
        for losses in [
            is_rebooted.then_some(Loss::Reboot).into_iter().collect(),
            BTreeSet::new(),
        ] {
            world.restart_after(&losses);
            assert_eq!((world.served(), world.providers()), (all.clone(), providers.clone()));
            let problems = world.core.problems().get(ProblemKind::Store).expect("it is told");
            assert!(problems.message.contains("that of another gateway"), "{problems:?}");
            assert!(!world.order("a2", ServiceEdit::Delete));
        }
        // Their own store ends the problem.
        world.storage().close();
        let theirs = fs::read(world.store_path()).unwrap();
        fs::write(world.store_path(), ours).unwrap();
        world.restart_after(&BTreeSet::new());
        assert_eq!(world.core.problems().get(ProblemKind::Store), None);
        assert_eq!((world.served(), world.providers()), (all.clone(), providers));
        // Somebody accepts the other one.
        world.storage().close();
        fs::write(world.store_path(), theirs).unwrap();
        fs::remove_file(&last).unwrap();
        for _ in 0..2 {
            world.restart_after(&BTreeSet::new());
            assert_eq!(world.core.problems().get(ProblemKind::Store), None);
            let providers = world.providers();
            assert!(providers.contains(&owned(("alien-9101", "api"))), "{providers:?}");
        }
    }
}

/// A store that lost its log, before its contents were in the file and before the file of last services was written, takes
/// nothing back: the record has the later orders.
#[test]
fn a_store_that_lost_its_log_reverts_no_later_order() {
    for settles in [Duration::from_millis(10), Duration::from_secs(3)] {
        let mut world = World::new();
        world.restart_after(&BTreeSet::new());
        world.storage().close();
        let paths = [world.store_path(), LastServices::path(&world.store_path())];
        let older = paths.each_ref().map(|path| fs::read(path).unwrap());
        world.restart_after(&BTreeSet::new());
        assert!(world.order("a2", ServiceEdit::Delete));
        world.wait(settles);
        let all = BTreeSet::from([9001, 9002, 9003]);
        assert_eq!(world.served(), all);
        for _ in 0..2 {
            world.storage().close();
            for (path, older) in paths.iter().zip(&older) {
                fs::write(path, older).unwrap();
            }
            world.restart_after(&BTreeSet::new());
            assert_eq!(world.served(), all, "{settles:?}");
            let problems = world.core.problems().get(ProblemKind::Store).expect("it is told");
            assert!(
                problems.message.contains("is older than what was served last"),
                "{problems:?}"
            );
        }
    }
}

/// A damaged store is repaired without an outage by the printed steps: move it away, start, export, apply.
#[test]
fn a_damaged_store_is_repaired_without_an_outage() {
    let mut world = World::new();
    let before = world.export();
    world.happen(Event::Restart([Loss::StoreDamaged].into()));
    world.check().unwrap();
    world.happen(Event::Restart([Loss::StoreGone, Loss::Reboot].into()));
    world.check().unwrap();
    assert_eq!(
        world.providers(),
        [("a1", "orphan"), ("a2", "orphan"), ("f1", "file"), ("f2", "file")].map(owned)
    );
    assert_eq!(world.export(), before, "labels, timeouts and all");
    world.apply(&before, false);
    world.check().unwrap();
    assert_eq!(
        world.providers(),
        [("a1", "api"), ("a2", "api"), ("f1", "file"), ("f2", "file")].map(owned)
    );
}

/// One of two stored services that contradict each other by the rules of this version is left out, and all others are served.
#[test]
fn one_of_two_stored_services_that_contradict_each_other_is_left_out() {
    let mut world = world_with_clashes(&[("clash", 9003)]);
    world.happen(Event::Restart([Loss::RecordGone].into()));
    world.check().unwrap();
    let problems: Vec<String> = world
        .core
        .problems()
        .iter()
        .map(|problem| problem.message.clone())
        .collect();
    assert!(
        problems
            .iter()
            .any(|text| text.contains("\"clash\"") && text.contains("9003")),
        "{problems:?}"
    );
    // An order can resolve the contradiction.
    world.order("clash", ServiceEdit::Delete);
    world.happen(Event::Restart([].into()));
    world.check().unwrap();
    assert!(world.core.in_sync());
}

/// A stored service that was left out is served when the one that contradicts it is removed.
#[test]
fn a_stored_service_that_was_left_out_is_served_when_its_conflict_is_gone() {
    let mut world = world_with_clashes(&[("clash-1", 9003), ("clash-2", 9003), ("clash-3", 9004)]);
    world.happen(Event::Restart([].into()));
    world.check().unwrap();
    let reported = |world: &World| {
        world
            .core
            .problems()
            .get(ProblemKind::RejectedStore)
            .map(|problem| problem.message.clone())
    };
    assert!(reported(&world).unwrap().contains("clash-1"), "{:?}", reported(&world));
    assert!(world.order("a1", ServiceEdit::Delete));
    world.clients.ports.remove(&9003);
    world.wait(Duration::from_secs(60));
    world.check().unwrap();
    let serving: Vec<Box<str>> = world.core.membership().serving().keys().cloned().collect();
    assert!(serving.iter().any(|name| **name == *"clash-1"), "{serving:?}");
    let left = reported(&world).unwrap();
    assert!(
        !left.contains("clash-1\"") || left.contains("already taken by service \"clash-1\""),
        "{left}"
    );
    assert!(
        left.contains("\"clash-2\" of the store") && left.contains("\"clash-3\""),
        "{left}"
    );
    assert!(world.order("clash-2", ServiceEdit::Delete) && world.order("clash-3", ServiceEdit::Delete));
    world.wait(WRITTEN);
    assert_eq!(reported(&world), None);
}

/// An `apply` is refused while the store is lost: the services presumed from other sources are not in the store.
#[test]
fn an_apply_with_a_lost_store_is_refused() {
    let mut world = World::new();
    world.happen(Event::Restart([Loss::StoreDamaged].into()));
    let export = world.export();
    assert_eq!(export.services.len(), 2);
    assert!(!world.apply(&export, false));
    assert!(!world.apply(&state([]), false));
    world.check().unwrap();
}

/// Returns a world without a daemon, in whose store another version has put services of these names and ports beside the others.
fn world_with_clashes(clashes: &[(&str, u16)]) -> World {
    let mut world = World::new();
    world.storage().close();
    let mut store = Store::open(&world.store_path()).unwrap();
    let clash = |(name, port): &(&str, u16)| {
        let clash = json!({"name": name, "port": port, "backends": ["10.9.0.77:80"]});
        let clash = Arc::new(tcpgw_core::model::parse_service(clash.to_string().as_bytes()).unwrap());
        tcpgw::store::StoreEdit::Put(clash, Expect::Anything)
    };
    let change = tcpgw::store::StoreChange {
        edits: clashes.iter().map(clash).collect(),
        ..tcpgw::store::StoreChange::default()
    };
    let by = tcpgw::store::ChangeAuthor {
        uid: 0,
        pid: 0,
        what: "another version".into(),
    };
    store.commit(&change, &by, Duration::ZERO).unwrap();
    world
}
