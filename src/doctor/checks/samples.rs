//! Packets of services as other programs' chains see them: by backend, interface, address and hook.

use std::net::{IpAddr, SocketAddr};

use super::super::facts::{CheapFacts, ServedClient};
use super::super::judge::{ChainEffect, PacketVerdict, walk};
use super::super::mark_bits::MarkBits;
use super::super::packet::{Interface, Packet, PacketClient, PacketStage, SRCNAT};
use super::chain::is_probes;
use super::forwarding::is_link_local;
use super::marked::mark_before;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, RuleEffect};
use tcpgw_kernel::route::RouteTo;
use tcpgw_kernel::route::links::LinkDetails;

/// Maximum number of nested links that are checked.
const MOST_LEVELS: usize = 4;
/// Priority of tcpgw's translation.
pub(super) const DSTNAT: i32 = -100;

/// A backend of a service.
pub(super) struct BackendSample<'a> {
    pub(super) backend: SocketAddr,
    service: &'a ServiceSummary,
}

/// Returns a packet as a chain sees it; `None` when it comes in by no interface that the chain is attached to.
pub(super) fn as_seen(
    facts: &CheapFacts,
    chain: &FirewallChain,
    base: FirewallBase,
    mut packet: Packet,
) -> Option<Packet> {
    let interface = match base.hook {
        FirewallHook::Ingress => packet.input.as_mut()?,
        FirewallHook::Egress => packet.output.as_mut()?,
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

fn is_hooked(chain: &FirewallChain, name: &str) -> bool {
    chain.devices.iter().any(|device| device.is(name))
}

/// Returns whether a chain is attached below an interface to all that its packets pass: the link of a VLAN, or every
/// port of a bridge or a bond.
fn is_hooked_below(facts: &CheapFacts, chain: &FirewallChain, index: u32, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return false;
    };
    let is_hooked =
        |link: &LinkDetails| is_hooked(chain, &link.name) || is_hooked_below(facts, chain, link.index, levels);
    let parent = facts.link(index).and_then(|link| facts.link(link.parent?));
    let links = facts.links.as_deref().unwrap_or_default();
    let mut ports = links
        .iter()
        .filter(|link| link.master == Some(index) && link.up)
        .peekable();
    parent.is_some_and(is_hooked) || (ports.peek().is_some() && ports.all(is_hooked))
}

/// Packets of one kind, for each interface by which clients come in.
pub(super) struct Packets {
    /// Packets that the chain sees.
    pub(super) seen: Vec<Packet>,
    /// Whether packets of some interface do not pass the chain.
    pub(super) passes: bool,
}

impl Packets {
    /// Returns the packets of a kind and a backend, as a chain sees them.
    pub(super) fn of(
        facts: &CheapFacts,
        chain: &FirewallChain,
        base: FirewallBase,
        kind: PacketKind,
        sample: Option<&BackendSample<'_>>,
    ) -> Self {
        let outside = outside(facts, kind.family);
        let outside = outside.iter().map(Some).chain(outside.is_empty().then_some(None));
        let packets = outside.map(|outside| packet(facts, base, kind, outside, sample));
        Self::seen_by(facts, chain, base, packets)
    }

    /// Returns the packets of clients that come in by one interface.
    pub(super) fn by(
        facts: &CheapFacts,
        chain: &FirewallChain,
        base: FirewallBase,
        kind: PacketKind,
        outside: &Interface,
        sample: Option<&BackendSample<'_>>,
    ) -> Self {
        let packet = packet(facts, base, kind, Some(outside), sample);
        Self::seen_by(facts, chain, base, [packet])
    }

    fn seen_by(
        facts: &CheapFacts,
        chain: &FirewallChain,
        base: FirewallBase,
        packets: impl IntoIterator<Item = Packet>,
    ) -> Self {
        let packets = packets.into_iter().map(|packet| {
            let mark = mark_before(facts, chain, base, &packet);
            as_seen(facts, chain, base, Packet { mark, ..packet })
        });
        let all: Vec<Option<Packet>> = packets.collect();
        Self {
            passes: all.iter().any(Option::is_none),
            seen: all.into_iter().flatten().collect(),
        }
    }
}

impl BackendSample<'_> {
    pub(super) const fn service(&self) -> &ServiceSummary {
        self.service
    }

    /// Returns whether clients that come in by an interface can use the service: it listens on an address of the
    /// interface, or on all.
    pub(super) fn is_met_by(&self, facts: &CheapFacts, outside: &Interface) -> bool {
        let addresses = &self.service.addresses;
        let link = facts.link(outside.index);
        let mut own = link.into_iter().flat_map(|link| &link.addresses);
        addresses.is_empty() || own.any(|(address, _)| addresses.contains(address))
    }
}

/// A kind of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketKind {
    pub(super) family: Family,
    /// Whether the packet goes from the server to the client.
    pub(super) reply: bool,
    /// Whether the packet comes after the first two of its connection.
    pub(super) later: bool,
    /// Whether the packet carries data, of those that come later.
    pub(super) data: bool,
    /// Mark of the packets.
    pub(super) mark: MarkBits,
}

/// Walks a chain with each of the packets. The verdict is uncertain if it differs between interfaces.
pub(super) fn walk_all(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    (sample, packets): (Option<&BackendSample<'_>>, &Packets),
) -> (PacketVerdict, Vec<ChainEffect>) {
    let mut walks = packets.seen.iter().map(|packet| match sample {
        Some(sample) => walk_addresses(facts, chains, chain, (sample, packet)),
        None => walk(chains, chain, packet),
    });
    let Some((mut fate, mut done)) = walks.next() else {
        return (PacketVerdict::Passes, Vec::new());
    };
    for (other, others) in walks {
        done.extend(others);
        fate = merged(fate, other, false);
    }
    if packets.passes {
        fate = merged(fate, PacketVerdict::Passes, false);
    }
    (fate, done)
}

/// Returns the common verdict of two kinds of packets: they surely end if both do, or one of them if `one_is_enough`.
pub(super) fn merged(fate: PacketVerdict, other: PacketVerdict, one_is_enough: bool) -> PacketVerdict {
    match (fate, other) {
        (PacketVerdict::Unjudged, _) | (_, PacketVerdict::Unjudged) => PacketVerdict::Unjudged,
        (PacketVerdict::Ends(place), _) | (_, PacketVerdict::Ends(place)) if one_is_enough => {
            PacketVerdict::Ends(place)
        }
        (PacketVerdict::Ends(place), PacketVerdict::Ends(_)) => PacketVerdict::Ends(place),
        (PacketVerdict::Ends(place) | PacketVerdict::MayEnd(place), _)
        | (_, PacketVerdict::Ends(place) | PacketVerdict::MayEnd(place)) => PacketVerdict::MayEnd(place),
        (PacketVerdict::Passes, PacketVerdict::Passes) => PacketVerdict::Passes,
    }
}

/// Walks a chain with each address that clients may connect to, at hooks where packets still have it. All clients of a
/// service are concerned if the address is one that the service names, or if packets to no other address pass.
fn walk_addresses(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    (sample, packet): (&BackendSample<'_>, &Packet),
) -> (PacketVerdict, Vec<ChainEffect>) {
    let packets = addressed(facts, chain, (sample, packet));
    let mut walks = packets.iter().map(|packet| walk(chains, chain, packet));
    let Some((mut fate, mut done)) = walks.next() else {
        return walk(chains, chain, packet);
    };
    let is_chosen = !sample.service.addresses.is_empty();
    for (other, others) in walks {
        done.extend(others);
        fate = merged(fate, other, is_chosen);
    }
    (fate, done)
}

/// Returns the packet with each address that clients may connect to, at hooks where packets still have it, or as it is.
pub(super) fn addressed(
    facts: &CheapFacts,
    chain: &FirewallChain,
    (sample, packet): (&BackendSample<'_>, &Packet),
) -> Vec<Packet> {
    let base = chain.base.filter(|base| !shows_backend(*base, packet.reply));
    let addresses = base.map(|base| public_addresses(facts, base, packet, sample.service));
    let addresses = addresses.filter(|addresses| !addresses.is_empty());
    let with = |address| Packet {
        server: Some(address),
        ..packet.clone()
    };
    addresses.map_or_else(
        || vec![packet.clone()],
        |addresses| addresses.into_iter().map(with).collect(),
    )
}

/// Returns the addresses that a service names, otherwise those of the interface by which remote clients come in.
fn public_addresses(facts: &CheapFacts, base: FirewallBase, packet: &Packet, service: &ServiceSummary) -> Vec<IpAddr> {
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
    let outside = if matches!(base.hook, FirewallHook::Egress | FirewallHook::Postrouting) {
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

pub(super) fn samples(facts: &CheapFacts, family: Family, most: usize) -> Vec<BackendSample<'_>> {
    let of_family = facts.services.services.iter().flat_map(|service| {
        service
            .active
            .keys()
            .filter(move |backend| Family::of(backend.ip()) == family)
            .map(move |backend| BackendSample {
                backend: *backend,
                service,
            })
    });
    let all: Vec<BackendSample<'_>> = of_family.collect();
    // Samples are spread over all services, since neighbours are mostly alike.
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

/// Returns whether packets have the backend's address at this hook, rather than the one that clients see.
pub(super) const fn shows_backend(base: FirewallBase, reply: bool) -> bool {
    match base.hook {
        FirewallHook::Prerouting => reply || base.priority > DSTNAT,
        FirewallHook::Ingress => reply,
        FirewallHook::Egress => !reply,
        FirewallHook::Postrouting => !reply || base.priority <= SRCNAT,
        _ => true,
    }
}

/// Returns whether packets have the client's address at this hook, rather than one of the gateway's own.
pub(super) const fn shows_client(base: FirewallBase, reply: bool) -> bool {
    match base.hook {
        FirewallHook::Ingress => !reply,
        FirewallHook::Prerouting => !reply || base.priority > DSTNAT,
        FirewallHook::Forward => true,
        FirewallHook::Postrouting => reply || base.priority < SRCNAT,
        FirewallHook::Egress => reply,
        _ => false,
    }
}

/// Returns a packet of a kind, from or to a client that was served, as a chain sees it; `None` when it does not, or when
/// the service is gone.
pub(super) fn packet_of_client(
    facts: &CheapFacts,
    chain: &FirewallChain,
    base: FirewallBase,
    kind: PacketKind,
    client: &ServedClient,
) -> Option<Packet> {
    let sample = BackendSample {
        backend: client.backend,
        service: facts.services.service_at(client.public)?,
    };
    let link = client.link.and_then(|index| facts.link(index)).map(of_link);
    let link = link.or_else(|| outside(facts, kind.family).into_iter().next());
    let mut packet = packet(facts, base, kind, link.as_ref(), Some(&sample));
    if !shows_backend(base, kind.reply) {
        packet.server = Some(client.public.ip());
    }
    packet.client = shows_client(base, kind.reply).then(|| PacketClient::of(client.client));
    as_seen(facts, chain, base, packet)
}

/// Returns whether a client that was served comes in where remote clients do, whose packets are checked without it. One behind
/// the gateway (a container, or a neighbour of containers) does not.
pub(super) fn comes_as_remote(facts: &CheapFacts, family: Family, client: &ServedClient) -> bool {
    let Some(link) = client.link.filter(|index| facts.link(*index).is_some()) else {
        return true;
    };
    outside(facts, family).iter().any(|outside| outside.index == link)
}

/// Returns the interfaces by which clients come in: the one of the route to remote clients, or if there is no such
/// route, those with addresses that lead to no backend.
pub(super) fn outside(facts: &CheapFacts, family: Family) -> Vec<Interface> {
    let far = facts.client_routes.as_ref().ok();
    let far = far.and_then(|backend_routes| backend_routes.get(&(family, None))?.as_ref());
    match interface(facts, far) {
        Some(far) => vec![far],
        None => near(facts, family),
    }
}

/// Returns further interfaces by which clients may come in, besides those of [`outside`].
pub(super) fn other_outside(facts: &CheapFacts, family: Family) -> Vec<Interface> {
    let first = outside(facts, family);
    let mut others = near(facts, family);
    others.retain(|link| !first.iter().any(|first| first.index == link.index));
    others
}

/// Returns the interfaces that have addresses and lead to no backend.
fn near(facts: &CheapFacts, family: Family) -> Vec<Interface> {
    let (Ok(links), Ok(backend_routes)) = (&facts.links, &facts.backend_routes) else {
        return Vec::new();
    };
    let is_inside = |link: &LinkDetails| backend_routes.values().flatten().any(|way| way.index == link.index);
    let has_address = |link: &LinkDetails| {
        let mut addresses = link.addresses.iter();
        addresses.any(|(address, _)| Family::of(*address) == family && !is_link_local(*address))
    };
    let links = links.iter().filter(|link| link.up && !link.loopback);
    links
        .filter(|link| has_address(link) && !is_inside(link))
        .map(of_link)
        .collect()
}

/// Returns the mark of packets of services: 0 if no rule or filter writes marks.
pub(super) fn packet_mark(facts: &CheapFacts) -> MarkBits {
    let (Ok(_), Ok(_), Ok(_), Ok(links)) = (&facts.firewall, &facts.legacy, &facts.legacy6, &facts.links) else {
        return MarkBits::UNKNOWN;
    };
    let rules = facts.known_chains().flatten().flat_map(|chain| &chain.rules);
    let mut effects = rules.flat_map(|rule| &rule.effects);
    let writes = effects.any(|effect| matches!(effect, RuleEffect::PacketMark(_) | RuleEffect::RestoreMark));
    if writes || links.iter().any(|link| link.classifies) {
        MarkBits::UNKNOWN
    } else {
        MarkBits::ZERO
    }
}

/// Returns a packet of a kind, from or to a client behind `outside`.
pub(super) fn packet(
    facts: &CheapFacts,
    base: FirewallBase,
    kind: PacketKind,
    outside: Option<&Interface>,
    sample: Option<&BackendSample<'_>>,
) -> Packet {
    let PacketKind {
        family,
        reply,
        later,
        data,
        mark,
    } = kind;
    let outside = outside.cloned();
    let way = sample.and_then(|sample| facts.backend_routes.as_ref().ok()?.get(&sample.backend.ip())?.as_ref());
    let inside = interface(facts, way);
    let translated = shows_backend(base, reply);
    let (input, output) = if reply { (inside, outside) } else { (outside, inside) };
    let leaves = !matches!(
        base.hook,
        FirewallHook::Prerouting | FirewallHook::Input | FirewallHook::Ingress
    );
    let tracked = base.is_tracked();
    let is_ours = tracked
        && !is_probes(base)
        && (translated || matches!(base.hook, FirewallHook::Egress | FirewallHook::Postrouting));
    Packet {
        family,
        input: input.filter(|_| !matches!(base.hook, FirewallHook::Output | FirewallHook::Egress)),
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
        stage: match (later, data) {
            (false, _) => PacketStage::Handshake,
            (true, false) => PacketStage::Later,
            (true, true) => PacketStage::Data,
        },
        seen_by: base,
        ours: is_ours.then_some(facts.mark),
        mark,
        client: None,
        from_app: None,
        neighbour: None,
    }
}

fn interface(facts: &CheapFacts, way: Option<&RouteTo>) -> Option<Interface> {
    facts.link(way?.index).map(of_link)
}

pub(super) fn of_link(link: &LinkDetails) -> Interface {
    Interface {
        index: link.index,
        name: link.name.clone(),
        below: false,
        is_ethernet: !link.no_arp && !link.loopback,
    }
}
