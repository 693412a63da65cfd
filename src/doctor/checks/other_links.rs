//! Clients that come by other interfaces than those far away: what drops only theirs.

use std::collections::BTreeMap;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, Severity};
use super::super::judge::{PacketVerdict, RulePlace};
use super::super::packet::Interface;
use super::firewall::{Context, KINDS, is_probes};
use super::samples::{Kind, Packets, Sample, other_outside, walk_all};
use super::some;
use crate::app_link;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{Base, Chain};

/// Interfaces that are looked at.
const MOST_LINKS: usize = 32;
/// Backends that are looked at for each.
const MOST_SAMPLES: usize = 8;

/// A base chain of another program's, and packets of a family.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) facts: &'a CheapFacts,
    pub(super) chains: &'a [Chain],
    pub(super) chain: &'a Chain,
    pub(super) base: Base,
    pub(super) family: Family,
    pub(super) mark: Option<u32>,
}

/// Tells of packets that a chain drops for sure, if they come by an interface that is not the first for clients. Where the chain
/// drops those of all clients, that is told already.
pub(super) fn judge(seen: Seen<'_>, samples: &[Sample<'_>], diagnosis: &mut Diagnosis) {
    if is_probes(seen.base) {
        return;
    }
    let mut dropped: BTreeMap<(Severity, bool, bool), (RulePlace, Vec<String>)> = BTreeMap::new();
    let links = other_outside(seen.facts, seen.family).into_iter();
    // By the link that has an app's gateway address nobody comes.
    let links = links.filter(|link| !app_link::is_of_app(&link.name));
    for link in links.take(MOST_LINKS) {
        for (reply, later) in KINDS
            .into_iter()
            .filter(|kind| !seen.base.nat || *kind == (false, false))
        {
            if let Some(place) = seen.ends(&link, reply, later, samples) {
                // Whoever lets only some interfaces in means it, unless the others lead to the world, too.
                let is_wish = place.rule.is_none() && !leads_far(seen.facts, link.index);
                let severity = if is_wish { Severity::Note } else { Severity::Warning };
                let entry = dropped.entry((severity, reply, later));
                let entry = entry.or_insert_with(|| (place, Vec::new()));
                entry.1.push(link.name.clone());
                break;
            }
        }
    }
    for ((severity, reply, later), (place, links)) in dropped {
        let context = Context {
            facts: seen.facts,
            chains: seen.chains,
            chain: seen.chain,
            base: seen.base,
            family: seen.family,
            reply,
            later,
            looked_at: 0,
            by: Some(some(&links)),
        };
        let told = diagnosis.findings.len();
        context.dropped(&[(None, place)], "drops", severity, diagnosis);
        // The same of the other family.
        if let Some((last, before)) = diagnosis.findings.split_last()
            && before.len() == told
            && before.iter().any(|finding| finding.seen == last.seen)
        {
            diagnosis.findings.pop();
        }
    }
}

/// Whether packets from an address of an interface go far away by it: an uplink of its own, by rules of policy routing.
fn leads_far(facts: &CheapFacts, index: u32) -> bool {
    let Ok(ways) = &facts.ways_out else { return false };
    let own = facts.link(index).into_iter().flat_map(|link| &link.addresses);
    let mut ways = own.filter_map(|(address, _)| ways.get(&(Family::of(*address), Some(*address)))?.as_ref());
    ways.any(|way| way.index == index && way.gateway.is_some())
}

impl Seen<'_> {
    /// Returns where packets of clients that come by an interface end, to or from whichever backend.
    fn ends(&self, link: &Interface, reply: bool, later: bool, samples: &[Sample<'_>]) -> Option<RulePlace> {
        let kind = Kind {
            family: self.family,
            reply,
            later,
            mark: self.mark,
        };
        let fate = |sample: Option<&Sample<'_>>| {
            let packets = Packets::by(self.facts, self.chain, self.base, kind, link, sample);
            walk_all(self.facts, self.chains, self.chain, (sample, &packets)).0
        };
        let of_all = fate(None);
        if samples.is_empty() || of_all == PacketVerdict::Passes {
            return place(of_all);
        }
        let step = samples.len().div_ceil(MOST_SAMPLES).max(1);
        let met = samples.iter().filter(|sample| sample.is_met_by(self.facts, link));
        met.step_by(step).find_map(|sample| place(fate(Some(sample))))
    }
}

fn place(fate: PacketVerdict) -> Option<RulePlace> {
    match fate {
        PacketVerdict::Ends(place) => Some(place),
        PacketVerdict::Passes | PacketVerdict::MayEnd(_) | PacketVerdict::Unjudged => None,
    }
}
