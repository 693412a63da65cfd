//! Messages of rtnetlink about addresses, links and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::route::Routes;

/// Checks that any answers are read or give an error.
pub fn check(bytes: &[u8]) {
    let routes = || Routes(RecordedAnswers::new(bytes));
    told(routes().links());
    told(routes().local_addresses());
    told(routes().own_links());
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        told(routes().route_to(address));
    }
}

fn told<T>(outcome: Result<T, NetlinkError>) {
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
}
