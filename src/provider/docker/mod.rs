//! Docker's containers as a source of states: the engine's API is followed, and each change of a container becomes a whole state.
//!
//! Owns the exchange with the engine, and which of its answers is newer than which event. Labels and what they mean belong to
//! [`tcpgw_core::container`].

mod decode;
mod engine;
mod follow;
mod left_out;
mod lines;
mod news;
mod position;
mod tracker;

pub use self::decode::{read_containers, read_event};
pub use self::follow::{DockerSettings, follow};
pub use self::news::{DockerNews, TrackedContainers};

#[cfg(test)]
mod tests;
