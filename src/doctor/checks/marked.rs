//! Marks that rules in front of a chain have given a forwarded packet.

use super::super::conditions::tests;
use super::super::facts::CheapFacts;
use super::super::judge::walk;
use super::super::mark_bits::MarkBits;
use super::super::packet::Packet;
use super::chain::sees;
use crate::doctor::condition_result::Holds;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, MarkWrite, RuleEffect, RuleField};

/// Returns the mark of a packet when it comes to a chain: that which rules of earlier chains of the same hook write
/// (Docker's `bridge-accept-fwmark` asks for one). Of marks that are written before, no more is known than the packet
/// says.
///
/// Nothing more is known either where the chain's own table writes marks, or another chain of the same priority does.
pub(super) fn mark_before(facts: &CheapFacts, chain: &FirewallChain, base: FirewallBase, packet: &Packet) -> MarkBits {
    let is_known = packet.mark.of(None).is_some();
    if base.hook != FirewallHook::Forward || is_known || !asks_for_marks(facts, chain) {
        return packet.mark;
    }
    let mut earlier: Vec<(i32, &[FirewallChain], &FirewallChain)> = Vec::new();
    for chains in facts.known_chains() {
        for chain in chains.iter().filter(|chain| sees(chain.table.family, packet.family)) {
            let Some(other) = chain.base.filter(|other| other.hook == base.hook) else {
                continue;
            };
            if other.priority > base.priority || !marks(chains, chain) {
                continue;
            }
            if other.priority == base.priority {
                return packet.mark;
            }
            earlier.push((other.priority, chains, chain));
        }
    }
    earlier.sort_by_key(|(priority, ..)| *priority);
    let mut packet = packet.clone();
    for (_, chains, chain) in earlier {
        let (_, done) = walk(chains, chain, &packet);
        for done in done {
            let write = match done.effect {
                RuleEffect::PacketMark(write) => write,
                RuleEffect::RestoreMark => MarkWrite::UNKNOWN,
                _ => continue,
            };
            packet.mark = if done.holds == Holds::Yes {
                packet.mark.written(write)
            } else {
                packet.mark.perhaps_written(write)
            };
        }
    }
    packet.mark
}

/// Returns whether a rule of the chain's table asks for the mark of packets. For others it need not be known, and earlier chains may have
/// many rules.
fn asks_for_marks(facts: &CheapFacts, chain: &FirewallChain) -> bool {
    let mut of_table = facts.known_chains().flatten().filter(|of| of.table == chain.table);
    of_table.any(|of| {
        of.rules
            .iter()
            .any(|rule| tests(rule, |field| field == RuleField::Mark))
    })
}

/// Returns whether a rule of the chain's table writes marks of packets.
fn marks(chains: &[FirewallChain], chain: &FirewallChain) -> bool {
    let of_table = chains.iter().filter(|of| of.table == chain.table);
    let mut effects = of_table.flat_map(|of| &of.rules).flat_map(|rule| &rule.effects);
    effects.any(|effect| matches!(effect, RuleEffect::PacketMark(_) | RuleEffect::RestoreMark))
}
