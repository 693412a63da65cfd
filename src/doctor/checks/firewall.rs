//! Check of other programs' chains that packets of services pass: rules that drop them, exempt them from conntrack, or
//! send them past the limits.

use std::net::SocketAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::{ChainEffect, PacketVerdict, RuleLocation};
use super::chain::{ChainContext, ForeignBaseChain, is_probes, sees, whose};
use super::other_links;
use super::samples::{BackendSample, PacketKind, Packets, packet_mark, samples, walk_all};
use super::text::quoted;
use crate::doctor::condition_result::Holds;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallChain, FirewallHook, Rule, RuleEffect, RuleVerdict, Test};

/// Kinds of packets that are judged, with and without data, as (answer, after the handshake, with data).
pub(super) const KINDS_AND_DATA: [(bool, bool, bool); 6] = [
    (false, false, false),
    (true, false, false),
    (false, true, false),
    (true, true, false),
    (false, true, true),
    (true, true, true),
];
/// Minimum and maximum number of backends that are checked one by one.
const FEWEST_SAMPLES: usize = 8;
const MOST_SAMPLES: usize = 1000;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for seen in foreign_base_chains(facts, diagnosis) {
        judge(seen, diagnosis);
    }
    for table in facts.firewall.iter().flat_map(|firewall| &firewall.unjudged) {
        diagnosis.unchecked(
            format!("table {} {}", table.family, table.name),
            "it sees frames and not packets; what it drops is not known here",
        );
    }
    let links = facts.links.iter().flatten().filter(|link| link.up && !link.loopback);
    for link in links {
        let name = &link.name;
        if link.xdp {
            diagnosis.unchecked(
                format!("the XDP program of {name}"),
                "it sees packets before all rules; what it drops is not known here",
            );
        }
        if link.classifies {
            diagnosis.unchecked(
                format!("filters of traffic control at {name}"),
                format!(
                    "they see packets before most rules; `tc filter show dev {} ingress` prints them",
                    quoted(name)
                ),
            );
        }
    }
}

/// Returns the base chains of other programs that could be read.
pub(super) fn foreign_base_chains<'a>(facts: &'a CheapFacts, diagnosis: &mut Diagnosis) -> Vec<ForeignBaseChain<'a>> {
    let chains = foreign_chains(facts, diagnosis).into_iter();
    chains
        .flat_map(|chains| ForeignBaseChain::among(facts, chains))
        .collect()
}

/// Returns the chains of other programs that could be read: of nftables, of iptables-legacy, and of ip6tables-legacy.
pub(super) fn foreign_chains<'a>(facts: &'a CheapFacts, diagnosis: &mut Diagnosis) -> Vec<&'a [FirewallChain]> {
    let firewall = diagnosis.known("other tables of nftables", &facts.firewall);
    let firewall = firewall.map(|firewall| firewall.chains.as_slice());
    let legacy = diagnosis.known("tables of iptables-legacy", &facts.legacy);
    let legacy6 = diagnosis.known("tables of ip6tables-legacy", &facts.legacy6);
    let legacy = legacy.into_iter().chain(legacy6).map(|chains| chains.as_slice());
    firewall.into_iter().chain(legacy).collect()
}

fn judge(seen: ForeignBaseChain<'_>, diagnosis: &mut Diagnosis) {
    let ForeignBaseChain {
        facts,
        chains,
        chain,
        base,
    } = seen;
    if base.hook == FirewallHook::Other || (is_probes(base) && base.nat) {
        return;
    }
    let of_table = || chains.iter().filter(|of| of.table == chain.table);
    let effort: usize = of_table().flat_map(|of| &of.rules).map(effort).sum();
    let most = (facts.effort.most_rules() / effort.max(1)).clamp(FEWEST_SAMPLES, MOST_SAMPLES);
    let mut sees_any = false;
    let mark = packet_mark(facts);
    for family in Family::BOTH {
        if !facts.uses(family) || !sees(chain.table.family, family) {
            continue;
        }
        let samples = samples(facts, family, most);
        let (mut nothing_arrives, mut is_told) = (false, false);
        for (reply, later, data) in KINDS_AND_DATA {
            // If no packet reaches a backend, no answer comes; and translation concerns first packets only.
            if (reply || later) && (base.nat || nothing_arrives) {
                continue;
            }
            // Probes leave by output, and their answers come in by input.
            if is_probes(base) && (later || reply != (base.hook == FirewallHook::Input)) {
                continue;
            }
            // Later packets mostly meet the same verdict as first ones.
            if later && is_told {
                continue;
            }
            let kind = PacketKind {
                family,
                reply,
                later,
                data,
                mark,
            };
            let of_all = Packets::of(facts, chain, base, kind, None);
            let of_sample = |sample| (sample, Packets::of(facts, chain, base, kind, Some(sample)));
            let packets = samples.iter().map(of_sample);
            let packets: Vec<(&BackendSample<'_>, Packets)> =
                packets.filter(|(_, packets)| !packets.seen.is_empty()).collect();
            // Most chains pass a packet for any backend.
            let is_known = !of_all.seen.is_empty();
            if !is_known && packets.is_empty() {
                continue;
            }
            sees_any = true;
            let mut trouble = Trouble::default();
            trouble.add(None, walk_all(facts, chains, chain, (None, &of_all)));
            if trouble.is_none() && is_known {
                continue;
            }
            if !packets.is_empty() {
                trouble = Trouble::default();
            }
            for (sample, packets) in &packets {
                let walked = walk_all(facts, chains, chain, (Some(sample), packets));
                trouble.add(Some(sample.backend), walked);
            }
            nothing_arrives |= !trouble.ends.is_empty();
            is_told |= !trouble.is_none();
            let context = ChainContext {
                reply,
                later,
                examined: packets.len(),
                ..seen.context(family)
            };
            trouble.tell(&context, diagnosis);
        }
        if !is_told {
            let seen = other_links::PacketsOfFamily { at: seen, family, mark };
            other_links::judge(seen, &samples, diagnosis);
            other_links::judge_networks(seen, &samples, diagnosis);
        }
    }
    if !sees_any && base.hook.is_of_interfaces() && (base.drops || of_table().any(may_drop)) {
        diagnosis.unchecked(
            format!("chain {} of {}", chain.name, whose(chain)),
            "it sees packets of other interfaces than those by which clients and backends are reached",
        );
    }
}

/// Returns the cost of evaluating a rule, which grows with the sets that it uses.
pub(super) fn effort(rule: &Rule) -> usize {
    /// Number of elements that cost as much as a rule.
    const ELEMENTS: usize = 8;
    let elements = |test: &Test| match test {
        Test::In { elements, .. } => elements.as_ref().map_or(0, Vec::len),
        _ => 0,
    };
    1 + rule.tests.iter().map(elements).sum::<usize>() / ELEMENTS
}

fn may_drop(chain: &FirewallChain) -> bool {
    let passes = |rule: &Rule| {
        matches!(
            rule.verdict,
            RuleVerdict::Continue
                | RuleVerdict::Accept
                | RuleVerdict::Return
                | RuleVerdict::Jump(_)
                | RuleVerdict::Goto(_)
        )
    };
    !chain.rules.iter().all(passes)
}

/// Effects of one base chain on packets of services.
#[derive(Default)]
struct Trouble {
    ends: Vec<(Option<SocketAddr>, RuleLocation)>,
    may_end: Vec<(Option<SocketAddr>, RuleLocation)>,
    untracked: Option<(String, Holds)>,
    offloaded: Option<String>,
    unjudged: bool,
}

impl Trouble {
    fn is_none(&self) -> bool {
        self.ends.is_empty()
            && self.may_end.is_empty()
            && self.untracked.is_none()
            && self.offloaded.is_none()
            && !self.unjudged
    }

    fn add(&mut self, backend: Option<SocketAddr>, (fate, done): (PacketVerdict, Vec<ChainEffect>)) {
        match fate {
            PacketVerdict::Passes => {}
            PacketVerdict::Ends(place) => self.ends.push((backend, place)),
            PacketVerdict::MayEnd(place) => self.may_end.push((backend, place)),
            PacketVerdict::Unjudged => self.unjudged = true,
        }
        for done in done {
            match done.effect {
                RuleEffect::Notrack if self.untracked.as_ref().is_none_or(|(_, holds)| *holds < done.holds) => {
                    self.untracked = Some((done.chain, done.holds));
                }
                RuleEffect::Offload => drop(self.offloaded.get_or_insert(done.chain)),
                _ => {}
            }
        }
    }

    fn tell(&self, context: &ChainContext<'_>, diagnosis: &mut Diagnosis) {
        let whose = whose(context.chain);
        if self.unjudged {
            diagnosis.unchecked(
                format!("chain {} of {whose}", context.chain.name),
                "it has too many rules",
            );
        }
        if !self.ends.is_empty() {
            context.dropped(&self.ends, "drops", FindingSeverity::Broken, diagnosis);
        } else if !self.may_end.is_empty() {
            context.dropped(&self.may_end, "may drop", FindingSeverity::Warning, diagnosis);
        }
        if is_probes(context.base) {
            return;
        }
        if let Some((chain, holds)) = &self.untracked {
            let sure = *holds == Holds::Yes;
            diagnosis.found(
                "packets-untracked",
                if sure {
                    FindingSeverity::Broken
                } else {
                    FindingSeverity::Warning
                },
                format!(
                    "chain {chain} of {whose} {} {} off conntrack (notrack)",
                    if sure { "takes" } else { "may take" },
                    if context.reply {
                        "answers of backends"
                    } else {
                        "packets to services"
                    }
                ),
                "what conntrack does not see is not translated, and is refused as a packet of no known flow".into(),
                Some(context.let_pass()),
            );
        }
        if let Some(chain) = self.offloaded.as_ref().filter(|_| !context.reply) {
            diagnosis.warning(
                "flows-offloaded",
                format!("chain {chain} of {whose} sends flows past the rules (flowtable)"),
                "later packets of such a flow are not held to any limit",
                context.let_pass(),
            );
        }
    }
}
