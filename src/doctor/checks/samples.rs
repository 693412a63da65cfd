//! Packets of ours as other programs' chains see them: of backends, by the interfaces and addresses at each place.

use std::net::{IpAddr, SocketAddr};

use super::super::facts::CheapFacts;
use super::super::judge::{Done, Fate, walk};
use super::super::packet::{Interface, Packet};
use super::firewall::is_probes;
use crate::kernel::firewall::{Base, Chain, Hook};
use crate::kernel::links::Link;
use crate::kernel::route::RouteTo;
use crate::ruleset::name::Family;
use crate::summary::ServiceSummary;

/// Links below each other that are looked at.
const MOST_LEVELS: usize = 4;
/// Our own translation.
pub(super) const DSTNAT: i32 = -100;

/// One backend of one service, as packets show it.
pub(super) struct Sample<'a> {
    pub(super) backend: SocketAddr,
    service: &'a ServiceSummary,
}

/// Returns a packet as a chain sees it; `None` where it comes by no interface that the chain is hooked to.
pub(super) fn as_seen(facts: &CheapFacts, chain: &Chain, base: Base, mut packet: Packet) -> Option<Packet> {
    let interface = match base.hook {
        Hook::Ingress => packet.input.as_mut()?,
        Hook::Egress => packet.output.as_mut()?,
        _ => return Some(packet),
    };
    if !is_hooked(chain, &interface.name) {
        if !is_hooked_below(facts, chain, interface.index, MOST_LEVELS) {
            return None;
        }
        interface.below = true;
    }
    Some(packet)
}

fn is_hooked(chain: &Chain, name: &str) -> bool {
    chain.devices.iter().any(|device| device.is(name))
}

/// Whether a chain is hooked to what all packets of an interface pass below it: the link of a VLAN, or every port of a bridge or a
/// bond.
fn is_hooked_below(facts: &CheapFacts, chain: &Chain, index: u32, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return false;
    };
    let is_hooked = |link: &Link| is_hooked(chain, &link.name) || is_hooked_below(facts, chain, link.index, levels);
    let parent = facts.link(index).and_then(|link| facts.link(link.parent?));
    let links = facts.links.as_deref().unwrap_or_default();
    let mut ports = links
        .iter()
        .filter(|link| link.master == Some(index) && link.up)
        .peekable();
    parent.is_some_and(is_hooked) || (ports.peek().is_some() && ports.all(is_hooked))
}

/// Walks for each address that clients may connect to, where a packet still has it. All clients of a service are meant where the address is
/// one that the service names, or where none is left.
pub(super) fn walk_all(
    facts: &CheapFacts,
    chains: &[Chain],
    chain: &Chain,
    (sample, packet): (&Sample<'_>, &Packet),
) -> (Fate, Vec<Done>) {
    let Some(base) = chain.base.filter(|base| !shows_backend(*base, packet.reply)) else {
        return walk(chains, chain, packet);
    };
    let addresses = public_addresses(facts, base, packet, sample.service);
    let mut walks = addresses.into_iter().map(|address| {
        let server = Some(address);
        walk(
            chains,
            chain,
            &Packet {
                server,
                ..packet.clone()
            },
        )
    });
    let Some((mut fate, mut done)) = walks.next() else {
        return walk(chains, chain, packet);
    };
    let is_chosen = !sample.service.addresses.is_empty();
    for (other, others) in walks {
        done.extend(others);
        fate = match (fate, other) {
            (Fate::Unjudged, _) | (_, Fate::Unjudged) => Fate::Unjudged,
            (Fate::Ends(place), _) | (_, Fate::Ends(place)) if is_chosen => Fate::Ends(place),
            (Fate::Ends(place), Fate::Ends(_)) => Fate::Ends(place),
            (Fate::Ends(place) | Fate::MayEnd(place), _) | (_, Fate::Ends(place) | Fate::MayEnd(place)) => {
                Fate::MayEnd(place)
            }
            (Fate::Passes, Fate::Passes) => Fate::Passes,
        };
    }
    (fate, done)
}

/// The addresses that a service names; else those of the interface that clients far away come in by.
fn public_addresses(facts: &CheapFacts, base: Base, packet: &Packet, service: &ServiceSummary) -> Vec<IpAddr> {
    const MOST: usize = 8;
    let is_of_family = |address: &IpAddr| Family::of(*address) == packet.family;
    if !service.addresses.is_empty() {
        return service
            .addresses
            .iter()
            .copied()
            .filter(is_of_family)
            .take(MOST)
            .collect();
    }
    let outside = if base.hook == Hook::Egress {
        &packet.output
    } else {
        &packet.input
    };
    let link = outside.as_ref().and_then(|outside| facts.link(outside.index));
    let own = link
        .into_iter()
        .flat_map(|link| &link.addresses)
        .map(|(address, _)| *address);
    let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    own.filter(|address| is_of_family(address) && !is_local(address))
        .take(MOST)
        .collect()
}

pub(super) fn samples(facts: &CheapFacts, family: Family, most: usize) -> Vec<Sample<'_>> {
    let of_family = facts.services.services.iter().flat_map(|service| {
        service
            .active
            .keys()
            .filter(move |backend| Family::of(backend.ip()) == family)
            .map(move |backend| Sample {
                backend: *backend,
                service,
            })
    });
    let all: Vec<Sample<'_>> = of_family.collect();
    // Spread over all services: neighbours are mostly alike.
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

/// Whether packets have the backend's address at that place, or the one that clients see.
pub(super) const fn shows_backend(base: Base, reply: bool) -> bool {
    match base.hook {
        Hook::Prerouting => reply || base.priority > DSTNAT,
        Hook::Ingress => reply,
        Hook::Egress => !reply,
        _ => true,
    }
}

pub(super) fn packet(
    facts: &CheapFacts,
    family: Family,
    base: Base,
    reply: bool,
    sample: Option<&Sample<'_>>,
) -> Packet {
    let far = facts
        .ways_out
        .as_ref()
        .ok()
        .and_then(|ways| ways.get(&(family, None))?.as_ref());
    let outside = interface(facts, far);
    let way = sample.and_then(|sample| facts.ways.as_ref().ok()?.get(&sample.backend.ip())?.as_ref());
    let inside = interface(facts, way);
    let translated = shows_backend(base, reply);
    let (input, output) = if reply { (inside, outside) } else { (outside, inside) };
    let leaves = !matches!(base.hook, Hook::Prerouting | Hook::Input | Hook::Ingress);
    let tracked = base.hook != Hook::Ingress;
    let is_ours = tracked && !is_probes(base) && (translated || base.hook == Hook::Egress);
    Packet {
        family,
        input: input.filter(|_| base.hook != Hook::Output),
        output: output.filter(|_| leaves),
        server: sample.filter(|_| translated).map(|sample| sample.backend.ip()),
        port: sample.map(|sample| {
            if translated {
                sample.backend.port()
            } else {
                sample.service.port
            }
        }),
        reply,
        later: false,
        tracked,
        ours: is_ours.then_some(facts.mark),
    }
}

pub(super) fn interface(facts: &CheapFacts, way: Option<&RouteTo>) -> Option<Interface> {
    let link: &Link = facts.link(way?.index)?;
    Some(Interface {
        index: link.index,
        name: link.name.clone(),
        below: false,
    })
}
