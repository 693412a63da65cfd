//! Check of other programs' rules that change packets of services without conntrack: addresses, ports, and other fields of
//! headers, such as a hop limit (TTL) with which packets do not arrive.

mod header;

use std::collections::BTreeMap;

pub(super) use self::header::ChangingChain;
use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::super::judge::{ChainEffect, walk};
use super::super::packet::{Interface, Packet};
use super::chain::{KINDS, is_probes, sees, whose};
use super::samples::{BackendSample, PacketKind, Packets, addressed, other_outside, packet_mark, samples};
use crate::app_link;
use crate::doctor::condition_result::Holds;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::{FirewallBase, FirewallChain, FirewallHook, HeaderField, RuleEffect};

/// Maximum number of backends that are checked.
const MOST_SAMPLES: usize = 16;
/// Maximum number of further interfaces that are checked.
const MOST_LINKS: usize = 8;
/// Hop limit with which a router drops a packet that it would forward (RFC 791, RFC 8200: it decrements first).
const USED_UP: u8 = 1;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for chains in facts.known_chains() {
        if !chains.iter().any(may_change) {
            continue;
        }
        for chain in chains {
            let Some(base) = chain.base else { continue };
            if is_probes(base) || base.hook == FirewallHook::Other {
                continue;
            }
            // A table's rules are seen by its own chains only.
            if !chains.iter().any(|of| of.table == chain.table && may_change(of)) {
                continue;
            }
            for family in Family::BOTH {
                if facts.uses(family) && sees(chain.table.family, family) {
                    judge(facts, chains, chain, (base, family), diagnosis);
                }
            }
        }
    }
}

fn may_change(chain: &FirewallChain) -> bool {
    let mut effects = chain.rules.iter().flat_map(|rule| &rule.effects);
    effects.any(|effect| match effect {
        RuleEffect::HopLimit(limit) => *limit <= USED_UP,
        RuleEffect::Rewrite(_) => true,
        _ => false,
    })
}

/// Field of a packet that a rule changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ChangedField {
    HopLimit,
    Header(HeaderField),
}

/// A rewrite that keeps a packet from arriving.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    field: ChangedField,
    pub(super) holds: Holds,
    chain: String,
    rule: usize,
    /// The value that is written, if it is known.
    value: Option<String>,
}

impl Harm {
    /// Returns the field and its value: `the destination port 8999`.
    pub(super) fn what(&self) -> String {
        let field = match self.field {
            ChangedField::HopLimit => "the hop limit (TTL)",
            ChangedField::Header(field) => header::named(field),
        };
        match &self.value {
            Some(value) => format!("{field} {value}"),
            None => field.to_owned(),
        }
    }

    /// Returns the rule: `rule 1 of chain c`.
    pub(super) fn by(&self) -> String {
        format!("rule {} of chain {}", self.rule, self.chain)
    }
}

impl ChangingChain<'_> {
    /// Returns the worst change of a packet by the effects of a chain. Of several writes to a field, the last one that is
    /// sure decides.
    pub(super) fn harm(self, packet: &Packet, effects: &[ChainEffect]) -> Option<Harm> {
        let mut harms: BTreeMap<ChangedField, Harm> = BTreeMap::new();
        for done in effects {
            let Some((field, breaks)) = self.breaks(done.effect, packet) else {
                continue;
            };
            if breaks == Holds::No {
                if done.holds == Holds::Yes {
                    harms.remove(&field);
                }
                continue;
            }
            let holds = done.holds.min(breaks);
            if harms.get(&field).is_none_or(|known| known.holds < holds) {
                let harm = Harm {
                    field,
                    holds,
                    chain: done.chain.clone(),
                    rule: done.rule,
                    value: value(done.effect, self.kind.family),
                };
                harms.insert(field, harm);
            }
        }
        harms.into_values().max_by_key(|harm| harm.holds)
    }

    /// Returns the field that an effect changes, and whether packets do not arrive with the change.
    fn breaks(self, effect: RuleEffect, packet: &Packet) -> Option<(ChangedField, Holds)> {
        match effect {
            RuleEffect::HopLimit(limit) if self.is_hop_counted() => {
                let breaks = if limit <= USED_UP { Holds::Yes } else { Holds::No };
                Some((ChangedField::HopLimit, breaks))
            }
            RuleEffect::Rewrite(write) => Some((ChangedField::Header(write.field), self.rewritten(write, packet))),
            _ => None,
        }
    }

    /// Returns whether a router has still to forward the packet: this gateway, or one that leads to the clients. A host on
    /// the link accepts any limit.
    fn is_hop_counted(self) -> bool {
        match self.base.hook {
            FirewallHook::Prerouting | FirewallHook::Ingress => true,
            _ => {
                let far = self.facts.client_routes.as_ref().ok();
                let far = far.and_then(|routes| routes.get(&(self.kind.family, None))?.as_ref());
                self.kind.reply && far.is_some_and(|way| way.gateway.is_some())
            }
        }
    }
}

fn value(effect: RuleEffect, family: Family) -> Option<String> {
    match effect {
        RuleEffect::HopLimit(limit) => Some(limit.to_string()),
        RuleEffect::Rewrite(write) => header::value(write, family),
        _ => None,
    }
}

/// Judges a chain: for each kind of packets, the worst change.
fn judge(
    facts: &CheapFacts,
    chains: &[FirewallChain],
    chain: &FirewallChain,
    (base, family): (FirewallBase, Family),
    diagnosis: &mut Diagnosis,
) {
    let mark = packet_mark(facts);
    let samples = samples(facts, family, MOST_SAMPLES);
    // Translation concerns first packets only.
    let kinds = KINDS.into_iter().filter(|(reply, later)| !base.nat || !reply && !later);
    let kinds = kinds.map(|(reply, later)| PacketKind {
        family,
        reply,
        later,
        data: false,
        mark,
    });
    let links: Vec<Interface> = other_outside(facts, family);
    let links = links.iter().filter(|link| !app_link::is_of_app(&link.name));
    let links = || std::iter::once(None).chain(links.clone().take(MOST_LINKS).map(Some));
    for kind in kinds {
        let mut worst: Option<(FindingSeverity, Harm, Option<&Interface>)> = None;
        for (sample, link) in samples
            .iter()
            .flat_map(|sample| links().map(move |link| (sample, link)))
        {
            let changing = ChangingChain {
                facts,
                base,
                kind,
                preserves: sample.service().settings.preserve,
            };
            let Some((severity, harm)) = changing.of_sample(chains, chain, sample, link) else {
                continue;
            };
            if worst.as_ref().is_none_or(|(known, ..)| severity < *known) {
                worst = Some((severity, harm, link));
            }
        }
        if let Some((severity, harm, link)) = worst {
            tell(chain, (base, kind), (severity, &harm, link), diagnosis);
            return;
        }
    }
}

impl ChangingChain<'_> {
    /// Returns the worst change of packets to or from a backend: an error where it surely breaks them for all clients, and by
    /// each address that the service names. `link`: an interface of some clients.
    fn of_sample(
        self,
        chains: &[FirewallChain],
        chain: &FirewallChain,
        sample: &BackendSample<'_>,
        link: Option<&Interface>,
    ) -> Option<(FindingSeverity, Harm)> {
        let packets = match link {
            None => Packets::of(self.facts, chain, self.base, self.kind, Some(sample)),
            Some(link) if !sample.is_met_by(self.facts, link) => return None,
            Some(link) => Packets::by(self.facts, chain, self.base, self.kind, link, Some(sample)),
        };
        let all = packets.seen.iter();
        let all = all.flat_map(|packet| addressed(self.facts, chain, (sample, packet)));
        let harms: Vec<Option<Harm>> = all
            .map(|packet| self.harm(&packet, &walk(chains, chain, &packet).1))
            .collect();
        let is_sure = |harm: &Option<Harm>| harm.as_ref().is_some_and(|harm| harm.holds == Holds::Yes);
        let is_chosen = !sample.service().addresses.is_empty();
        let is_broken = if is_chosen {
            harms.iter().any(is_sure)
        } else {
            !packets.passes && harms.iter().all(is_sure)
        };
        let harm = harms.into_iter().flatten().max_by_key(|harm| harm.holds)?;
        let severity = match (is_broken, link) {
            (true, None) => FindingSeverity::Broken,
            (false, Some(_)) => return None,
            // A rule for some clients is intended, as one that drops them.
            (false, None) if harm.holds == Holds::SomeClients && harm.field != ChangedField::HopLimit => return None,
            (true, Some(_)) | (false, None) => FindingSeverity::Warning,
        };
        Some((severity, harm))
    }
}

fn tell(
    chain: &FirewallChain,
    (base, kind): (FirewallBase, PacketKind),
    (severity, harm, link): (FindingSeverity, &Harm, Option<&Interface>),
    diagnosis: &mut Diagnosis,
) {
    let may = if severity == FindingSeverity::Broken || link.is_some() {
        ""
    } else {
        "may "
    };
    let gives = if may.is_empty() { "gives" } else { "give" };
    let later = if kind.later { "later " } else { "" };
    let what = if kind.reply {
        "answers of backends"
    } else {
        "packets to services"
    };
    let of_link = link.map_or_else(String::new, |link| format!(" of clients that come by {}", link.name));
    let seen = format!(
        "{} of {} {may}{gives} {later}{what}{of_link} {}",
        harm.by(),
        whose(chain),
        harm.what()
    );
    let is_before = matches!(base.hook, FirewallHook::Prerouting | FirewallHook::Ingress);
    let (cause, fix) = match harm.field {
        ChangedField::HopLimit => (
            if is_before {
                "the gateway drops a packet with that limit where it would send it on"
            } else {
                "the next router drops a packet with that limit: clients behind it get no answer"
            },
            "leave packets of services out of that rule, or have it set a limit that reaches both ends, such as 64",
        ),
        ChangedField::Header(field) if header::is_end(field) => (
            header::CAUSE,
            "leave packets of services out of that rule, or translate with `dnat` or `snat`, which conntrack knows",
        ),
        ChangedField::Header(_) => (
            "a packet with such a header is dropped on its way, or by the other end",
            "leave packets of services out of that rule",
        ),
    };
    diagnosis.found("packets-dropped", severity, seen, cause.to_owned(), Some(advice(fix)));
}
