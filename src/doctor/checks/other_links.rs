//! Check of chains that drop packets of clients on other interfaces only than those that lead to remote clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::{PacketVerdict, RuleLocation};
use super::super::mark_bits::MarkBits;
use super::super::packet::Interface;
use super::chain::{ChainContext, ForeignBaseChain, KINDS, is_probes};
use super::docker::{has_docker, is_of_docker};
use super::samples::{BackendSample, PacketKind, Packets, of_link, other_outside, walk_all};
use super::text::some;
use crate::app_link;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::FirewallHook;

/// Maximum number of interfaces that are checked.
const MOST_LINKS: usize = 32;
/// Maximum number of backends that are checked for each interface.
const MOST_SAMPLES: usize = 8;

/// A base chain of another program, and packets of a family.
#[derive(Clone, Copy)]
pub(super) struct PacketsOfFamily<'a> {
    pub(super) at: ForeignBaseChain<'a>,
    pub(super) family: Family,
    pub(super) mark: MarkBits,
}

/// Reports packets that a chain surely drops if they come in by an interface other than the first for clients. If the
/// chain drops those of all clients, this is reported elsewhere.
pub(super) fn judge(seen: PacketsOfFamily<'_>, samples: &[BackendSample<'_>], diagnosis: &mut Diagnosis) {
    if is_probes(seen.at.base) {
        return;
    }
    let mut dropped: BTreeMap<(FindingSeverity, bool, bool), (RuleLocation, Vec<String>)> = BTreeMap::new();
    let links = other_outside(seen.at.facts, seen.family).into_iter();
    // No client comes in by the link that has an app's gateway address.
    let links = links.filter(|link| !app_link::is_of_app(&link.name));
    for link in links.take(MOST_LINKS) {
        for (reply, later) in KINDS
            .into_iter()
            .filter(|kind| !seen.at.base.nat || *kind == (false, false))
        {
            if let Some(place) = seen.ends(&link, reply, later, samples) {
                // A rule set that admits only some interfaces is intended, unless the others lead to remote networks,
                // too.
                let is_wish = place.rule.is_none() && !leads_far(seen.at.facts, link.index);
                let severity = if is_wish {
                    FindingSeverity::Note
                } else {
                    FindingSeverity::Warning
                };
                let entry = dropped.entry((severity, reply, later));
                let entry = entry.or_insert_with(|| (place, Vec::new()));
                entry.1.push(link.name.clone());
                break;
            }
        }
    }
    for ((severity, reply, later), (place, links)) in dropped {
        let context = seen.context((reply, later), 0, &links);
        let count_before = diagnosis.findings.len();
        context.dropped(&[(None, place)], "drops", severity, diagnosis);
        // The finding is the same as that of the other family.
        if let Some((last, before)) = diagnosis.findings.split_last()
            && before.len() == count_before
            && before.iter().any(|finding| finding.seen == last.seen)
        {
            diagnosis.findings.pop();
        }
    }
}

/// Reports packets of containers in one of Docker's networks to backends in another one, which Docker's own rules drop: the
/// containers are clients, too. What others drop between containers is intended.
pub(super) fn judge_networks(seen: PacketsOfFamily<'_>, samples: &[BackendSample<'_>], diagnosis: &mut Diagnosis) {
    if seen.at.base.hook != FirewallHook::Forward || !has_docker(seen.at.chains, seen.at.chain) {
        return;
    }
    let ways = seen
        .at
        .facts
        .backend_routes
        .iter()
        .flat_map(|routes| routes.values())
        .flatten();
    let inside: BTreeSet<u32> = ways.filter(|way| way.gateway.is_none()).map(|way| way.index).collect();
    let step = samples.len().div_ceil(MOST_SAMPLES).max(1);
    let samples: Vec<&BackendSample<'_>> = samples.iter().step_by(step).collect();
    let (mut names, mut places) = (Vec::new(), BTreeMap::new());
    for link in inside
        .iter()
        .filter_map(|index| seen.at.facts.link(*index))
        .take(MOST_LINKS)
    {
        let dropped: Vec<(SocketAddr, RuleLocation)> = samples
            .iter()
            .filter_map(|sample| Some((sample.backend, seen.docker_ends(&of_link(link), sample)?)))
            .collect();
        if !dropped.is_empty() {
            names.push(link.name.clone());
            places.extend(dropped);
        }
    }
    if names.is_empty() {
        return;
    }
    let context = seen.context((false, false), samples.len(), &names);
    let places: Vec<(Option<SocketAddr>, RuleLocation)> = places
        .into_iter()
        .map(|(backend, place)| (Some(backend), place))
        .collect();
    context.dropped(&places, "drops", FindingSeverity::Warning, diagnosis);
}

/// Returns whether an interface is an uplink of its own: packets from one of its addresses to remote networks leave by
/// it.
fn leads_far(facts: &CheapFacts, index: u32) -> bool {
    let Ok(backend_routes) = &facts.client_routes else {
        return false;
    };
    let own = facts.link(index).into_iter().flat_map(|link| &link.addresses);
    let mut backend_routes =
        own.filter_map(|(address, _)| backend_routes.get(&(Family::of(*address), Some(*address)))?.as_ref());
    backend_routes.any(|way| way.index == index && way.gateway.is_some())
}

impl<'a> PacketsOfFamily<'a> {
    /// Returns the chain for findings about a kind of packets, as (answer, after the handshake), of clients that come in by some
    /// interfaces.
    fn context(self, (reply, later): (bool, bool), examined: usize, interfaces: &[String]) -> ChainContext<'a> {
        ChainContext {
            reply,
            later,
            examined,
            by: Some(some(interfaces)),
            ..self.at.context(self.family)
        }
    }

    /// Returns the rule of Docker that ends the first packets of clients that come in by an interface, to a backend.
    fn docker_ends(&self, link: &Interface, sample: &BackendSample<'_>) -> Option<RuleLocation> {
        let kind = PacketKind {
            family: self.family,
            reply: false,
            later: false,
            data: false,
            mark: self.mark,
        };
        let packets = Packets::by(self.at.facts, self.at.chain, self.at.base, kind, link, Some(sample));
        let (fate, _) = walk_all(self.at.facts, self.at.chains, self.at.chain, (Some(sample), &packets));
        place(fate).filter(|place| place.rule.is_some() && is_of_docker(self.at.chain, &place.chain))
    }

    /// Returns the rule or policy that ends packets of clients that come in by an interface, to or from any backend.
    fn ends(&self, link: &Interface, reply: bool, later: bool, samples: &[BackendSample<'_>]) -> Option<RuleLocation> {
        let kind = PacketKind {
            family: self.family,
            reply,
            later,
            data: false,
            mark: self.mark,
        };
        let fate = |sample: Option<&BackendSample<'_>>| {
            let packets = Packets::by(self.at.facts, self.at.chain, self.at.base, kind, link, sample);
            walk_all(self.at.facts, self.at.chains, self.at.chain, (sample, &packets)).0
        };
        let of_all = fate(None);
        if samples.is_empty() || of_all == PacketVerdict::Passes {
            return place(of_all);
        }
        let step = samples.len().div_ceil(MOST_SAMPLES).max(1);
        let met = samples.iter().filter(|sample| sample.is_met_by(self.at.facts, link));
        met.step_by(step).find_map(|sample| place(fate(Some(sample))))
    }
}

fn place(fate: PacketVerdict) -> Option<RuleLocation> {
    match fate {
        PacketVerdict::Ends(place) => Some(place),
        PacketVerdict::Passes | PacketVerdict::MayEnd(_) | PacketVerdict::Unjudged => None,
    }
}
