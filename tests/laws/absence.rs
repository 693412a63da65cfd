//! A service that was served stays served until a provider or an order removes it, whichever files, keys, stores and records are
//! lost, in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tcpgw::config::Config;
use tcpgw::config::daemon::DaemonSettings;
use tcpgw::control::core::{ApplyOrder, Core, Now, Order, Vetted};
use tcpgw::control::events::What;
use tcpgw::control::job::JobOutcome;
use tcpgw::control::obstacle::{Obstacle, ObstacleKind};
use tcpgw::control::request::{After, Apply, ApplyOptions, EditOrder, Edited, Peer, Refused, ServiceEdit};
use tcpgw::daemon::kernel_thread::perform;
use tcpgw::daemon::{store_opening, store_work};
use tcpgw::provider::{Bad, News};
use tcpgw::reconcile::engine::Engine;
use tcpgw::reconcile::{Desired, Options, Reconciler};
use tcpgw::record::{self, Applied};
use tcpgw::store::last::Last;
use tcpgw::store::{Expect, Store, StoreError};
use tcpgw_core::health;
use tcpgw_core::model::{FlowMark, InputProblem, State};
use tcpgw_core::owner::{Details, Owner};
use tcpgw_core::plan::plan;
use tcpgw_core::problem::Kind;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::fake::{ConnectOutcome, Fake, Syn};
use tcpgw_kernel::{Commit, Kernel as _};
use tokio::sync::oneshot;

use crate::states::links;
use crate::world::clock::next_step;
use crate::world::looking::{IsKnown, Looking, PATIENCE};

const NAMESPACE: u64 = 9;
const OF_FILE: [&str; 2] = ["f1", "f2"];
const OF_API: [&str; 2] = ["a1", "a2"];
const PEER: Peer = Peer {
    uid: 0,
    gid: 0,
    pid: None,
};
/// Time within which the record and the file of last services have been written.
const WRITTEN: Duration = Duration::from_secs(3);

/// Distance between the port of a service and the port that a local program has.
const ELSEWHERE: u16 = 100;

/// Time that is longer than the pause between two looks at listeners.
const LISTENERS: Duration = Duration::from_secs(6);

/// Losses while no daemon runs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    /// Another program removes the table.
    TableGone,
    /// The table is removed, and the state file is applied without a daemon, if that is possible.
    Reapplied,
    /// Another program removes all slots, so that no backend is in the balance any more.
    SlotsFlushed,
    /// Another program removes all services from the table.
    ServicesFlushed,
    StoreGone,
    StoreDamaged,
    RecordGone,
    RecordDamaged,
    /// The file of last services.
    LastGone,
    /// The record and the table are of another version.
    OtherVersion,
    Reboot,
}

#[derive(Debug, Clone)]
enum Event {
    /// The daemon is killed, this is lost, and another one starts.
    Restart(BTreeSet<Loss>),
    /// The state file is gone, or damaged.
    FileGone,
    /// The state file has these of its services.
    File(BTreeSet<usize>),
    /// The configuration does not name the file any more, or is gone and was read again by a restart.
    KeyGone(bool),
    KeyBack(bool),
    /// A service of the API is made, changed, or removed by its name.
    Put(usize),
    Remove(&'static str),
    /// A service of the API is removed, and the daemon is killed as soon as it has answered.
    LastRemoval(&'static str, Option<Loss>),
    /// The record cannot be written until the next restart.
    RecordStuck,
    Prune,
    /// A routine change of a service of the API.
    Label(usize),
    /// A local program begins or ends to listen on the port of a service.
    Listen(&'static str, bool),
    /// The provider of a service wants it on another port, which a local program has; or again on its own.
    Move(&'static str, bool),
    /// The kernel gives no answers about the gateway's state for so many seconds.
    Blind(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let loss = prop::sample::select(vec![
        Loss::TableGone,
        Loss::Reapplied,
        Loss::SlotsFlushed,
        Loss::ServicesFlushed,
        Loss::StoreGone,
        Loss::StoreDamaged,
        Loss::RecordGone,
        Loss::RecordDamaged,
        Loss::LastGone,
        Loss::OtherVersion,
        Loss::Reboot,
    ]);
    let all: Vec<&str> = OF_FILE.into_iter().chain(OF_API).collect();
    prop_oneof![
        6 => prop::collection::btree_set(loss, 0..4).prop_map(Event::Restart),
        3 => Just(Event::FileGone),
        2 => prop::collection::btree_set(0..2_usize, 0..3).prop_map(Event::File),
        2 => any::<bool>().prop_map(Event::KeyGone),
        2 => any::<bool>().prop_map(Event::KeyBack),
        2 => (0..2_usize).prop_map(Event::Put),
        1 => prop::sample::select(all.clone()).prop_map(Event::Remove),
        1 => (prop::sample::select(all.clone()), prop::option::of(prop::sample::select(vec![
            Loss::TableGone,
            Loss::RecordGone,
            Loss::OtherVersion,
            Loss::Reboot,
        ]))).prop_map(|(name, loss)| Event::LastRemoval(name, loss)),
        1 => Just(Event::RecordStuck),
        1 => Just(Event::Prune),
        3 => (0..2_usize).prop_map(Event::Label),
        3 => (prop::sample::select(all.clone()), any::<bool>()).prop_map(|(name, begins)| Event::Listen(name, begins)),
        3 => (prop::sample::select(all), any::<bool>()).prop_map(|(name, leaves)| Event::Move(name, leaves)),
        2 => (1..30_u64).prop_map(Event::Blind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_served_is_served_until_somebody_says_otherwise(events in prop::collection::vec(event(), 1..16)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
            world.check()?;
        }
        world.nobody_listens();
        world.check()?;
    }
}

fn restart(losses: impl IntoIterator<Item = Loss>) -> Event {
    Event::Restart(losses.into_iter().collect())
}

#[track_caller]
fn serves_after(all: Vec<Event>) {
    let (mut world, words) = (World::new(), format!("{all:?}"));
    for event in all {
        world.happen(event);
        world.check().unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    world.nobody_listens();
    world.check().unwrap_or_else(|error| panic!("{words}: {error}"));
}

/// The services of two providers keep the endpoints that they share, whichever provider is lost.
#[test]
fn what_two_providers_share_is_taken_from_neither() {
    serves_after(vec![Event::KeyGone(true)]);
    serves_after(vec![Event::FileGone, restart([])]);
    for loss in [Loss::StoreGone, Loss::StoreDamaged, Loss::RecordGone, Loss::Reboot] {
        serves_after(vec![restart([loss])]);
        serves_after(vec![Event::FileGone, restart([loss]), restart([])]);
    }
}

/// Services are served again after the table was removed while no daemon ran, with or without an `apply` of the state file, and
/// with any further loss.
#[test]
fn what_is_lost_with_the_table_is_served_again() {
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
fn what_is_taken_out_of_the_table_is_put_back() {
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

#[test]
fn a_routine_change_takes_nothing_from_orphans() {
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

/// Services of which only the kernel's table is left are not taken for the state file's.
#[test]
fn what_nobody_knows_is_not_the_files() {
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

/// A store that is replaced by an older copy takes back none of the later orders.
#[test]
fn an_older_store_takes_nothing_back() {
    let mut world = World::new();
    world.store = Err(StoreError::NoDeploy(0));
    let older = fs::read(world.store_path()).unwrap();
    world.restart(&BTreeSet::new());
    world.happen(Event::Remove("a2"));
    let all = BTreeSet::from([9001, 9002, 9003]);
    assert_eq!(world.served(), all);
    for _ in 0..2 {
        world.store = Err(StoreError::NoDeploy(0));
        fs::write(world.store_path(), &older).unwrap();
        world.restart(&BTreeSet::new());
        assert_eq!(world.served(), all);
        let told = world.core.problems().get(Kind::Store).expect("it is told");
        assert!(told.message.contains("is older than what was served last"), "{told:?}");
    }
    // The older store is accepted when the file of last services is removed.
    fs::remove_file(Last::path(&world.store_path())).unwrap();
    world.restart(&BTreeSet::new());
    assert_eq!(world.core.problems().get(Kind::Store), None);
}

/// A store that lost its log, before its contents were in the file and before the file of last services was written, takes
/// nothing back: the record has the later orders.
#[test]
fn a_store_that_lost_its_log_takes_nothing_back() {
    for settles in [Duration::from_millis(10), Duration::from_secs(3)] {
        let mut world = World::new();
        world.restart(&BTreeSet::new());
        world.store = Err(StoreError::NoDeploy(0));
        let paths = [world.store_path(), Last::path(&world.store_path())];
        let older = paths.each_ref().map(|path| fs::read(path).unwrap());
        world.restart(&BTreeSet::new());
        assert!(world.order("a2", ServiceEdit::Delete));
        world.wait(settles);
        let all = BTreeSet::from([9001, 9002, 9003]);
        assert_eq!(world.served(), all);
        for _ in 0..2 {
            world.store = Err(StoreError::NoDeploy(0));
            for (path, older) in paths.iter().zip(&older) {
                fs::write(path, older).unwrap();
            }
            world.restart(&BTreeSet::new());
            assert_eq!(world.served(), all, "{settles:?}");
            let told = world.core.problems().get(Kind::Store).expect("it is told");
            assert!(told.message.contains("is older than what was served last"), "{told:?}");
        }
    }
}

/// Services that were served just before a teardown are remembered, although the teardown leaves no table and no record, and the
/// daemon is killed at once.
#[test]
fn what_a_teardown_takes_away_is_served_after_it_whoever_dies() {
    let mut world = World::new();
    world.happen(Event::File([0].into()));
    world.file = Some([0, 1].into());
    world.tell_file();
    world.run();
    let all = BTreeSet::from([9001, 9002, 9003, 9004]);
    assert_eq!(world.served(), all);
    // Killed at once, before anything is written in its own time.
    let (reply, mut torn) = oneshot::channel();
    world.core.teardown(PEER, reply);
    world.wait(Duration::from_millis(1));
    assert!(torn.try_recv().unwrap().is_ok());
    assert_eq!(world.served(), BTreeSet::new());
    world.file = None;
    // Here it was torn down in another boot than the machine's, so that the next daemon serves again at once.
    world.restart(&BTreeSet::new());
    assert_eq!(world.served(), all);
}

/// Services that are held back are remembered over several restarts of one boot, like those that are served.
#[test]
fn what_is_held_back_is_remembered() {
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
fn what_is_kept_while_a_change_is_held_back_is_served_after_a_boot() {
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
            assert_eq!(problem_of(&world, Kind::HeldBack).len(), usize::from(is_held));
        }
    }
    // The change is possible in the end, and what was kept is not served any more.
    let mut world = World::new();
    for event in [Event::Move("a1", true), restart([Loss::Reboot])] {
        world.happen(event);
    }
    world.is_elsewhere_free = true;
    world.wait(LISTENERS);
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    world.happen(restart([Loss::Reboot]));
    world.is_elsewhere_free = false;
    world.happen(restart([Loss::Reboot]));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
}

/// A daemon that cannot examine the gateway at its start keeps the services that are served, and takes no other port.
#[test]
fn nothing_is_begun_blindly() {
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
        .filter(|problem| problem.kind == Kind::HeldBack);
    let held: Vec<&str> = problems.map(|problem| &*problem.message).collect();
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(
        held.iter().all(|message| message.contains("could not be looked at")),
        "{held:?}"
    );
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}

/// A change of a provider's service takes from orphans what cannot be shared, and its response warns of this.
#[test]
fn what_a_provider_takes_from_orphans_is_said() {
    let mut world = World::new();
    world.happen(Event::KeyGone(false));
    let limit = |world: &mut World, name: &str| {
        let (reply, mut answer) = oneshot::channel();
        let order = EditOrder {
            name: name.into(),
            edit: ServiceEdit::Patch(json!({"limit": {"pps": 500}}).to_string().into_bytes()),
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        world.core.order(Order::Edit(order, reply));
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
        What::Displaced { names, reason, .. } => Some((names.join(" "), reason.clone())),
        _ => None,
    });
    assert_eq!(displaced, Some(("f1 f2".into(), "service set a1 (uid 0)".into())));
}

/// A damaged store is repaired without an outage by the printed steps: move it away, start, export, apply.
#[test]
fn a_damaged_store_is_cured_without_an_outage() {
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

/// Services of which only the kernel's table is left are served, with generated names that an order accepts.
#[test]
fn what_nothing_but_the_kernel_knows_is_served() {
    let mut world = World::new();
    world.happen(Event::KeyGone(true));
    fs::remove_file(Last::path(&world.store_path())).unwrap();
    world.happen(Event::Restart([Loss::StoreGone, Loss::RecordGone].into()));
    world.check().unwrap();
    let orphans = [9001, 9002, 9003, 9004].map(|port| owned((&*format!("unnamed-{port}"), "orphan")));
    assert_eq!(world.providers(), orphans);
    world.expected.clear();
    world.order("unnamed-9003", ServiceEdit::Delete);
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    // The removed service does not come back.
    world.happen(Event::Restart([].into()));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
    world.happen(Event::Restart([Loss::Reboot].into()));
    assert_eq!(world.served(), [9001, 9002, 9004].into());
}

/// A service that a valid state file lacks is removed, also when the file shrank while no daemon ran.
#[test]
fn a_file_that_shrinks_is_a_wish() {
    let mut world = World::new();
    world.file = Some([0].into());
    world.happen(Event::Restart([].into()));
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9003, 9004].into());
    // Another file says nothing about the services of this one.
    world.path = "/other.json".into();
    world.file = Some([1].into());
    world.happen(Event::Restart([].into()));
    world.wait(Duration::from_secs(40));
    assert_eq!(world.served(), [9001, 9002, 9003, 9004].into());
    assert_eq!(world.providers()[2], owned(("f1", "orphan")));
}

/// The providers of services are recorded even when the kernel need not change for that.
#[test]
fn another_file_that_comes_back_says_nothing_of_the_first_ones() {
    let mut world = World::new();
    for (path, file) in [
        ("/b.json", Some([1].into())),
        ("/state.json", Some([0, 1].into())),
        ("/b.json", None),
    ] {
        (world.path, world.file) = (path.into(), file);
        world.happen(restart([]));
        world.check().unwrap();
    }
    world.file = Some([1].into());
    world.tell_file();
    world.wait(Duration::from_secs(40));
    world.check().unwrap();
    assert_eq!(world.providers()[2], owned(("f1", "orphan")));
}

/// The result of a look for one state file does not apply to another file that the daemon follows meanwhile.
#[test]
fn what_another_file_said_is_not_judged_as_this_ones() {
    let mut world = World::new();
    world.file = Some([0].into());
    world.tell_file();
    world.path = "/other.json".into();
    let (settings, now) = (world.settings(), world.time());
    world.core.reload(settings, world.config.clone(), now);
    assert!(world.core.judges_again().is_none());
    world.file = Some([].into());
    world.tell_file();
    world.wait(Duration::from_secs(40));
    world.check().unwrap();
}

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
        world.expected.remove(&9003);
        // Before the record and the file of last services know it.
        world.happen(Event::Restart(loss.into_iter().collect()));
        world.wait(Duration::from_secs(40));
        assert_eq!(world.served(), [9001, 9002, 9004].into(), "{loss:?}");
    }
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

/// A record that could not be written counts as older than the file of last services that was.
#[test]
fn what_a_record_that_could_not_be_written_says_is_older() {
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

/// No orphan is removed while the file of last services cannot be written, neither by its name nor by an `apply` that prunes.
#[test]
fn an_orphan_whose_removal_cannot_be_written_stays() {
    let mut world = World::new();
    world.happen(Event::KeyGone(false));
    let mut blocking = Last::path(&world.store_path()).into_os_string();
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
    let told = world.core.problems().get(Kind::LastServices).expect("it is told");
    assert!(told.message.contains("store.db.last"), "{told:?}");
    fs::remove_dir(&blocking).unwrap();
    world
        .last_order("f1", ServiceEdit::Delete, &[Loss::Reboot].into())
        .unwrap();
    assert_eq!(world.served(), [9002, 9003, 9004].into());
}

/// One of two stored services that contradict each other by the rules of this version is left out, and all others are served.
#[test]
fn stored_services_that_do_not_go_together_take_no_other_with_them() {
    let mut world = World::new();
    world.store = Err(StoreError::NoDeploy(0));
    let mut store = Store::open(&world.store_path()).unwrap();
    let clash = json!({"name": "clash", "port": 9003, "backends": ["10.9.0.77:80"]});
    let clash = Arc::new(tcpgw_core::model::parse_service(clash.to_string().as_bytes()).unwrap());
    let change = tcpgw::store::Change {
        edits: vec![tcpgw::store::Edit::Put(clash, Expect::Anything)],
        ..tcpgw::store::Change::default()
    };
    let by = tcpgw::store::By {
        uid: 0,
        pid: 0,
        what: "another version".into(),
    };
    store.commit(&change, &by, Duration::ZERO).unwrap();
    drop(store);
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
fn a_stored_service_that_was_left_out_is_judged_again() {
    let mut world = World::new();
    world.store = Err(StoreError::NoDeploy(0));
    let mut store = Store::open(&world.store_path()).unwrap();
    let clash = |name: &str, port: u16| {
        let clash = json!({"name": name, "port": port, "backends": ["10.9.0.77:80"]});
        let clash = Arc::new(tcpgw_core::model::parse_service(clash.to_string().as_bytes()).unwrap());
        tcpgw::store::Edit::Put(clash, Expect::Anything)
    };
    let change = tcpgw::store::Change {
        edits: vec![clash("clash-1", 9003), clash("clash-2", 9003), clash("clash-3", 9004)],
        ..tcpgw::store::Change::default()
    };
    let by = tcpgw::store::By {
        uid: 0,
        pid: 0,
        what: "another version".into(),
    };
    store.commit(&change, &by, Duration::ZERO).unwrap();
    drop(store);
    world.happen(Event::Restart([].into()));
    world.check().unwrap();
    let told = |world: &World| {
        world
            .core
            .problems()
            .get(Kind::RejectedStore)
            .map(|problem| problem.message.clone())
    };
    assert!(told(&world).unwrap().contains("clash-1"), "{:?}", told(&world));
    assert!(world.order("a1", ServiceEdit::Delete));
    world.expected.remove(&9003);
    world.wait(Duration::from_secs(60));
    world.check().unwrap();
    let serving: Vec<Box<str>> = world.core.membership().serving().keys().cloned().collect();
    assert!(serving.iter().any(|name| **name == *"clash-1"), "{serving:?}");
    let left = told(&world).unwrap();
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
    assert_eq!(told(&world), None);
}

fn rejected(world: &World) -> Option<String> {
    let problem = world.core.problems().get(Kind::RejectedState);
    problem.map(|problem| problem.message.clone())
}

fn put(world: &mut World, name: &str, port: u16, backend: &str, health: &Value) {
    let service = json!({"name": name, "port": port, "backends": [backend], "health": health});
    assert!(world.order(name, ServiceEdit::Put(service.to_string().into_bytes())));
}

/// A refused state file is accepted as soon as the API service that conflicted with it is removed or changed.
#[test]
fn a_state_file_is_judged_again_when_what_it_was_refused_for_is_gone() {
    let health = json!({"interval": "30s"});
    // A name, a port, and an endpoint that would be probed in two ways.
    for (name, port, backend) in [
        ("f2", 9010, "10.9.0.10:80"),
        ("x", 9002, "10.9.0.10:80"),
        ("x", 9010, "10.9.0.2:80"),
    ] {
        for at_start in [false, true] {
            for by_removal in [false, true] {
                let mut world = World::new();
                world.happen(Event::File([0].into()));
                world.wait(Duration::from_secs(60));
                put(&mut world, name, port, backend, &health);
                world.expected.remove(&9002);
                if at_start {
                    world.file = Some([0, 1].into());
                    world.happen(Event::Restart([].into()));
                } else {
                    world.happen(Event::File([0, 1].into()));
                }
                assert!(rejected(&world).is_some(), "{name} {port} {backend} {at_start}");
                if by_removal {
                    assert!(world.order(name, ServiceEdit::Delete));
                } else if name == "x" {
                    put(&mut world, name, 9011, "10.9.0.11:80", &health);
                } else {
                    assert!(world.apply(&state(OF_API.map(service)), false));
                }
                world.wait(WRITTEN);
                assert_eq!(rejected(&world), None, "{name} {port} {backend} {at_start}");
                let owners: BTreeMap<String, String> = world.providers().into_iter().collect();
                assert_eq!(owners["f2"], "file");
                world.expected.insert(9002);
                world.wait(Duration::from_secs(60));
                world.check().unwrap();
            }
        }
    }
}

/// The refusal of a state file is reported once, however long it lasts.
#[test]
fn a_state_file_that_stays_refused_is_no_news() {
    let mut world = World::new();
    world.happen(Event::File([0].into()));
    put(&mut world, "f2", 9010, "10.9.0.10:80", &json!({}));
    world.happen(Event::File([0, 1].into()));
    let told = |world: &World| {
        let events = world.core.follow(&After::Start).kept;
        let rejected = events
            .iter()
            .filter(|event| matches!(event.what, What::Rejected { .. }));
        rejected.count()
    };
    assert_eq!(told(&world), 1);
    for most in 1..5 {
        let patch = json!({"max_flows": most}).to_string();
        assert!(world.order("a1", ServiceEdit::Patch(patch.into_bytes())));
        world.wait(Duration::from_secs(100));
    }
    assert_eq!(told(&world), 1);
    assert!(rejected(&world).unwrap().contains("tcpgw service rm f2"));
}

/// The refusal of an empty state file names the daemon's own setting: `tcpgw apply` and its options would change the API's
/// services.
#[test]
fn an_empty_state_file_is_refused_with_the_daemons_own_key() {
    let mut world = World::new();
    world.happen(Event::File([].into()));
    let message = rejected(&world).unwrap();
    assert!(!message.contains("--allow-empty"), "{message}");
    for part in [
        "/state.json has no services",
        "`allow_empty = true` under [daemon] in /etc/tcpgw/config.toml",
        "2 services",
    ] {
        assert!(message.contains(part), "{message}");
    }
    world.expected.extend([9001, 9002]);
    world.check().unwrap();
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

fn fenced(text: &str) -> Config {
    Config::parse("/fences.toml".as_ref(), format!("[fences]\n{text}\n").as_bytes()).unwrap()
}

fn problem_of(world: &World, kind: Kind) -> Vec<(String, String)> {
    let problems = world.core.problems().iter().filter(|problem| problem.kind == kind);
    problems
        .map(|problem| (problem.service.clone().unwrap(), problem.message.clone()))
        .collect()
}

/// Narrower fences end no service that is served and are reported; services outside of them that are not served stay out of the
/// kernel.
#[test]
fn fences_hold_for_what_is_not_served() {
    for (text, fence) in [
        ("ports = \"9001-9003\"", "fences.ports in /fences.toml allows 9001-9003"),
        (
            "backends = [\"10.9.0.1\", \"10.9.0.2\", \"10.9.0.3\", \"10.9.0.50\"]",
            "fences.backends in /fences.toml",
        ),
        (
            "max_services = 3",
            "there are 4 services; fences.max_services in /fences.toml allows 3",
        ),
        (
            "max_backends = 7",
            "there are 8 backends; fences.max_backends in /fences.toml allows 7",
        ),
    ] {
        let mut world = World::new();
        world.config = fenced(text);
        world.happen(Event::Restart([].into()));
        world.check().unwrap();
        let told = problem_of(&world, Kind::OutsideFences);
        let [(service, message)] = &told[..] else {
            panic!("{text}: {told:?}")
        };
        assert_eq!(service, "a2");
        assert!(
            message.contains(fence) && message.contains("tcpgw service rm a2"),
            "{message}"
        );
        assert_eq!(problem_of(&world, Kind::HeldBack), []);

        world.happen(Event::Restart([Loss::Reboot].into()));
        assert_eq!(world.served(), [9001, 9002, 9003].into(), "{text}");
        let told = problem_of(&world, Kind::HeldBack);
        let [(service, message)] = &told[..] else {
            panic!("{text}: {told:?}")
        };
        assert_eq!(service, "a2");
        assert!(
            message.contains(fence) && message.contains("tcpgw service rm a2"),
            "{message}"
        );
        assert_eq!(problem_of(&world, Kind::OutsideFences), []);

        world.config = Config::default();
        world.set_key(true, false);
        world.wait(WRITTEN);
        world.check().unwrap();
        assert_eq!(problem_of(&world, Kind::HeldBack), []);

        world.config = fenced(text);
        world.set_key(true, false);
        world.wait(WRITTEN);
        world.check().unwrap();
        assert_eq!(problem_of(&world, Kind::OutsideFences).len(), 1, "{text}");
        world.expected.remove(&9004);
        assert!(world.order("a2", ServiceEdit::Delete));
        world.wait(WRITTEN);
        assert_eq!(problem_of(&world, Kind::OutsideFences), []);
        world.check().unwrap();
    }
}

/// The last good state of a file that the fences refuse is not served outside of them after a boot.
#[test]
fn fences_hold_for_the_last_good_state_of_a_file() {
    let mut world = World::new();
    world.config = fenced("ports = [9001, \"9003-9004\"]");
    world.file = None;
    world.happen(Event::Restart([].into()));
    world.check().unwrap();
    assert_eq!(problem_of(&world, Kind::OutsideFences).len(), 1);
    world.happen(Event::Restart([Loss::Reboot].into()));
    assert_eq!(world.served(), [9001, 9003, 9004].into());
    let told = problem_of(&world, Kind::HeldBack);
    assert!(told[0].1.contains("change it in /state.json"), "{told:?}");
}

fn owned((name, provider): (&str, &str)) -> (String, String) {
    (name.to_owned(), provider.to_owned())
}

fn port(name: &str) -> u16 {
    let all = OF_FILE.into_iter().chain(OF_API);
    9001 + u16::try_from(all.into_iter().position(|of| of == name).unwrap()).unwrap()
}

/// Returns the endpoints of a service. Some are in several services, of one provider and of two, and are all that `f1` has.
fn backends(name: &str) -> Vec<SocketAddr> {
    let hosts: &[u8] = match name {
        "f1" => &[1, 50],
        "f2" => &[2, 50],
        "a1" => &[3, 50],
        _ => &[1, 4],
    };
    hosts.iter().map(|host| ([10, 9, 0, *host], 80).into()).collect()
}

fn is_named(name: &str) -> bool {
    OF_FILE.iter().chain(&OF_API).any(|known| *known == name)
}

fn service(name: &str) -> Value {
    json!({
        "name": name, "port": port(name), "drain_timeout": "7s", "labels": {"of": name}, "health": {"interval": "5s"},
        "backends": backends(name),
    })
}

fn state(services: impl IntoIterator<Item = Value>) -> State {
    let services: Vec<Value> = services.into_iter().collect();
    let text = json!({"version": 1, "services": services}).to_string();
    tcpgw_core::model::parse(text.as_bytes()).unwrap()
}

struct World {
    core: Core,
    engine: Option<Engine<Fake>>,
    store: Result<Store, StoreError>,
    directory: tempfile::TempDir,
    begin: Instant,
    now: Instant,
    boot: u64,
    config: Config,
    /// Services in the state file, or `None` when the file is absent.
    file: Option<BTreeSet<usize>>,
    path: PathBuf,
    has_key: bool,
    /// Ports on which local programs listen.
    listening: BTreeSet<u16>,
    /// Services that their providers want on another port, where a local program listens.
    moved: BTreeSet<&'static str>,
    /// True when no local program listens on those other ports any more.
    is_elsewhere_free: bool,
    looking: Looking,
    /// The ports that have to be served.
    expected: BTreeSet<u16>,
    /// The ports that local programs had first.
    theirs: BTreeSet<u16>,
    /// Time by which a look at the gateway that is stuck has ended.
    sees_at: Instant,
    is_record_stuck: bool,
    /// Time until which services may be held back, because the machine booted while the gateway could not be examined.
    waits_until: Instant,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let now = Instant::now();
        let time = Now {
            instant: now,
            unix: Duration::from_secs(1_000_000),
            boot: Duration::ZERO,
        };
        let mut world = Self {
            core: Core::new(DaemonSettings::default(), Config::default(), NAMESPACE, time),
            engine: None,
            store: Err(StoreError::NoDeploy(0)),
            directory,
            begin: now,
            now,
            boot: 1,
            config: Config::default(),
            file: Some([0, 1].into()),
            path: "/state.json".into(),
            has_key: true,
            listening: BTreeSet::new(),
            moved: BTreeSet::new(),
            is_elsewhere_free: false,
            looking: Looking::default(),
            expected: [9001, 9002].into(),
            theirs: BTreeSet::new(),
            sees_at: now,
            is_record_stuck: false,
            waits_until: now,
        };
        world.start(Fake::default());
        for at in 0..OF_API.len() {
            world.happen(Event::Put(at));
        }
        world.check().unwrap();
        assert_eq!(world.expected.len(), 4);
        world
    }

    fn store_path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    fn record_path(&self) -> PathBuf {
        self.directory.path().join(format!("netns-{NAMESPACE}.state"))
    }

    fn settings(&self) -> DaemonSettings {
        DaemonSettings {
            state: self.has_key.then(|| self.path.clone()),
            store: self.store_path(),
            ..DaemonSettings::default()
        }
    }

    fn start(&mut self, fake: Fake) {
        let records = record::RecordFile::new(self.directory.path(), NAMESPACE);
        let mut engine = Engine::new(fake, records, NAMESPACE, FlowMark::default());
        engine.set_links(links());
        self.engine = Some(engine);
        self.core = Core::new(self.settings(), self.config.clone(), NAMESPACE, self.time());
        let mut last = Last::load(&Last::path(&self.store_path())).unwrap().unwrap_or_default();
        let records = record::RecordFile::new(self.directory.path(), NAMESPACE);
        let recorded = records.store_revision(&record::boot_id(), &self.store_path());
        let opened = match store_opening::open(&self.store_path(), &last, recorded, self.time().unix) {
            Ok((store, opened)) => {
                self.store = Ok(store);
                Ok(opened)
            }
            Err(error) => {
                self.store = Err(error.clone());
                Err(error)
            }
        };
        if matches!(opened, Err(StoreError::Older { .. })) {
            last.revision = last.revision.max(recorded);
        }
        self.core.opened(opened, self.time());
        self.core.served_last(last, self.boot.to_string());
        self.looking.restart();
        if self.has_key {
            self.tell_file();
        } else {
            self.core.begin(self.time());
        }
        self.wait(WRITTEN);
    }

    /// Returns a service as its provider wants it.
    fn service(&self, name: &str) -> Value {
        let mut service = service(name);
        if self.moved.contains(name) {
            service["port"] = (port(name) + ELSEWHERE).into();
        }
        service
    }

    /// Returns the ports where local programs listen.
    fn listening(&self) -> BTreeSet<u16> {
        let elsewhere = (9001..=9004).map(|port| port + ELSEWHERE);
        let elsewhere = elsewhere.filter(|_| !self.is_elsewhere_free);
        self.listening.iter().copied().chain(elsewhere).collect()
    }

    fn tell_file(&mut self) {
        let news = match &self.file {
            Some(which) => {
                let state = state(which.iter().map(|at| self.service(OF_FILE[*at])));
                News::State(Arc::new(state), Vec::new())
            }
            None => News::Bad(Bad::Unreadable("there is no file".into())),
        };
        let now = self.time();
        let (listening, looking) = (&self.listening(), &mut self.looking);
        let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
            looking.vet(now.instant, || vetted(listening, state, is_known))
        };
        if self.core.file_news(news, vet, now) {
            self.core.begin(now);
        }
    }

    fn restart(&mut self, losses: &BTreeSet<Loss>) {
        self.store = Err(StoreError::NoDeploy(0));
        let mut fake = self.engine.take().unwrap().into_kernel();
        fake.restart();
        self.allow_record();
        // Where the kernel was not examined, or does not hold a service, no other source has it.
        let is_blind = self.looking.is_stuck(self.now);
        let is_table_lost = losses.iter().any(|loss| *loss <= Loss::ServicesFlushed);
        let is_stuck = std::mem::take(&mut self.is_record_stuck);
        let is_record_lost = is_stuck || losses.contains(&Loss::RecordGone) || losses.contains(&Loss::RecordDamaged);
        for loss in losses {
            match loss {
                // The rules for a boot decide what is served again then, and what may be held back.
                Loss::TableGone | Loss::Reapplied | Loss::SlotsFlushed | Loss::ServicesFlushed if is_blind => {}
                // Nor where no source says that a port was served on which a local program listens now.
                Loss::TableGone | Loss::Reapplied if is_record_lost && !self.listening.is_empty() => {}
                // A service that is held back is kept as the kernel has it.
                Loss::SlotsFlushed if !self.moved.is_empty() => {}
                Loss::SlotsFlushed => flush(&mut fake, |name| matches!(name, SetName::Slots(_))),
                // Without a record it is unknown whether they were removed.
                Loss::ServicesFlushed if is_record_lost => {}
                Loss::ServicesFlushed => flush(&mut fake, |name| matches!(name, SetName::Services(_))),
                Loss::TableGone => drop(fake.remove().unwrap()),
                Loss::Reapplied => self.apply_alone(&mut fake),
                Loss::StoreGone => drop(fs::remove_file(self.store_path())),
                Loss::StoreDamaged => fs::write(self.store_path(), "damaged").unwrap(),
                Loss::RecordGone => drop(fs::remove_file(self.record_path())),
                Loss::LastGone if losses.contains(&Loss::Reboot) || is_table_lost => {}
                Loss::LastGone if !self.theirs.is_empty() || is_blind || is_stuck => {}
                Loss::LastGone => drop(fs::remove_file(Last::path(&self.store_path()))),
                Loss::RecordDamaged => drop(fs::write(self.record_path(), "damaged")),
                Loss::OtherVersion => self.other_version(),
                Loss::Reboot => {
                    self.theirs.clone_from(&self.listening);
                    if self.looking.is_stuck(self.now) {
                        self.waits_until = self.sees_at;
                    }
                    let _ = fs::remove_file(self.record_path());
                    fake = Fake::default();
                    self.boot += 1;
                }
            }
        }
        self.start(fake);
    }

    /// Runs `tcpgw apply` of the state file, as far as the services of other providers do not prevent it: none is in the kernel.
    fn apply_alone(&self, fake: &mut Fake) {
        fake.remove().unwrap();
        let is_refused = !self.listening.is_empty() || !self.moved.is_empty() || self.looking.is_stuck(self.now);
        let Some(file) = self.file.as_ref().filter(|file| !file.is_empty() && !is_refused) else {
            return;
        };
        let wanted = state(file.iter().map(|at| self.service(OF_FILE[*at])));
        let desired = Desired::new(&wanted, &links());
        let records = record::RecordFile::new(self.directory.path(), NAMESPACE);
        let applied = Applied {
            at: 1,
            origin: self.path.to_str().unwrap().into(),
            known: self.now - self.begin,
            store: None,
        };
        let details = wanted.services.iter().map(|service| {
            let details = Details::new(Owner::File, service, service);
            (service.name.clone(), details)
        });
        let mut reconciler = Reconciler::new(fake, &records, NAMESPACE, FlowMark::default())
            .signed(applied)
            .detailed(details.collect());
        let known = reconciler.look(&desired.summary).unwrap();
        let path = Last::path(&self.store_path());
        if let Some(mut last) = Last::load(&path).unwrap() {
            let missing = known.lost(&last).filter(|(_, name)| wanted.get(name).is_none());
            let missing: Vec<Box<str>> = missing.map(|(_, name)| name.into()).collect();
            last.unserved.extend(missing);
            last.save(&path).unwrap();
        }
        reconciler.apply(known, &desired, &Options::default()).unwrap();
    }

    /// Makes the record and its journal impossible to write, and leaves them as they are.
    fn forbid_record(&self) {
        self.allow_record();
        let journal = self.record_path().with_extension("journal");
        drop(fs::rename(&journal, journal.with_extension("kept")));
        for blocked in ["new", "journal", "journal.new"] {
            fs::create_dir(self.record_path().with_extension(blocked)).unwrap();
        }
    }

    fn allow_record(&self) {
        for blocked in ["new", "journal", "journal.new"] {
            let _ = fs::remove_dir(self.record_path().with_extension(blocked));
        }
        let journal = self.record_path().with_extension("journal");
        drop(fs::rename(journal.with_extension("kept"), journal));
    }

    fn other_version(&self) {
        let records = record::RecordFile::new(self.directory.path(), NAMESPACE);
        if let Some(mut record) = records.load() {
            record.head.program = "0.0.9, skeleton 3".into();
            records.save(&record.head, &record.ruleset).unwrap();
        }
    }

    fn time(&self) -> Now {
        Now {
            instant: self.now,
            unix: Duration::from_secs(1_000_000) + (self.now - self.begin),
            boot: self.now - self.begin,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Restart(losses) => self.restart(&losses),
            Event::FileGone => {
                self.file = None;
                if self.has_key {
                    self.tell_file();
                }
            }
            Event::File(which) => {
                if self.has_key {
                    // Services that the file lacks may end, whether they are the file's or orphans by now.
                    self.expected
                        .retain(|port| *port > 9002 || which.contains(&usize::from(*port - 9001)));
                }
                self.file = Some(which);
                if self.has_key {
                    self.forget_moved_and_unserved();
                    self.tell_file();
                    self.run();
                    self.see();
                    self.expect_files();
                }
            }
            Event::KeyGone(by_restart) => self.set_key(false, by_restart),
            Event::KeyBack(by_restart) => {
                if let Some(which) = self.file.clone().filter(|_| !self.has_key) {
                    self.expected
                        .retain(|port| *port > 9002 || which.contains(&usize::from(*port - 9001)));
                    self.forget_moved_and_unserved();
                }
                self.set_key(true, by_restart);
                self.see();
                self.expect_files();
            }
            Event::Put(at) => {
                let name = OF_API[at];
                if self.order(name, ServiceEdit::Put(self.service(name).to_string().into_bytes())) {
                    self.expected.insert(port(name));
                }
            }
            Event::Remove(name) => {
                if self.order(name, ServiceEdit::Delete) {
                    self.expected.remove(&port(name));
                }
            }
            Event::LastRemoval(name, loss) => self.remove_last(name, loss),
            Event::RecordStuck => {
                self.forbid_record();
                self.is_record_stuck = true;
            }
            Event::Label(at) => {
                let label = json!({"labels": {"x": format!("{:?}", self.now - self.begin)}});
                self.order(OF_API[at], ServiceEdit::Patch(label.to_string().into_bytes()));
            }
            Event::Listen(name, true) => {
                if self.listening.insert(port(name)) && !self.served().contains(&port(name)) {
                    self.theirs.insert(port(name));
                }
            }
            Event::Listen(name, false) => {
                self.listening.remove(&port(name));
                self.theirs.remove(&port(name));
                self.see();
                self.wait(LISTENERS);
            }
            Event::Move(name, leaves) => self.moves(name, leaves),
            Event::Blind(seconds) => {
                let time = Duration::from_secs(seconds);
                self.looking.stick(self.now, time);
                self.sees_at = self.now + time + LISTENERS;
                if self.now < self.waits_until {
                    self.waits_until = self.sees_at;
                }
            }
            Event::Prune => {
                let orphans: Vec<String> = self
                    .providers()
                    .into_iter()
                    .filter(|of| of.1 == "orphan")
                    .map(|of| of.0)
                    .collect();
                let export = self.export();
                if self.apply(&export, true) {
                    // An applied export defines its services anew.
                    assert!(self.providers().iter().all(|of| of.1 != "orphan"), "{orphans:?}");
                }
            }
        }
        self.wait(WRITTEN);
        // A service that was removed has left its port to the local program that listens there.
        let served = self.served();
        self.theirs
            .extend(self.listening.iter().filter(|port| !served.contains(port)));
    }

    /// Drops the expectation of ports whose services the file has moved and which have not been served since the boot.
    fn forget_moved_and_unserved(&mut self) {
        self.see();
        let served = self.served();
        let moved = self
            .moved
            .iter()
            .filter(|name| OF_FILE.contains(name))
            .map(|name| port(name));
        for port in moved.filter(|port| !served.contains(port)) {
            self.expected.remove(&port);
        }
    }

    fn remove_last(&mut self, name: &'static str, loss: Option<Loss>) {
        let losses = loss.into_iter().collect();
        if self.last_order(name, ServiceEdit::Delete, &losses).is_ok() {
            self.expected.remove(&port(name));
            self.see();
            self.wait(Duration::from_secs(40));
            // The service's file may define it anew when the daemon starts.
            let may_return = self.has_key && OF_FILE.contains(&name);
            assert!(may_return || !self.served().contains(&port(name)), "{name} comes back");
        }
    }

    fn moves(&mut self, name: &'static str, leaves: bool) {
        self.see();
        if leaves {
            self.moved.insert(name);
            // The service was not served since the machine booted.
            if !self.served().contains(&port(name)) {
                self.expected.remove(&port(name));
            }
        } else {
            self.moved.remove(name);
        }
        if OF_API.contains(&name) {
            let of_api: Vec<String> = self
                .providers()
                .into_iter()
                .filter(|of| of.1 == "api")
                .map(|of| of.0)
                .collect();
            // One that only the kernel knew by its port may have become the API's by an export: an apply would remove it.
            if !of_api.iter().all(|name| is_named(name)) {
                return;
            }
            let wanted = state(of_api.iter().map(|name| self.service(name)));
            let options = ApplyOptions {
                hold_back: true,
                ..ApplyOptions::default()
            };
            let is_applied = self.apply_with(&wanted, options);
            if is_applied && !leaves && of_api.iter().any(|of| of == name) {
                self.expected.insert(port(name));
            }
        } else if self.has_key && self.file.is_some() {
            self.tell_file();
            self.run();
            self.see();
            self.expect_files();
        }
    }

    /// Expects from now on the ports of the file's services that were not rejected.
    fn expect_files(&mut self) {
        let of_file = self.providers().into_iter().filter(|(_, provider)| provider == "file");
        let of_file: Vec<_> = of_file.filter(|(name, _)| !self.moved.contains(&**name)).collect();
        let of_file = of_file.into_iter();
        self.expected.extend(of_file.map(|(name, _)| port(&name)));
    }

    fn set_key(&mut self, key: bool, by_restart: bool) {
        self.has_key = key;
        if by_restart {
            return self.restart(&BTreeSet::new());
        }
        let now = self.time();
        let settings = self.settings();
        if !key {
            self.core.no_file(now);
        }
        self.core.reload(settings, self.config.clone(), now);
        if key {
            self.tell_file();
            self.run();
        }
    }

    /// Orders an edit and returns true when it was done.
    fn order(&mut self, name: &str, edit: ServiceEdit) -> bool {
        let (reply, mut answer) = oneshot::channel();
        let order = EditOrder {
            name: name.into(),
            edit,
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Edit(order, reply));
        self.run();
        self.see();
        answer.try_recv().unwrap().is_ok()
    }

    /// Orders an edit, and kills the daemon as soon as it has answered.
    fn last_order(&mut self, name: &str, edit: ServiceEdit, losses: &BTreeSet<Loss>) -> Result<Edited, Refused> {
        self.see();
        let (reply, mut answer) = oneshot::channel();
        let order = EditOrder {
            name: name.into(),
            edit,
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Edit(order, reply));
        let mut answered = None;
        self.run_until(|| {
            answered = answer.try_recv().ok();
            answered.is_some()
        });
        self.restart(losses);
        answered.unwrap_or_else(|| answer.try_recv().unwrap())
    }

    fn apply(&mut self, state: &State, prune: bool) -> bool {
        let options = ApplyOptions {
            prune,
            allow_empty: true,
            ..ApplyOptions::default()
        };
        self.apply_with(state, options)
    }

    fn apply_with(&mut self, state: &State, options: ApplyOptions) -> bool {
        let (reply, mut answer) = oneshot::channel();
        let apply = Apply {
            state: Vec::new(),
            origin: "test".into(),
            options,
            by: PEER,
        };
        let state = state.clone();
        self.core.order(Order::Apply(ApplyOrder { apply, state, reply }));
        self.run();
        self.see();
        answer.try_recv().unwrap().is_ok()
    }

    /// Returns the state that `tcpgw export` prints.
    fn export(&self) -> State {
        let list = self.core.services().services.into_iter();
        let chosen = list.filter(|listed| listed.provider != "file");
        State::new(chosen.map(|listed| listed.service)).unwrap()
    }

    fn providers(&self) -> Vec<(String, String)> {
        let list = self.core.services().services.into_iter();
        list.map(|listed| (listed.service.name.to_string(), listed.provider.to_owned()))
            .collect()
    }

    fn run(&mut self) {
        self.run_until(|| false);
    }

    /// Runs until it rests, or that is so.
    fn run_until(&mut self, mut is_enough: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if is_enough() {
                return;
            }
            let now = self.time();
            let mut idle = true;
            let (listening, looking) = (&self.listening(), &mut self.looking);
            let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
                looking.vet(now.instant, || vetted(listening, state, is_known))
            };
            if let Some(news) = self.core.judges_again()
                && self.core.file_news(news, vet, now)
            {
                idle = false;
                self.core.begin(now);
            }
            if self.core.is_judgement_due(now) {
                idle = false;
                self.core.judge_surroundings(vet, now);
            }
            let write = self.core.next_write(vet, now);
            if self.looking.take_ended(now.instant) {
                idle = false;
                self.core.look_ended(now);
            }
            if let Some(write) = write {
                idle = false;
                let written = store_work::perform(&mut self.store, write);
                self.core.written(written, now);
            }
            if let Some(job) = self.core.next_job(now) {
                idle = false;
                let done = perform(self.engine.as_mut().unwrap(), job);
                let outcome = JobOutcome {
                    done,
                    at: self.now,
                    took: Duration::ZERO,
                    table: None,
                    record_trouble: self
                        .engine
                        .as_ref()
                        .and_then(tcpgw::reconcile::engine::Engine::record_trouble),
                };
                self.core.done(outcome, now);
            }
            let probes = self.core.health().due(self.now);
            if probes.is_empty() && idle {
                return;
            }
            for probe in probes {
                self.core.probed(probe.id, health::ProbeOutcome::Accepted, now);
            }
        }
        panic!("it never rests");
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let wakes = [
                self.core.wakes_at(),
                self.core.health().next_at(),
                self.looking.ends_at(),
            ];
            let Some(next) = next_step(wakes, self.now, end) else {
                break;
            };
            self.now = next;
        }
        self.now = end;
        self.run();
    }

    /// Waits until the gateway can be examined, if a look is stuck now.
    fn see(&mut self) {
        if self.looking.is_stuck(self.now) {
            self.wait(self.sees_at - self.now + LISTENERS);
        }
    }

    fn nobody_listens(&mut self) {
        self.listening.clear();
        self.theirs.clear();
        self.see();
        self.wait(LISTENERS);
    }

    /// Returns the ports where clients reach a backend.
    fn served(&mut self) -> BTreeSet<u16> {
        self.reached().into_keys().collect()
    }

    /// Returns the backends that clients reach, by port.
    fn reached(&mut self) -> BTreeMap<u16, BTreeSet<SocketAddr>> {
        let kernel = self.engine.as_mut().unwrap().kernel();
        let mut reached: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (port, client) in (9001..=9004).flat_map(|port| (0..20_u16).map(move |client| (port, client))) {
            let syn = Syn {
                client: ([198, 51, 100, 7], 40_000 + 20 * (port - 9000) + client).into(),
                public: ([192, 0, 2, 1], port).into(),
            };
            if let ConnectOutcome::Backend(backend) = kernel.connect(&syn, client.into()) {
                reached.entry(port).or_default().insert(backend);
            }
        }
        kernel.flows.clear();
        reached
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let reached = self.reached();
        let providers: BTreeMap<String, String> = self.providers().into_iter().collect();
        let all = OF_FILE.into_iter().chain(OF_API);
        for name in all.filter(|name| self.expected.contains(&port(name))) {
            if let Some(reached) = reached.get(&port(name)) {
                let wanted: BTreeSet<SocketAddr> = backends(name).into_iter().collect();
                prop_assert_eq!(reached, &wanted, "backends of {}; {:?}", name, providers);
            } else {
                let may_be_held_back = self.listening.contains(&port(name)) || self.now < self.waits_until;
                prop_assert!(may_be_held_back, "{} is served no more; {:?}", name, providers);
            }
        }
        let taken: Vec<&u16> = self.theirs.iter().filter(|port| reached.contains_key(port)).collect();
        prop_assert!(taken.is_empty(), "local programs lose {:?}", taken);
        Ok(())
    }
}

/// Removes all rows of these sets, as another program would.
fn flush(fake: &mut Fake, is_flushed: impl Fn(SetName) -> bool) {
    let ruleset = fake.ruleset();
    let left = ruleset.sets().iter().filter(|(name, _)| !is_flushed(**name));
    let left = left.map(|(name, rows)| (*name, rows.clone())).collect();
    let left = Ruleset::new(left, ruleset.turns().clone()).with_timeouts(*ruleset.timeouts());
    for step in &plan(&ruleset, &left).steps {
        let commit = Commit {
            generation: fake.generation(),
            mark: FlowMark::default(),
            build: None,
            step,
            forget: &[],
        };
        fake.commit(&commit).unwrap();
    }
}

/// Returns the result of a look at a gateway where local programs listen on these ports.
pub(crate) fn vetted(listening: &BTreeSet<u16>, state: &State, is_known: &IsKnown<'_>) -> Vetted {
    let new = state.services.iter().filter(|service| !is_known(service));
    let taken = new.filter(|service| listening.contains(&service.port.get()));
    let obstacles = taken.map(|service| Obstacle {
        service: service.name.clone(),
        kind: ObstacleKind::PortTaken,
        problem: InputProblem {
            place: format!("service \"{}\"", service.name),
            message: "port is in use".into(),
        },
    });
    Vetted {
        obstacles: obstacles.collect(),
        warnings: Vec::new(),
    }
}
