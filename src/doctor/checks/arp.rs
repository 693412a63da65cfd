//! Checks whether hosts on the gateway's links find its addresses by ARP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, command};
use super::no_address::{outer_links, used_links};
use super::text::{named_service, quoted, some, sysctl};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::route::links::LinkDetails;

/// Value of `arp_ignore` with which no request is answered.
const NONE: u64 = 8;
/// Value with which only requests for addresses of the link on which they come in are answered.
const OF_LINK: u64 = 1;
/// Value with which these are only answered if the address that asks is in a network of the link, too.
const OF_NETWORK: u64 = 2;

/// Reports links of clients or backends on which ARP is switched off. Such a link does not look for neighbours of IPv6 either.
pub(super) fn off(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Ok(links) = &facts.links else { return };
    let used: BTreeSet<u32> = Family::BOTH
        .into_iter()
        .filter(|family| facts.uses(*family))
        .flat_map(|family| used_links(facts, family))
        .collect();
    let silent: Vec<&str> = links
        .iter()
        .filter(|link| link.up && link.arp_off && used.contains(&link.index))
        .map(|link| link.name.as_str())
        .collect();
    let Some(first) = silent.first() else { return };
    let (neither, its) = if silent.len() == 1 {
        ("neither answers nor sends", "its")
    } else {
        ("neither answer nor send", "their")
    };
    diagnosis.broken(
        "no-public-address",
        format!("{} {neither} ARP requests: ARP is switched off there", some(&silent)),
        format!(
            "hosts of {its} networks, such as the router to the clients, and the gateway cannot find each other, for IPv6 neither, except where all have permanent entries for each other"
        ),
        command(format!("ip link set {} arp on", quoted(first))),
    );
}

/// Reports links of clients or backends that answer no ARP requests, and addresses of services for which none is answered
/// (`arp_ignore` of `Documentation/networking/ip-sysctl.rst`).
pub(super) fn ignored(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Ok(links) = &facts.links else { return };
    if !facts.uses(Family::V4) {
        return;
    }
    let used = used_links(facts, Family::V4);
    let with_neighbours = links
        .iter()
        .filter(|link| link.up && !link.loopback && !link.no_arp && !link.arp_off);
    let with_neighbours: Vec<&LinkDetails> = with_neighbours.collect();
    used_elsewhere(facts, &with_neighbours, diagnosis);
    let judged = with_neighbours.into_iter().filter(|link| used.contains(&link.index));
    let judged: Vec<&LinkDetails> = judged.collect();
    silent(facts, &judged, diagnosis);
    let outer = outer_links(facts, Family::V4);
    let outer: Vec<&LinkDetails> = judged.into_iter().filter(|link| outer.contains(&link.index)).collect();
    elsewhere(facts, &outer, diagnosis);
    strangers(facts, &outer, diagnosis);
}

fn silent(facts: &CheapFacts, links: &[&LinkDetails], diagnosis: &mut Diagnosis) {
    let silent = links.iter().filter(|link| level(facts, link) == NONE);
    let silent: Vec<&str> = silent.map(|link| link.name.as_str()).collect();
    let Some(first) = silent.first() else { return };
    let (answers, its) = if silent.len() == 1 {
        ("answers", "its")
    } else {
        ("answer", "their")
    };
    diagnosis.broken(
        "no-public-address",
        format!("{} {answers} no ARP requests: arp_ignore is {NONE}", some(&silent)),
        format!("hosts of {its} networks, such as the router to the clients, cannot send packets to the gateway"),
        answer_all(facts, first, NONE),
    );
}

/// Reports addresses that services name and that are on other links than the one by which clients come in. Hosts of its network
/// ask for them; those that are in no network of it may be routed to the gateway by another address of its own.
fn elsewhere(facts: &CheapFacts, outer: &[&LinkDetails], diagnosis: &mut Diagnosis) {
    let is_strict = |link: &&LinkDetails| matches!(level(facts, link), OF_LINK | OF_NETWORK);
    let (Ok(local), true) = (&facts.local, !outer.is_empty() && outer.iter().all(is_strict)) else {
        return;
    };
    let own = |address: &IpAddr| {
        outer
            .iter()
            .any(|link| link.addresses.iter().any(|(own, _)| own == address))
    };
    let is_asked_for = |address: &IpAddr| outer.iter().any(|link| is_in_network(link, *address));
    let of_services: BTreeSet<IpAddr> = facts
        .services
        .services
        .iter()
        .flat_map(|service| service.addresses.iter().copied())
        .filter(|address| address.is_ipv4() && local.contains(address) && !own(address))
        .collect();
    let (asked, routed): (Vec<IpAddr>, Vec<IpAddr>) = of_services.into_iter().partition(is_asked_for);
    let first = outer[0];
    let level = level(facts, first);
    let names: Vec<&str> = outer.iter().map(|link| link.name.as_str()).collect();
    let seen = |addresses: &[IpAddr]| {
        format!(
            "services name {}, on another link than {}, where arp_ignore is {level}: no ARP request for it is answered there",
            some(addresses),
            some(&names)
        )
    };
    let fix = || answer_all(facts, &first.name, level);
    if !asked.is_empty() {
        diagnosis.broken(
            "no-public-address",
            seen(&asked),
            "hosts of the network to which the address belongs, such as the router to the clients, cannot send packets to it",
            fix(),
        );
    }
    if !routed.is_empty() {
        diagnosis.warning(
            "no-public-address",
            seen(&routed),
            "clients reach it only if a router sends it to another address of the gateway",
            fix(),
        );
    }
}

/// Reports addresses of services on all addresses that clients have used, and that are on other links than the one by which these
/// clients come in. Addresses in no network of that link are left out: those clients reach them by a route.
fn used_elsewhere(facts: &CheapFacts, links: &[&LinkDetails], diagnosis: &mut Diagnosis) {
    let Ok(local) = &facts.local else { return };
    let named: BTreeSet<IpAddr> = facts
        .services
        .services
        .iter()
        .flat_map(|service| service.addresses.iter().copied())
        .collect();
    let mut lost: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    for served in &facts.served {
        let address = served.public.ip();
        let Some(link) = links.iter().find(|link| served.link == Some(link.index)) else {
            continue;
        };
        let is_strict = matches!(level(facts, link), OF_LINK | OF_NETWORK);
        let is_elsewhere = local.contains(&address) && !link.addresses.iter().any(|(own, _)| *own == address);
        if is_strict && is_elsewhere && is_in_network(link, address) && !named.contains(&address) {
            lost.entry(link.index).or_default().insert(address);
            ports.insert(served.public.port());
        }
    }
    let services = facts.services.services.iter();
    let services = services.filter(|service| service.addresses.is_empty() && ports.contains(&service.port));
    let services: Vec<String> = services.map(named_service).collect();
    if services.is_empty() {
        return;
    }
    for link in links {
        let Some(addresses) = lost.get(&link.index) else {
            continue;
        };
        let addresses: Vec<IpAddr> = addresses.iter().copied().collect();
        let level = level(facts, link);
        diagnosis.broken(
            "no-public-address",
            format!(
                "clients of {} connect to {}, on another link than {}, by which they come in, and where arp_ignore is {level}: no ARP request for it is answered there",
                some(&services),
                some(&addresses),
                link.name
            ),
            "hosts of the network to which the address belongs, such as the router to the clients, cannot send packets to it",
            answer_all(facts, &link.name, level),
        );
    }
}

/// Reports links where clients may ask with addresses that are in no network of the link. A router of such a network asks with
/// its own.
fn strangers(facts: &CheapFacts, outer: &[&LinkDetails], diagnosis: &mut Diagnosis) {
    let ways = facts.client_routes.iter().flatten();
    let ways = ways.filter(|((family, _), _)| *family == Family::V4);
    let ways: Vec<_> = ways.filter_map(|(_, way)| way.as_ref()).collect();
    let may_ignore = |link: &&&LinkDetails| {
        let mut routers = ways.iter().filter(|way| way.index == link.index);
        level(facts, link) == OF_NETWORK
            && routers.any(|way| {
                way.gateway
                    .is_some_and(|router| router.is_ipv4() && !is_in_network(link, router))
            })
    };
    let strict: Vec<&str> = outer.iter().filter(may_ignore).map(|link| link.name.as_str()).collect();
    let Some(first) = strict.first() else { return };
    diagnosis.warning(
        "no-public-address",
        format!(
            "{} answers only ARP requests of hosts in its own networks (arp_ignore is {OF_NETWORK}), and the router to the clients is in none of them",
            some(&strict)
        ),
        "if the router asks with an address of its own network, it cannot send packets to the gateway",
        answer_all(facts, first, OF_NETWORK),
    );
}

fn level(facts: &CheapFacts, link: &LinkDetails) -> u64 {
    setting(facts, "all").max(setting(facts, &link.name))
}

fn setting(facts: &CheapFacts, name: &str) -> u64 {
    facts.number(&format!("net.ipv4.conf.{name}.arp_ignore")).unwrap_or(0)
}

/// Returns the command that ends this value of a link.
fn answer_all(facts: &CheapFacts, link: &str, level: u64) -> super::super::finding::Fix {
    let name = if setting(facts, "all") == level { "all" } else { link };
    command(format!("sysctl -w {}=0", sysctl("ipv4", name, "arp_ignore")))
}

fn is_in_network(link: &LinkDetails, address: IpAddr) -> bool {
    let mut networks = link
        .addresses
        .iter()
        .filter_map(|(own, length)| IpNet::new(*own, *length).ok());
    networks.any(|network| network.contains(&address))
}
