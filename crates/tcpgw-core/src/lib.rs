//! What tcpgw decides without the kernel, a clock or a file: values in, values out.
//!
//! A state file's text becomes a [`model::State`], [`ruleset`] turns that into the contents of nftables sets, [`plan`] compares these
//! with what the kernel holds. [`health`] and [`drain`] are state machines that are told the time.
//!
//! Owns every decision that can be made from values alone. Knows nothing of sockets, files, clocks, netlink or tokio.

pub mod diff;
pub mod drain;
pub mod escape;
pub mod health;
pub mod model;
pub mod owner;
pub mod plan;
pub mod problem;
pub mod render;
pub mod ruleset;
pub mod summary;
