//! Decisions of the daemon: desired services, contents of the kernel, execution of orders, and views of all this. It
//! takes values and the time, and returns jobs.
//!
//! It owns membership, orders, deploys, events and requests. It uses no thread, socket, file or clock: these are
//! [`daemon`](crate::daemon)'s.

pub(crate) mod adopt;
pub(crate) mod claimed;
pub mod core;
pub mod draining;
pub mod event_tap;
pub mod events;
pub mod handshakes;
pub mod job;
pub mod membership;
pub mod name;
pub mod observation;
pub mod obstacle;
pub mod own_listener;
pub mod reply;
pub mod request;
pub mod storage;
pub mod turned_away;
pub(crate) mod unconfirmed;
