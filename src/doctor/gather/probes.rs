//! Comparison of the routes of failing probes with those of clients' packets.
//!
//! Probes are the gateway's own packets: a rule for an incoming interface (`ip rule iif`, ip-rule(8)) does not apply
//! to them, nor do the tables of VRFs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::facts::{FailingProbes, MisroutedProbe};
use super::answers::far_away;
use super::route_query::{ClientInterface, ports_to};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::links::LinkDetails;
use tcpgw_kernel::route::{IncomingRoute, LocalAddresses, RouteEntry, RouteTo, Routes};

/// Maximum number of backends that are examined, each with some ten look-ups of routes.
const MOST_BACKENDS: usize = 64;
/// Maximum number of interfaces by which clients may come in that are examined.
const MOST_INPUTS: usize = 8;

/// Looks up the routes of failing probes and those of clients' packets to the same addresses, and returns the probes
/// whose routes differ.
pub(super) fn misrouted(
    failing: &FailingProbes,
    inputs: &[ClientInterface],
    links: &[LinkDetails],
    local: &LocalAddresses,
) -> Result<Vec<MisroutedProbe>, NetlinkError> {
    let mut found = Vec::new();
    if failing.is_empty() {
        return Ok(found);
    }
    let mut routes = Routes::open()?;
    for (backend, sources) in failing.iter().take(MOST_BACKENDS) {
        let ports = Some(ports_to(backend.port()));
        let forwarded = routes_of_clients(&mut routes, *backend, inputs, links)?;
        let backend = backend.ip();
        let Some(first) = forwarded.first() else { continue };
        // A probe whose source address the gateway does not have uses the one that the route selects.
        let own = |source: &IpAddr| Some(*source).filter(|source| local.contains(source));
        let mut sources: BTreeSet<Option<IpAddr>> = sources.iter().map(own).collect();
        if sources.is_empty() {
            sources.insert(None);
        }
        for source in sources {
            let way = routes.route_of(backend, source, ports)?;
            let is_same = |of: &ClientRoute| {
                way.as_ref()
                    .is_some_and(|way| (way.index, way.gateway) == (of.way.index, of.way.gateway))
            };
            if !forwarded.iter().any(is_same) {
                let entry = routes.entry_in(backend, first.from, first.input, ports)?;
                found.push(MisroutedProbe {
                    backend,
                    source,
                    way,
                    clients: first.way.clone(),
                    entry: entry.map(|entry| careful(entry, backend, links)),
                });
                break;
            }
        }
    }
    Ok(found)
}

/// Route of a client's packets.
struct ClientRoute {
    from: IpAddr,
    input: u32,
    way: RouteTo,
}

/// Returns the routes of packets from several remote addresses: of several routes of the same weight the kernel
/// chooses one by the addresses.
fn routes_of_clients(
    routes: &mut Routes,
    backend: SocketAddr,
    inputs: &[ClientInterface],
    links: &[LinkDetails],
) -> Result<Vec<ClientRoute>, NetlinkError> {
    let ports = Some(ports_to(backend.port()));
    let backend = backend.ip();
    let family = Family::of(backend);
    let mut indexes: Vec<u32> = inputs
        .iter()
        .filter(|input| input.family == family)
        .map(|input| input.index)
        .collect();
    if indexes.is_empty() {
        // The address of documentation may be refused.
        for far in far_away(family) {
            indexes.extend(routes.route_of(far, None, None)?.map(|way| way.index));
        }
    }
    if indexes.is_empty() {
        // Only a rule for some interface knows a route to remote clients, so clients may come in anywhere.
        let is_of_family = |(address, _): &(IpAddr, u8)| Family::of(*address) == family;
        let all = links.iter().filter(|link| link.up && !link.loopback);
        indexes.extend(
            all.filter(|link| link.addresses.iter().any(is_of_family))
                .map(|link| link.index),
        );
    }
    let mut distinct = BTreeSet::new();
    indexes.retain(|index| distinct.insert(*index));
    let mut found: Vec<ClientRoute> = Vec::new();
    for input in indexes.into_iter().take(MOST_INPUTS) {
        for from in far_away(family) {
            let IncomingRoute::Goes(way) = routes.incoming_route(backend, from, input, ports)? else {
                continue;
            };
            let is_known = |known: &ClientRoute| known.way == way;
            if way.local || way.shared {
                return Ok(Vec::new());
            }
            // A packet that leaves where it came in is not one of a client outside.
            if way.index != input && !found.iter().any(is_known) {
                found.push(ClientRoute { from, input, way });
            }
        }
    }
    Ok(found)
}

/// Restricts the network of a rule for the gateway's own packets: it must not include networks that the gateway is
/// attached to, nor all addresses.
fn careful(entry: RouteEntry, backend: IpAddr, links: &[LinkDetails]) -> RouteEntry {
    let mut own = links.iter().flat_map(|link| &link.addresses);
    if entry.network.prefix_len() == 0 || own.any(|(address, _)| entry.network.contains(address)) {
        let network = backend.into();
        return RouteEntry { network, ..entry };
    }
    entry
}
