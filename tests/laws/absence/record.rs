//! Removals that the record does not have.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::json;
use tcpgw::config::{Config, DEFAULT_PATH};
use tcpgw::control::request::ServiceEdit;
use tcpgw::store::last_services::LastServices;
use tcpgw_core::problem::{ProblemKind, Severity};

use super::expected::problem_of;
use super::services::{backends, owned};
use super::{Event, Loss, WRITTEN, World};

/// A removed service stays removed when the daemon is killed right afterwards.
#[test]
fn a_removed_service_does_not_come_back() {
    for loss in [
        None,
        Some(Loss::RecordGone),
        Some(Loss::Reboot),
        Some(Loss::OtherVersion),
    ] {
        let mut world = World::new();
        world.order("a1", ServiceEdit::Delete);
        world.clients.ports.remove(&9003);
        // Before the record and the file of last services know it.
        world.happen(Event::Restart(loss.into_iter().collect()));
        world.wait(Duration::from_secs(40));
        assert_eq!(world.served(), [9001, 9002, 9004].into(), "{loss:?}");
    }
}

/// A record that could not be written counts as older than the file of last services that was.
#[test]
fn a_record_that_could_not_be_written_counts_as_older() {
    for loss in [
        None,
        Some(Loss::TableGone),
        Some(Loss::SlotsFlushed),
        Some(Loss::OtherVersion),
    ] {
        // Within the drain, in which the kernel has its backends still.
        let mut world = World::new();
        world.happen(Event::KeyGone(false));
        world.forbid_record();
        world
            .last_order("f1", ServiceEdit::Delete, &loss.into_iter().collect())
            .unwrap();
        world.wait(Duration::from_secs(40));
        assert_eq!(world.served(), [9002, 9003, 9004].into(), "{loss:?}");
        // The store says it, too, and is lost.
        let mut world = World::new();
        world.forbid_record();
        assert!(world.order("a1", ServiceEdit::Delete));
        let patch = json!({"backends": [backends("a2")[1]]}).to_string();
        assert!(world.order("a2", ServiceEdit::Patch(patch.into_bytes())));
        world.wait(Duration::from_secs(2));
        world.happen(Event::Restart(loss.into_iter().chain([Loss::StoreGone]).collect()));
        world.wait(Duration::from_secs(40));
        assert_eq!(world.served(), [9001, 9002, 9004].into(), "{loss:?}");
        assert_eq!(world.reached()[&9004], [backends("a2")[1]].into(), "{loss:?}");
        assert_eq!(world.providers()[0], owned(("a2", "orphan")));
    }
    // A journal that lacks a change takes none after it.
    let mut world = World::new();
    world.happen(Event::KeyGone(false));
    world.forbid_record();
    assert!(world.order("f1", ServiceEdit::Delete));
    world.wait(Duration::from_millis(10));
    world.allow_record();
    world
        .last_order(
            "a1",
            ServiceEdit::Patch(br#"{"labels": {"x": "y"}}"#.into()),
            &BTreeSet::new(),
        )
        .unwrap();
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}

/// A pause whose record a boot has removed is over, and the daemon says so until it would have been over anyway.
#[test]
fn a_pause_that_a_boot_has_ended_is_told() {
    let mut world = World::new();
    let pause = |world: &mut World, time| {
        let mut answer = world.order_pause("a1", time);
        world.wait(WRITTEN);
        answer.try_recv().unwrap().unwrap();
    };
    let reported = |world: &World| -> Vec<String> {
        let problems = problem_of(world, ProblemKind::Paused).into_iter();
        problems.map(|(_, message)| message).collect()
    };
    for ends_by_order in [true, false] {
        pause(&mut world, Some(Duration::from_secs(3600)));
        world.happen(Event::Restart([].into()));
        let message = reported(&world).first().expect("it is paused").clone();
        assert!(message.contains(" clients that connect wait"), "{message}");
        world.happen(Event::Restart([Loss::Reboot].into()));
        let message = reported(&world).first().expect("it is told").clone();
        assert!(
            message.contains("was paused by uid 1000") && message.contains("is not paused any more"),
            "{message}"
        );
        if ends_by_order {
            pause(&mut world, None);
        } else {
            world.wait(Duration::from_secs(3600));
        }
        assert_eq!(reported(&world), [""; 0]);
    }
}

/// A file of last services that is missing beside a store with services is told, until a reload.
#[test]
fn a_missing_file_of_last_services_is_told() {
    let mut world = World::new();
    let reported = |world: &World| {
        let problem = world.core.problems().get(ProblemKind::LastServices);
        problem.map(|problem| problem.message.clone())
    };
    world.happen(Event::Restart([].into()));
    assert_eq!(reported(&world), None);
    fs::remove_file(LastServices::path(&world.store_path())).unwrap();
    world.happen(Event::Restart([Loss::Reboot].into()));
    let message = reported(&world).expect("it is told");
    assert!(message.contains(".last was missing"), "{message}");
    // Another start is no answer to it.
    for loss in [None, Some(Loss::Reboot)] {
        world.happen(Event::Restart(loss.into_iter().collect()));
        assert_eq!(reported(&world).as_ref(), Some(&message));
    }
    let (settings, config, now) = (world.settings(), world.config.clone(), world.time());
    world.core.reload(settings, config, now);
    world.run();
    assert_eq!(reported(&world), None);
    world.happen(Event::Restart([Loss::Reboot].into()));
    assert_eq!(reported(&world), None);
}

/// A record that was lost while the table stayed is told until a reload, whatever starts in between in the same boot.
#[test]
fn a_lost_record_is_told_until_a_reload() {
    let mut world = World::new();
    let reported = |world: &World| {
        let problem = world.core.problems().get(ProblemKind::Record);
        problem.map(|problem| problem.message.clone())
    };
    world.happen(Event::Restart([Loss::RecordGone].into()));
    let message = reported(&world).expect("it is told");
    assert!(message.contains("record in the run directory was missing"), "{message}");
    for _ in 0..2 {
        world.wait(WRITTEN);
        world.happen(Event::Restart([].into()));
        assert_eq!(reported(&world).as_ref(), Some(&message));
    }
    world.reload();
    world.run();
    world.happen(Event::Restart([].into()));
    assert_eq!(reported(&world), None);
}

/// A configuration that is gone together with its copy is told until a reload, whatever starts in between.
#[test]
fn a_configuration_that_is_gone_with_its_copy_is_told() {
    let mut world = World::new();
    let reported = |world: &World| {
        let problem = world.core.problems().get(ProblemKind::RejectedConfiguration);
        problem.map(|problem| (problem.message.clone(), problem.severity))
    };
    let set = Config {
        file: Some(DEFAULT_PATH.into()),
        protect_backends: true,
        ..Config::default()
    };
    let empty = Config {
        protect_backends: false,
        ..set.clone()
    };
    // Nothing is lost with a file that sets nothing.
    for (config, is_told) in [(empty, false), (set, true)] {
        world.reload_with(config);
        world.run();
        world.happen(Event::Restart([].into()));
        assert_eq!(reported(&world), None);
        world.config = Config::default();
        for loss in [None, Some(Loss::Reboot), None] {
            world.happen(Event::Restart(loss.into_iter().collect()));
            let (message, severity) = reported(&world).unzip();
            assert_eq!(message.is_some(), is_told, "{message:?}");
            if let Some(message) = message {
                assert!(
                    message.contains(DEFAULT_PATH) && message.contains("reload"),
                    "{message}"
                );
                assert_eq!(severity, Some(Severity::Warning));
            }
        }
        world.reload_with(Config::default());
        world.run();
        assert_eq!(reported(&world), None);
        world.happen(Event::Restart([].into()));
        assert_eq!(reported(&world), None);
    }
}

/// A service that came back while the record could not be written is served again, though the store and the table are gone.
#[test]
fn a_service_that_came_back_while_the_record_could_not_be_written_stays() {
    super::serves_after(vec![
        Event::Remove("a2"),
        Event::RecordStuck,
        Event::Put(1),
        super::restart([Loss::Reapplied, Loss::StoreGone]),
    ]);
}

/// A local program keeps the port of a service that came back to the state file while the record could not be written.
#[test]
fn a_local_program_keeps_its_port_while_the_record_cannot_be_written() {
    super::serves_after(vec![
        Event::Listen("f2", true),
        Event::RecordStuck,
        Event::File([0].into()),
        Event::File([1].into()),
        Event::KeyBack(true),
    ]);
}
