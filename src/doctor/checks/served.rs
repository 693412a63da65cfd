//! Check of other programs' rules for the clients that were served a moment ago.
//!
//! A rule that drops some addresses or ports of clients is usually a ban, and intended. One that drops every client that
//! is there, or every one of a service or an address family, is an outage: all of them may come from one network (a load balancer, say), or use the usual ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::condition_result::Holds;
use super::super::facts::{CheapFacts, ClientOfService, ServedClient};
use super::super::finding::{Diagnosis, FindingSeverity, Fix, advice};
use super::super::judge::{ChainEffect, PacketVerdict, RuleLocation, walk};
use super::super::mark_bits::MarkBits;
use super::super::packet::Packet;
use super::chain::{ChainContext, ForeignBaseChain, is_probes, sees};
use super::client_groups::{ClientGroup, GroupedClients, SEVERAL_CLIENTS, state_of};
use super::firewall::{KINDS_AND_DATA, effort};
use super::rewrites::{ChangingChain, Harm};
use super::samples::{PacketKind, comes_as_remote, packet_mark, packet_of_client};
use super::text::some;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::FirewallHook;

/// Minimum number of clients that are judged, however many rules there are.
const FEWEST: usize = 8;

/// Minimum number of clients that are judged of each service and family.
const FEWEST_OF_GROUP: usize = 2 * SEVERAL_CLIENTS;

/// Reports rules that surely drop packets of clients that were served.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    Verdict::of(facts).tell(facts, diagnosis);
}

/// Returns the clients of services of which other programs' rules drop all packets.
pub(in crate::doctor) fn lost_clients(facts: &CheapFacts) -> BTreeSet<ClientOfService> {
    let Verdict { drops, clients } = Verdict::of(facts);
    let lost = drops.keys().map(|at| facts.served[*at].of_service());
    lost.filter(|client| clients.is_lost(*client)).collect()
}

/// Fate of packets of the clients that were served.
struct Verdict<'a> {
    /// Drops of clients' packets, by position of the client.
    drops: BTreeMap<usize, Drop>,
    clients: GroupedClients<'a>,
}

impl<'a> Verdict<'a> {
    fn of(facts: &'a CheapFacts) -> Self {
        let mut drops: BTreeMap<usize, Drop> = BTreeMap::new();
        let mut judged = BTreeSet::new();
        let mark = packet_mark(facts);
        let all = facts.known_chains().flatten().flat_map(|chain| &chain.rules);
        let rules: usize = all.map(effort).sum();
        let most = facts.effort.most_rules() / (rules * KINDS_AND_DATA.len()).max(1);
        let sample = sample(facts, most.max(FEWEST));
        for chains in facts.known_chains() {
            let bases = ForeignBaseChain::among(facts, chains);
            for seen in bases.filter(|seen| seen.base.hook != FirewallHook::Other && !is_probes(seen.base)) {
                for at in sample.iter().copied() {
                    let client = &facts.served[at];
                    if sees(seen.chain.table.family, Family::of(client.client.ip())) {
                        judged.insert(at);
                        if !drops.contains_key(&at) {
                            drops.extend(drop_of(seen, mark, client).map(|drop| (at, drop)));
                        }
                    }
                }
            }
        }
        let mut clients = GroupedClients::new(facts);
        for at in judged {
            clients.add(facts.served[at].of_service(), !drops.contains_key(&at));
        }
        Self { drops, clients }
    }

    fn tell(self, facts: &CheapFacts, diagnosis: &mut Diagnosis) {
        let Self { drops, clients } = self;
        let mut places: BTreeMap<DropPlace, (BTreeSet<IpAddr>, Drop)> = BTreeMap::new();
        let mut banned = BTreeSet::new();
        for (at, drop) in drops {
            let client = facts.served[at].of_service();
            if !clients.is_lost(client) {
                continue;
            }
            let dead = clients.dead_group_of(client);
            if dead.is_none() && state_of(facts, client).any(|of| of.is_recent) {
                banned.insert(client.client);
            }
            let place = places.entry((dead, drop.does.clone(), drop.by.clone()));
            place.or_insert_with(|| (BTreeSet::new(), drop)).0.insert(client.client);
        }
        for ((dead, does, by), (lost, drop)) in places {
            // A single client is banned.
            if dead.is_none() && banned.len() < 2 {
                continue;
            }
            diagnosis.found(
                "packets-dropped",
                if dead.is_some() {
                    FindingSeverity::Broken
                } else {
                    FindingSeverity::Warning
                },
                format!(
                    "{does} {} of {} that were served a moment ago ({}): {by}",
                    lost.len(),
                    clients.size(dead.unwrap_or(ClientGroup::ALL)),
                    some(&lost)
                ),
                format!(
                    "new connections of these clients fail, unless they are to be kept out. {}",
                    drop.lasting
                ),
                Some(drop.fix),
            );
        }
    }
}

/// The group of which all are lost, what the chain does, and the rule.
type DropPlace = (Option<ClientGroup>, String, String);

/// Returns the positions of the clients that are judged: about `most`, and several of each service and family.
fn sample(facts: &CheapFacts, most: usize) -> BTreeSet<usize> {
    let mut groups: BTreeMap<(Family, Option<usize>), Vec<usize>> = BTreeMap::new();
    for (at, client) in facts.served.iter().enumerate() {
        let service = facts.services.position_at(client.public);
        let group = groups.entry((Family::of(client.client.ip()), service));
        group.or_default().push(at);
    }
    let of_each = (most / groups.len().max(1)).max(FEWEST_OF_GROUP);
    let of_group = |members: Vec<usize>| {
        let step = members.len().div_ceil(of_each).max(1);
        members.into_iter().step_by(step)
    };
    groups.into_values().flat_map(of_group).collect()
}

/// Drop of packets of a client, by a chain.
struct Drop {
    /// The chain, and what it does.
    does: String,
    /// The rule, or the policy.
    by: String,
    lasting: &'static str,
    fix: Fix,
}

/// Returns what surely drops packets of this client, unless it drops those of all remote clients, which is reported
/// elsewhere.
fn drop_of(seen: ForeignBaseChain<'_>, mark: MarkBits, client: &ServedClient) -> Option<Drop> {
    let family = Family::of(client.client.ip());
    let kinds = KINDS_AND_DATA.into_iter();
    // Translation concerns first packets only.
    let kinds = kinds.filter(|(reply, later, _)| !seen.base.nat || !reply && !later);
    for (reply, later, data) in kinds {
        let kind = PacketKind {
            family,
            reply,
            later,
            data,
            mark,
        };
        let Some(packet) = packet_of_client(seen.facts, seen.chain, seen.base, kind, client) else {
            continue;
        };
        let changing = ChangingChain {
            facts: seen.facts,
            base: seen.base,
            kind,
            preserves: seen.facts.services.service_at(client.public)?.settings.preserve,
        };
        let loss = |packet: &Packet| Loss::of(changing, packet, walk(seen.chains, seen.chain, packet));
        let Some(loss_of_client) = loss(&packet) else { continue };
        let of_any = Packet { client: None, ..packet };
        if comes_as_remote(seen.facts, family, client) && loss(&of_any).is_some() {
            continue;
        }
        let context = ChainContext {
            reply,
            later,
            ..seen.context(family)
        };
        let what = if reply { "answers to" } else { "packets of" };
        let of = |does: &str| format!("{} {does} {what}", context.name());
        return Some(match loss_of_client {
            Loss::Ends(place) => Drop {
                does: of(if place.rejects { "rejects" } else { "drops" }),
                by: context.place_of_end(&place),
                lasting: context.lasting(),
                fix: context.let_pass(),
            },
            Loss::Changes(harm) => Drop {
                does: of("changes"),
                by: format!("{} gives them {}", harm.by(), harm.what()),
                lasting: "Packets must keep what conntrack knows them by",
                fix: advice("leave packets of services out of that rule"),
            },
        });
    }
    None
}

/// A rule that loses a packet of a client.
enum Loss {
    Ends(RuleLocation),
    Changes(Harm),
}

impl Loss {
    fn of(
        seen: ChangingChain<'_>,
        packet: &Packet,
        (fate, effects): (PacketVerdict, Vec<ChainEffect>),
    ) -> Option<Self> {
        match fate {
            PacketVerdict::Ends(place) => Some(Self::Ends(place)),
            _ => seen
                .harm(packet, &effects)
                .filter(|harm| harm.holds == Holds::Yes)
                .map(Self::Changes),
        }
    }
}
