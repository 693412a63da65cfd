//! The daemon's core over a kernel in memory: after any input, and whenever the daemon dies, the kernel has the right table.

mod balance;
mod checks;
mod flows;
mod input;
mod links;
mod pauses;
mod problems;
mod run_directory;

use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use tcpgw_core::model::State;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_kernel::fake::{Fail, KernelCall};

use crate::state;
use crate::world;

type World = world::World<LastTable>;

/// Last contents of the table, for the case that another program removed it. Nobody gives orders here.
#[derive(Default)]
struct LastTable(Ruleset);

impl world::Clients for LastTable {}

/// Time that is longer than any drain, interval or retry.
const LONG: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
enum Event {
    /// The state file gets other contents.
    File(Box<State>),
    /// A backend dies, or comes back.
    Flip(Index),
    /// Time passes.
    Wait(u64),
    /// A client connects.
    Connect(Index, u32),
    /// A connection ends.
    End(Index),
    /// Another program writes to another table.
    Disturb,
    /// Another program removes the table, with or without a notification to the daemon.
    Remove(bool),
    /// The next such call fails.
    Fail(KernelCall, Fail),
    /// The clock is set forward by so many seconds.
    Clock(i64),
    /// The daemon is killed, and another one starts.
    Restart,
    /// Interfaces come and go.
    Links(u8),
    /// A local program starts or stops listening on a port.
    Listen(Index),
    /// An address of a backend becomes the gateway's own, or stops being so.
    Own(Index),
}

fn event() -> impl Strategy<Value = Event> {
    let call = prop::sample::select(vec![
        KernelCall::Identity,
        KernelCall::Observe,
        KernelCall::Commit,
        KernelCall::Sweep,
        KernelCall::Settle,
    ]);
    let fail = prop::sample::select(vec![
        Fail::Outdated,
        Fail::UnknownBefore,
        Fail::UnknownAfter,
        Fail::Refused(Errno::ENOMEM),
        Fail::Netlink,
    ]);
    prop_oneof![
        3 => state().prop_map(|state| Event::File(Box::new(state))),
        4 => any::<Index>().prop_map(Event::Flip),
        4 => (0..40_000_u64).prop_map(Event::Wait),
        6 => (any::<Index>(), any::<u32>()).prop_map(|(syn, pick)| Event::Connect(syn, pick)),
        2 => any::<Index>().prop_map(Event::End),
        1 => Just(Event::Disturb),
        1 => any::<bool>().prop_map(Event::Remove),
        1 => (call, fail).prop_filter_map("only a commit can be refused so", |(call, fail)| {
            let fits = call == KernelCall::Commit || matches!(fail, Fail::Netlink);
            fits.then_some(Event::Fail(call, fail))
        }),
        1 => (-10_000..10_000_i64).prop_map(Event::Clock),
        1 => Just(Event::Restart),
        2 => (0..4_u8).prop_map(Event::Links),
        2 => any::<Index>().prop_map(Event::Listen),
        1 => any::<Index>().prop_map(Event::Own),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn the_kernel_has_the_table_that_the_file_and_the_probes_demand(
        first in state(), events in prop::collection::vec(event(), 1..40),
    ) {
        let mut world = World::new(first);
        world.run();
        for event in events {
            let before = world.served();
            world.happen(event);
            world.check()?;
            world.check_stays(&before)?;
        }
        world.end()?;
    }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, last], 3000))
}

fn file(services: &[(&str, u16, &[u8])]) -> State {
    let services = services.iter().map(|(name, port, backends)| {
        let backends: Vec<String> = backends.iter().map(|last| at(*last).to_string()).collect();
        json!({"name": name, "port": port, "backends": backends})
    });
    let state = json!({"version": 1, "services": services.collect::<Vec<_>>()});
    tcpgw_core::model::parse(state.to_string().as_bytes()).unwrap()
}
