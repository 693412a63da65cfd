//! What holds for every state and every change, on a kernel in memory.

mod plan;
mod reconcile;
mod ruleset;
mod states;
