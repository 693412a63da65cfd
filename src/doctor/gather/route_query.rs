//! Route lookups: addresses, ports, and interfaces that packets come in by.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::route::links::LinkDetails;
use tcpgw_kernel::route::{IncomingRoute, Routes, TcpPorts};

/// Addresses of documentation, which no host has: the route to them is that to remote clients.
pub(super) const FAR: [(Family, IpAddr); 2] = [
    (Family::V4, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    (
        Family::V6,
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    ),
];

/// Port of a client whose packets are looked up: a usual one (`net.ipv4.ip_local_port_range`).
const CLIENT_PORT: u16 = 50_000;

/// An interface by which clients come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientInterface {
    pub(super) family: Family,
    pub(super) index: u32,
    /// Whether a refusal must come from a route: the interface forwards, and accepts packets from remote networks.
    pub(super) is_open: bool,
}

/// Returns whether a refusal of packets from this address by this interface must come from a route: the interface
/// forwards, and accepts packets from there to the gateway itself, which would be refused for their source alone.
pub(super) fn is_open(links: &[LinkDetails], from: IpAddr, index: u32) -> bool {
    let family = Family::of(from);
    let name = links.iter().find(|link| link.index == index).map(|link| &link.name);
    let own = links
        .iter()
        .filter(|link| !link.loopback)
        .flat_map(|link| &link.addresses)
        .find(|(address, _)| Family::of(*address) == family);
    let (Some(name), Some((own, _))) = (name, own) else {
        return false;
    };
    let setting = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/forwarding"));
    let forwards = family == Family::V6 || setting.is_ok_and(|value| value.trim() != "0");
    let takes = || Routes::open().and_then(|mut routes| routes.incoming_route(*own, from, index, None));
    forwards && takes().is_ok_and(|way| matches!(way, IncomingRoute::Goes(_)))
}

/// Ports of backends, by address.
pub(super) type PortsByAddress = BTreeMap<IpAddr, BTreeSet<u16>>;

/// Returns the ports of a client's packet to a backend.
pub(super) const fn ports_to(backend: u16) -> TcpPorts {
    TcpPorts {
        source: CLIENT_PORT,
        destination: backend,
    }
}

/// Returns the ports of a backend's answer.
pub(super) const fn ports_from(backend: u16) -> TcpPorts {
    TcpPorts {
        source: backend,
        destination: CLIENT_PORT,
    }
}

pub(super) fn far(family: Family) -> IpAddr {
    match family {
        Family::V4 => FAR[0].1,
        Family::V6 => FAR[1].1,
    }
}
