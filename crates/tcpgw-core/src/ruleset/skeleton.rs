//! Chains and rules of the table. They do not depend on the services: services, backends and limits are elements of
//! sets. Three things follow the elements: `spread` chains have a rule for each number of slots in use, each
//! round-robin service has a chain of its own with a counter, and sets that few gateways use are looked up only
//! while they have elements.
//!
//! `rules/README.md` shows the path of packets through them.

mod backends;
mod chain;
mod entries;
mod services;
mod sources;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::str::FromStr;

pub use self::chain::spread_name;
pub use self::chain::{Hook, SkeletonBase, SkeletonChain};
use super::cap::Cap;
pub use super::name::OptionalSets;
use super::name::{Family, ListenScope, RoundRobinChain, Scope, SetName, SlotChoice, SpreadRule, Width};
use super::room::Room;
use super::spec::{Field, client_key};
use super::stmt::{Pick, Stmt, service_in};
use super::timeouts::Timeouts;
use crate::model::FlowMark;

/// Version of the rules, which the table's comment contains. Raise it with every change of the rules or of a set's
/// form.
pub const VERSION: u32 = 8;

/// Returns the table's comment, which tells a reader of the kernel the version of the rules before it compares them.
pub fn comment(mark: FlowMark, room: Room) -> String {
    format!("{}, flow mark {mark}, room {room}", name())
}

/// Returns the version of the rules that a table's comment names.
pub fn version_of(comment: &str) -> Option<u32> {
    part(comment, "tcpgw skeleton ")
}

/// Returns the flow mark that a table's comment names.
pub fn mark_of(comment: &str) -> Option<FlowMark> {
    part(comment, "flow mark ")
}

/// Returns the size of the largest sets that a table's comment names.
pub fn room_of(comment: &str) -> Option<Room> {
    part(comment, "room ")
}

fn part<T: FromStr>(comment: &str, name: &str) -> Option<T> {
    comment
        .split(", ")
        .find_map(|part| part.strip_prefix(name))?
        .parse()
        .ok()
}

/// Returns the beginning of the comments of all tables with these rules.
pub fn name() -> String {
    format!("tcpgw skeleton {VERSION}")
}

/// Returns every chain that does not depend on the services, each after those that it goes to.
pub fn fixed(mark: FlowMark, optional_sets: &OptionalSets) -> Vec<SkeletonChain> {
    let mut chains = Vec::new();
    for scope in Scope::ALL {
        chains.extend(services::refusals(scope));
    }
    for listen_scope in ListenScope::ALL {
        chains.extend(services::arriving(listen_scope));
        chains.extend(services::choosing(listen_scope, mark));
    }
    for family in Family::BOTH {
        chains.extend(backends::policing(family));
        chains.extend(backends::connected(family));
        chains.extend(backends::errors(family));
        chains.extend(backends::unknown(family));
        chains.push(backends::challenge(family));
        chains.extend([backends::drop_direct(family), backends::direct(family)]);
        chains.extend(sources::by_link(family));
        chains.push(sources::preserve(family, optional_sets));
        chains.push(services::find(family));
    }
    chains.extend(entries::entries(mark, optional_sets));
    for chain in &mut chains {
        chain
            .rules
            .retain(|rule| rule.iter().all(|stmt| may_match(stmt, optional_sets)));
    }
    chains
}

/// Returns whether a statement can match: it does not look up an optional set without elements.
fn may_match(stmt: &Stmt, optional_sets: &OptionalSets) -> bool {
    match stmt {
        Stmt::In(_, set) => !set.is_optional() || optional_sets.contains(set),
        Stmt::Snat(family) => optional_sets.contains(&SetName::Sources(*family)),
        Stmt::PretendLinkSource(family) | Stmt::SnatToLink(family) => {
            optional_sets.contains(&SetName::LinkSources(*family))
        }
        _ => true,
    }
}

/// Returns the `spread` chain with these rules.
pub fn spread(listen_scope: ListenScope, rules: &BTreeSet<SpreadRule>, mark: FlowMark) -> SkeletonChain {
    let rules = rules.iter().flat_map(|rule| match rule {
        SpreadRule::Cap(cap) => capped(listen_scope, *cap, mark),
        SpreadRule::Slots(width) => vec![slots(listen_scope, *width, mark)],
        SpreadRule::Idle(seconds) => vec![idle(listen_scope, *seconds, mark)],
    });
    SkeletonChain::new(spread_name(listen_scope), rules.collect())
}

fn slots(listen_scope: ListenScope, width: Width, mark: FlowMark) -> Vec<Stmt> {
    let pick = match width.choice {
        SlotChoice::ClientHash => Pick::Client(width.slots),
        SlotChoice::Random => Pick::Random(width.slots),
    };
    vec![
        service_in(
            listen_scope.scope(),
            SetName::Spread(listen_scope, SpreadRule::Slots(width)),
        ),
        Stmt::MarkFlow(mark),
        Stmt::Timeouts(Timeouts::of_flows(listen_scope.family(), width.idle)),
        Stmt::Dnat(listen_scope, pick),
    ]
}

/// Returns the rule for services whose slot is chosen in another chain and that have their own timeouts.
fn idle(listen_scope: ListenScope, seconds: NonZeroU32, mark: FlowMark) -> Vec<Stmt> {
    vec![
        service_in(
            listen_scope.scope(),
            SetName::Spread(listen_scope, SpreadRule::Idle(seconds)),
        ),
        Stmt::MarkFlow(mark),
        Stmt::Timeouts(Timeouts::Idle(listen_scope.family(), seconds)),
        Stmt::Goto(format!("pick{listen_scope}")),
    ]
}

/// Returns the rules of a cap. A flow for which the set of its service's flows has no space does not get the mark.
fn capped(listen_scope: ListenScope, cap: Cap, mark: FlowMark) -> Vec<Vec<Stmt>> {
    let scope = listen_scope.scope();
    let service = service_in(scope, SetName::Spread(listen_scope, SpreadRule::Cap(cap)));
    let count = |key| Stmt::Count(key, SetName::Capped(listen_scope, cap));
    let mut client = client_key(listen_scope);
    if listen_scope.family() == Family::V6 {
        client[0] = Field::SourceNetwork;
    }
    match cap {
        Cap::ClientHandshakes(_) | Cap::ClientFlows(_) => {
            vec![vec![service, count(client), Stmt::Goto(format!("over_client{scope}"))]]
        }
        Cap::Flows(_) => vec![
            vec![service.clone(), count(vec![Field::FlowId]), Stmt::MarkFlow(mark)],
            vec![
                service,
                Stmt::Marked(mark, false),
                Stmt::Goto(format!("over_flows{scope}")),
            ],
        ],
    }
}

/// Returns the chain of one round-robin service.
pub fn round_robin_chain(chain: &RoundRobinChain) -> SkeletonChain {
    SkeletonChain::new(
        chain.to_string(),
        vec![vec![Stmt::Dnat(chain.listen_scope, Pick::RoundRobin(chain.width))]],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses_set(chains: &[SkeletonChain], wanted: SetName) -> bool {
        let uses = |stmt: &Stmt| match stmt {
            Stmt::In(_, set) => *set == wanted,
            Stmt::Snat(family) => wanted == SetName::Sources(*family),
            Stmt::PretendLinkSource(family) | Stmt::SnatToLink(family) => wanted == SetName::LinkSources(*family),
            _ => false,
        };
        chains
            .iter()
            .flat_map(|chain| chain.rules.concat())
            .any(|stmt| uses(&stmt))
    }

    #[test]
    fn optional_sets_are_asked_only_where_they_hold_anything() {
        let mark = FlowMark::default();
        let optional: Vec<SetName> = SetName::fixed().into_iter().filter(|set| set.is_optional()).collect();
        assert_eq!(optional.len(), 27);
        for set in &optional {
            let with = fixed(mark, &[*set].into());
            for other in &optional {
                assert_eq!(uses_set(&with, *other), other == set, "{other} where there is {set}");
            }
        }
    }

    #[test]
    fn chains_are_the_same_whatever_is_asked() {
        let mark = FlowMark::default();
        let all = fixed(mark, &SetName::fixed().into_iter().collect());
        let bare = |chain: &SkeletonChain| (chain.name.clone(), chain.base);
        assert!(
            fixed(mark, &OptionalSets::new())
                .iter()
                .map(bare)
                .eq(all.iter().map(bare))
        );
    }

    #[test]
    fn assured_flows_are_let_go_only_where_nothing_is_limited() {
        let leaves = |optional_sets: &OptionalSets| {
            let chains = fixed(FlowMark::default(), optional_sets);
            let guards = chains.iter().filter(|chain| chain.name.starts_with("guard"));
            guards
                .map(|chain| chain.rules[0] == [Stmt::StatusAssured, Stmt::Return])
                .collect::<Vec<_>>()
        };
        assert_eq!(leaves(&OptionalSets::new()), [true, true]);
        for family in Family::BOTH {
            assert_eq!(leaves(&[SetName::Limited(family)].into()), [false, false]);
        }
    }
}
