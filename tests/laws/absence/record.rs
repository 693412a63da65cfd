//! Removals that the record does not have.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::ServiceEdit;

use super::services::{backends, owned};
use super::{Event, Loss, World};

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
