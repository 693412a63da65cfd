//! Netlink itself: sockets, messages and attributes, requests and their answers.
//!
//! Owns what every netlink family has in common. Knows no table, flow or route.

pub mod error;
pub mod exchange;
pub mod recorded;
pub mod socket;
pub mod tlv;
