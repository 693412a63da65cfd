//! Resources after the loss of their store.

use std::fs;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcpgw::addon::{Dialect, ResourceStatus};
use tcpgw::store::last_services::LastServices;
use tcpgw::store::{ChangeAuthor, Expect, Store, StoreEdit};
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{DIALECTS, Event, LONG, World, app};

/// A suspended service stays suspended when the store and its second copy are lost.
#[test]
fn a_suspension_outlives_the_store_and_its_second_copy() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Scalingo, 0, 0, None),
        Event::Register(0, 2),
        Event::Wait(10),
        Event::Suspend(0),
        Event::Wait(10),
    ] {
        world.happen(&event);
        world.run();
    }
    let port = world.resource(0).port;
    let service: Box<str> = world.resource(0).id.service().into();
    assert_eq!(world.connect_to(port), ConnectOutcome::Empty { reset: true });
    let path = world.store_path();
    for _ in 0..2 {
        world.storage().close();
        for lost in [path.clone(), LastServices::path(&path)] {
            fs::remove_file(lost).unwrap();
        }
        world.restart();
        world.wait(LONG);
        assert_eq!(world.connect_to(port), ConnectOutcome::Empty { reset: true });
        let orphaned = world.core.problems().get(ProblemKind::Orphaned).expect("it is told");
        let refused = format!("so that clients are refused: {service}");
        assert!(orphaned.message.contains(&refused), "{orphaned:?}");
    }
}

/// A service that waits for its first deploy is kept with its port when all that knows it is the table.
#[test]
fn a_service_without_backends_outlives_the_loss_of_store_copy_and_record() {
    let mut world = World::new();
    for event in [Event::Provision(Dialect::Scalingo, 0, 0, None), Event::Wait(10)] {
        world.happen(&event);
        world.run();
    }
    let port = world.resource(0).port;
    let path = world.store_path();
    let record = world.record_path();
    world.storage().close();
    for lost in [path.clone(), LastServices::path(&path), record.clone()] {
        fs::remove_file(lost).unwrap();
    }
    drop(fs::remove_file(record.with_extension("journal")));
    world.restart();
    world.wait(LONG);
    assert_eq!(world.connect_to(port), ConnectOutcome::Empty { reset: true });
    let orphaned = world.core.problems().get(ProblemKind::Orphaned).expect("it is told");
    assert!(orphaned.message.contains(&format!("unnamed-{port}")), "{orphaned:?}");
}

/// A service whose store was replaced by another one is an orphan, and is named with its app as long as it is served.
#[test]
fn the_app_of_an_orphan_is_known_to_every_daemon() {
    let mut world = World::new();
    for event in [
        Event::Provision(Dialect::Scalingo, 0, 0, None),
        Event::Register(0, 2),
        Event::Wait(10),
    ] {
        world.happen(&event);
        world.run();
    }
    let name: Box<str> = world.resource(0).id.service().into();
    let revision = world.store().load().unwrap().revision;
    let identity = world.store().identity();
    let path = world.store_path();
    world.storage().close();
    fs::remove_file(&path).unwrap();
    // Without this file the other store does not count as an older state of this one.
    fs::remove_file(path.with_extension("db.written")).unwrap();
    let mut other = Store::open(&path).unwrap();
    // Nor as that of another gateway.
    other.succeed(identity, 0).unwrap();
    for port in 0..=revision {
        let text = json!({"name": "own", "port": 3000 + port, "backends": ["10.9.9.9:80"]}).to_string();
        let own = tcpgw_core::model::parse_service(text.as_bytes()).unwrap();
        let change = tcpgw::store::StoreChange {
            edits: vec![StoreEdit::Put(Arc::new(own), Expect::Anything)],
            ..tcpgw::store::StoreChange::default()
        };
        let by = ChangeAuthor {
            uid: 0,
            pid: 0,
            what: "test".into(),
        };
        other.commit(&change, &by, world.clock.unix).unwrap();
    }
    drop(other);
    for _ in 0..3 {
        world.restart();
        world.wait(LONG);
        assert!(world.core.resources().is_empty());
        let orphaned = world.core.problems().get(ProblemKind::Orphaned).expect("it is told");
        assert!(orphaned.message.contains(&*name), "{orphaned:?}");
        let apps = world.core.apps_of_services(&[name.clone()].into());
        assert_eq!(apps.get(&name), Some(&app(0)));
    }
}

/// Changes that were acknowledged before the second copy was written are restored from the record, whether the store is lost or
/// cannot be read.
#[test]
fn changes_that_only_the_record_has_outlive_a_lost_store() {
    for is_damaged in [false, true] {
        let mut world = World::new();
        for (at, dialect) in DIALECTS.into_iter().take(4).enumerate() {
            world.happen(&Event::Provision(dialect, at, at % 3, None));
            world.run();
            world.happen(&Event::Register(at, 2));
            world.run();
        }
        world.happen(&Event::Suspend(0));
        world.wait(Duration::from_secs(10));
        let ports: Vec<NonZeroU16> = (0..4).map(|at| world.resource(at).port).collect();
        for event in [Event::Resume(0), Event::Suspend(1), Event::Deprovision(2)] {
            world.happen(&event);
            world.run();
        }
        world.storage().close();
        let path = world.store_path();
        fs::remove_file(&path).unwrap();
        if is_damaged {
            fs::write(&path, "damaged").unwrap();
        }
        // The second copy is written from what was corrected.
        for _ in 0..2 {
            world.restart();
            world.run();
            assert!(
                !matches!(world.connect_to(ports[2]), ConnectOutcome::Backend(_)),
                "it drains"
            );
            for _ in 0..2 {
                world.wait(LONG);
                assert!(matches!(world.connect_to(ports[0]), ConnectOutcome::Backend(_)));
                assert_eq!(world.connect_to(ports[1]), ConnectOutcome::Empty { reset: true });
                assert!(
                    !matches!(world.connect_to(ports[2]), ConnectOutcome::Backend(_)),
                    "{is_damaged}"
                );
                assert!(matches!(world.connect_to(ports[3]), ConnectOutcome::Backend(_)));
                let mut resources: Vec<(String, ResourceStatus)> = world
                    .core
                    .resources()
                    .iter()
                    .map(|one| (one.app.to_string(), one.status))
                    .collect();
                resources.sort();
                let status = [
                    (0, ResourceStatus::Active),
                    (1, ResourceStatus::Suspended),
                    (3, ResourceStatus::Active),
                ];
                assert_eq!(resources, status.map(|(at, status)| (app(at).to_string(), status)));
            }
            let _ = fs::remove_file(world.record_path());
        }
        if !is_damaged {
            assert_eq!(world.store().resources().unwrap().resources.len(), 3);
            let problems = tcpgw::store::lost::problem(&path).expect("it is told");
            assert!(problems.message.contains("addon ls"), "{problems:?}");
            world.check().unwrap();
        }
    }
}
