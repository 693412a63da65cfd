//! The gateway's own addresses, links and routes, read from rtnetlink.
//!
//! Requests and answers are coded by `netlink-packet-route`; framing, ends and errors are [`Netlink`]'s.
//!
//! Source: `net/core/rtnetlink.c`, `net/ipv4/devinet.c`, `net/ipv4/fib_frontend.c`, `net/ipv6/route.c`.

pub mod links;
pub mod monitor;
mod own_links;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable as _, NetlinkHeader, NetlinkSerializable as _,
    NlasIterator, ParseableParametrized as _,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use nix::errno::Errno;

use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::{Netlink, NetlinkError, restarting};
use crate::netlink::tlv::{Header, Malformed, Message, Writer};

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u8 = 255;
/// Length of `struct ifinfomsg`, in bytes.
const LINK_HEADER_LEN: usize = 16;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge` and so on; `None` for plain hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is loopback.
    pub loopback: bool,
}

/// Where packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// The number of the interface.
    pub index: u32,
    /// Its name, if it is still there.
    pub name: Option<String>,
    /// The next router, `None` when the address is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the address is one of this machine's own.
    pub local: bool,
    /// Whether it stands for several hosts, or for any: a broadcast, anycast or multicast address.
    pub shared: bool,
}

/// The addresses that a machine takes for its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// One by one.
    pub addresses: BTreeSet<IpAddr>,
    /// Networks of which every address is taken (`ip route add local 10.9.0.0/24 dev lo`).
    pub networks: Vec<IpNet>,
}

impl LocalAddresses {
    /// Whether an address is one of them.
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

/// What the kernel would do with a packet that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// It goes there.
    Goes(RouteTo),
    /// There is no route, or one that refuses.
    NoRoute,
    /// It would be refused, perhaps for where it comes from or because its interface does not forward: where it would go is not
    /// known.
    Refused,
}

/// Access to rtnetlink, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Routes<A = Netlink>(pub A);

impl Routes {
    /// Opens it.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] and [`NetlinkError::Configure`].
    pub fn open() -> Result<Self, NetlinkError> {
        Netlink::route().map(Self)
    }
}

impl<A: NetlinkExchange> Routes<A> {
    /// Returns all addresses that this machine takes for its own: those of its links, and what is in the table `local`.
    /// Rules may lead to local routes in other tables: see [`Routes::find_local`].
    ///
    /// # Errors
    /// The kernel could not be read: those of [`NetlinkExchange::dump`].
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
    /// does. A look-up each.
    ///
    /// # Errors
    /// The kernel refuses the request or its answer cannot be read: those of [`NetlinkExchange::request`].
    pub fn find_local(
        &mut self,
        known: &mut LocalAddresses,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), NetlinkError> {
        for address in addresses {
            if !known.contains(&address) && self.way_to(address, None)?.is_some_and(|way| way.local) {
                known.addresses.insert(address);
            }
        }
        Ok(())
    }

    /// All links whose names are text.
    ///
    /// # Errors
    /// The kernel could not be read: those of [`NetlinkExchange::dump`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        restarting(|| {
            let mut links = Vec::new();
            let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
            self.dump("list links", &request, |message| {
                links.extend(decode_link(message.payload)?);
                Ok(())
            })?;
            Ok(links)
        })
    }

    /// Where packets to `address` go; `None` when there is no route, or one that refuses.
    ///
    /// # Errors
    /// The kernel refuses the request or its answer cannot be read: those of [`NetlinkExchange::request`].
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteTo>, NetlinkError> {
        let mut found = self.way_to(address, None)?;
        if let Some(route) = &mut found {
            route.name = self.link_name(route.index)?;
        }
        Ok(found)
    }

    /// As [`Routes::route_to`], for packets from one of the gateway's own addresses where one is given, and without the
    /// interface's name, which is another question to the kernel.
    ///
    /// # Errors
    /// The kernel could not be asked, or refused: those of [`Netlink::request`].
    pub fn way_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<RouteTo>, NetlinkError> {
        match self.look_up(address, from, None, None) {
            Err(error) if error.errno().is_some_and(no_route) => Ok(None),
            other => other,
        }
    }

    /// Returns whether an address stands for several hosts, or for any: the broadcast address of an attached network, an anycast
    /// address of a router's.
    ///
    /// # Errors
    /// The kernel could not be asked, or refused: those of [`Netlink::request`].
    pub fn is_shared(&mut self, address: IpAddr) -> Result<bool, NetlinkError> {
        Ok(self.way_to(address, None)?.is_some_and(|way| way.shared))
    }

    /// Returns where packets go that come in by the interface `input`, from somebody else's address: `ip rule iif` is heeded,
    /// and so are forwarding and the reverse path filter of that interface (`ip_route_input_slow`, IPv4 only).
    ///
    /// # Errors
    /// The kernel could not be asked, or refused: those of [`Netlink::request`].
    pub fn way_in(&mut self, address: IpAddr, from: IpAddr, input: u32) -> Result<WayIn, NetlinkError> {
        self.way_in_marked(address, from, input, None)
    }

    /// As [`Routes::way_in`], of packets that bear a mark (`ip rule fwmark`).
    ///
    /// # Errors
    /// The kernel could not be asked, or refused: those of [`Netlink::request`].
    pub fn way_in_marked(
        &mut self,
        address: IpAddr,
        from: IpAddr,
        input: u32,
        mark: Option<u32>,
    ) -> Result<WayIn, NetlinkError> {
        match self.look_up(address, Some(from), Some(input), mark) {
            Ok(Some(route)) => Ok(WayIn::Goes(route)),
            Ok(None) => Ok(WayIn::NoRoute),
            Err(error) => match error.errno() {
                Some(Errno::ENODEV | Errno::EXDEV) => Ok(WayIn::Refused),
                // An interface that does not forward, a martian, the reverse path filter; or a route that says so.
                Some(Errno::EHOSTUNREACH | Errno::EINVAL) if address.is_ipv4() => Ok(WayIn::Refused),
                Some(errno) if no_route(errno) => Ok(WayIn::NoRoute),
                _ => Err(error),
            },
        }
    }

    fn look_up(
        &mut self,
        address: IpAddr,
        from: Option<IpAddr>,
        input: Option<u32>,
        mark: Option<u32>,
    ) -> Result<Option<RouteTo>, NetlinkError> {
        let mut found = None;
        self.ask_for_route(address, from, (input, mark), |route| found = route_found(route))?;
        Ok(found)
    }

    fn ask_for_route(
        &mut self,
        address: IpAddr,
        from: Option<IpAddr>,
        (input, mark): (Option<u32>, Option<u32>),
        mut read: impl FnMut(&RouteMessage),
    ) -> Result<(), NetlinkError> {
        let mut request = RouteMessage::default();
        (request.header.address_family, request.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request.attributes.push(RouteAttribute::Destination(address.into()));
        if let Some(from) = from {
            request.header.source_prefix_length = request.header.destination_prefix_length;
            request.attributes.push(RouteAttribute::Source(from.into()));
        }
        request.attributes.extend(input.map(RouteAttribute::Iif));
        request.attributes.extend(mark.map(RouteAttribute::Mark));
        let request = RouteNetlinkMessage::GetRoute(request);
        restarting(|| {
            self.0.request(
                "find a route",
                |writer, seq| encode(writer, seq, NLM_F_REQUEST | NLM_F_ACK, &request),
                |message| {
                    if let RouteNetlinkMessage::NewRoute(route) = decode(message)? {
                        read(&route);
                    }
                    Ok(())
                },
            )
        })
    }

    fn link_name(&mut self, index: u32) -> Result<Option<String>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let request = RouteNetlinkMessage::GetLink(request);
        let mut name = None;
        let answer = restarting(|| {
            self.0.request(
                "find a link",
                |writer, seq| encode(writer, seq, NLM_F_REQUEST | NLM_F_ACK, &request),
                |message| {
                    name = decode_link(message.payload)?.map(|link| link.name);
                    Ok(())
                },
            )
        });
        match answer {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            other => other.map(|()| name),
        }
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

    fn dump(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.0.dump(
            what,
            |writer, seq| encode(writer, seq, NLM_F_REQUEST | NLM_F_DUMP, request),
            each,
        )
    }
}

fn encode(writer: &mut Writer, seq: u32, flags: u16, request: &RouteNetlinkMessage) {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    let open = writer.begin_plain(Header {
        kind: request.message_type(),
        flags,
        seq,
    });
    writer.raw(&body);
    writer.end(open);
}

fn decode(message: &Message<'_>) -> Result<RouteNetlinkMessage, Malformed> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, message.payload)
        .map_err(|_| Malformed::new("an address or a route of an unknown shape"))
}

/// On a link between two addresses `Local` is ours, elsewhere there may be only `Address`.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
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
    // A route to everywhere has no destination; nobody means that all addresses are the gateway's.
    let Some(address) = address else { return };
    let length = message.header.destination_prefix_length;
    match IpNet::new(address, length) {
        Ok(network) if length == network.max_prefix_len() => drop(found.addresses.insert(address)),
        Ok(network) => found.networks.push(network),
        Err(_) => {}
    }
}

fn route_found(message: &RouteMessage) -> Option<RouteTo> {
    let (local, shared) = match message.header.kind {
        RouteType::Local => (true, false),
        RouteType::Unicast => (false, false),
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => (false, true),
        _ => return None,
    };
    let (mut index, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) | RouteAttribute::Via(RouteVia::Inet(address)) => {
                gateway = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address));
            }
            _ => {}
        }
    }
    let gateway = gateway.filter(|gateway| *gateway != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(RouteTo {
        index: index?,
        name: None,
        gateway,
        local,
        shared,
    })
}

const fn no_route(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP
    )
}

/// Attribute by attribute: a link of a kind that the codec reads wrongly must not hide the others. Neither must one whose name is not
/// text, which the kernel allows: `None`.
fn decode_link(payload: &[u8]) -> Result<Option<Link>, Malformed> {
    let odd = Malformed::new("a link of an unknown shape");
    let header = LinkHeader::parse(payload).map_err(|_| odd)?;
    let (mut name, mut kind) = (None, None);
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_LEN..).unwrap_or_default()) {
        match LinkAttribute::parse_with_param(&attribute.map_err(|_| odd)?, AddressFamily::Unspec) {
            Ok(LinkAttribute::IfName(text)) => name = Some(text),
            Ok(LinkAttribute::LinkInfo(infos)) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(name.map(|name| Link {
        index: header.index,
        name,
        kind,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_machine_is_described() {
        let mut routes = Routes::open().unwrap();
        let lo = routes.links().unwrap().into_iter().find(|link| link.loopback).unwrap();
        assert_eq!(lo.kind, None);
        if lo.up {
            let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert!(routes.local_addresses().unwrap().contains(&localhost));
            let route = routes.route_to(localhost).unwrap().unwrap();
            assert_eq!(
                route,
                RouteTo {
                    index: lo.index,
                    name: Some(lo.name),
                    gateway: None,
                    local: true,
                    shared: false,
                }
            );
        }
    }

    proptest! {
        #[test]
        fn decoding_is_total(kind in 16u16..30, payload: Vec<u8>) {
            let _ = decode(&Message { kind, flags: 0, seq: 0, pid: 0, payload: &payload });
            let _ = decode_link(&payload);
        }

        #[test]
        fn decoding_odd_attributes_is_total(
            kind in prop::sample::select(vec![16u16, 20, 24]),
            header in prop::array::uniform16(any::<u8>()),
            attrs in prop::collection::vec((0u16..70, prop::collection::vec(any::<u8>(), 0..48)), 0..6),
        ) {
            let mut writer = Writer::new();
            let length = match kind {
                16 => 16,
                20 => 8,
                _ => 12,
            };
            writer.raw(&header[..length]);
            for (kind, value) in &attrs {
                writer.attr(*kind, value);
                writer.nest(*kind, |w| w.attr(1, value));
            }
            let payload = writer.finish().unwrap();
            let _ = decode(&Message { kind, flags: 0, seq: 0, pid: 0, payload: &payload });
            let _ = decode_link(&payload);
        }
    }
}
