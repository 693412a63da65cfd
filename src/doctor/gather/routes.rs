//! Routes to backends and to clients, and the addresses that the gateway has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::super::checks::forwarding::is_link_local;
use super::super::facts::{ClientRoutes, Effort, Fact, RoutesByAddress};
use super::route_query::{ClientInterface, FAR, PortsByAddress, far, is_open, ports_to};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::links::LinkDetails;
use tcpgw_kernel::route::{IncomingRoute, LocalAddresses, RouteTo, Routes};

/// Returns the local addresses. Addresses that services name are looked up one by one: there are few.
pub(super) fn local(services: &Summary) -> Result<LocalAddresses, NetlinkError> {
    let mut routes = Routes::open()?;
    let mut local = routes.local_addresses()?;
    let named = services.services.iter().flat_map(|service| {
        let sources = &service.settings.source_addresses;
        service.addresses.iter().chain(sources).copied()
    });
    routes.find_local(&mut local, named)?;
    Ok(local)
}

/// Returns the addresses of interfaces whose local routes are gone. tcpgw's rules, the answers to ARP requests and the
/// gateway's own programs ask for the route, and not for the address.
pub(super) fn unrouted(links: &[LinkDetails], effort: Effort) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut routes = Routes::open()?;
    // A port of a VRF has its routes in another table.
    let links = links
        .iter()
        .filter(|link| link.up && !link.loopback && link.master.is_none());
    let addresses = links.flat_map(|link| {
        let in_use = link
            .addresses
            .iter()
            .filter(|(address, _)| !link.tentative.contains(address));
        in_use.map(|(address, _)| *address)
    });
    let mut found = BTreeSet::new();
    for address in addresses
        .filter(|address| !is_link_local(*address))
        .take(effort.most_routes())
    {
        if routes.route_of(address, None, None)?.is_none_or(|way| !way.local) {
            found.insert(address);
        }
    }
    Ok(found)
}

/// Returns the interfaces by which clients come in, as far as they can be known: by the route to remote clients, and
/// by the addresses that services listen on.
pub(super) fn client_links(
    services: &Summary,
    links: &[LinkDetails],
    client_routes: Option<&ClientRoutes>,
) -> Vec<ClientInterface> {
    let by_way = Family::BOTH.into_iter().filter_map(|family| {
        let way = client_routes?.get(&(family, None))?.as_ref()?;
        Some((family, way.index))
    });
    let mut inputs: Vec<(Family, u32)> = by_way.collect();
    let chosen: BTreeSet<IpAddr> = services
        .services
        .iter()
        .flat_map(|service| service.addresses.iter().copied())
        .collect();
    for link in links.iter().filter(|link| !link.loopback) {
        let of_link = link.addresses.iter().filter(|(address, _)| chosen.contains(address));
        inputs.extend(of_link.map(|(address, _)| (Family::of(*address), link.index)));
    }
    let mut distinct = BTreeSet::new();
    inputs.retain(|input| distinct.insert(*input));
    inputs
        .into_iter()
        .map(|(family, index)| ClientInterface {
            family,
            index,
            is_open: is_open(links, far(family), index),
        })
        .collect()
}

/// Returns the backends whose routes are looked up, and the number of addresses that are left out. One backend of an
/// address stands for all of them, unless a rule of policy routing asks for ports.
pub(super) fn routed_backends(services: &Summary, effort: Effort) -> (PortsByAddress, usize) {
    let mut all = PortsByAddress::new();
    for backend in services.services.iter().flat_map(ServiceSummary::backends) {
        all.entry(backend.ip()).or_default().insert(backend.port());
    }
    // Without an answer, more is looked up than would be necessary.
    let by_port = Routes::open().and_then(|mut routes| routes.routes_by_port());
    let most_ports = match by_port {
        Ok(false) => 1,
        Ok(true) | Err(_) => (effort.most_routes() / all.len().max(1)).max(1),
    };
    // The sample is spread over all addresses, since neighbours are mostly alike.
    let step = all.len().div_ceil(effort.most_routes()).max(1);
    let number = all.len();
    let sample: PortsByAddress = all
        .into_iter()
        .step_by(step)
        .map(|(address, ports)| (address, ports.into_iter().take(most_ports).collect()))
        .collect();
    let left_out = number - sample.len();
    (sample, left_out)
}

/// Returns the routes to backends' addresses, and the backends without one at addresses where others have one.
pub(super) fn backend_routes(
    backends: &PortsByAddress,
    inputs: &[ClientInterface],
) -> Result<(RoutesByAddress, BTreeSet<SocketAddr>), NetlinkError> {
    let mut routes = Routes::open()?;
    let (mut backend_routes, mut refused) = (RoutesByAddress::new(), BTreeSet::new());
    for (address, ports) in backends {
        let (mut found, mut without) = (None, Vec::new());
        for port in ports {
            match way(&mut routes, SocketAddr::new(*address, *port), inputs)? {
                Some(way) => drop(found.get_or_insert(way)),
                None => without.push(SocketAddr::new(*address, *port)),
            }
        }
        if found.is_some() {
            refused.extend(without);
        }
        backend_routes.insert(*address, found);
    }
    Ok((backend_routes, refused))
}

/// Returns the route of a packet from a remote network, by the first interface from which there is one. If the kernel
/// does not tell it, this is the route of the gateway's own packets.
fn way(routes: &mut Routes, backend: SocketAddr, inputs: &[ClientInterface]) -> Result<Option<RouteTo>, NetlinkError> {
    let ports = Some(ports_to(backend.port()));
    let address = backend.ip();
    let family = Family::of(address);
    let mut is_known = false;
    for input in inputs.iter().filter(|input| input.family == family) {
        match routes.incoming_route(address, far(family), input.index, ports)? {
            IncomingRoute::Goes(route) => return Ok(Some(route)),
            IncomingRoute::NoRoute => is_known = true,
            IncomingRoute::Refused => is_known |= input.is_open,
        }
    }
    if is_known {
        Ok(None)
    } else {
        routes.route_of(address, None, ports)
    }
}

/// Returns the routes to remote clients, of any packet and from each local address.
pub(super) fn client_routes(local: Option<&LocalAddresses>) -> Fact<ClientRoutes> {
    let mut routes = Routes::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (family, far) in FAR {
        let own = local.into_iter().flat_map(|local| local.addresses.iter().copied());
        // Only IPv4 has a reverse path filter.
        let own = own.filter(|address| family == Family::V4 && address.is_ipv4() && !address.is_loopback());
        for from in own.map(Some).chain([None]) {
            let way = routes.route_of(far, from, None).map_err(|error| error.to_string())?;
            found.insert((family, from), way);
        }
    }
    Ok(found)
}
