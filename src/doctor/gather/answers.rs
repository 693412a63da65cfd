//! Routes of answers of backends to clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::facts::{AnswerRoutes, LostAnswers, RoutesByAddress, ServedClient};
use super::route_query::{PortsByAddress, far, is_open, ports_from};
use super::served::RememberedPair;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::links::LinkDetails;
use tcpgw_kernel::route::{IncomingRoute, Routes};

/// An address in the networks of each regional registry. Gateways sometimes refuse the address of documentation with
/// other networks that have no hosts. Only routes to these addresses are looked up: no packet is sent.
const FAR4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(23, 0, 2, 1),
    Ipv4Addr::new(62, 0, 2, 1),
    Ipv4Addr::new(101, 0, 2, 1),
    Ipv4Addr::new(154, 0, 2, 1),
    Ipv4Addr::new(190, 0, 2, 1),
    Ipv4Addr::new(213, 0, 2, 1),
];
const FAR6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0x2400, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2800, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2c00, 0, 0, 0, 0, 0, 0, 1),
];

/// Returns addresses of remote networks: that of documentation first.
pub(super) fn far_away(family: Family) -> Vec<IpAddr> {
    let more: Vec<IpAddr> = match family {
        Family::V4 => FAR4.map(IpAddr::from).into(),
        Family::V6 => FAR6.map(IpAddr::from).into(),
    };
    std::iter::once(far(family)).chain(more).collect()
}

/// Routes of answers.
#[derive(Debug, Default)]
pub(super) struct FoundAnswers {
    pub(super) backend_routes: AnswerRoutes,
    pub(super) lost: LostAnswers,
    pub(super) served: Vec<ServedClient>,
}

/// Looks up the routes of answers: to remote clients, and to clients that were served.
pub(super) fn answers(
    backend_routes: &RoutesByAddress,
    ports: &PortsByAddress,
    links: &[LinkDetails],
    served: &[RememberedPair],
) -> Result<FoundAnswers, NetlinkError> {
    let mut asking = Asking {
        routes: Routes::open()?,
        links,
        open: BTreeMap::new(),
    };
    let mut found = AnswerRoutes::new();
    let mut lost = LostAnswers::default();
    let mut away: BTreeMap<Family, Vec<(IpAddr, bool)>> = BTreeMap::new();
    for family in Family::BOTH {
        away.insert(family, asking.far_away(family)?);
    }
    for (backend, way) in backend_routes {
        let family = Family::of(*backend);
        let Some(way) = way.as_ref().filter(|way| !way.local) else {
            continue;
        };
        let of_address = ports.get(backend).into_iter().flatten();
        for backend in of_address.map(|port| SocketAddr::new(*backend, *port)) {
            // The gateway's own packets have a route there, and answers have none.
            let mut is_lost = false;
            let mut out = None;
            for (far, goes) in &away[&family] {
                match asking.way(*far, backend, way.index)? {
                    IncomingRoute::Goes(route) => {
                        out = Some(route);
                        break;
                    }
                    IncomingRoute::NoRoute => {
                        is_lost |= goes;
                        found.entry((family, way.index)).or_insert(None);
                    }
                    IncomingRoute::Refused => {}
                }
            }
            if out.is_some() {
                found.insert((family, way.index), out);
            } else if is_lost {
                lost.backends.insert(backend);
            }
        }
    }
    let is_own = |address: IpAddr| {
        let mut own = links.iter().flat_map(|link| &link.addresses);
        own.any(|(own, _)| *own == address)
    };
    let mut clients = Vec::new();
    for known in served {
        let (client, backend) = (known.served.client.ip(), known.served.backend);
        let of_service = known.served.of_service();
        let Some(Some(way)) = backend_routes.get(&backend.ip()) else {
            continue;
        };
        // Programs of the gateway are clients, too.
        if is_own(client) {
            continue;
        }
        let mut link = None;
        match asking.way(client, backend, way.index)? {
            // The kernel takes packets with such a source for forged ones.
            IncomingRoute::Goes(route) if route.local => drop(lost.clients.insert(of_service)),
            IncomingRoute::Goes(route) => {
                link = Some(route.index);
                lost.reached.insert(of_service);
            }
            IncomingRoute::NoRoute => drop(lost.clients.insert(of_service)),
            IncomingRoute::Refused => {}
        }
        clients.push(ServedClient {
            client: known.served.client,
            public: known.served.public,
            backend,
            link,
            is_recent: known.is_recent,
            is_banned: known.is_banned,
        });
    }
    Ok(FoundAnswers {
        backend_routes: found,
        lost,
        served: clients,
    })
}

/// State of the look-up of routes.
struct Asking<'a> {
    routes: Routes,
    links: &'a [LinkDetails],
    /// Whether a refusal on this interface must come from a route.
    open: BTreeMap<(Family, u32), bool>,
}

impl Asking<'_> {
    /// Returns addresses of remote networks, each with whether the gateway's own packets have a route there.
    fn far_away(&mut self, family: Family) -> Result<Vec<(IpAddr, bool)>, NetlinkError> {
        far_away(family)
            .into_iter()
            .map(|far| Ok((far, self.routes.route_of(far, None, None)?.is_some())))
            .collect()
    }

    /// Returns the route of a backend's answer that comes in by this interface. A blackhole looks like a reverse path
    /// filter, and an unreachable route like an interface that does not forward, unless both are known not to be the
    /// cause.
    fn way(&mut self, client: IpAddr, backend: SocketAddr, index: u32) -> Result<IncomingRoute, NetlinkError> {
        let ports = Some(ports_from(backend.port()));
        let backend = backend.ip();
        let way = self.routes.incoming_route(client, backend, index, ports)?;
        if way != IncomingRoute::Refused {
            return Ok(way);
        }
        let links = self.links;
        let key = (Family::of(backend), index);
        let is_open = *self.open.entry(key).or_insert_with(|| is_open(links, backend, index));
        Ok(if is_open {
            IncomingRoute::NoRoute
        } else {
            IncomingRoute::Refused
        })
    }
}
