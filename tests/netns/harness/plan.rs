//! The address plan of `vagrant/topology`, for the tests.

use std::net::{IpAddr, SocketAddr};

use tcpgw_core::ruleset::links::{Link, Links};

/// The four containers that are backends.
pub(crate) const BACKENDS: [&str; 4] = ["b1", "b2", "b3", "b4"];

/// The gateway's public addresses, one per family, and its second ones.
pub(crate) const PUBLIC: [&str; 2] = ["203.0.113.1", "2001:db8:1::1"];
pub(crate) const PUBLIC_2: [&str; 2] = ["203.0.113.2", "2001:db8:1::2"];
/// Addresses of the gateway on the containers' bridge.
pub(crate) const INTERNAL: [&str; 2] = ["10.2.0.1", "fd00:2::1"];
/// Addresses that no host has. The gateway sends packets for them to the client, where they end.
pub(crate) const NOBODY: [&str; 2] = ["192.0.2.7", "2001:db8:dead::7"];

/// Returns the IPv4 and the IPv6 address of a host; the gateway's are its public ones.
pub(crate) fn addresses(host: &str) -> [IpAddr; 2] {
    let text = match host {
        "client" => ["203.0.113.10", "2001:db8:1::10"],
        "gateway" => PUBLIC,
        "b1" => ["10.2.0.11", "fd00:2::11"],
        "b2" => ["10.2.0.12", "fd00:2::12"],
        "b3" => ["10.2.0.13", "fd00:2::13"],
        "b4" => ["10.2.0.14", "fd00:2::14"],
        "peer" => ["10.2.0.20", "fd00:2::20"],
        "routed" => ["198.51.100.20", "2001:db8:3::20"],
        other => panic!("no host is called {other}"),
    };
    text.map(ip)
}

/// Returns the gateway's links that have addresses of their own. The outer one has two addresses of IPv6 in one network.
pub(crate) fn gateway_links() -> Links {
    let mut links = Links::default();
    for (name, v4, v6) in [
        ("br0", INTERNAL[0], Some(INTERNAL[1])),
        ("ext", PUBLIC[0], None),
        ("far", "198.51.100.1", Some("2001:db8:3::1")),
    ] {
        let link = Link {
            up: true,
            source_v4: v4.parse().ok(),
            source_v6: v6.and_then(|text| text.parse().ok()),
        };
        links.insert(name.into(), link);
    }
    links
}

/// Returns the nth of the client's many addresses, as IPv4 and as IPv6.
pub(crate) fn crowd(n: u16) -> [IpAddr; 2] {
    let [high, low] = n.to_be_bytes();
    [ip(&format!("198.18.{high}.{low}")), ip(&format!("2001:db8:f::{n:x}"))]
}

/// Parses an address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Returns a socket address of this address and port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}
