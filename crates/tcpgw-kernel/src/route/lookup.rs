//! Lookup of the routes that the kernel chooses for packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia},
    rule::{RuleAttribute, RuleMessage},
};
use nix::errno::Errno;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use crate::route::Routes;
use crate::route::message::{decode, encode};

/// Number of the protocol TCP (`IPPROTO_TCP`).
const TCP: u8 = 6;

/// Route of packets to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// Number of the interface.
    pub index: u32,
    /// Name of the interface, if it is still there.
    pub name: Option<String>,
    /// Next router; `None`: the address is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the address is one of this machine's own.
    pub local: bool,
    /// Whether the address is shared by several hosts: a broadcast, anycast or multicast address.
    pub shared: bool,
}

/// An entry of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Network of the destinations that the entry is for.
    pub network: IpNet,
    /// Number of the table, as in `ip route show table NUMBER`.
    pub table: u32,
}

/// The ports of a TCP packet, which rules may ask for (`ip rule ipproto tcp dport 80`). The kernel has such rules since 4.17, and
/// takes ports in look-ups since 4.18; older ones ignore them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPorts {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
}

/// Properties of a packet apart from its destination.
#[derive(Clone, Copy, Debug, Default)]
struct RouteQuery {
    /// Source address of the packet.
    from: Option<IpAddr>,
    /// Interface by which the packet comes in; `None`: this machine sends it.
    input: Option<u32>,
    mark: Option<u32>,
    /// Ports of the packet; `None`: the query names no protocol, so that no routing rule for a protocol or a port
    /// applies.
    ports: Option<TcpPorts>,
    /// Flags of the query: with [`RouteFlags::FibMatch`] the answer is the table's entry instead of the route.
    flags: RouteFlags,
}

/// Result of a route lookup for an incoming packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncomingRoute {
    /// The packet is forwarded or delivered by this route.
    Goes(RouteTo),
    /// There is no route, or one that refuses.
    NoRoute,
    /// The packet is dropped, perhaps because of its source address or because its interface does not forward. Its
    /// route is not known.
    Refused,
}

impl<A: NetlinkExchange> Routes<A> {
    /// Returns where packets to `address` go; `None`: there is no route, or one that refuses.
    ///
    /// # Errors
    /// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::request`].
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteTo>, NetlinkError> {
        let mut found = self.route_of(address, None, None)?;
        if let Some(route) = &mut found {
            route.name = self.link_name(route.index)?;
        }
        Ok(found)
    }

    /// Returns where packets to `address` go, as [`Routes::route_to`] does, for packets from one of the gateway's own addresses where
    /// one is given, and for TCP packets with these ports; without the interface's name, which would take another request.
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::request`].
    pub fn route_of(
        &mut self,
        address: IpAddr,
        from: Option<IpAddr>,
        ports: Option<TcpPorts>,
    ) -> Result<Option<RouteTo>, NetlinkError> {
        let question = RouteQuery {
            from,
            ports,
            ..RouteQuery::default()
        };
        match self.look_up(address, question) {
            Err(error) if error.errno().is_some_and(no_route) => Ok(None),
            other => other,
        }
    }

    /// Returns whether several hosts share an address: the broadcast address of an attached network, or an anycast address of routers.
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::request`].
    pub fn is_shared(&mut self, address: IpAddr) -> Result<bool, NetlinkError> {
        Ok(self.route_of(address, None, None)?.is_some_and(|way| way.shared))
    }

    /// Returns where packets go that come in by the interface `input`, from another machine's address. `ip rule iif` applies, and so do
    /// forwarding and the reverse path filter of this interface (`ip_route_input_slow`, IPv4 only).
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::request`].
    pub fn incoming_route(
        &mut self,
        address: IpAddr,
        from: IpAddr,
        input: u32,
        ports: Option<TcpPorts>,
    ) -> Result<IncomingRoute, NetlinkError> {
        self.incoming_route_marked(address, from, input, ports, None)
    }

    /// Returns where packets that bear a mark go (`ip rule fwmark`), as [`Routes::incoming_route`] does.
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::request`].
    pub fn incoming_route_marked(
        &mut self,
        address: IpAddr,
        from: IpAddr,
        input: u32,
        ports: Option<TcpPorts>,
        mark: Option<u32>,
    ) -> Result<IncomingRoute, NetlinkError> {
        let question = RouteQuery {
            from: Some(from),
            input: Some(input),
            mark,
            ports,
            ..RouteQuery::default()
        };
        match self.look_up(address, question) {
            Ok(Some(route)) => Ok(IncomingRoute::Goes(route)),
            Ok(None) => Ok(IncomingRoute::NoRoute),
            Err(error) => match error.errno() {
                Some(Errno::ENODEV | Errno::EXDEV) => Ok(IncomingRoute::Refused),
                // An interface that does not forward, a martian, the reverse path filter; or a route that says so.
                Some(Errno::EHOSTUNREACH | Errno::EINVAL) if address.is_ipv4() => Ok(IncomingRoute::Refused),
                Some(errno) if no_route(errno) => Ok(IncomingRoute::NoRoute),
                _ => Err(error),
            },
        }
    }

    /// Returns the entry by which packets that come in by the interface `input` are sent on, as [`Routes::incoming_route`] tells it; `None` where
    /// they are not.
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::request`].
    pub fn entry_in(
        &mut self,
        address: IpAddr,
        from: IpAddr,
        input: u32,
        ports: Option<TcpPorts>,
    ) -> Result<Option<RouteEntry>, NetlinkError> {
        // IPv6 always tells the table, and refuses to be asked for it.
        let of_family = match address {
            IpAddr::V4(_) => RouteFlags::LookupTable,
            IpAddr::V6(_) => RouteFlags::default(),
        };
        let question = RouteQuery {
            from: Some(from),
            input: Some(input),
            ports,
            flags: RouteFlags::FibMatch | of_family,
            ..RouteQuery::default()
        };
        let mut found = None;
        match self.ask_for_route(address, question, |route| found = entry_found(route, address)) {
            Ok(()) => Ok(found),
            Err(error) if error.errno().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether a rule of policy routing depends on the protocol or the ports of packets, so that packets to one
    /// address may take several routes.
    ///
    /// # Errors
    /// Fails when the kernel cannot be asked, or refuses: see [`NetlinkExchange::dump`].
    pub fn routes_by_port(&mut self) -> Result<bool, NetlinkError> {
        restarting(|| {
            let mut found = false;
            let request = RouteNetlinkMessage::GetRule(RuleMessage::default());
            self.dump("list rules of policy routing", &request, |message| {
                if let RouteNetlinkMessage::NewRule(rule) = decode(message)? {
                    found |= rule.attributes.iter().any(asks_for_ports);
                }
                Ok(())
            })?;
            Ok(found)
        })
    }

    fn look_up(&mut self, address: IpAddr, question: RouteQuery) -> Result<Option<RouteTo>, NetlinkError> {
        let mut found = None;
        self.ask_for_route(address, question, |route| found = route_found(route))?;
        Ok(found)
    }

    fn ask_for_route(
        &mut self,
        address: IpAddr,
        question: RouteQuery,
        mut read: impl FnMut(&RouteMessage),
    ) -> Result<(), NetlinkError> {
        let RouteQuery {
            from,
            input,
            mark,
            ports,
            flags,
        } = question;
        let mut request = RouteMessage::default();
        request.header.flags = flags;
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
        if let Some(ports) = ports {
            request.attributes.extend([
                RouteAttribute::IpProto(TCP),
                RouteAttribute::Sport(ports.source),
                RouteAttribute::Dport(ports.destination),
            ]);
        }
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

/// Reads an entry of a routing table. A default route has no attribute for its network.
fn entry_found(message: &RouteMessage, address: IpAddr) -> Option<RouteEntry> {
    let mut network = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = IpAddr::V4(*address),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => network = IpAddr::V6(*address),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let network = IpNet::new(network, message.header.destination_prefix_length).ok()?;
    Some(RouteEntry { network, table })
}

const fn asks_for_ports(attribute: &RuleAttribute) -> bool {
    matches!(
        attribute,
        RuleAttribute::IpProtocol(_) | RuleAttribute::SourcePortRange(_) | RuleAttribute::DestinationPortRange(_)
    )
}

const fn no_route(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP
    )
}
