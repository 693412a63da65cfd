//! Check of bridges that pass their packets to nftables (`br_netfilter`): a container that connects to itself through
//! a service needs hairpin mode.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::facts::Facts;
use super::super::finding::{Diagnosis, command};
use super::docker::is_network;
use super::text::{quoted, some};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::route::links::LinkDetails;

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    let what = "bridge ports without hairpin mode";
    let Some(links) = diagnosis.known(what, &facts.cheap.links) else {
        return;
    };
    let asks = |link: &LinkDetails, family: Family| {
        let (sysctl, own) = match family {
            Family::V4 => ("net.bridge.bridge-nf-call-iptables", 0),
            Family::V6 => ("net.bridge.bridge-nf-call-ip6tables", 1),
        };
        facts.cheap.number(sysctl) == Some(1) || link.bridge.is_some_and(|bridge| bridge[own])
    };
    let Some(backend_routes) = diagnosis.known(what, &facts.cheap.backend_routes) else {
        return;
    };
    let mut behind: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (address, way) in backend_routes {
        if let Some(way) = way.as_ref().filter(|way| way.gateway.is_none() && !way.local) {
            behind.entry(way.index).or_default().push(*address);
        }
    }
    for bridge in links.iter().filter(|link| link.bridge.is_some()) {
        let addresses = behind.get(&bridge.index).map_or(&[][..], Vec::as_slice);
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| asks(bridge, Family::of(*address)))
            .collect();
        if !addresses.is_empty() {
            one(facts, links, bridge, &addresses, diagnosis);
        }
    }
}

fn one(facts: &Facts, links: &[LinkDetails], bridge: &LinkDetails, addresses: &[IpAddr], diagnosis: &mut Diagnosis) {
    let ports = ports_of(facts, bridge, addresses);
    let without: Vec<&str> = links
        .iter()
        .filter(|link| link.master == Some(bridge.index) && link.hairpin == Some(false))
        .filter(|link| ports.as_ref().is_none_or(|ports| ports.contains(&link.index)))
        .map(|link| link.name.as_str())
        .collect();
    if without.is_empty() {
        return;
    }
    let fix = match without.as_slice() {
        [port] => format!("bridge link set dev {} hairpin on", quoted(port)),
        ports => format!(
            "for port in {}; do bridge link set dev \"$port\" hairpin on; done",
            ports.iter().map(|port| quoted(port)).collect::<Vec<_>>().join(" ")
        ),
    };
    let lasting = if is_network(&bridge.name) {
        ". Docker makes new ports when containers start; with `\"userland-proxy\": false` in /etc/docker/daemon.json it gives them \
         hairpin mode itself"
    } else {
        ""
    };
    diagnosis.warning(
        "bridge-without-hairpin",
        format!("bridge {} asks the rules (br_netfilter), and its ports {} have no hairpin mode", bridge.name, some(&without)),
        format!(
            "a container that connects to a service and is balanced to itself gets no answer: the bridge does not send packets \
             back by the port that they came in by{lasting}"
        ),
        command(fix),
    );
}

/// Returns the ports that these backends are behind; `None` when some have not been seen yet.
fn ports_of(facts: &Facts, bridge: &LinkDetails, addresses: &[IpAddr]) -> Option<BTreeSet<u32>> {
    let neighbours = facts.neighbours.as_ref().ok()?;
    let learned = facts.learned.as_ref().ok()?;
    let hardware: BTreeMap<IpAddr, &[u8]> = neighbours
        .iter()
        .filter(|neighbour| neighbour.link == bridge.index)
        .filter_map(|neighbour| Some((neighbour.address, neighbour.hardware.as_deref()?)))
        .collect();
    let port: BTreeMap<&[u8], u32> = learned
        .iter()
        .filter(|entry| entry.bridge == bridge.index && entry.port != bridge.index)
        .map(|entry| (entry.hardware.as_slice(), entry.port))
        .collect();
    addresses
        .iter()
        .map(|address| port.get(hardware.get(address)?).copied())
        .collect()
}
