//! Check of other programs' rules that give packets of services a mark with which routing refuses them.

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::chain::{sees, whose};
use super::samples::{PacketKind, Packets, packet_mark, samples, walk_all};
use crate::doctor::condition_result::Holds;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallChain, FirewallHook, RuleEffect};

/// Maximum number of backends that are checked.
const MOST_SAMPLES: usize = 16;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(refused) = diagnosis.known("routes of marked packets", &facts.refused_marks) else {
        return;
    };
    for chains in facts.known_chains() {
        for chain in chains {
            for (family, reply, mark) in refused {
                judge(facts, chains, chain, (*family, *reply, *mark), diagnosis);
            }
        }
    }
}

/// Judges a chain. The route of a forwarded packet is looked up once, after prerouting.
fn judge(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    (family, reply, mark): (Family, bool, u32),
    diagnosis: &mut Diagnosis,
) {
    let routed_later = |hook| matches!(hook, FirewallHook::Prerouting | FirewallHook::Ingress);
    let Some(base) = chain.base.filter(|base| routed_later(base.hook)) else {
        return;
    };
    if !sees(chain.table.family, family) {
        return;
    }
    let kind = PacketKind {
        family,
        reply,
        later: false,
        data: false,
        mark: packet_mark(facts),
    };
    let mut worst: Option<(Holds, String)> = None;
    for sample in samples(facts, family, MOST_SAMPLES) {
        let packets = Packets::of(facts, chain, base, kind, Some(&sample));
        let (_, done) = walk_all(facts, chains, chain, (Some(&sample), &packets));
        let writes = done
            .iter()
            .filter(|done| matches!(done.effect, RuleEffect::PacketMark(_)));
        // The last rule that surely writes decides.
        for done in writes {
            let RuleEffect::PacketMark(write) = done.effect else {
                continue;
            };
            let marks = write.all_of_zero();
            let is_it = marks.contains(&mark);
            // One of several marks concerns some packets only.
            let holds = if marks.len() > 1 {
                done.holds.min(Holds::Unknown)
            } else {
                done.holds
            };
            if is_it && worst.as_ref().is_none_or(|(worst, _)| *worst < holds) {
                worst = Some((holds, format!("rule {} of chain {}", done.rule, done.chain)));
            } else if !is_it && done.holds == Holds::Yes {
                worst = None;
            }
        }
    }
    let Some((holds, rule)) = worst else { return };
    let sure = holds == Holds::Yes;
    let what = if reply {
        "answers of backends"
    } else {
        "packets to services"
    };
    let option = if family == Family::V6 { "-6 " } else { "" };
    diagnosis.found(
        "packets-dropped",
        if sure { FindingSeverity::Broken } else { FindingSeverity::Warning },
        format!(
            "{rule} of {} {} {what} the mark {mark:#x}, with which routing refuses them, or has no route",
            whose(chain),
            if sure { "gives" } else { "may give" },
        ),
        "a rule of policy routing (`ip rule`) leads packets with that mark to a blackhole, or to a table without a way to them".into(),
        Some(advice(format!(
            "see `ip {option}rule list` for the rule with `fwmark {mark:#x}` and its table: correct it, or leave packets of services out of the rule that marks them"
        ))),
    );
}
