//! Services after the loss of the table, or of parts of it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tcpgw::control::request::ServiceEdit;
use tcpgw::store::last_services::LastServices;

use super::services::owned;
use super::{Event, Loss, World, restart, serves_after};

/// Services are served again after the table was removed while no daemon ran, with or without an `apply` of the state file, and
/// with any further loss.
#[test]
fn services_are_served_again_after_the_table_was_removed() {
    for table in [Loss::TableGone, Loss::Reapplied] {
        for loss in [
            Loss::StoreGone,
            Loss::StoreDamaged,
            Loss::RecordGone,
            Loss::RecordDamaged,
            Loss::OtherVersion,
            Loss::Reboot,
        ] {
            serves_after(vec![restart([table, loss])]);
            serves_after(vec![restart([table, Loss::StoreGone, loss]), restart([table])]);
            serves_after(vec![Event::KeyGone(false), restart([table, loss]), restart([])]);
        }
        serves_after(vec![
            Event::KeyGone(false),
            Event::Remove("f1"),
            restart([table, Loss::StoreGone, Loss::RecordGone]),
        ]);
        for name in ["f1", "a1"] {
            serves_after(vec![Event::Move(name, true), restart([table]), restart([])]);
        }
    }
}

/// Elements that were removed from the table while no daemon ran are restored, even those of services that no provider defines
/// any more.
#[test]
fn elements_that_were_removed_from_the_table_are_restored() {
    for table in [Loss::SlotsFlushed, Loss::ServicesFlushed] {
        serves_after(vec![restart([table]), restart([])]);
        serves_after(vec![
            Event::KeyGone(false),
            restart([table]),
            restart([table, Loss::Reboot]),
        ]);
        serves_after(vec![Event::FileGone, restart([table]), restart([Loss::Reboot])]);
        for store in [Loss::StoreGone, Loss::StoreDamaged] {
            serves_after(vec![restart([table, store]), restart([]), restart([Loss::Reboot])]);
            serves_after(vec![restart([store]), Event::KeyGone(true), restart([table])]);
        }
    }
}

/// Services of which only the kernel's table is left are not taken for the state file's.
#[test]
fn services_that_only_the_table_has_are_not_taken_for_the_files() {
    let all = [Loss::StoreGone, Loss::RecordGone, Loss::LastGone];
    serves_after(vec![
        Event::FileGone,
        restart(all),
        Event::File([0, 1].into()),
        restart([]),
        restart([]),
    ]);
    serves_after(vec![
        Event::FileGone,
        restart([Loss::StoreDamaged, Loss::RecordGone, Loss::LastGone]),
        restart([Loss::StoreGone]),
        Event::File([0, 1].into()),
        restart([]),
    ]);
}

/// Services of which only the kernel's table is left are served, with generated names that an order accepts.
#[test]
fn services_that_only_the_table_has_are_served_under_generated_names() {
    let mut world = World::new();
    world.happen(Event::KeyGone(true));
    fs::remove_file(LastServices::path(&world.store_path())).unwrap();
    world.happen(Event::Restart([Loss::StoreGone, Loss::RecordGone].into()));
    world.check().unwrap();
    let orphans = [9001, 9002, 9003, 9004].map(|port| owned((&*format!("unnamed-{port}"), "orphan")));
    assert_eq!(world.providers(), orphans);
    world.clients.ports.clear();
    world.order("unnamed-9003", ServiceEdit::Delete);
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    // The removed service does not come back.
    world.happen(Event::Restart([].into()));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    world.happen(Event::Restart([Loss::Reboot].into()));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
}

/// Services that were served just before a teardown are remembered, although the teardown leaves no table and no record, and the
/// daemon is killed at once.
#[test]
fn services_of_before_a_teardown_are_served_again_by_the_next_daemon() {
    let mut world = World::new();
    world.happen(Event::File([0].into()));
    world.write_file(Some([0, 1].into()));
    world.tell_file();
    world.run();
    let all = BTreeSet::from([9001, 9002, 9003, 9004]);
    assert_eq!(world.served(), all);
    // Killed at once, before anything is written in its own time.
    let mut torn = world.order_teardown();
    world.wait(Duration::from_millis(1));
    assert!(torn.try_recv().unwrap().is_ok());
    assert_eq!(world.served(), BTreeSet::new());
    world.write_file(None);
    // Here it was torn down in another boot than the machine's, so that the next daemon serves again at once.
    world.restart_after(&BTreeSet::new());
    assert_eq!(world.served(), all);
}
