//! Verdict on a packet of a service in other programs' chains, as far as their rules can be judged.
//!
//! There are four answers to whether a rule matches: yes, no, for some clients, and unknown. A rule that drops some
//! clients is intended; one that drops for unknown reasons may be a problem.

use super::clients::{ranges_of, spares_few};
use super::condition_result::Holds;
use super::conditions::{all_hold, is_in, key_value, lacks_any};
use super::packet::Packet;
use super::spans::{Span, spans_cover};
use tcpgw_kernel::firewall::{FirewallChain, FirewallHook, Rule, RuleEffect, RuleField, RuleVerdict, Test};

/// Maximum number of rules that are evaluated for one packet.
const MOST_RULES: usize = 200_000;
/// Maximum depth of jumps, as in `nf_tables` (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// Maximum number of ranges of dropped clients that are remembered for one packet; rules that drop all clients need
/// few.
const MOST_RANGES: usize = 1000;

/// Rule or policy that ends a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleLocation {
    pub(super) chain: String,
    /// Number of the rule, from 1; `None`: the policy.
    pub(super) rule: Option<usize>,
    pub(super) rejects: bool,
    /// Whether the rule matches packets that exceed a rate.
    pub(super) exceeds: bool,
    /// Whether the rule matches all clients but a few.
    pub(super) spares_few: bool,
    /// The hop limit (TTL) that the rule sets, and with which hosts discard the packet.
    pub(super) hop_limit: Option<u8>,
}

/// Verdict of a base chain on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PacketVerdict {
    Passes,
    /// The verdict depends on a rule that cannot be judged.
    MayEnd(RuleLocation),
    Ends(RuleLocation),
    /// The chain has too many rules.
    Unjudged,
}

/// An effect of a chain on a packet besides the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainEffect {
    pub(super) effect: RuleEffect,
    pub(super) chain: String,
    /// Number of the rule, from 1.
    pub(super) rule: usize,
    pub(super) holds: Holds,
}

/// Returns the verdict of a base chain on a packet, and its effects.
pub(super) fn walk(
    chains: &[FirewallChain],
    base: &FirewallChain,
    packet: &Packet,
) -> (PacketVerdict, Vec<ChainEffect>) {
    let mut walk = ChainWalk {
        chains: chains.iter().filter(|chain| chain.table == base.table).collect(),
        packet,
        shows_client: !packet.reply
            && base.base.is_some_and(|base| {
                matches!(
                    base.hook,
                    FirewallHook::Ingress | FirewallHook::Prerouting | FirewallHook::Forward
                )
            }),
        left: MOST_RULES,
        path: vec![&base.name],
        accepts: false,
        may_end: None,
        done: Vec::new(),
        dropped: Vec::new(),
    };
    let end = walk.chain(base, Holds::Yes, 0);
    if walk.left == 0 {
        return (PacketVerdict::Unjudged, walk.done);
    }
    let policy = || {
        base.base.filter(|of| of.drops).map(|_| RuleLocation {
            chain: base.name.clone(),
            rule: None,
            rejects: false,
            exceeds: false,
            spares_few: false,
            hop_limit: None,
        })
    };
    let ended = match end {
        ChainEnd::Accepted => None,
        ChainEnd::Ended(place) => Some(place),
        ChainEnd::Through => policy(),
    };
    let fate = match (ended, walk.accepts, walk.may_end) {
        (Some(place), false, _) => PacketVerdict::Ends(place),
        (Some(place), true, None) | (_, _, Some(place)) => PacketVerdict::MayEnd(place),
        (None, _, None) => PacketVerdict::Passes,
    };
    (fate, walk.done)
}

enum ChainEnd {
    Through,
    Accepted,
    Ended(RuleLocation),
}

struct ChainWalk<'a> {
    chains: Vec<&'a FirewallChain>,
    packet: &'a Packet,
    /// Whether the packet has the address of a client, rather than one of the gateway's own in its place.
    shows_client: bool,
    left: usize,
    /// Names of the chains that the packet is in.
    path: Vec<&'a str>,
    /// Whether a rule that may match accepts the packet.
    accepts: bool,
    may_end: Option<RuleLocation>,
    done: Vec<ChainEffect>,
    /// Ranges of a field in which clients differ that rules drop, each only some clients by itself; and whether that
    /// is sure.
    dropped: Vec<(RuleField, bool, Span)>,
}

impl<'a> ChainWalk<'a> {
    fn chain(&mut self, chain: &'a FirewallChain, mut certain: Holds, depth: usize) -> ChainEnd {
        for (at, rule) in chain.rules.iter().enumerate() {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 || depth > DEEPEST {
                return ChainEnd::Through;
            }
            let holds = all_hold(self.packet, rule);
            if holds == Holds::No {
                continue;
            }
            for effect in &rule.effects {
                self.done.push(ChainEffect {
                    effect: *effect,
                    chain: chain.name.clone(),
                    rule: at + 1,
                    holds: holds.min(certain),
                });
            }
            let drops = matches!(rule.verdict, RuleVerdict::Drop | RuleVerdict::Reject);
            let drops_some = drops && holds == Holds::SomeClients;
            let spares_few = drops_some && self.shows_client && spares_few(self.packet, rule);
            let holds = if spares_few {
                Holds::Unknown
            } else if drops_some && certain == Holds::Yes {
                self.with_those_before(rule)
            } else {
                holds
            };
            for (verdict, holds) in verdicts(self.packet, &rule.verdict, holds) {
                let place = RuleLocation {
                    chain: chain.name.clone(),
                    rule: Some(at + 1),
                    rejects: *verdict == RuleVerdict::Reject,
                    exceeds: rule.tests.contains(&Test::Exceeds),
                    spares_few,
                    hop_limit: None,
                };
                match self.verdict(verdict, place, holds, holds.min(certain), depth) {
                    PacketStep::Next => {}
                    PacketStep::Uncertain => certain = certain.min(Holds::Unknown),
                    PacketStep::End(end) => return end,
                }
            }
            // A rule that surely translates the packet also ends the chain for it.
            if rule.effects.contains(&RuleEffect::Dnat) && holds.min(certain) == Holds::Yes {
                return ChainEnd::Accepted;
            }
        }
        ChainEnd::Through
    }

    /// Returns whether a rule that drops some clients is the last of several that together drop all.
    fn with_those_before(&mut self, rule: &Rule) -> Holds {
        let Some(about) = ranges_of(self.packet, rule) else {
            return Holds::SomeClients;
        };
        let room = MOST_RANGES.saturating_sub(self.dropped.len());
        let new = about.spans.into_iter().take(room);
        self.dropped.extend(new.map(|span| (about.field, about.sure, span)));
        let of_field = || self.dropped.iter().filter(|(field, ..)| *field == about.field);
        let all: Vec<Span> = of_field().map(|(.., span)| *span).collect();
        let sure: Vec<Span> = of_field()
            .filter(|(_, sure, _)| *sure)
            .map(|(.., span)| *span)
            .collect();
        let ports = self.packet.client_ports();
        let may = spans_cover(about.field, ports, &all).min(Holds::Unknown);
        spans_cover(about.field, ports, &sure).max(may)
    }

    fn verdict(
        &mut self,
        verdict: &RuleVerdict,
        place: RuleLocation,
        own: Holds,
        certain: Holds,
        depth: usize,
    ) -> PacketStep {
        match (verdict, certain) {
            (RuleVerdict::Accept, Holds::Yes) => return PacketStep::End(ChainEnd::Accepted),
            // Rules for neighbours ask for much that is not known here, such as the hop limit.
            (RuleVerdict::Accept, _) if self.packet.neighbour.is_some() => return PacketStep::End(ChainEnd::Accepted),
            (RuleVerdict::Accept, _) => self.accepts = true,
            (RuleVerdict::Drop | RuleVerdict::Reject, Holds::Yes) => return PacketStep::End(ChainEnd::Ended(place)),
            (RuleVerdict::Drop | RuleVerdict::Reject, Holds::Unknown) => drop(self.may_end.get_or_insert(place)),
            (RuleVerdict::Unknown(_), _) => {
                self.accepts = true;
                self.may_end.get_or_insert(place);
            }
            (RuleVerdict::Return, _) => return leaving(own),
            (RuleVerdict::Jump(to) | RuleVerdict::Goto(to), _) => {
                let chain = self.chains.iter().find(|chain| chain.name == *to).copied();
                // The kernel refuses circular jumps; one that was misread is not followed.
                if let Some(chain) = chain.filter(|chain| !self.path.contains(&chain.name.as_str())) {
                    self.path.push(&chain.name);
                    let end = self.chain(chain, certain, depth + 1);
                    self.path.pop();
                    if !matches!(end, ChainEnd::Through) {
                        return PacketStep::End(end);
                    }
                }
                if matches!(verdict, RuleVerdict::Goto(_)) {
                    return leaving(own);
                }
            }
            (RuleVerdict::Drop | RuleVerdict::Reject | RuleVerdict::Continue | RuleVerdict::Map(..), _) => {}
        }
        PacketStep::Next
    }
}

enum PacketStep {
    Next,
    /// The following rules may or may not be reached.
    Uncertain,
    End(ChainEnd),
}

fn leaving(own: Holds) -> PacketStep {
    if own == Holds::Yes {
        PacketStep::End(ChainEnd::Through)
    } else {
        PacketStep::Uncertain
    }
}

/// Returns the verdict, or those that a map may give.
fn verdicts<'a>(packet: &Packet, verdict: &'a RuleVerdict, holds: Holds) -> Vec<(&'a RuleVerdict, Holds)> {
    const UNREAD: RuleVerdict = RuleVerdict::Unknown(String::new());
    match verdict {
        RuleVerdict::Map(key, _) if lacks_any(packet, key) => Vec::new(),
        RuleVerdict::Map(key, Some(elements)) => {
            let plain = [RuleVerdict::Drop, RuleVerdict::Accept];
            let each = elements.iter().filter(|(_, verdict)| !plain.contains(verdict));
            let each =
                each.map(|(element, verdict)| (verdict, is_in(packet, key, std::slice::from_ref(element), false)));
            // Elements for some clients each may together cover all clients.
            let of = |verdict: &RuleVerdict| {
                let elements = elements.iter().filter(|(_, of)| of == verdict);
                elements.map(|(element, _)| element.clone()).collect::<Vec<_>>()
            };
            let together = [const { &RuleVerdict::Drop }, const { &RuleVerdict::Accept }];
            let together = together.map(|verdict| (verdict, is_in(packet, key, &of(verdict), false)));
            let all = together.into_iter().chain(each);
            let all = all.map(|(verdict, of)| (verdict, holds.min(of)));
            all.filter(|(_, holds)| *holds != Holds::No).collect()
        }
        RuleVerdict::Map(key, None) => match key_value(packet, key) {
            Err(Holds::SomeClients) => Vec::new(),
            _ => vec![(const { &UNREAD }, holds.min(Holds::Unknown))],
        },
        plain => vec![(plain, holds)],
    }
}
