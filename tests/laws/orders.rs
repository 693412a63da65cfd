//! The daemon's core with a store on disk and a kernel in memory, under orders: whatever is ordered, and whenever the daemon
//! dies, each order is carried out completely or not at all, acknowledged orders stay, and the kernel agrees with the store.

mod batches;
mod checks;
mod clients;
mod deploys;
mod ending;
mod first_start;

use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tcpgw::control::core::{GatewayFindings, MOST_ORDERS};
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw_kernel::fake::Fail;
use tokio::sync::oneshot::error::TryRecvError;

use self::clients::Orders;
use crate::world;

type World = world::World<Orders>;

const ENDPOINTS: u8 = 8;
const SERVICES: [&str; 2] = ["a", "b"];
/// Time that is longer than any drain, timeout or retry.
const LONG: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
enum Event {
    /// A service is put with these backends.
    Put(usize, Vec<u8>),
    /// The limit of a service changes.
    Patch(usize, u32),
    /// Both services get other backends in one change.
    Batch(Vec<u8>, Vec<u8>),
    /// A service is removed.
    Delete(usize),
    /// Backends of a service get no new connections, or get them again.
    Drain(usize, bool, Index),
    /// A deploy begins with these targets, of which so many have to answer; the flag tells whether it supersedes one that probes.
    Deploy(usize, Vec<u8>, Index, bool),
    /// The last deploy is undone.
    Undo(usize),
    /// New connections are paused for so many seconds, or a pause ends.
    Pause(usize, Option<u64>),
    /// A backend dies, or comes back.
    Flip(u8),
    /// Time passes.
    Wait(u64),
    /// A client connects.
    Connect(usize, u32),
    /// A connection ends.
    End(Index),
    /// The next commit fails.
    Fail(Fail),
    /// The store accepts no writes for a while.
    Full(u64),
    /// The kernel gives no answers about addresses, routes and listeners for so many seconds.
    Stuck(u64),
    /// Everything is torn down.
    Teardown,
    /// The daemon is killed before or after so many of the next writes, and another one starts.
    Kill(usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let which = || 0..SERVICES.len();
    // Most are of one service only.
    let to = || {
        (which(), prop::collection::btree_set(1..=5_u8, 0..4)).prop_map(|(which, set)| {
            let of = |last: u8| if which == 0 { last } else { ENDPOINTS + 1 - last };
            (which, set.into_iter().map(of).collect::<Vec<u8>>())
        })
    };
    let fail = prop::sample::select(vec![
        Fail::Outdated,
        Fail::UnknownBefore,
        Fail::UnknownAfter,
        Fail::Refused(Errno::ENOMEM),
    ]);
    prop_oneof![
        2 => to().prop_map(|(which, to)| Event::Put(which, to)),
        1 => (which(), 1..5_u32).prop_map(|(which, pps)| Event::Patch(which, pps)),
        1 => which().prop_map(Event::Delete),
        2 => (which(), any::<bool>(), any::<Index>()).prop_map(|(which, back, at)| Event::Drain(which, back, at)),
        8 => (to(), any::<Index>(), any::<bool>()).prop_map(|((which, to), min, over)| Event::Deploy(which, to, min, over)),
        2 => (to(), to()).prop_map(|((_, first), (_, second))| Event::Batch(first, second)),
        2 => which().prop_map(Event::Undo),
        1 => (which(), prop::option::of(1..20_u64)).prop_map(|(which, time)| Event::Pause(which, time)),
        3 => (1..=ENDPOINTS).prop_map(Event::Flip),
        5 => (0..40_000_u64).prop_map(Event::Wait),
        4 => (which(), any::<u32>()).prop_map(|(which, pick)| Event::Connect(which, pick)),
        2 => any::<Index>().prop_map(Event::End),
        1 => fail.prop_map(Event::Fail),
        1 => (1..6_u64).prop_map(Event::Full),
        1 => (1..20_u64).prop_map(Event::Stuck),
        1 => Just(Event::Teardown),
        3 => (0..4_usize, any::<bool>()).prop_map(|(after, done)| Event::Kill(after, done)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn orders_happen_as_a_whole_or_not_at_all(
        events in prop::collection::vec((event(), prop::bool::weighted(0.2)), 1..40),
    ) {
        let mut world = World::new();
        for (event, held) in events {
            world.clients.is_held = held;
            world.happen(event);
            if !held {
                world.run();
            }
            world.check()?;
        }
        world.end()?;
    }
}

fn endpoint(last: u8) -> SocketAddr {
    SocketAddr::new([10, 9, 0, last].into(), 80)
}

fn service(which: usize, backends: &[u8]) -> Value {
    json!({
        "name": SERVICES[which], "port": 9001 + which, "drain_timeout": "20s",
        "backends": backends.iter().map(|last| endpoint(*last).to_string()).collect::<Vec<_>>(),
    })
}

/// A change is answered when a teardown comes while it is being written or waits for the kernel.
#[test]
fn a_change_that_a_teardown_overtakes_is_answered() {
    let mut world = World::new();
    let now = world.time();
    world.clients.is_held = true;
    world.happen(Event::Patch(0, 3));
    let write = world
        .core
        .next_write(&mut |_, _| Ok(GatewayFindings::default()), now)
        .unwrap();
    assert!(world.write(write));
    world.happen(Event::Teardown);
    world.happen(Event::Pause(0, Some(5)));
    // The file of last services, which a teardown waits for, is not written either: not for long.
    world.wait(Duration::from_secs(3));
    assert_eq!(world.clients.unanswered(), 0);
    world.clients.is_held = false;
    world.check().unwrap();
    world.end().unwrap();
}

/// A service that is in the store and not yet in the record when the daemon is killed stays the API's, and exists once.
#[test]
fn a_service_that_the_record_does_not_know_yet_stays_the_apis() {
    let mut world = World::new();
    world.file.is_named = true;
    world.happen(Event::Delete(0));
    world.happen(Event::Wait(60_000));
    world.happen(Event::Put(0, vec![1, 2]));
    world.happen(Event::Kill(0, true));
    world.happen(Event::Patch(0, 7));
    world.check().unwrap();
    world.end().unwrap();
}

/// Orders beyond the bound of the queue are refused at once, and all others are carried out.
#[test]
fn orders_beyond_the_bound_are_refused() {
    let mut world = World::new();
    world.run();
    world.clients.edits.clear();
    for _ in 0..=MOST_ORDERS {
        world.edit(0, ServiceEdit::Delete);
    }
    let (_, mut last) = world.clients.edits.pop().expect("the last order");
    let refused = last.try_recv().expect("it is answered at once");
    assert!(
        matches!(&refused, Err(Refused::Busy(text)) if text.contains("256 changes are waiting")),
        "{refused:?}"
    );
    let (_, first) = &mut world.clients.edits[0];
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "it waits");
}
