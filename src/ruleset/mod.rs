//! What the kernel should hold, or does hold: the content of the table's sets.
//!
//! Owns the ruleset's shape (names, keys, rules) and the way from a [`State`](crate::model::State) to it. Knows nothing
//! of netlink.

pub mod compile;
pub mod name;
pub mod rows;
pub mod skeleton;
pub mod slots;
pub mod spec;
pub mod stmt;

use std::collections::{BTreeMap, BTreeSet};

use name::{Reach, SetName, TurnChain};
use rows::Rows;

/// The elements of every set, and nothing that could be derived from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    sets: BTreeMap<SetName, Rows>,
    turns: BTreeMap<(Reach, Box<[u8]>), TurnChain>,
}

impl Ruleset {
    /// Out of sorted rows; empty sets may be among them.
    pub fn new(sets: BTreeMap<SetName, Rows>, turns: BTreeMap<(Reach, Box<[u8]>), TurnChain>) -> Self {
        let sets = sets.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        Self { sets, turns }
    }

    /// The sets that have elements.
    pub fn sets(&self) -> &BTreeMap<SetName, Rows> {
        &self.sets
    }

    /// The elements of one.
    pub fn rows(&self, name: SetName) -> Option<&Rows> {
        self.sets.get(&name)
    }

    /// Which chain counts the turns of a service: by reach and service key.
    pub fn turns(&self) -> &BTreeMap<(Reach, Box<[u8]>), TurnChain> {
        &self.turns
    }

    /// The chains that count turns.
    pub fn turn_chains(&self) -> BTreeSet<&TurnChain> {
        self.turns.values().collect()
    }

    /// The numbers of slots in use.
    pub fn widths(&self, reach: Reach) -> BTreeSet<u16> {
        let width = |name: &SetName| match name {
            SetName::Width(of, width) if *of == reach => Some(*width),
            _ => None,
        };
        self.sets.keys().filter_map(width).collect()
    }

    /// All elements.
    pub fn len(&self) -> usize {
        self.sets.values().map(Rows::len).sum::<usize>() + self.turns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.turns.is_empty()
    }
}
