//! Check of other programs' rules that give packets of services a hop limit (TTL) with which they do not arrive.

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::chain::{KINDS, sees, whose};
use super::samples::{PacketKind, Packets, packet_mark, samples, walk_all};
use crate::doctor::holds::Holds;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, RuleEffect};

/// Maximum number of backends that are checked.
const MOST_SAMPLES: usize = 16;
/// Hop limit with which a router drops a packet that it would forward (RFC 791, RFC 8200: it decrements first).
const USED_UP: u8 = 1;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for chains in facts.known_chains() {
        let mut effects = chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.effects);
        if !effects.any(|effect| matches!(effect, RuleEffect::HopLimit(limit) if *limit <= USED_UP)) {
            continue;
        }
        for chain in chains {
            let Some(base) = chain.base else { continue };
            for family in Family::BOTH {
                if facts.uses(family) && sees(chain.table.family, family) {
                    judge(facts, chains, chain, (base, family), diagnosis);
                }
            }
        }
    }
}

/// Judges a chain. Of leaving packets only answers are judged, and only if a router leads to the clients: a host on
/// the link accepts any limit.
fn judge(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    (base, family): (FirewallBase, Family),
    diagnosis: &mut Diagnosis,
) {
    let is_before = match base.hook {
        FirewallHook::Prerouting | FirewallHook::Ingress => true,
        FirewallHook::Forward | FirewallHook::Postrouting | FirewallHook::Egress => false,
        FirewallHook::Input | FirewallHook::Output | FirewallHook::Other => return,
    };
    let far = facts.client_routes.as_ref().ok();
    let far = far.and_then(|backend_routes| backend_routes.get(&(family, None))?.as_ref());
    let by_router = far.is_some_and(|way| way.gateway.is_some());
    for (reply, later) in KINDS {
        if !(is_before || reply && by_router) {
            continue;
        }
        let kind = PacketKind {
            family,
            reply,
            later,
            data: false,
            mark: packet_mark(facts),
        };
        let mut worst: Option<(Holds, String, u8)> = None;
        for sample in samples(facts, family, MOST_SAMPLES) {
            let packets = Packets::of(facts, chain, base, kind, Some(&sample));
            // The last rule that surely writes decides.
            for done in walk_all(facts, chains, chain, (Some(&sample), &packets)).1 {
                let RuleEffect::HopLimit(limit) = done.effect else {
                    continue;
                };
                let is_worse = worst.as_ref().is_none_or(|(holds, ..)| *holds < done.holds);
                if limit <= USED_UP && is_worse {
                    let rule = format!("rule {} of chain {}", done.rule, done.chain);
                    worst = Some((done.holds, rule, limit));
                } else if limit > USED_UP && done.holds == Holds::Yes {
                    worst = None;
                }
            }
        }
        if let Some((holds, rule, limit)) = worst {
            let sure = holds == Holds::Yes;
            let what = if reply {
                "answers of backends"
            } else {
                "packets to services"
            };
            diagnosis.found(
                "packets-dropped",
                if sure { FindingSeverity::Broken } else { FindingSeverity::Warning },
                format!(
                    "{rule} of {} {} {what} the hop limit (TTL) {limit}",
                    whose(chain),
                    if sure { "gives" } else { "may give" },
                ),
                if is_before {
                    "the gateway drops a packet with that limit where it would send it on".to_owned()
                } else {
                    "the next router drops a packet with that limit: clients behind it get no answer".to_owned()
                },
                Some(advice(
                    "leave packets of services out of that rule, or have it set a limit that reaches both ends, such as 64",
                )),
            );
            return;
        }
    }
}
