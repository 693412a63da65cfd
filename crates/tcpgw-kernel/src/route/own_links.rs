//! The gateway's links with the addresses that masquerading would choose on them.

use std::collections::BTreeMap;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};

use super::Routes;
use super::local::own_address;
use super::message::decode;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use tcpgw_core::ruleset::links::{Link, LinkAddress, Links};

impl<A: NetlinkExchange> Routes<A> {
    /// Returns the properties of all links except loopback that the rules depend on.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
    pub fn own_links(&mut self) -> Result<Links, NetlinkError> {
        let addresses = restarting(|| {
            let mut addresses: BTreeMap<u32, Vec<LinkAddress>> = BTreeMap::new();
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            self.dump("list addresses", &request, |message| {
                if let RouteNetlinkMessage::NewAddress(message) = decode(message)?
                    && let Some(address) = for_new_flows(&message)
                {
                    addresses.entry(message.header.index).or_default().push(address);
                }
                Ok(())
            })?;
            Ok(addresses)
        })?;
        let mut links = Links::default();
        for link in self.links()?.into_iter().filter(|link| !link.loopback) {
            let own = addresses.get(&link.index).map_or(&[][..], Vec::as_slice);
            links.insert(link.name, Link::new(link.up, own));
        }
        Ok(links)
    }
}

/// Returns the address if new flows may use it. `IFA_F_SECONDARY` is `IFA_F_TEMPORARY` with IPv6.
fn for_new_flows(message: &AddressMessage) -> Option<LinkAddress> {
    use AddressHeaderFlags as Flag;
    let unfit = Flag::Secondary | Flag::Deprecated | Flag::Tentative | Flag::Dadfailed;
    if message.header.flags.intersects(unfit) || message.header.scope != AddressScope::Universe {
        return None;
    }
    Some(LinkAddress {
        address: own_address(message)?,
        prefix_len: message.header.prefix_len,
    })
}
