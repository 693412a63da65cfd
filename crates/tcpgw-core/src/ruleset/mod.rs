//! Contents of the table's sets: what the kernel should hold, or does hold.
//!
//! Owns the form of the ruleset (names, keys, rules) and the compilation of a [`State`](crate::model::State) to it.
//! Knows nothing of netlink.

pub mod cap;
pub mod compile;
pub mod key;
pub mod links;
pub mod name;
pub mod room;
pub mod round_robin;
pub mod rows;
pub mod scope;
pub mod skeleton;
pub mod slots;
pub mod spec;
pub mod spread;
pub mod step;
pub mod stmt;
pub mod text;
pub mod timeouts;

use std::collections::{BTreeMap, BTreeSet};

use name::{Family, ListenScope, RoundRobinChain, SetName, SpreadRule};
use rows::Rows;
use skeleton::OptionalSets;
use spec::SetSpec;
use timeouts::{KernelTimeouts, Timeouts};

/// Returns the objects with timeouts that only these rules of a `spread` chain refer to.
pub fn idle_timeouts(listen_scope: ListenScope, rules: &BTreeSet<SpreadRule>) -> BTreeSet<Timeouts> {
    let idle = rules.iter().filter_map(|rule| rule.idle());
    idle.map(|seconds| Timeouts::Idle(listen_scope.family(), seconds))
        .collect()
}

/// The elements of every set, and nothing that could be derived from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    sets: BTreeMap<SetName, Rows>,
    round_robin_services: BTreeMap<(ListenScope, Box<[u8]>), RoundRobinChain>,
    idle: Idle,
    timeouts: KernelTimeouts,
}

/// Objects that a change left behind when it was interrupted, or has created and not used yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Idle {
    /// Width sets without elements.
    pub widths: BTreeSet<(ListenScope, SpreadRule)>,
    /// Chains of round-robin services that no service uses.
    pub round_robin_chains: BTreeSet<RoundRobinChain>,
    /// Optional sets that the rules look up, if they differ from the sets that have elements.
    pub optional_sets: Option<OptionalSets>,
}

impl Ruleset {
    /// Creates a ruleset from sorted rows; empty sets are left out.
    pub fn new(
        sets: BTreeMap<SetName, Rows>,
        round_robin_services: BTreeMap<(ListenScope, Box<[u8]>), RoundRobinChain>,
    ) -> Self {
        let sets = sets.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        Self {
            sets,
            round_robin_services,
            idle: Idle::default(),
            timeouts: KernelTimeouts::default(),
        }
    }

    /// Returns the ruleset with these values of conntrack's sysctls.
    #[must_use]
    pub fn with_timeouts(self, timeouts: KernelTimeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// Returns the values of conntrack's sysctls that the objects with timeouts follow.
    pub fn timeouts(&self) -> &KernelTimeouts {
        &self.timeouts
    }

    /// Returns the ruleset as part of a table that has these width sets and chains, used or not, and whose rules look
    /// up these optional sets.
    #[must_use]
    pub fn among(
        mut self,
        widths: &BTreeSet<(ListenScope, SpreadRule)>,
        round_robin_chains: &BTreeSet<RoundRobinChain>,
        optional_sets: &OptionalSets,
    ) -> Self {
        let is_idle = |(listen_scope, width): &&(ListenScope, SpreadRule)| {
            !self.sets.contains_key(&SetName::Spread(*listen_scope, *width))
        };
        self.idle.widths = widths.iter().filter(is_idle).copied().collect();
        let used: BTreeSet<&RoundRobinChain> = self.round_robin_services.values().collect();
        self.idle.round_robin_chains = round_robin_chains
            .iter()
            .filter(|chain| !used.contains(chain))
            .cloned()
            .collect();
        self.idle.optional_sets = None;
        self.idle.optional_sets = (*optional_sets != self.optional_sets()).then(|| optional_sets.clone());
        self
    }

    /// Returns the ruleset with every backend protected, or with none. New connections from outside reach a protected
    /// backend only through services.
    #[must_use]
    pub fn protecting(mut self, protect: bool) -> Self {
        for family in Family::BOTH {
            let protected = SetName::Protected(family);
            self.sets.remove(&protected);
            let mut rows = Rows::new(&SetSpec::of(protected));
            for set in [SetName::Limited(family), SetName::Unlimited(family)] {
                for row in self.rows(set).filter(|_| protect).into_iter().flatten() {
                    rows.push(&[row]);
                }
            }
            if !rows.is_empty() {
                rows.sort();
                self.sets.insert(protected, rows);
            }
        }
        self
    }

    /// Returns whether any backend is protected: reachable for new connections from outside only through services.
    pub fn protects(&self) -> bool {
        Family::BOTH
            .iter()
            .any(|family| self.sets.contains_key(&SetName::Protected(*family)))
    }

    /// Returns the sets that have elements.
    pub fn sets(&self) -> &BTreeMap<SetName, Rows> {
        &self.sets
    }

    /// Returns the elements of a set; `None` if it has none.
    pub fn rows(&self, name: SetName) -> Option<&Rows> {
        self.sets.get(&name)
    }

    /// Returns the chain of each round-robin service, by scope and service key.
    pub fn round_robin_services(&self) -> &BTreeMap<(ListenScope, Box<[u8]>), RoundRobinChain> {
        &self.round_robin_services
    }

    /// Returns the chains of round-robin services, used or not.
    pub fn round_robin_chains(&self) -> BTreeSet<&RoundRobinChain> {
        self.round_robin_services
            .values()
            .chain(&self.idle.round_robin_chains)
            .collect()
    }

    /// Returns the rules of a `spread` chain for which sets exist, with or without elements.
    pub fn widths(&self, listen_scope: ListenScope) -> BTreeSet<SpreadRule> {
        let width = |name: &SetName| match name {
            SetName::Spread(of, width) if *of == listen_scope => Some(*width),
            _ => None,
        };
        let idle = self.idle.widths.iter().filter(|(of, _)| *of == listen_scope);
        self.sets
            .keys()
            .filter_map(width)
            .chain(idle.map(|(_, width)| *width))
            .collect()
    }

    /// Returns the objects with timeouts that only some services need, used or not.
    pub fn idle_timeouts(&self) -> BTreeSet<Timeouts> {
        let of = |listen_scope: ListenScope| idle_timeouts(listen_scope, &self.widths(listen_scope));
        ListenScope::ALL.into_iter().flat_map(of).collect()
    }

    /// Returns the optional sets that the rules look up: those that have elements, unless another program changed
    /// these.
    pub fn optional_sets(&self) -> OptionalSets {
        let filled = || self.sets.keys().copied().filter(|name| name.is_optional());
        self.idle.optional_sets.clone().unwrap_or_else(|| filled().collect())
    }

    /// Returns the number of elements of all sets.
    pub fn len(&self) -> usize {
        self.sets.values().map(Rows::len).sum::<usize>() + self.round_robin_services.len()
    }

    /// Returns whether no set has an element.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.round_robin_services.is_empty()
    }
}
