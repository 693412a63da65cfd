//! The local API: HTTP and JSON over a unix socket, for the command line, scripts and control planes of this machine.
//!
//! Asks the daemon's loop through a bounded queue, and reads the kernel by itself. Every client that may connect may do all of
//! it: the socket's mode and group decide who may. Everything that a client can make grow is bounded, see [`limits`].

pub mod answers;
mod author;
mod body;
pub mod client;
pub mod descriptors;
mod error;
mod events;
pub mod hints;
mod json;
mod kernel_queries;
mod lanes;
pub mod limits;
pub mod listener;
mod loop_request;
mod media_type;
mod openapi;
pub mod orders;
mod params;
pub mod provider;
mod routes;
mod server;
pub mod settings;
mod shared;
pub mod socket;
mod stall;
pub mod web;

pub use self::error::{ApiError, NOT_FOUND};
pub use self::kernel_queries::OpenKernel;
pub use self::limits::Times;
pub use self::openapi::OPENAPI;
pub use self::routes::{RouteAccess, routes};
pub use self::server::serve;
pub use self::socket::{Socket, SocketError, SocketSettings};
