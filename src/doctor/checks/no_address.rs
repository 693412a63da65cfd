//! Checks whether the gateway has an address that clients from outside can connect to, and a link by which they come
//! in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, advice};
use super::forwarding::is_link_local;
use super::text::{named_service, quoted, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_core::words::count;
use tcpgw_kernel::route::links::LinkDetails;

/// Returns the families in which the gateway has an address that clients from outside can connect to, if it is known.
pub(in crate::doctor) fn outer_families(facts: &CheapFacts) -> Option<BTreeSet<Family>> {
    let (Ok(links), Ok(local)) = (&facts.links, &facts.local) else {
        return None;
    };
    let inner = inner_links(facts);
    // The kernel keeps the addresses of a link that is down.
    let not_outer: BTreeSet<IpAddr> = links
        .iter()
        .filter(|link| inner.contains(&link.index) || !link.up)
        .flat_map(|link| link.addresses.iter().map(|(address, _)| *address))
        .collect();
    let is_outer =
        |address: &IpAddr| !address.is_loopback() && !is_link_local(*address) && !not_outer.contains(address);
    let addresses = local.addresses.iter().copied().filter(is_outer);
    let networks = local.networks.iter().map(ipnet::IpNet::addr);
    let networks = networks.filter(|address| !address.is_loopback());
    Some(addresses.chain(networks).map(Family::of).collect())
}

/// Reports services that listen on all addresses when the gateway has lost its only address of a family for clients, and
/// has others.
pub(super) fn lost_families(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(outer) = outer_families(facts) else { return };
    for family in facts.lost_families.iter().filter(|family| !outer.contains(family)) {
        let of_family = |service: &&ServiceSummary| {
            let families = || service.backends().map(|backend| Family::of(backend.ip()));
            let has_other = families().any(|family| outer.contains(&family));
            service.addresses.is_empty() && has_other && families().any(|of| of == *family)
        };
        let cut_off: Vec<String> = facts
            .services
            .services
            .iter()
            .filter(of_family)
            .map(named_service)
            .collect();
        if cut_off.is_empty() {
            continue;
        }
        let protocol = family.protocol_name();
        diagnosis.broken(
            "no-public-address",
            format!(
                "the gateway has lost its only {protocol} address for clients, and these services on all addresses have {protocol} backends: {}",
                some(&cut_off)
            ),
            format!("{protocol} clients have no address of this gateway to which they can connect"),
            advice("see `ip address`, and give the gateway the address again; the daemon reports the loss for an hour"),
        );
    }
}

/// Reports services that listen on all addresses when the gateway has no addresses except those towards its backends,
/// and an interface that could have one.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let (Ok(links), Some(outer)) = (&facts.links, outer_families(facts)) else {
        return;
    };
    let inner = inner_links(facts);
    // Clients on the backends' own link are intended if there is no other link.
    let spare: Vec<&str> = links
        .iter()
        .filter(|link| !link.loopback && link.master.is_none() && !inner.contains(&link.index))
        .map(|link| link.name.as_str())
        .collect();
    if spare.is_empty() {
        return;
    }
    let is_cut_off = |service: &&ServiceSummary| {
        let mut families = service.backends().map(|backend| Family::of(backend.ip())).peekable();
        service.addresses.is_empty() && families.peek().is_some() && families.all(|family| !outer.contains(&family))
    };
    let cut_off: Vec<String> = facts
        .services
        .services
        .iter()
        .filter(is_cut_off)
        .map(named_service)
        .collect();
    if cut_off.is_empty() {
        return;
    }
    diagnosis.broken(
        "no-public-address",
        format!(
            "the gateway has no address but those on the way to its backends, and {} on all addresses: {}",
            if cut_off.len() == 1 {
                "1 service listens".to_owned()
            } else {
                format!("{} listen", count(cut_off.len(), "service"))
            },
            some(&cut_off)
        ),
        "clients have no address of this gateway to which they can connect",
        advice(format!(
            "see `ip address`: is the interface to the clients up, and does it have its address? Interfaces without an address of the clients' family: {}",
            some(&spare)
        )),
    );
}

/// Reports services whose clients come in by links without a carrier, whose routes and addresses stay. The severity is
/// lower if another link has a carrier and an address, where clients may be.
pub(super) fn carrier(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Ok(links) = &facts.links else { return };
    let inner = inner_links(facts);
    let mut dark: BTreeSet<&str> = BTreeSet::new();
    let mut cut_off: BTreeSet<String> = BTreeSet::new();
    let mut may_come = false;
    for family in Family::BOTH {
        let has_address = |link: &LinkDetails| {
            let mut of_family = link.addresses.iter().map(|(address, _)| *address);
            of_family.any(|address| Family::of(address) == family && !is_link_local(address))
        };
        let mut outer = outer_links(facts, family);
        if outer.is_empty() {
            // Clients are on the gateway's own networks: on those where some were served.
            let served = facts.served.iter();
            let served = served.filter(|served| Family::of(served.client.ip()) == family);
            outer.extend(served.filter_map(|served| served.link));
        }
        if outer.is_empty() {
            // Nobody was served yet, so that clients may also be on the backends' link.
            let without = links
                .iter()
                .filter(|link| link.no_carrier && !link.loopback && has_address(link));
            outer.extend(without.map(|link| link.index).filter(|index| !inner.contains(index)));
            may_come |= !outer.is_empty();
        }
        let outer: Vec<&LinkDetails> = links.iter().filter(|link| outer.contains(&link.index)).collect();
        if outer.is_empty() || outer.iter().any(|link| !link.no_carrier) {
            continue;
        }
        let is_other =
            |link: &&LinkDetails| !link.loopback && link.up && !link.no_carrier && !inner.contains(&link.index);
        may_come |= links.iter().filter(is_other).any(has_address);
        let is_dark = |address: &IpAddr| {
            let mut own = outer.iter().flat_map(|link| &link.addresses);
            own.any(|(own, _)| own == address)
        };
        let is_cut_off = |service: &&ServiceSummary| {
            let has_backends = service.backends().any(|backend| Family::of(backend.ip()) == family);
            let chosen = service.addresses.iter();
            let mut chosen = chosen.filter(|address| Family::of(**address) == family).peekable();
            let is_open = service.addresses.is_empty();
            has_backends && (is_open || chosen.peek().is_some() && chosen.all(is_dark))
        };
        let services: Vec<String> = facts
            .services
            .services
            .iter()
            .filter(is_cut_off)
            .map(named_service)
            .collect();
        if !services.is_empty() {
            dark.extend(outer.iter().map(|link| link.name.as_str()));
            cut_off.extend(services);
        }
    }
    let Some(first) = dark.first() else { return };
    let (has, it) = if dark.len() == 1 {
        ("has", "it")
    } else {
        ("have", "them")
    };
    let seen = format!(
        "{} {has} no carrier, and clients of {} come in by {it}: {}",
        some(&dark),
        count(cut_off.len(), "service"),
        some(&cut_off)
    );
    let cause = "the cable is out, or the other end is switched off: no packet comes in or leaves there";
    let fix = advice(format!(
        "see `ip link show {}`: the cable, and the switch's port",
        quoted(first)
    ));
    if may_come {
        diagnosis.warning("no-carrier", seen, cause, fix);
    } else {
        diagnosis.broken("no-carrier", seen, cause, fix);
    }
}

/// Reports addresses of interfaces to which the kernel accepts no packets.
pub(super) fn unrouted(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(unrouted) = diagnosis.known("routes of the gateway's own addresses", &facts.unrouted) else {
        return;
    };
    let unrouted: Vec<&IpAddr> = unrouted
        .iter()
        .filter(|address| facts.uses(Family::of(**address)))
        .collect();
    let Some(first) = unrouted.first() else { return };
    let (is, its, it) = if unrouted.len() == 1 {
        ("is", "its local route", "it")
    } else {
        ("are", "their local routes", "them")
    };
    diagnosis.broken(
        "address-lost",
        format!(
            "{} {is} on an interface, and the kernel does not accept packets to {it}, because {its} (`ip route show table local`) {is} gone: {}",
            count(unrouted.len(), "address"),
            some(&unrouted)
        ),
        "clients that connect there get no answer, nor do backends that answer to that address",
        advice(format!(
            "remove the address and add it again (`ip address del`, `ip address add`), or add the route: `ip route add table local local {first} dev INTERFACE`; see `ip rule` (`ip -6 rule`), too, whether the table `local` is asked"
        )),
    );
}

/// Returns the links to backends by which no packet for clients far away leaves.
fn inner_links(facts: &CheapFacts) -> BTreeSet<u32> {
    let outer: BTreeSet<u32> = Family::BOTH
        .into_iter()
        .flat_map(|family| outer_links(facts, family))
        .collect();
    let backend_routes = facts
        .backend_routes
        .iter()
        .flatten()
        .filter_map(|(_, way)| way.as_ref());
    let to_backends = backend_routes.filter(|way| !way.local).map(|way| way.index);
    to_backends.filter(|index| !outer.contains(index)).collect()
}

/// Returns the links by which packets for clients far away leave.
pub(super) fn outer_links(facts: &CheapFacts, family: Family) -> BTreeSet<u32> {
    let out = facts
        .client_routes
        .iter()
        .flatten()
        .filter(|((of, _), _)| *of == family);
    let of_answers = facts.answers.iter().flatten().filter(|((of, _), _)| *of == family);
    let out = out.filter_map(|(_, way)| way.as_ref());
    let of_answers = of_answers.filter_map(|(_, way)| way.as_ref());
    out.chain(of_answers).map(|way| way.index).collect()
}

/// Returns the links by which packets for backends, or for clients far away, leave.
pub(super) fn used_links(facts: &CheapFacts, family: Family) -> BTreeSet<u32> {
    let backend_routes = facts.backend_routes.iter().flatten();
    let backend_routes = backend_routes.filter_map(|(_, way)| way.as_ref());
    let mut used: BTreeSet<u32> = backend_routes.filter(|way| !way.local).map(|way| way.index).collect();
    used.extend(outer_links(facts, family));
    used
}
