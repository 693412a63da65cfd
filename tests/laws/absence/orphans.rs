//! Services that no provider defines any more, and endpoints that two providers share.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::json;
use tcpgw::control::events::EventContent;
use tcpgw::control::request::{After, ServiceEdit};
use tcpgw::store::last_services::LastServices;
use tcpgw_core::problem::ProblemKind;

use super::services::{service, state};
use super::{Event, Loss, WRITTEN, World, restart, serves_after};
use crate::world::clients::PEER;

/// The services of two providers keep the endpoints that they share, whichever provider is lost.
#[test]
fn endpoints_that_two_providers_share_stay_when_one_is_lost() {
    serves_after(vec![Event::KeyGone(true)]);
    serves_after(vec![Event::FileGone, restart([])]);
    for loss in [Loss::StoreGone, Loss::StoreDamaged, Loss::RecordGone, Loss::Reboot] {
        serves_after(vec![restart([loss])]);
        serves_after(vec![Event::FileGone, restart([loss]), restart([])]);
    }
}

#[test]
fn a_routine_change_leaves_orphans_as_they_are() {
    for by_restart in [false, true] {
        serves_after(vec![
            Event::KeyGone(by_restart),
            Event::Label(0),
            Event::Label(1),
            restart([]),
        ]);
    }
    serves_after(vec![
        restart([Loss::StoreGone]),
        Event::Put(0),
        Event::File([0].into()),
        Event::Put(1),
    ]);
}

/// A change of a provider's service takes from orphans what cannot be shared, and its response warns of this.
#[test]
fn what_a_change_takes_from_orphans_is_reported() {
    let mut world = World::new();
    world.happen(Event::KeyGone(false));
    let limit = |world: &mut World, name: &str| {
        let patch = json!({"limit": {"pps": 500}}).to_string();
        let mut answer = world.order_edit(name, ServiceEdit::Patch(patch.into_bytes()));
        world.wait(WRITTEN);
        answer.try_recv().unwrap().unwrap().warnings
    };
    let says = |warnings: &[String], parts: &[&str]| {
        let has_all = |text: &String| parts.iter().all(|part| text.contains(part));
        assert!(warnings.iter().any(has_all), "{parts:?}: {warnings:?}");
    };
    let warnings = limit(&mut world, "a1");
    for orphan in ["\"f1\" :9001", "\"f2\" :9002"] {
        says(&warnings, &[orphan, "loses backends", "10.9.0.50:80"]);
    }
    says(&limit(&mut world, "a2"), &["\"f1\" :9001", "ends", "10.9.0.1:80"]);
    world.wait(Duration::from_secs(40));
    let reached = world.reached();
    assert_eq!(reached.keys().copied().collect::<Vec<_>>(), [9002, 9003, 9004]);
    assert_eq!(reached[&9002], ["10.9.0.2:80".parse().unwrap()].into());
    let events = world.core.follow(&After::Start).kept;
    let displaced = events.iter().find_map(|event| match &event.what {
        EventContent::Displaced { names, reason, .. } => Some((names.join(" "), reason.clone())),
        _ => None,
    });
    assert_eq!(
        displaced,
        Some(("f1 f2".into(), format!("service set a1 (uid {})", PEER.uid)))
    );
}

/// A removed orphan stays removed when the daemon is killed right after its answer: the file of last services, which alone knows
/// of the removal, was written before.
#[test]
fn a_removed_orphan_does_not_come_back() {
    for loss in [None, Some(Loss::RecordGone), Some(Loss::Reboot), Some(Loss::TableGone)] {
        let mut world = World::new();
        world.happen(Event::KeyGone(false));
        world
            .last_order("f1", ServiceEdit::Delete, &loss.into_iter().collect())
            .unwrap();
        world.wait(Duration::from_secs(40));
        assert_eq!(world.served(), [9002, 9003, 9004].into(), "{loss:?}");
    }
}

/// No orphan is removed while the file of last services cannot be written, neither by its name nor by an `apply` that prunes.
#[test]
fn an_orphan_whose_removal_cannot_be_written_stays() {
    let mut world = World::new();
    world.happen(Event::KeyGone(false));
    let mut blocking = LastServices::path(&world.store_path()).into_os_string();
    blocking.push(".new");
    fs::create_dir(&blocking).unwrap();
    let revision = world.core.services().revision;
    assert!(!world.apply(&state([service("a1")]), true));
    let refused = world
        .last_order("f1", ServiceEdit::Delete, &BTreeSet::new())
        .unwrap_err();
    let refused = refused.lines().join("; ");
    assert!(
        refused.contains("store.db.last") && refused.contains("nothing was changed"),
        "{refused}"
    );
    world.check().unwrap();
    assert_eq!(world.core.services().revision, revision);
    let problems = world
        .core
        .problems()
        .get(ProblemKind::LastServices)
        .expect("it is told");
    assert!(problems.message.contains("store.db.last"), "{problems:?}");
    fs::remove_dir(&blocking).unwrap();
    world
        .last_order("f1", ServiceEdit::Delete, &[Loss::Reboot].into())
        .unwrap();
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}
