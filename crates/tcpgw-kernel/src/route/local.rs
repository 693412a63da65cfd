//! The addresses that this machine takes for its own.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use nix::errno::Errno;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use crate::route::Routes;
use crate::route::message::decode;

/// Number of the routing table `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u8 = 255;

/// The addresses that a machine takes for its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Single addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Networks of which every address is taken (`ip route add local 10.9.0.0/24 dev lo`).
    pub networks: Vec<IpNet>,
}

impl LocalAddresses {
    /// Returns whether an address is one of them.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address) || self.networks.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<IpAddr> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            networks: Vec::new(),
        }
    }
}

impl<A: NetlinkExchange> Routes<A> {
    /// Returns all addresses that this machine takes for its own: those of its links, and what is in the table `local`.
    /// Rules may lead to local routes in other tables: see [`Routes::find_local`].
    ///
    /// # Errors
    /// Fails when the kernel refuses a request or its answer cannot be read: see [`NetlinkExchange::dump`].
    pub fn local_addresses(&mut self) -> Result<LocalAddresses, NetlinkError> {
        restarting(|| {
            let mut found = LocalAddresses::default();
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            self.dump("list addresses", &request, |message| {
                if let RouteNetlinkMessage::NewAddress(address) = decode(message)? {
                    found.addresses.extend(own_address(&address));
                }
                Ok(())
            })?;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                self.local_routes(family, &mut found)?;
            }
            Ok(found)
        })
    }

    /// Adds those of `addresses` that are not known to be local, and whose route says that they are, as `fib daddr type local`
    /// does. Each takes a look-up.
    ///
    /// # Errors
    /// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::request`].
    pub fn find_local(
        &mut self,
        known: &mut LocalAddresses,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), NetlinkError> {
        for address in addresses {
            if !known.contains(&address) && self.route_of(address, None, None)?.is_some_and(|way| way.local) {
                known.addresses.insert(address);
            }
        }
        Ok(())
    }

    fn local_routes(&mut self, family: AddressFamily, found: &mut LocalAddresses) -> Result<(), NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.header.table = LOCAL_TABLE;
        request.header.kind = RouteType::Local;
        let answer = self.dump(
            "list local routes",
            &RouteNetlinkMessage::GetRoute(request),
            |message| {
                if let RouteNetlinkMessage::NewRoute(route) = decode(message)? {
                    own_route(&route, found);
                }
                Ok(())
            },
        );
        match answer {
            // No such family or table: then nothing is in it.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

/// Returns this machine's address: `Local` on a point-to-point link, where `Address` is the other end's; elsewhere there may be only
/// `Address`.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => own = Some(*address),
            _ => {}
        }
    }
    own
}

fn own_route(message: &RouteMessage, found: &mut LocalAddresses) {
    if message.header.table != LOCAL_TABLE || message.header.kind != RouteType::Local {
        return;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    // A route to all destinations has no attribute for it; it does not mean that all addresses are the gateway's.
    let Some(address) = address else { return };
    let length = message.header.destination_prefix_length;
    match IpNet::new(address, length) {
        Ok(network) if length == network.max_prefix_len() => drop(found.addresses.insert(address)),
        Ok(network) => found.networks.push(network),
        Err(_) => {}
    }
}
