//! Addresses in messages of neighbours: those of the gateway on a link, and of the hosts there that it needs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::super::super::facts::CheapFacts;
use super::super::super::packet::{NeighbourMessage, NeighbourPacket};
use super::super::forwarding::is_link_local;
use tcpgw_core::ruleset::name::Family;

/// Maximum number of the gateway's addresses on a link that are judged, and of its known neighbours there.
const MOST_OWN: usize = 4;
const MOST_KNOWN: usize = 8;

/// Use of one of the gateway's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressUse {
    /// A service names it.
    Named,
    /// Clients that were served connected to it.
    Met,
    /// The use of the address is not known.
    Unknown,
}

/// The addresses of one link and family.
pub(super) struct LinkAddresses {
    family: Family,
    /// The gateway's addresses for which its neighbours ask.
    own: Vec<(IpAddr, AddressUse)>,
    /// The gateway's link-local addresses (IPv6), with which it asks.
    asking: Vec<IpAddr>,
    /// Backends and routers on the link.
    known: Vec<IpAddr>,
}

impl LinkAddresses {
    /// Maximum number of messages that are judged for a link.
    pub(super) const MOST_PACKETS: usize = 2 * MOST_OWN * (1 + MOST_KNOWN);

    /// Returns the addresses of a link; none unless rules ask for them.
    pub(super) fn of(facts: &CheapFacts, family: Family, index: u32, is_thorough: bool) -> Self {
        let mut found = Self {
            family,
            own: Vec::new(),
            asking: Vec::new(),
            known: Vec::new(),
        };
        if !is_thorough {
            return found;
        }
        let services = &facts.services.services;
        let use_of = |address: &IpAddr| {
            if services.iter().any(|service| service.addresses.contains(address)) {
                AddressUse::Named
            } else if facts.served.iter().any(|client| client.public.ip() == *address) {
                AddressUse::Met
            } else {
                AddressUse::Unknown
            }
        };
        let of_link = facts.link(index).into_iter().flat_map(|link| &link.addresses);
        let of_family = of_link
            .map(|(address, _)| *address)
            .filter(|address| Family::of(*address) == family);
        let (asking, own): (Vec<IpAddr>, Vec<IpAddr>) = of_family.partition(|address| is_link_local(*address));
        found.asking = asking.into_iter().take(MOST_OWN).collect();
        found.own = own.iter().map(|address| (*address, use_of(address))).collect();
        found.own.sort_by_key(|(_, of)| *of == AddressUse::Unknown);
        // Addresses that no service uses may be hidden.
        if services.iter().all(|service| !service.addresses.is_empty())
            && found.own.iter().any(|(_, of)| *of == AddressUse::Named)
        {
            found.own.retain(|(_, of)| *of == AddressUse::Named);
        }
        found.own.truncate(MOST_OWN);
        let by_gateway = facts
            .client_routes
            .iter()
            .flatten()
            .filter(|((of, _), _)| *of == family);
        let by_gateway = by_gateway.filter_map(|(_, way)| way.as_ref());
        let to_backends = facts.backend_routes.iter().flatten();
        let to_backends = to_backends.filter_map(|(address, way)| Some((*address, way.as_ref()?)));
        let to_backends = to_backends.filter(|(address, way)| Family::of(*address) == family && !way.local);
        let known = to_backends
            .map(|(address, way)| (way.index, Some(way.gateway.unwrap_or(address))))
            .chain(by_gateway.map(|way| (way.index, way.gateway)));
        let known: BTreeSet<IpAddr> = known
            .filter(|(of, _)| *of == index)
            .filter_map(|(_, address)| address)
            .collect();
        found.known = known.into_iter().take(MOST_KNOWN).collect();
        found
    }

    /// Returns the ends of messages from or to any host, and the use of the gateway's address that they are about.
    pub(super) fn of_any(&self, kind: (NeighbourMessage, bool)) -> Vec<(NeighbourPacket, AddressUse)> {
        let own = self.own_of(kind).into_iter();
        own.map(|(own, of)| (self.ends(kind, own, None), of)).collect()
    }

    /// Returns the ends of messages from or to each known neighbour, for each of the gateway's addresses.
    pub(super) fn of_neighbours(&self, kind: (NeighbourMessage, bool)) -> Vec<Vec<NeighbourPacket>> {
        let known = self.known.iter().filter(|_| self.knows_neighbours(kind));
        let of = |other: &IpAddr| {
            let own = self.own_of(kind).into_iter();
            own.map(|(own, _)| self.ends(kind, own, Some(*other))).collect()
        };
        known.map(of).collect()
    }

    /// Returns whether such messages have an address of a known neighbour.
    pub(super) fn knows_neighbours(&self, kind: (NeighbourMessage, bool)) -> bool {
        // A neighbour that asks uses its link-local address.
        !self.known.is_empty() && (self.family == Family::V4 || is_of_own_question(kind))
    }

    fn own_of(&self, kind: (NeighbourMessage, bool)) -> Vec<(Option<IpAddr>, AddressUse)> {
        const UNKNOWN: AddressUse = AddressUse::Unknown;
        let own: Vec<(Option<IpAddr>, AddressUse)> = if self.family == Family::V6 && is_of_own_question(kind) {
            self.asking.iter().map(|address| (Some(*address), UNKNOWN)).collect()
        } else {
            self.own.iter().map(|(address, of)| (Some(*address), *of)).collect()
        };
        if own.is_empty() { vec![(None, UNKNOWN)] } else { own }
    }

    /// Returns the ends of a message (RFC 4861, section 7.2; RFC 826).
    fn ends(
        &self,
        (message, comes_in): (NeighbourMessage, bool),
        own: Option<IpAddr>,
        other: Option<IpAddr>,
    ) -> NeighbourPacket {
        let (source, dest) = if comes_in { (other, own) } else { (own, other) };
        let is_asked_of_all = self.family == Family::V6 && message == NeighbourMessage::Request;
        NeighbourPacket {
            message,
            source,
            dest: if is_asked_of_all { dest.map(solicited) } else { dest },
        }
    }
}

/// Returns whether a message belongs to a question of the gateway: its solicitation, or the advertisement that comes back.
const fn is_of_own_question((message, comes_in): (NeighbourMessage, bool)) -> bool {
    matches!(
        (message, comes_in),
        (NeighbourMessage::Request, false) | (NeighbourMessage::Answer, true)
    )
}

/// Returns the solicited-node multicast address (RFC 4291, section 2.7.1).
fn solicited(address: IpAddr) -> IpAddr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(PREFIX | address.to_bits() & 0x00ff_ffff).into(),
        IpAddr::V4(_) => address,
    }
}
