//! Checks of routes to backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::super::facts::{CheapFacts, Facts, RoutesByAddress};
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::text::{of_services, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;
use tcpgw_kernel::route::RouteTo;

pub(super) fn to_backends(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(backend_routes) = diagnosis.known("routes to backends", &facts.backend_routes) else {
        return;
    };
    let lost: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(_, way)| way.is_none())
        .map(|(address, _)| address)
        .collect();
    let severity = severity_of_lost(facts, backend_routes);
    let cause = |words: &str| match severity {
        FindingSeverity::Broken => words.to_owned(),
        _ => format!("{words}; the daemon's probes take them out of the balance, and their services have others"),
    };
    if let Some(first) = lost.first() {
        diagnosis.found(
            "backend-without-route",
            severity,
            format!(
                "there is no route to {} of backends, or one that refuses: {}{}",
                count(lost.len(), "address"),
                some(&lost),
                of_services(&facts.services, |backend| lost.binary_search(&&backend.ip()).is_ok())
            ),
            cause("connections that are balanced to them are never answered"),
            Some(advice(format!(
                "see `ip route get {first}` and `ip rule` (`ip -6 rule`), and add a route (`ip route add`), or take the backends \
                 out of the state"
            ))),
        );
    }
    let refused = &facts.refused_ports;
    if !refused.is_empty() {
        diagnosis.found(
            "backend-without-route",
            severity,
            format!(
                "there is no route to {}, or one that refuses: {}{}; other ports there have one",
                count(refused.len(), "backend"),
                some(refused),
                of_services(&facts.services, |backend| refused.contains(&backend))
            ),
            cause("connections that are balanced to them are never answered: a rule of policy routing asks for ports"),
            Some(advice(
                "see `ip rule` (`ip -6 rule`) for rules with `dport`, `sport` or `ipproto`, and correct them",
            )),
        );
    }
    let shared: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(_, way)| way.as_ref().is_some_and(|way| way.shared))
        .map(|(address, _)| address)
        .collect();
    if !shared.is_empty() {
        let is = if shared.len() == 1 { "is that" } else { "are those" };
        diagnosis.found(
            "backend-without-route",
            severity,
            format!(
                "{} of backends {is} of a broadcast or anycast: {}{}",
                count(shared.len(), "address"),
                some(&shared),
                of_services(&facts.services, |backend| shared.binary_search(&&backend.ip()).is_ok())
            ),
            cause("the kernel sends no connection there: a backend must be one host"),
            Some(advice(
                "take the backends out of the state, or correct the masks of the gateway's addresses (`ip address`)",
            )),
        );
    }
    let own: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(_, way)| way.as_ref().is_some_and(|way| way.local))
        .map(|(address, _)| address)
        .collect();
    if !own.is_empty() {
        diagnosis.broken(
            "backend-is-gateway",
            format!(
                "{} of backends belong to the gateway itself: {}{}",
                count(own.len(), "address"),
                some(&own),
                of_services(&facts.services, |backend| own.binary_search(&&backend.ip()).is_ok())
            ),
            "a backend must be another host: the rules would translate its connections back to the gateway",
            advice("take the backends out of the state"),
        );
    }
}

/// Returns the severity of missing routes: clients fail if no daemon takes a backend out of use, or if no backend of
/// one family of a service has a route.
fn severity_of_lost(facts: &CheapFacts, backend_routes: &RoutesByAddress) -> FindingSeverity {
    if !facts.is_probed
        || facts
            .services
            .services
            .iter()
            .any(|service| is_cut_off(service, backend_routes, &facts.refused_ports))
    {
        FindingSeverity::Broken
    } else {
        FindingSeverity::Warning
    }
}

/// Returns whether all active backends of one family are without a route.
fn is_cut_off(service: &ServiceSummary, backend_routes: &RoutesByAddress, refused: &BTreeSet<SocketAddr>) -> bool {
    let leads_nowhere = |way: &Option<RouteTo>| way.as_ref().is_none_or(|way| way.shared);
    let is_lost = |backend: &SocketAddr| {
        backend_routes.get(&backend.ip()).is_some_and(leads_nowhere) || refused.contains(backend)
    };
    let mut families: BTreeMap<Family, bool> = BTreeMap::new();
    for backend in service.active.keys() {
        *families.entry(Family::of(backend.ip())).or_insert(true) &= is_lost(backend);
    }
    families.into_values().any(|lost| lost)
}

/// Reports backends with private addresses to which the default route leads: the route of their own network is usually
/// gone. A router on the clients' side may also know the way to them.
pub(super) fn elsewhere(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let (Ok(backend_routes), Ok(out)) = (&facts.backend_routes, &facts.client_routes) else {
        return;
    };
    let is_default = |address: IpAddr, way: &RouteTo| {
        let far = out.get(&(Family::of(address), None)).and_then(Option::as_ref);
        far.is_some_and(|far| far.gateway.is_some() && far.gateway == way.gateway && far.index == way.index)
    };
    let lost: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(address, way)| is_private(**address) && way.as_ref().is_some_and(|way| is_default(**address, way)))
        .map(|(address, _)| address)
        .collect();
    if let Some(first) = lost.first() {
        diagnosis.warning(
            "backend-by-default-route",
            format!(
                "packets to {} of backends leave by the default route, towards clients: {}{}",
                count(lost.len(), "private address"),
                some(&lost),
                of_services(&facts.services, |backend| lost.binary_search(&&backend.ip()).is_ok())
            ),
            "unless a router there knows the way to them, connections that are balanced to them are never answered",
            advice(format!(
                "see `ip route get {first}`: is the bridge or interface to the containers up, and does it have its address?"
            )),
        );
    }
}

pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    if facts.cheap.routes_left_out > 0 {
        let reason = format!(
            "there are too many: {} were not examined",
            count(facts.cheap.routes_left_out, "address")
        );
        diagnosis.unchecked("routes to all backends", reason);
    }
    neighbours(facts, diagnosis);
    mtu(&facts.cheap, diagnosis);
}

/// Reports backends on the link, or routers to them, that do not answer ARP or neighbour solicitations.
fn neighbours(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(neighbours) = diagnosis.known("neighbours that do not answer", &facts.neighbours) else {
        return;
    };
    let Ok(backend_routes) = &facts.cheap.backend_routes else {
        return;
    };
    let failed = |link: u32, address: IpAddr| {
        neighbours
            .iter()
            .any(|neighbour| neighbour.failed && neighbour.link == link && neighbour.address == address)
    };
    if !neighbours.iter().any(|neighbour| neighbour.failed) {
        return;
    }
    let silent: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(address, way)| {
            way.as_ref()
                .is_some_and(|way| failed(way.index, way.gateway.unwrap_or(**address)))
        })
        .map(|(address, _)| address)
        .collect();
    if !silent.is_empty() {
        diagnosis.warning(
            "backend-unreachable",
            format!(
                "{} of backends, or the routers to them, do not answer on their link: {}{}",
                count(silent.len(), "address"),
                some(&silent),
                of_services(&facts.cheap.services, |backend| silent
                    .binary_search(&&backend.ip())
                    .is_ok())
            ),
            "the container is gone, or its network is down: connections that are balanced to it fail",
            advice("start the containers, or take the backends out of the state"),
        );
    }
}

/// Reports interfaces towards backends with a smaller MTU than that of the clients' interface.
fn mtu(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let (Ok(backend_routes), Ok(out)) = (&facts.backend_routes, &facts.client_routes) else {
        return;
    };
    for family in Family::BOTH {
        let outside = out.get(&(family, None)).and_then(Option::as_ref);
        let Some(outside) = outside.and_then(|way| facts.link(way.index)) else {
            continue;
        };
        let mut narrow: Vec<&str> = backend_routes
            .iter()
            .filter(|(address, _)| Family::of(**address) == family)
            .filter_map(|(_, way)| facts.link(way.as_ref()?.index))
            .filter(|link| link.mtu < outside.mtu)
            .map(|link| link.name.as_str())
            .collect();
        narrow.sort_unstable();
        narrow.dedup();
        if !narrow.is_empty() {
            diagnosis.note(
                "path-mtu",
                format!(
                    "{} towards backends take shorter packets than {} ({} bytes)",
                    some(&narrow),
                    outside.name,
                    outside.mtu
                ),
                "clients learn it by ICMP errors, which tcpgw lets pass; where something on the way drops these, large \
                 transfers hang: clamp the MSS there, or make the MTUs equal",
            );
            return;
        }
    }
}
