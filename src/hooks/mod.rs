//! Hooks: programs that are run, and URLs that are called, when something happens on the gateway.
//!
//! Owns the settings of `[[hooks]]`, which events a hook is told, what it is told, and when it is told again after a failure. Runs
//! nothing and knows no clock: [`queue`] takes the time as a value. The thread that delivers belongs to the daemon.

pub mod queue;
pub mod selector;
pub mod settings;
pub mod signature;
