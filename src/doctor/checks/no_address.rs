//! Whether the gateway has an address that clients from outside can connect to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, advice};
use super::forwarding::is_link_local;
use super::{count, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;

/// Services that listen on all addresses, of a gateway that has none but those towards its backends, while it has an interface
/// that could have one.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let (Ok(links), Ok(local)) = (&facts.links, &facts.local) else {
        return;
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
    let outer: BTreeSet<Family> = local
        .addresses
        .iter()
        .copied()
        .filter(is_outer)
        .chain(
            local
                .networks
                .iter()
                .map(ipnet::IpNet::addr)
                .filter(|address| !address.is_loopback()),
        )
        .map(Family::of)
        .collect();
    // Clients on the backends' own link are somebody's wish where there is no other.
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
    let cut_off: Vec<String> = facts.services.services.iter().filter(is_cut_off).map(named).collect();
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
        "clients from outside have nothing to connect to",
        advice(format!(
            "see `ip address`: is the interface to the clients up, and has it its address? Without one of their family are {}",
            some(&spare)
        )),
    );
}

fn named(service: &ServiceSummary) -> String {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    format!("{name} :{}", service.port)
}

/// Returns the links to backends by which no packet for clients far away leaves.
fn inner_links(facts: &CheapFacts) -> BTreeSet<u32> {
    let out = facts.ways_out.iter().flatten().filter_map(|(_, way)| way.as_ref());
    let of_answers = facts.answers.iter().flatten().filter_map(|(_, way)| way.as_ref());
    let outer: BTreeSet<u32> = out.chain(of_answers).map(|way| way.index).collect();
    let ways = facts.ways.iter().flatten().filter_map(|(_, way)| way.as_ref());
    let to_backends = ways.filter(|way| !way.local).map(|way| way.index);
    to_backends.filter(|index| !outer.contains(index)).collect()
}
