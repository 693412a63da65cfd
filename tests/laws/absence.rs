//! A service that was served stays served until a provider or an order removes it, whichever files, keys, stores and records are
//! lost, in whatever order.

mod expected;
mod fences;
mod held_back;
mod input;
mod losses;
mod orders;
mod orphans;
mod record;
mod services;
mod state_file;
mod store;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use self::expected::Expected;
use self::losses::Loss;
use self::services::{OF_API, OF_FILE};
use crate::world;

type World = world::World<Expected>;

/// Time within which the record and the file of last services have been written.
const WRITTEN: Duration = Duration::from_secs(3);

/// Time that is longer than the pause between two readings of listeners.
const LISTENERS: Duration = Duration::from_secs(6);

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
        Loss::StoreForeign,
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
    fn services_are_served_until_a_provider_or_an_order_removes_them(events in prop::collection::vec(event(), 1..16)) {
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
