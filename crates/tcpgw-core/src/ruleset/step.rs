//! One transaction of a plan, as values: what it adds to the table's sets and chains, and what it removes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::name::{ListenScope, RoundRobinChain, SetName, SpreadRule};
use super::rows::Rows;
use super::skeleton::Asked;
use super::timeouts::{KernelTimeouts, Timeouts};

/// Rows of one set that a transaction adds or deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch<'a> {
    /// Every row of a set.
    All(&'a Rows),
    /// These.
    Some(Vec<Cow<'a, [u8]>>),
}

impl Batch<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => rows.len(),
            Self::Some(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows.
    pub fn rows(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        match self {
            Self::All(rows) => Box::new(rows.iter()),
            Self::Some(rows) => Box::new(rows.iter().map(AsRef::as_ref)),
        }
    }
}

/// A service's key in a reach.
pub type ListenKey = (ListenScope, Box<[u8]>);

/// Timeouts of flows that conntrack's sysctls do not say any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retimed {
    /// What they say.
    pub timeouts: KernelTimeouts,
    /// The rules of the `spread` chains as they are: rules hold on to the objects, and tell which of them there are.
    pub spreads: BTreeMap<ListenScope, BTreeSet<SpreadRule>>,
    /// The optional sets that the rules ask as they are.
    pub asked: Asked,
}

/// One transaction, in the order in which it is sent: timeouts, sets, chains and rules, deletions, additions, and at last the sets,
/// chains and timeouts that nothing refers to any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanStep<'a> {
    /// Timeouts to write anew, before all else.
    pub retimed: Option<Retimed>,
    /// Objects with timeouts to make, and what conntrack's sysctls say.
    pub new_timeouts: BTreeMap<Timeouts, KernelTimeouts>,
    /// Width sets to make.
    pub new_widths: BTreeSet<(ListenScope, SpreadRule)>,
    /// Chains that count turns, to make.
    pub new_turns: BTreeSet<RoundRobinChain>,
    /// `spread` chains to write anew, with a rule for each of these widths.
    pub spreads: BTreeMap<ListenScope, BTreeSet<SpreadRule>>,
    /// The optional sets that the rules ask before it and after it, where these differ.
    pub asked: Option<(Asked, Asked)>,
    /// Turns to delete.
    pub delete_turns: BTreeSet<ListenKey>,
    /// Rows to delete; their data does not matter.
    pub delete: BTreeMap<SetName, Batch<'a>>,
    /// Rows to add.
    pub add: BTreeMap<SetName, Batch<'a>>,
    /// Turns to add.
    pub add_turns: BTreeMap<ListenKey, RoundRobinChain>,
    /// Width sets to remove.
    pub old_widths: BTreeSet<(ListenScope, SpreadRule)>,
    /// Chains to remove.
    pub old_turns: BTreeSet<RoundRobinChain>,
    /// Objects with timeouts to remove. Flows that are up go by conntrack's sysctls from then on.
    pub old_timeouts: BTreeSet<Timeouts>,
}

impl<'a> PlanStep<'a> {
    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Elements that it adds or deletes.
    pub fn elements(&self) -> usize {
        let rows = self
            .delete
            .values()
            .chain(self.add.values())
            .map(Batch::len)
            .sum::<usize>();
        rows + self.delete_turns.len() + self.add_turns.len()
    }

    /// Deletes a row.
    pub(crate) fn delete(&mut self, set: SetName, row: &'a [u8]) {
        push(&mut self.delete, set, Cow::Borrowed(row));
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, set: SetName, row: Cow<'a, [u8]>) {
        push(&mut self.add, set, row);
    }
}

fn push<'a>(to: &mut BTreeMap<SetName, Batch<'a>>, set: SetName, row: Cow<'a, [u8]>) {
    match to.entry(set).or_insert_with(|| Batch::Some(Vec::new())) {
        Batch::Some(rows) => rows.push(row),
        Batch::All(_) => {}
    }
}
