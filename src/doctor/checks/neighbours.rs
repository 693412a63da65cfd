//! Check of other programs' chains for messages by which hosts of a link find each other: neighbour solicitations and
//! advertisements (RFC 4861) and ARP. Without them, the router to the clients cannot send packets to the gateway as soon
//! as it has forgotten the gateway's link-layer address.

use std::collections::{BTreeMap, BTreeSet};

use super::super::condition_result::Holds;
use super::super::conditions::tests;
use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::{ChainEffect, PacketVerdict, RuleLocation, walk};
use super::super::mark_bits::MarkBits;
use super::super::packet::{Interface, NeighbourMessage, NeighbourPacket, Packet, PacketStage};
use super::chain::{ChainContext, ForeignBaseChain};
use super::firewall::effort;
use super::samples::{as_seen, of_link, outside, packet_mark};
use super::text::some;
use addresses::{AddressUse, LinkAddresses};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{
    FirewallBase, FirewallChain, FirewallHook, Load, Relation, Rule, RuleEffect, RuleField, TableFamily, Test,
};

mod addresses;

/// The only hop limit with which hosts accept neighbour solicitations and advertisements (RFC 4861, 7.1): packets of other links
/// cannot have it.
const HOP_LIMIT: u8 = 255;

/// Maximum number of links that are checked.
const MOST_LINKS: usize = 32;

/// Reports chains that drop messages of neighbours on links of clients or backends.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for family in Family::BOTH.into_iter().filter(|family| facts.uses(*family)) {
        let links = links(facts, family);
        for chains in facts.known_chains() {
            let bases = ForeignBaseChain::among(facts, chains);
            for seen in bases.filter(|seen| !seen.base.nat && carries(seen.chain.table.family, family)) {
                judge(&seen.context(family), &links, diagnosis);
            }
        }
    }
}

/// Returns whether tables of a family see the messages of neighbours of IPv6, or of IPv4. Ingress of the family inet passes
/// over ARP (`nft_do_chain_inet_ingress`).
const fn carries(table: TableFamily, family: Family) -> bool {
    match family {
        Family::V4 => matches!(table, TableFamily::Arp | TableFamily::Netdev),
        Family::V6 => matches!(table, TableFamily::Inet | TableFamily::Ip6 | TableFamily::Netdev),
    }
}

/// Returns the links by which clients or backends are reached, and on which hosts ask for addresses.
fn links(facts: &CheapFacts, family: Family) -> Vec<Interface> {
    let backend_routes = facts.backend_routes.iter().flatten();
    let backend_routes = backend_routes.filter(|(address, _)| Family::of(**address) == family);
    let backend_routes = backend_routes.filter_map(|(_, way)| way.as_ref());
    let mut used: BTreeSet<u32> = backend_routes.filter(|way| !way.local).map(|way| way.index).collect();
    used.extend(outside(facts, family).into_iter().map(|link| link.index));
    let links = used.into_iter().filter_map(|index| facts.link(index));
    let links = links.filter(|link| link.up && !link.loopback && !link.no_arp);
    links.map(of_link).take(MOST_LINKS).collect()
}

fn judge(context: &ChainContext<'_>, links: &[Interface], diagnosis: &mut Diagnosis) {
    let ChainContext {
        facts, chains, chain, ..
    } = context;
    let Some(comes_in) = comes_in(context.base) else { return };
    let rules = || {
        chains
            .iter()
            .filter(|of| of.table == chain.table)
            .flat_map(|of| &of.rules)
    };
    let effort: usize = rules().map(effort).sum();
    let most = (facts.effort.most_rules() / effort.max(1)).max(1);
    let links: Vec<&Interface> = links.iter().take(most).collect();
    let mark = packet_mark(facts);
    let names_addresses = rules().any(|rule| tests(rule, is_address));
    // Where there is time, rules about addresses are judged with those of the gateway and of its known neighbours.
    let is_thorough = names_addresses && most / LinkAddresses::MOST_PACKETS >= links.len();
    let mut dropped: BTreeMap<DroppingPlace, DroppedMessages<'_>> = BTreeMap::new();
    for link in links {
        let addresses = LinkAddresses::of(facts, context.family, link.index, is_thorough);
        for message in [NeighbourMessage::Request, NeighbourMessage::Answer] {
            let walk = |packet| walk_message(context, link, (comes_in, mark), packet);
            let Some((place, severity)) = fate(context, &addresses, (message, comes_in), walk) else {
                continue;
            };
            let by = context.place_of_end(&place);
            let key = (severity, place.rejects, place.hop_limit, by);
            let entry = dropped.entry(key).or_default();
            entry.links.insert(&link.name);
            entry.requests |= message == NeighbourMessage::Request;
            entry.answers |= message == NeighbourMessage::Answer;
        }
    }
    for ((severity, rejects, hop_limit, by), messages) in dropped {
        let does = match (severity, rejects) {
            _ if hop_limit.is_some() => "changes",
            (FindingSeverity::Broken, false) => "drops",
            (FindingSeverity::Broken, true) => "rejects",
            (_, false) => "may drop",
            (_, true) => "may reject",
        };
        let by = match hop_limit {
            Some(limit) => {
                format!("{by} their hop limit becomes {limit}, and hosts discard all that do not have {HOP_LIMIT}")
            }
            None => by,
        };
        let goes = if comes_in { "come in" } else { "leave" };
        let seen = format!(
            "{} {does} {} that {goes} by {}: {by}",
            context.name(),
            messages.named(context.family),
            some(&messages.links)
        );
        let cause = format!(
            "hosts of these links, such as the router to the clients and the containers, and the gateway cannot find each other: connections \
             fail as soon as they have forgotten each other's addresses. {}",
            context.lasting()
        );
        let fix = Some(context.let_neighbours_pass());
        diagnosis.found("packets-dropped", severity, seen, cause, fix);
    }
}

/// Severity, whether it rejects, the hop limit that it sets, and the place for people.
type DroppingPlace = (FindingSeverity, bool, Option<u8>, String);

/// Returns the verdict of a chain on a message, which passes where the chain does not see it, and ends where it gets a hop limit
/// with which hosts discard it.
fn walk_message(
    context: &ChainContext<'_>,
    link: &Interface,
    (comes_in, mark): (bool, MarkBits),
    message: NeighbourPacket,
) -> PacketVerdict {
    let at = |is_here: bool| is_here.then(|| link.clone());
    let packet = Packet {
        family: context.family,
        input: at(comes_in),
        output: at(!comes_in),
        server: None,
        port: None,
        reply: false,
        stage: PacketStage::Handshake,
        seen_by: context.base,
        ours: None,
        mark,
        client: None,
        from_app: None,
        neighbour: Some(message),
    };
    let seen = as_seen(context.facts, context.chain, context.base, packet);
    let Some(packet) = seen else {
        return PacketVerdict::Passes;
    };
    match walk(context.chains, context.chain, &packet) {
        (PacketVerdict::Passes, effects) if context.family == Family::V6 => {
            discarded(&effects).map_or(PacketVerdict::Passes, PacketVerdict::Ends)
        }
        (verdict, _) => verdict,
    }
}

/// Returns the rule that gives a message the hop limit with which hosts discard it.
fn discarded(effects: &[ChainEffect]) -> Option<RuleLocation> {
    let mut sure = effects.iter().rev().filter(|of| of.holds == Holds::Yes);
    let (of, limit) = sure.find_map(|of| match of.effect {
        RuleEffect::HopLimit(limit) => Some((of, limit)),
        _ => None,
    })?;
    (limit != HOP_LIMIT).then(|| RuleLocation {
        chain: of.chain.clone(),
        rule: Some(of.rule),
        rejects: false,
        exceeds: false,
        spares_few: false,
        hop_limit: Some(limit),
    })
}

/// Returns what ends a kind of messages on a link, and how bad that is: an error where it ends all messages of an address
/// that a service names, of those to which clients connected, of all addresses of the link, or of all known neighbours.
fn fate(
    context: &ChainContext<'_>,
    addresses: &LinkAddresses,
    kind: (NeighbourMessage, bool),
    walk: impl Fn(NeighbourPacket) -> PacketVerdict,
) -> Option<(RuleLocation, FindingSeverity)> {
    let (mut ends, mut may_end): (Vec<(AddressUse, RuleLocation)>, Option<RuleLocation>) = (Vec::new(), None);
    let mut passes = Vec::new();
    for (packet, of) in addresses.of_any(kind) {
        match walk(packet) {
            PacketVerdict::Ends(place) => ends.push((of, place)),
            PacketVerdict::MayEnd(place) if is_about(context, &place) => {
                passes.push(of);
                may_end = may_end.or(Some(place));
            }
            _ => passes.push(of),
        }
    }
    let has = |uses: &[AddressUse], of: AddressUse| uses.contains(&of);
    let ended: Vec<AddressUse> = ends.iter().map(|(of, _)| *of).collect();
    let is_broken = passes.is_empty()
        || has(&ended, AddressUse::Named)
        || has(&ended, AddressUse::Met) && !has(&passes, AddressUse::Met);
    let mut warning = ends.into_iter().next().map(|(_, place)| place).or(may_end);
    if is_broken {
        return warning.map(|place| (place, FindingSeverity::Broken));
    }
    let mut all = true;
    for known in addresses.of_neighbours(kind) {
        let mut places = known.into_iter().map(|ends| match walk(ends) {
            PacketVerdict::Ends(place) => Some(place),
            _ => None,
        });
        let first = places.next().flatten();
        match first.filter(|_| places.all(|place| place.is_some())) {
            Some(place) => warning = warning.or(Some(place)),
            None => all = false,
        }
    }
    let is_all = all && addresses.knows_neighbours(kind);
    warning.map(|place| {
        (
            place,
            if is_all {
                FindingSeverity::Broken
            } else {
                FindingSeverity::Warning
            },
        )
    })
}

/// Messages that one place of a chain drops.
#[derive(Default)]
struct DroppedMessages<'a> {
    requests: bool,
    answers: bool,
    links: BTreeSet<&'a str>,
}

impl DroppedMessages<'_> {
    fn named(&self, family: Family) -> &'static str {
        match (family, self.requests, self.answers) {
            (Family::V6, true, true) => "neighbour solicitations and advertisements",
            (Family::V6, true, false) => "neighbour solicitations",
            (Family::V6, false, _) => "neighbour advertisements",
            (Family::V4, true, true) => "requests and answers of ARP",
            (Family::V4, true, false) => "requests of ARP",
            (Family::V4, false, _) => "answers of ARP",
        }
    }
}

/// Returns whether a chain sees what comes in, or what leaves; `None`: neither, or not these messages.
const fn comes_in(base: FirewallBase) -> Option<bool> {
    match base.hook {
        FirewallHook::Prerouting | FirewallHook::Input | FirewallHook::Ingress => Some(true),
        FirewallHook::Output | FirewallHook::Postrouting | FirewallHook::Egress => Some(false),
        _ => None,
    }
}

/// Returns whether the rule that may drop a message is about messages of neighbours: it asks for their types, or for ARP and not for
/// one host. Others, such as a list of addresses, are meant for some hosts.
fn is_about(context: &ChainContext<'_>, place: &RuleLocation) -> bool {
    let of_table = |chain: &&FirewallChain| chain.table == context.chain.table && chain.name == place.chain;
    let chain = context.chains.iter().find(of_table);
    let rule = place.rule.and_then(|number| chain?.rules.get(number.checked_sub(1)?));
    rule.is_some_and(|rule| {
        let is_typed = tests(rule, |field| {
            matches!(field, RuleField::IcmpType | RuleField::ArpOperation)
        });
        is_typed || is_of_arp(context, rule) && !rule.tests.iter().any(is_of_one_host)
    })
}

/// Returns whether a rule is about packets of ARP only.
fn is_of_arp(context: &ChainContext<'_>, rule: &Rule) -> bool {
    let asks = |field| matches!(field, RuleField::EtherType | RuleField::FrameType);
    context.family == Family::V4 && (context.chain.table.family == TableFamily::Arp || tests(rule, asks))
}

/// Returns whether a condition holds for a value, or a list of some, that is not known here, such as a link-layer address.
fn is_of_one_host(test: &Test) -> bool {
    let is_unknown = |load: &Load| load.field == RuleField::Other;
    match test {
        Test::Compare {
            load,
            relation: Relation::Equal,
            ..
        } => is_unknown(load),
        Test::In {
            key, negated: false, ..
        } => key.iter().any(is_unknown),
        _ => false,
    }
}

const fn is_address(field: RuleField) -> bool {
    matches!(
        field,
        RuleField::ArpSource | RuleField::ArpTarget | RuleField::Source6 | RuleField::Dest6
    )
}
