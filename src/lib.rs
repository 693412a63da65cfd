//! tcpgw: a TCP gateway that lives in the kernel.
//!
//! Data flows one way: a state file becomes a [`State`](tcpgw_core::model::State), which is compiled to the content of nftables sets,
//! compared with what the kernel holds, and sent as one transaction; flows that no longer belong anywhere are then
//! flushed from conntrack.

pub mod access_lists;
pub mod addon;
pub mod api;
pub mod app_link;
pub mod apply_report;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dashboard;
pub mod date;
pub mod denied;
pub mod doctor;
pub mod hooks;
pub mod lock;
mod locked;
pub mod metrics;
pub mod observe;
pub mod outbound;
mod path_steps;
pub mod preflight;
pub mod probe;
pub mod provider;
pub mod reconcile;
pub mod record;
pub mod run_file;
pub mod secrets;
#[cfg(test)]
mod source_tests;
pub mod state_file;
pub mod store;
pub mod throttle;
pub mod traffic;
pub mod transport;
pub mod unserved;
pub mod up;
pub mod vanished;
pub mod view;
pub mod web;
pub mod writers;
