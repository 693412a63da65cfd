//! The gateway's own addresses, links and routes, read from rtnetlink.
//!
//! Requests and answers are coded by `netlink-packet-route`; framing, ends and errors are [`Netlink`]'s.
//!
//! Source: `net/core/rtnetlink.c`, `net/ipv4/devinet.c`, `net/ipv4/fib_frontend.c`, `net/ipv6/route.c`.

mod link_list;
pub mod links;
mod local;
mod lookup;
mod message;
pub mod monitor;
mod own_links;
#[cfg(test)]
mod tests;

pub use self::link_list::LinkEntry;
pub use self::local::LocalAddresses;
pub use self::lookup::{IncomingRoute, RouteEntry, RouteTo, TcpPorts};
use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;

/// Access to rtnetlink, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Routes<A = Netlink>(pub A);

impl Routes {
    /// Opens a socket of rtnetlink.
    ///
    /// # Errors
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it cannot be set
    /// up.
    pub fn open() -> Result<Self, NetlinkError> {
        Netlink::route().map(Self)
    }
}
