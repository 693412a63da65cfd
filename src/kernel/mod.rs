//! What is asked of the kernel, and how: netlink sockets, connection tracking, addresses and routes, listeners.
//!
//! Owns the wire. It must not know services, files or policies: it takes and returns plain values.

pub mod conntrack;
pub mod expr;
pub mod ffi;
pub mod listeners;
pub mod route;
pub mod socket;
pub mod tlv;
