//! Decisions of tcpgw that need neither the kernel nor a clock nor a file: values in, values out.
//!
//! The text of a state file becomes a [`model::State`], [`ruleset`] turns that into the contents of nftables sets,
//! [`plan`] compares these with what the kernel holds. [`health`] and [`drain`] are state machines that get the time as
//! an argument.
//!
//! Owns every decision that can be made from values alone. Knows nothing of sockets, files, clocks, netlink or tokio.

pub mod container;
pub mod diff;
pub mod drain;
pub mod escape;
pub mod health;
pub mod hex;
pub mod model;
pub mod owner;
pub mod plan;
pub mod problem;
pub mod render;
pub mod ruleset;
pub mod summary;
pub mod words;
