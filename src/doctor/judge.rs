//! Verdict on a packet of a service in other programs' chains, as far as their rules can be judged.
//!
//! There are four answers to whether a rule matches: yes, no, for some clients, and unknown. A rule that drops some
//! clients is intended; one that drops for unknown reasons may be a problem.

use super::clients::{Span, compare_clients, covers, ranges_of, spans_cover, spares_few};
use super::packet::{Packet, Value};
use tcpgw_kernel::firewall::{
    FirewallChain, FirewallHook, Load, Relation, Rule, RuleEffect, RuleField, RuleVerdict, SetElement, Test,
};

/// Maximum number of rules that are evaluated for one packet.
const MOST_RULES: usize = 200_000;
/// Maximum depth of jumps, as in `nf_tables` (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// Maximum number of ranges of dropped clients that are remembered for one packet; rules that drop all clients need
/// few.
const MOST_RANGES: usize = 1000;

/// Certainty that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    SomeClients,
    Unknown,
    Yes,
}

/// Rule or policy that ends a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RulePlace {
    pub(super) chain: String,
    /// Number of the rule, from 1; `None`: the policy.
    pub(super) rule: Option<usize>,
    pub(super) rejects: bool,
    /// Whether the rule matches packets that exceed a rate.
    pub(super) exceeds: bool,
    /// Whether the rule matches all clients but a few.
    pub(super) spares_few: bool,
}

/// Verdict of a base chain on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PacketVerdict {
    Passes,
    /// The verdict depends on a rule that cannot be judged.
    MayEnd(RulePlace),
    Ends(RulePlace),
    /// The chain has too many rules.
    Unjudged,
}

/// An effect of a chain on a packet besides the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) effect: RuleEffect,
    pub(super) chain: String,
    /// Number of the rule, from 1.
    pub(super) rule: usize,
    pub(super) holds: Holds,
}

/// Returns the verdict of a base chain on a packet, and its effects.
pub(super) fn walk(chains: &[FirewallChain], base: &FirewallChain, packet: &Packet) -> (PacketVerdict, Vec<Done>) {
    let mut walk = Walk {
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
        base.base.filter(|of| of.drops).map(|_| RulePlace {
            chain: base.name.clone(),
            rule: None,
            rejects: false,
            exceeds: false,
            spares_few: false,
        })
    };
    let ended = match end {
        End::Accepted => None,
        End::Ended(place) => Some(place),
        End::Through => policy(),
    };
    let fate = match (ended, walk.accepts, walk.may_end) {
        (Some(place), false, _) => PacketVerdict::Ends(place),
        (Some(place), true, None) | (_, _, Some(place)) => PacketVerdict::MayEnd(place),
        (None, _, None) => PacketVerdict::Passes,
    };
    (fate, walk.done)
}

enum End {
    Through,
    Accepted,
    Ended(RulePlace),
}

struct Walk<'a> {
    chains: Vec<&'a FirewallChain>,
    packet: &'a Packet,
    /// Whether the packet has the address of a client, rather than one of the gateway's own in its place.
    shows_client: bool,
    left: usize,
    /// Names of the chains that the packet is in.
    path: Vec<&'a str>,
    /// Whether a rule that may match accepts the packet.
    accepts: bool,
    may_end: Option<RulePlace>,
    done: Vec<Done>,
    /// Ranges of a field in which clients differ that rules drop, each only some clients by itself; and whether that
    /// is sure.
    dropped: Vec<(RuleField, bool, Span)>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, chain: &'a FirewallChain, mut certain: Holds, depth: usize) -> End {
        for (at, rule) in chain.rules.iter().enumerate() {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 || depth > DEEPEST {
                return End::Through;
            }
            let holds = all_hold(self.packet, rule);
            if holds == Holds::No {
                continue;
            }
            for effect in &rule.effects {
                self.done.push(Done {
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
                let place = RulePlace {
                    chain: chain.name.clone(),
                    rule: Some(at + 1),
                    rejects: *verdict == RuleVerdict::Reject,
                    exceeds: rule.tests.contains(&Test::Exceeds),
                    spares_few,
                };
                match self.verdict(verdict, place, holds, holds.min(certain), depth) {
                    PacketStep::Next => {}
                    PacketStep::Doubt => certain = certain.min(Holds::Unknown),
                    PacketStep::End(end) => return end,
                }
            }
            // A rule that surely translates the packet also ends the chain for it.
            if rule.effects.contains(&RuleEffect::Dnat) && holds.min(certain) == Holds::Yes {
                return End::Accepted;
            }
        }
        End::Through
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
        let may = spans_cover(about.field, &all).min(Holds::Unknown);
        spans_cover(about.field, &sure).max(may)
    }

    fn verdict(
        &mut self,
        verdict: &RuleVerdict,
        place: RulePlace,
        own: Holds,
        certain: Holds,
        depth: usize,
    ) -> PacketStep {
        match (verdict, certain) {
            (RuleVerdict::Accept, Holds::Yes) => return PacketStep::End(End::Accepted),
            (RuleVerdict::Accept, _) => self.accepts = true,
            (RuleVerdict::Drop | RuleVerdict::Reject, Holds::Yes) => return PacketStep::End(End::Ended(place)),
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
                    if !matches!(end, End::Through) {
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
    Doubt,
    End(End),
}

fn leaving(own: Holds) -> PacketStep {
    if own == Holds::Yes {
        PacketStep::End(End::Through)
    } else {
        PacketStep::Doubt
    }
}

/// Returns the verdict, or those that a map may give.
fn verdicts<'a>(packet: &Packet, verdict: &'a RuleVerdict, holds: Holds) -> Vec<(&'a RuleVerdict, Holds)> {
    const UNREAD: RuleVerdict = RuleVerdict::Unknown(String::new());
    match verdict {
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

/// Returns whether all tests of a rule hold.
pub(super) fn all_hold(packet: &Packet, rule: &Rule) -> Holds {
    let mut holds = Holds::Yes;
    for test in &rule.tests {
        holds = holds.min(holds_for(packet, test));
        if holds == Holds::No {
            break;
        }
    }
    holds
}

pub(super) fn holds_for(packet: &Packet, test: &Test) -> Holds {
    match test {
        Test::Never => Holds::No,
        Test::Sometimes => Holds::SomeClients,
        Test::Exceeds | Test::Unknown(_) => Holds::Unknown,
        Test::Compare {
            load,
            mask,
            relation,
            value,
        } => compare(packet, *load, mask.as_deref(), *relation, value),
        Test::In {
            key,
            elements: Some(elements),
            negated,
        } => negate(is_in(packet, key, elements, *negated), *negated),
        Test::In {
            key, elements: None, ..
        } => match key_value(packet, key) {
            Err(Holds::SomeClients) => Holds::SomeClients,
            _ => Holds::Unknown,
        },
    }
}

const fn negate(holds: Holds, negated: bool) -> Holds {
    match (holds, negated) {
        (Holds::Yes, true) => Holds::No,
        (Holds::No, true) => Holds::Yes,
        (holds, _) => holds,
    }
}

/// Returns whether a comparison with a ct mark surely fails, because bits of tcpgw's mark differ.
fn is_another_mark(packet: &Packet, load: Load, mask: Option<&[u8]>, value: &[u8]) -> bool {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    match (packet.ours, number(value)) {
        (Some(ours), Some(value)) if load.field == RuleField::CtMark => {
            let asked = mask.and_then(number).unwrap_or(u32::MAX) & ours.mask();
            (value ^ ours.value()) & asked != 0
        }
        _ => false,
    }
}

fn compare(packet: &Packet, load: Load, mask: Option<&[u8]>, relation: Relation, value: &[u8]) -> Holds {
    // A mask without bits compares nothing: nft writes an address with the prefix length 0 this way.
    if mask.is_some_and(|mask| !mask.is_empty() && mask.iter().all(|byte| *byte == 0)) {
        let is_zero = value.iter().all(|byte| *byte == 0);
        match relation {
            Relation::Equal | Relation::Differs if is_zero == (relation == Relation::Equal) => return Holds::Yes,
            Relation::Equal | Relation::Differs => return Holds::No,
            _ => {}
        }
    }
    match relation {
        Relation::Equal if is_another_mark(packet, load, mask, value) => return Holds::No,
        Relation::Differs if is_another_mark(packet, load, mask, value) => return Holds::Yes,
        _ => {}
    }
    // If other rules mark packets, unmarked packets are those that no rule matched, and a rule may be about these.
    if load.field == RuleField::Mark && packet.mark.is_none() {
        let unmarked = Packet {
            mark: Some(0),
            ..packet.clone()
        };
        return match compare(&unmarked, load, mask, relation, value) {
            Holds::Yes | Holds::Unknown => Holds::Unknown,
            Holds::No | Holds::SomeClients => Holds::SomeClients,
        };
    }
    let mut bytes = match packet.value(load, mask) {
        Value::Is(bytes) => bytes,
        Value::Differs => return compare_clients(load, mask, relation, value),
        Value::Unknown => return Holds::Unknown,
    };
    for (byte, mask) in bytes.iter_mut().zip(mask.unwrap_or_default()) {
        *byte &= mask;
    }
    // A name may be compared by its prefix.
    let length = value.len().min(bytes.len());
    let order = bytes[..length].cmp(&value[..length]);
    let is_native = matches!(
        load.field,
        RuleField::CtState | RuleField::CtStatus | RuleField::CtMark | RuleField::Mark
    );
    let holds = match relation {
        Relation::Equal => order.is_eq(),
        Relation::Differs => order.is_ne(),
        _ if is_native => return Holds::Unknown,
        Relation::Less => order.is_lt(),
        Relation::AtMost => order.is_le(),
        Relation::More => order.is_gt(),
        Relation::AtLeast => order.is_ge(),
    };
    if holds { Holds::Yes } else { Holds::No }
}

/// Returns the bytes of a key, field by field.
///
/// # Errors
/// Fails with the certainty that follows when a field is unknown or differs between clients.
fn key_value(packet: &Packet, key: &[Load]) -> Result<Vec<Vec<u8>>, Holds> {
    let mut unknown = None;
    let mut parts = Vec::new();
    for load in key {
        match packet.value(*load, None) {
            Value::Is(bytes) => parts.push(bytes),
            Value::Differs => return Err(Holds::SomeClients),
            Value::Unknown => unknown = Some(Holds::Unknown),
        }
    }
    unknown.map_or(Ok(parts), Err)
}

/// Returns whether one of the elements matches. Elements for some clients together match all if they cover all
/// possible values. If nearly all clients match, the result is uncertain, unless the few others are the point
/// (`spared`).
fn is_in(packet: &Packet, key: &[Load], elements: &[SetElement], spared: bool) -> Holds {
    let covers = |field, ranges: &[_]| match covers(field, ranges) {
        Holds::Unknown if spared => Holds::SomeClients,
        holds => holds,
    };
    let mut parts = Vec::with_capacity(key.len());
    let mut at = 0;
    for load in key {
        let value = packet.value(*load, None);
        let length = match &value {
            Value::Is(bytes) => bytes.len(),
            _ => load.len,
        };
        parts.push((load.field, value, at..at + length));
        at += load.len.max(length).next_multiple_of(4).max(4);
    }
    let mut differ = parts.iter().filter(|(_, value, _)| *value == Value::Differs);
    let differs = differ.next().filter(|_| differ.next().is_none());
    let mut best = Holds::No;
    // Ranges that elements cover of the only part in which clients differ, if all other parts match.
    let mut covered = Vec::new();
    for element in elements {
        let mut holds = Holds::Yes;
        for (field, value, span) in &parts {
            let range = element.from.get(span.clone()).zip(element.to.get(span.clone()));
            holds = holds.min(match (value, range) {
                (Value::Unknown, _) => Holds::Unknown,
                (Value::Is(bytes), Some((from, to))) if from <= bytes.as_slice() && bytes.as_slice() <= to => {
                    Holds::Yes
                }
                (Value::Is(_), _) => Holds::No,
                (Value::Differs, Some(range)) => covers(*field, &[range]),
                (Value::Differs, None) => Holds::SomeClients,
            });
        }
        if holds == Holds::SomeClients
            && let Some((_, _, span)) = differs
        {
            covered.extend(element.from.get(span.clone()).zip(element.to.get(span.clone())));
        }
        best = best.max(holds);
    }
    match differs {
        Some((field, ..)) if best == Holds::SomeClients => covers(*field, &covered),
        _ => best,
    }
}
