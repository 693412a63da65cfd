//! What the daemon decides: which services there shall be, what the kernel should hold, which orders are carried out, and what is
//! told of it. Values and the time come in, what is to be done goes out.
//!
//! Owns membership, orders, deploys, events and requests. Knows no thread, socket, file or clock: these are
//! [`daemon`](crate::daemon)'s.

pub(crate) mod adopt;
pub(crate) mod claimed;
pub mod core;
pub mod draining;
pub mod events;
pub mod handshakes;
pub mod job;
pub mod membership;
pub mod observation;
pub mod obstacle;
pub mod request;
pub mod storage;
