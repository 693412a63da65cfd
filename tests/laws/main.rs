//! Laws that hold for every state and every change, on a kernel in memory.

mod absence;
mod addon;
mod clients;
mod daemon;
mod docker;
#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;
mod orders;
mod plan;
mod reconcile;
mod recorded;
mod ruleset;
mod states;
mod world;
mod written;

use proptest::prelude::*;
use tcpgw_core::model::State;

/// Generates any valid state.
fn state() -> impl Strategy<Value = State> {
    states::text().prop_map(|text| states::parse(&text))
}
