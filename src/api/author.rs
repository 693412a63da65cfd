//! Author of orders that come through a listener over TCP.

use std::net::IpAddr;

use crate::control::request::Peer;

/// Returns the daemon itself, which orders for a client that it knows by its credentials. `browser`: the client's address, if it
/// orders through the dashboard.
pub(super) fn daemon(browser: Option<IpAddr>) -> Peer {
    Peer {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        pid: None,
        browser,
    }
}
