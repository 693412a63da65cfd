//! Clients that may open connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::problem::InputProblem;
use super::{Access, Service};

impl Access {
    /// Returns whether any client of the address family of `address` may connect.
    fn admits_any_like(&self, address: IpAddr) -> bool {
        let is_like = |network: &&IpNet| network.addr().is_ipv4() == address.is_ipv4();
        // Networks are aggregated, so that what several cover together is one.
        let is_denied = |network: &IpNet| self.deny.iter().any(|denied| denied.contains(network));
        match &self.allow {
            Some(allow) => allow.iter().filter(is_like).any(|network| !is_denied(network)),
            None => !is_denied(&everyone_like(address)),
        }
    }
}

/// Returns the network of all addresses of the family of `address`.
fn everyone_like(address: IpAddr) -> IpNet {
    let unspecified = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new_assert(unspecified, 0)
}

/// Returns a warning if no client may connect to any backend of the service.
pub(super) fn warning(service: &Service) -> Option<InputProblem> {
    let mut backends = service
        .backends
        .iter()
        .map(|backend| backend.endpoint.address)
        .peekable();
    backends.peek()?;
    if backends.any(|address| service.access.admits_any_like(address)) {
        return None;
    }
    Some(InputProblem {
        place: format!("service \"{}\"", service.name),
        message: "no client can connect: `allow` and `deny` together leave no address of the family (IPv4 or IPv6) of any backend; to \
                  close a service on purpose, take its backends away"
            .into(),
    })
}
