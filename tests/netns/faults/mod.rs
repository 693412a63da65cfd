//! Faults around a run: it is killed, refused, starved of memory or room, or others write at the same time.
//!
//! Each test ends with the same checks: the kernel agrees with the file, and connections that should go on have gone on.

mod calls;
mod flows;
mod kill;
pub(crate) mod random;
mod room;
mod writers;

use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_kernel::conntrack::{Conntrack, Flow};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel, ObservedTable};

use crate::harness::Net;
use crate::harness::client::Spread;
use crate::harness::plan;

/// Time between two short connections of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the ruleset that the kernel should have for a state. No service here is `preserve`, so only links with addresses
/// matter.
fn wanted(state: &Value) -> Ruleset {
    let state = tcpgw_core::model::parse(state.to_string().as_bytes()).expect("a state");
    compile(&state, &plan::gateway_links())
}

/// Returns the table of the kernel, read by this process.
fn held(net: &Net) -> ObservedTable {
    let read = || Linux::open().expect("sockets").observe(FlowMark::default());
    net.within("gateway", read).expect("a table can be read").table
}

/// Asserts that the kernel's table is what the state says, whatever the record says.
#[track_caller]
fn assert_holds(net: &Net, state: &Value, when: &str) {
    let held = held(net);
    assert!(is(&held, state), "{when}: the table differs from the file: {held:?}");
}

/// Returns true when a table agrees with the state.
fn is(held: &ObservedTable, state: &Value) -> bool {
    matches!(held, ObservedTable::Ours { ruleset, .. } if *ruleset == wanted(state))
}

/// Returns the flows of tcpgw that are not of the state.
fn leftovers(net: &Net, state: &Value) -> Vec<String> {
    let known = endpoints(state);
    let mut left = Vec::new();
    let list = || {
        let each = |flow: &Flow| {
            if !known.contains(&(flow.public.port(), flow.backend)) {
                left.push(format!("{flow:?}"));
            }
        };
        Conntrack::open().expect("sockets").for_each(FlowMark::default(), each)
    };
    net.within("gateway", list).expect("flows can be listed");
    left
}

/// Returns the public ports of a state with their backends.
fn endpoints(state: &Value) -> BTreeSet<(u16, SocketAddr)> {
    let port = |of: &Value| u16::try_from(of["port"].as_u64().expect("a port")).expect("a port");
    let endpoint = |backend: &Value| match backend {
        Value::String(endpoint) => endpoint.parse().expect("an endpoint"),
        fields => plan::at(fields["address"].as_str().expect("an address"), port(fields)),
    };
    let of_service = |service: &Value| {
        let backends = service["backends"].as_array().expect("backends");
        let pair = |backend| (port(service), endpoint(backend));
        backends.iter().map(pair).collect::<Vec<_>>()
    };
    let services = state["services"].as_array().expect("a state");
    services.iter().flat_map(of_service).collect()
}

/// Returns services that only fill the table, on ports from `first` on. Their backends do not exist.
fn filler(first: u16, services: u16) -> Vec<Value> {
    let service = |n: u16| {
        let backends = (1..=4).map(|host| format!("10.{}.{}.{host}:80", 9 + n / 256, n % 256));
        serde_json::json!({
            "name": format!("filler-{n}"), "port": first + n, "limit": {"pps": 1000},
            "backends": backends.collect::<Vec<_>>()
        })
    };
    (0..services).map(service).collect()
}

/// Makes short connections at a steady rate while `work` goes on, so that they meet it at every moment and leave the
/// machine to it.
fn paced(net: &Net, to: SocketAddr, work: impl FnOnce()) -> Spread {
    let over = AtomicBool::new(false);
    let more = || {
        thread::sleep(PAUSE);
        !over.load(Relaxed)
    };
    thread::scope(|scope| {
        let client = scope.spawn(|| net.spread_while("client", to, 1, &more));
        let end = SetOnDrop(&over);
        work();
        drop(end);
        client.join().expect("clients do not panic")
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Returns the number of rounds of a long test: the value of its own variable, else `usual` times `TCPGW_SOAK` (1).
pub(crate) fn rounds(variable: &str, usual: usize) -> usize {
    number(variable).unwrap_or_else(|| usual * number("TCPGW_SOAK").unwrap_or(1).max(1))
}

/// Returns the number in an environment variable, if that is set.
pub(crate) fn number(variable: &str) -> Option<usize> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}
