//! Check of other programs' rules for the clients that were served a moment ago.
//!
//! A rule that drops some addresses or ports of clients is usually a ban, and intended. One that drops every client that
//! is there is an outage: all of them may come from one network (a load balancer, say), or use the usual ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::facts::{CheapFacts, ServedClient};
use super::super::finding::{Diagnosis, FindingSeverity, Fix, advice};
use super::super::holds::Holds;
use super::super::judge::{ChainEffect, PacketVerdict, RulePlace, walk};
use super::super::mark_bits::MarkBits;
use super::super::packet::Packet;
use super::chain::{ChainContext, is_probes, sees};
use super::firewall::{KINDS_AND_DATA, effort};
use super::rewrites::{ChangingChain, Harm};
use super::samples::{PacketKind, comes_as_remote, packet_mark, packet_of_client};
use super::text::some;
use tcpgw_core::diff::count;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook};

/// Minimum number of clients that are judged, however many rules there are.
const FEWEST: usize = 8;

/// Number of clients whose packets would be lost which shows an outage, if nobody else is served.
pub(super) const SEVERAL_CLIENTS: usize = 3;

/// Reports rules that surely drop packets of clients that were served.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    Verdict::of(facts).tell(facts, diagnosis);
}

/// Returns the clients of which other programs' rules drop all packets.
pub(in crate::doctor) fn lost_clients(facts: &CheapFacts) -> BTreeSet<IpAddr> {
    Verdict::of(facts).lost
}

/// Fate of packets of the clients that were served.
struct Verdict {
    drops: BTreeMap<usize, Drop>,
    /// Clients with a packet that passes.
    reached: BTreeSet<IpAddr>,
    /// The others.
    lost: BTreeSet<IpAddr>,
}

impl Verdict {
    fn of(facts: &CheapFacts) -> Self {
        let mut drops: BTreeMap<usize, Drop> = BTreeMap::new();
        let mut judged = BTreeSet::new();
        let mark = packet_mark(facts);
        let all = facts.known_chains().flatten().flat_map(|chain| &chain.rules);
        let rules: usize = all.map(effort).sum();
        let most = facts.effort.most_rules() / (rules * KINDS_AND_DATA.len()).max(1);
        let step = facts.served.len().div_ceil(most.max(FEWEST)).max(1);
        for chains in facts.known_chains() {
            let bases = chains.iter().filter_map(|chain| Some((chain, chain.base?)));
            for (chain, base) in bases.filter(|(_, base)| base.hook != FirewallHook::Other && !is_probes(*base)) {
                let seen = Seen {
                    facts,
                    chains,
                    chain,
                    base,
                    mark,
                };
                for (at, client) in facts.served.iter().enumerate().step_by(step) {
                    if sees(chain.table.family, Family::of(client.client.ip())) {
                        judged.insert(at);
                        if !drops.contains_key(&at) {
                            drops.extend(seen.drop(client).map(|drop| (at, drop)));
                        }
                    }
                }
            }
        }
        let address = |at: &usize| facts.served[*at].client.ip();
        // A client of several backends is lost when it reaches none of them.
        let reached = judged.iter().filter(|at| !drops.contains_key(at)).map(address);
        let reached: BTreeSet<IpAddr> = reached.collect();
        let lost = drops.keys().map(address).filter(|client| !reached.contains(client));
        Self {
            lost: lost.collect(),
            drops,
            reached,
        }
    }

    fn tell(self, facts: &CheapFacts, diagnosis: &mut Diagnosis) {
        let Self { drops, reached, lost } = self;
        let number = |filter: fn(&ServedClient) -> bool| {
            let of = facts.served.iter().filter(|client| filter(client));
            let of: BTreeSet<IpAddr> = of.map(|client| client.client.ip()).collect();
            lost.intersection(&of).count()
        };
        let unbanned = number(|client| !client.is_banned);
        let is_broken = reached.is_empty() && unbanned >= SEVERAL_CLIENTS;
        // A single client is banned.
        if !is_broken && number(|client| client.is_recent) < 2 {
            return;
        }
        let mut places: BTreeMap<(String, String), (BTreeSet<IpAddr>, Drop)> = BTreeMap::new();
        for (at, drop) in drops {
            let client = facts.served[at].client.ip();
            if lost.contains(&client) {
                let place = places.entry((drop.does.clone(), drop.by.clone()));
                place.or_insert_with(|| (BTreeSet::new(), drop)).0.insert(client);
            }
        }
        let all = count(reached.len() + lost.len(), "client");
        for ((does, by), (clients, drop)) in places {
            diagnosis.found(
                "packets-dropped",
                if is_broken {
                    FindingSeverity::Broken
                } else {
                    FindingSeverity::Warning
                },
                format!(
                    "{does} {} of {all} that were served a moment ago ({}): {by}",
                    clients.len(),
                    some(&clients)
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

/// A base chain of another program.
#[derive(Clone, Copy)]
struct Seen<'a> {
    facts: &'a CheapFacts,
    chains: &'a [FirewallChain],
    chain: &'a FirewallChain,
    base: FirewallBase,
    mark: MarkBits,
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

impl Seen<'_> {
    /// Returns what surely drops packets of this client, unless it drops those of all remote clients, which is reported
    /// elsewhere.
    fn drop(self, client: &ServedClient) -> Option<Drop> {
        let family = Family::of(client.client.ip());
        let kinds = KINDS_AND_DATA.into_iter();
        // Translation concerns first packets only.
        let kinds = kinds.filter(|(reply, later, _)| !self.base.nat || !reply && !later);
        for (reply, later, data) in kinds {
            let kind = PacketKind {
                family,
                reply,
                later,
                data,
                mark: self.mark,
            };
            let Some(packet) = packet_of_client(self.facts, self.chain, self.base, kind, client) else {
                continue;
            };
            let changing = ChangingChain {
                facts: self.facts,
                base: self.base,
                kind,
                preserves: self.facts.services.service_at(client.public)?.settings.preserve,
            };
            let loss = |packet: &Packet| Loss::of(changing, packet, walk(self.chains, self.chain, packet));
            let Some(loss_of_client) = loss(&packet) else { continue };
            let of_any = Packet { client: None, ..packet };
            if comes_as_remote(self.facts, family, client) && loss(&of_any).is_some() {
                continue;
            }
            let context = ChainContext {
                facts: self.facts,
                chains: self.chains,
                chain: self.chain,
                base: self.base,
                family,
                reply,
                later,
                examined: 0,
                by: None,
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
}

/// A rule that loses a packet of a client.
enum Loss {
    Ends(RulePlace),
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
