//! The table `inet tcpgw` as netlink messages: written, read back, and watched.
//!
//! Owns how `nf_tables` is spoken to. Knows no service, and not what a table should hold.

pub mod chains;
mod compare;
pub mod elements;
pub mod expr;
pub(crate) mod feature;
mod message;
pub mod monitor;
pub mod nat_order;
pub(crate) mod nft;
pub mod ownership;
pub(crate) mod sets;
pub mod skeleton;
pub mod survey;
pub mod table;
pub mod transaction;
pub mod watch;
