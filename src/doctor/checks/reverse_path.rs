//! Check of the reverse path filter: in strict mode a packet must come in by the interface by which one to its sender
//! would leave.
//!
//! Source: `Documentation/networking/ip-sysctl.rst`, `rp_filter`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, command};
use super::text::{some, sysctl};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;
use tcpgw_kernel::route::RouteTo;
use tcpgw_kernel::route::links::LinkDetails;

const ID: &str = "reverse-path-filter";

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    if !facts.uses(Family::V4) {
        return;
    }
    let Some(links) = diagnosis.known("the reverse path filter", &facts.links) else {
        return;
    };
    let all = facts.number("net.ipv4.conf.all.rp_filter").unwrap_or(0);
    let strict = |link: &&LinkDetails| {
        let own = facts
            .number(&format!("net.ipv4.conf.{}.rp_filter", link.name))
            .unwrap_or(0);
        link.up && !link.loopback && all.max(own) == 1
    };
    for link in links.iter().filter(strict) {
        clients(facts, link, diagnosis);
        backends(facts, link, diagnosis);
    }
}

/// Reports remote clients that connect to an address of this link while packets to them leave by another one.
fn clients(facts: &CheapFacts, link: &LinkDetails, diagnosis: &mut Diagnosis) {
    let Some(backend_routes) = diagnosis.known("the reverse path filter", &facts.client_routes) else {
        return;
    };
    let chosen: BTreeSet<IpAddr> = facts
        .services
        .services
        .iter()
        .flat_map(|s| s.addresses.iter().copied())
        .collect();
    let everywhere = facts
        .services
        .services
        .iter()
        .any(|service| service.addresses.is_empty());
    for (address, _) in &link.addresses {
        let is_chosen = chosen.contains(address);
        let way = backend_routes.get(&(Family::V4, Some(*address)));
        let (true, Some(way)) = (is_chosen || (everywhere && is_public(*address)), way) else {
            continue;
        };
        if way.as_ref().is_some_and(|way| way.index == link.index) {
            continue;
        }
        let drops = match facts.reverse_path_drops {
            Some(drops) if drops > 0 => format!("; it has dropped {} here so far", count_packets(drops)),
            _ => String::new(),
        };
        // Clients need not come in by a link that has an address.
        let severity = if is_chosen {
            FindingSeverity::Broken
        } else {
            FindingSeverity::Warning
        };
        diagnosis.found(
            ID,
            severity,
            format!(
                "rp_filter is strict on {}, and packets from its address {address} to clients far away {}",
                link.name,
                out_by(facts, way.as_ref())
            ),
            format!(
                "the kernel drops packets of clients that come in there, because answers would not leave there{drops}"
            ),
            Some(loose(&link.name)),
        );
    }
}

/// Reports backends in a network of this link while packets to them leave by another one.
fn backends(facts: &CheapFacts, link: &LinkDetails, diagnosis: &mut Diagnosis) {
    let Some(backend_routes) = diagnosis.known("the reverse path filter", &facts.backend_routes) else {
        return;
    };
    let within = |address: &IpAddr| {
        link.addresses
            .iter()
            .any(|(own, length)| ipnet::IpNet::new(*own, *length).is_ok_and(|network| network.contains(address)))
    };
    let elsewhere: Vec<&IpAddr> = backend_routes
        .iter()
        .filter(|(address, way)| {
            address.is_ipv4()
                && within(address)
                && way.as_ref().is_some_and(|way| way.index != link.index && !way.local)
        })
        .map(|(address, _)| address)
        .collect();
    if let Some(first) = elsewhere.first() {
        let way = backend_routes.get(*first).and_then(Option::as_ref);
        diagnosis.warning(
            ID,
            format!(
                "rp_filter is strict on {}, in whose network {} ({}), and the way there {}",
                link.name,
                if elsewhere.len() == 1 {
                    "1 backend is".into()
                } else {
                    format!("{} are", count(elsewhere.len(), "backend"))
                },
                some(&elsewhere),
                out_by(facts, way)
            ),
            "if they answer by this link, the kernel drops the answers",
            loose(&link.name),
        );
    }
}

fn out_by(facts: &CheapFacts, way: Option<&RouteTo>) -> String {
    match way {
        Some(way) => format!(
            "leave by {}",
            facts.link(way.index).map_or("another link", |link| &link.name)
        ),
        None => "have no way out".into(),
    }
}

/// Returns the command for loose mode: the larger one of the values for `all` and the link counts, so 2 (loose) wins.
fn loose(link: &str) -> super::super::finding::Fix {
    command(format!("sysctl -w {}=2", sysctl("ipv4", link, "rp_filter")))
}

fn count_packets(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "packet")
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_private() && !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(_) => false,
    }
}
