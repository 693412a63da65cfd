//! Check of other programs' rules that overwrite the bits of tcpgw's ct mark: limits, masquerading and flushing then
//! miss the flow.

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, Fix, advice, command};
use super::super::judge::{ChainEffect, walk};
use super::super::packet::Packet;
use super::chain::{ForeignBaseChain, program, sees, whose};
use super::firewall::foreign_chains;
use super::samples::{DSTNAT, PacketKind, outside, packet, packet_mark, samples};
use crate::doctor::condition_result::Holds;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, MarkWrite, RuleEffect};

/// Maximum number of backends that are checked one by one; rules that write marks rarely depend on the backend.
const SAMPLES: usize = 8;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for chains in foreign_chains(facts, diagnosis) {
        all(facts, chains, diagnosis);
    }
}

fn all(facts: &CheapFacts, chains: &[FirewallChain], diagnosis: &mut Diagnosis) {
    let effects = || {
        chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.effects)
    };
    if !effects().any(|effect| overwrites(*effect, facts.mark).is_some()) {
        return;
    }
    let restored = effects().any(|effect| *effect == RuleEffect::RestoreMark);
    for seen in ForeignBaseChain::among(facts, chains) {
        if let Some((done, write)) = worst(seen) {
            let overwriting = Overwriting {
                mark: facts.mark,
                chains,
                chain: seen.chain,
                done: &done,
                write,
                restored,
            };
            overwriting.tell(diagnosis);
        }
    }
}

fn overwrites(effect: RuleEffect, mark: FlowMark) -> Option<MarkWrite> {
    match effect {
        RuleEffect::CtMark(write) if !write.keeps(mark.value(), mark.mask()) => Some(write),
        _ => None,
    }
}

/// Returns the rule of a base chain, or of those that it jumps to, that most surely overwrites tcpgw's bits.
fn worst(seen: ForeignBaseChain<'_>) -> Option<(ChainEffect, MarkWrite)> {
    let ForeignBaseChain {
        facts,
        chains,
        chain,
        base,
    } = seen;
    let mut worst: Option<(ChainEffect, MarkWrite)> = None;
    let mut judge = |packet: &Packet| {
        for done in walk(chains, chain, packet).1 {
            if let Some(write) = overwrites(done.effect, facts.mark)
                && worst.as_ref().is_none_or(|(known, _)| known.holds < done.holds)
            {
                worst = Some((done, write));
            }
        }
    };
    for family in Family::BOTH.into_iter().filter(|family| facts.uses(*family)) {
        if !sees(chain.table.family, family) {
            continue;
        }
        let backends = samples(facts, family, SAMPLES);
        let outside = outside(facts, family);
        for (reply, later) in kinds(base) {
            let kind = PacketKind {
                family,
                reply,
                later,
                data: false,
                mark: packet_mark(facts),
            };
            let samples = backends.iter().map(Some).chain(backends.is_empty().then_some(None));
            for sample in samples {
                let mut packet = packet(facts, base, kind, outside.first(), sample);
                packet.ours = Some(facts.mark);
                judge(&packet);
            }
        }
    }
    worst
}

/// Returns the kinds of packets, as (answer, later than the handshake), that a chain sees after the flow has tcpgw's
/// mark.
fn kinds(base: FirewallBase) -> Vec<(bool, bool)> {
    let is_marked = match base.hook {
        FirewallHook::Forward | FirewallHook::Postrouting => true,
        FirewallHook::Prerouting => base.priority > DSTNAT,
        FirewallHook::Input
        | FirewallHook::Output
        | FirewallHook::Ingress
        | FirewallHook::Egress
        | FirewallHook::Other => return Vec::new(),
    };
    let first = is_marked.then_some((false, false));
    let others = [(false, true), (true, false)];
    first
        .into_iter()
        .chain(others.into_iter().filter(|_| !base.nat))
        .collect()
}

/// A write to the ct mark that removes tcpgw's from its flows.
struct Overwriting<'a> {
    mark: FlowMark,
    chains: &'a [FirewallChain],
    /// The base chain that packets meet first.
    chain: &'a FirewallChain,
    /// The rule that writes.
    done: &'a ChainEffect,
    write: MarkWrite,
    /// Whether some rule copies the ct mark to the packet's mark, which the write may then contain.
    restored: bool,
}

impl Overwriting<'_> {
    fn tell(&self, diagnosis: &mut Diagnosis) {
        let (mark, done) = (self.mark, self.done);
        let sure = done.holds == Holds::Yes && (self.write.is_known(mark.mask()) || !self.restored);
        diagnosis.found(
            "flow-mark-overwritten",
            if sure { FindingSeverity::Broken } else { FindingSeverity::Warning },
            format!(
                "rule {} of chain {} of {} {} the whole ct mark of tcpgw's flows",
                done.rule,
                done.chain,
                whose(self.chain),
                if sure { "overwrites" } else { "may overwrite" },
            ),
            format!(
                "without tcpgw's mark ({mark}) no limit applies to a flow, it is not masqueraded when it begins, and is not flushed when \
             its backend leaves. The best fix is to give that rule a mask that leaves this mark alone (`--mask {:#010x}`; `ct mark set ct mark and {:#010x} \
             or ...`); the line exempts tcpgw's flows from the rest of its chain",
                !mark.mask(),
                mark.mask()
            ),
            Some(spare(mark, self.chains, self.chain, &done.chain)),
        );
    }
}

/// Returns a command that exempts tcpgw's flows from the chain before the rule.
fn spare(mark: FlowMark, chains: &[FirewallChain], base: &FirewallChain, name: &str) -> Fix {
    let table = &base.table;
    if table.owned {
        return advice("the table is owned by a running program: change the rule in its configuration");
    }
    let is_base = chains
        .iter()
        .any(|chain| chain.table == *table && chain.name == name && chain.base.is_some());
    match program(base) {
        Some(program) => command(format!(
            "{program} -t {} -I {name} -m connmark --mark {mark} -j {}",
            table.name,
            if is_base { "ACCEPT" } else { "RETURN" }
        )),
        None => command(format!(
            "nft insert rule {} {} {name} ct mark and {:#010x} == {:#010x} {}",
            table.family,
            table.name,
            mark.mask(),
            mark.value(),
            if is_base { "accept" } else { "return" }
        )),
    }
}
