//! Check of other programs' chains for messages by which hosts of a link find each other: neighbour solicitations and
//! advertisements (RFC 4861) and ARP. Without them, the router to the clients cannot send packets to the gateway as soon
//! as it has forgotten the gateway's link-layer address.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::{PacketVerdict, RulePlace, walk};
use super::super::packet::{Interface, NeighbourMessage, Packet, PacketStage};
use super::chain::ChainContext;
use super::firewall::effort;
use super::samples::{of_link, outside, packet_mark};
use super::text::some;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, Load, Rule, RuleField, TableFamily, Test};

/// Maximum number of links that are checked.
const MOST_LINKS: usize = 32;

/// Reports chains that drop messages of neighbours on links of clients or backends.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for family in Family::BOTH.into_iter().filter(|family| facts.uses(*family)) {
        let links = links(facts, family);
        for chains in facts.known_chains() {
            let bases = chains.iter().filter_map(|chain| Some((chain, chain.base?)));
            for (chain, base) in bases.filter(|(chain, base)| !base.nat && carries(chain.table.family, family)) {
                let context = ChainContext {
                    facts,
                    chains,
                    chain,
                    base,
                    family,
                    reply: false,
                    later: false,
                    examined: 0,
                    by: None,
                };
                judge(&context, &links, diagnosis);
            }
        }
    }
}

/// Returns whether tables of a family see the messages of neighbours of IPv6, or of IPv4.
const fn carries(table: TableFamily, family: Family) -> bool {
    match family {
        Family::V4 => matches!(table, TableFamily::Arp),
        Family::V6 => matches!(table, TableFamily::Inet | TableFamily::Ip6),
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
    let rules = chains.iter().filter(|of| of.table == chain.table);
    let rules: usize = rules.flat_map(|of| &of.rules).map(effort).sum();
    let most = (facts.effort.most_rules() / rules.max(1)).max(1);
    let mark = packet_mark(facts);
    let mut dropped: BTreeMap<(FindingSeverity, bool, String), DroppedMessages<'_>> = BTreeMap::new();
    for link in links.iter().take(most) {
        for message in [NeighbourMessage::Request, NeighbourMessage::Answer] {
            let at = |is_here: bool| is_here.then(|| link.clone());
            let packet = Packet {
                family: context.family,
                input: at(comes_in),
                output: at(!comes_in),
                server: None,
                port: None,
                reply: false,
                stage: PacketStage::Handshake,
                tracked: false,
                ours: None,
                mark,
                client: None,
                from_app: None,
                neighbour: Some(message),
            };
            let (place, severity) = match walk(chains, chain, &packet).0 {
                PacketVerdict::Ends(place) => (place, FindingSeverity::Broken),
                PacketVerdict::MayEnd(place) if is_about(context, &place) => (place, FindingSeverity::Warning),
                _ => continue,
            };
            let key = (severity, place.rejects, context.place_of_end(&place));
            let entry = dropped.entry(key).or_default();
            entry.links.insert(&link.name);
            entry.requests |= message == NeighbourMessage::Request;
            entry.answers |= message == NeighbourMessage::Answer;
        }
    }
    for ((severity, rejects, by), messages) in dropped {
        let does = match (severity, rejects) {
            (FindingSeverity::Broken, false) => "drops",
            (FindingSeverity::Broken, true) => "rejects",
            (_, false) => "may drop",
            (_, true) => "may reject",
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
        FirewallHook::Prerouting | FirewallHook::Input => Some(true),
        FirewallHook::Output | FirewallHook::Postrouting => Some(false),
        _ => None,
    }
}

/// Returns whether the rule that may drop a message is about messages of neighbours. Others, such as a list of addresses,
/// are meant for some hosts.
fn is_about(context: &ChainContext<'_>, place: &RulePlace) -> bool {
    let of_table = |chain: &&FirewallChain| chain.table == context.chain.table && chain.name == place.chain;
    let chain = context.chains.iter().find(of_table);
    let rule = place.rule.and_then(|number| chain?.rules.get(number.checked_sub(1)?));
    let is_type = |load: &Load| matches!(load.field, RuleField::IcmpType | RuleField::ArpOperation);
    let is_about = |rule: &Rule| {
        rule.tests.iter().any(|test| match test {
            Test::Compare { load, .. } => is_type(load),
            Test::In { key, .. } => key.iter().any(is_type),
            _ => false,
        })
    };
    rule.is_some_and(is_about)
}
