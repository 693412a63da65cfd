//! A transaction of a plan as values: what it adds to the table's sets and chains, and what it removes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::name::{ListenScope, RoundRobinChain, SetName, SpreadRule};
use super::rows::Rows;
use super::skeleton::OptionalSets;
use super::timeouts::{KernelTimeouts, Timeouts};

/// Rows of one set that a transaction adds or deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowBatch<'a> {
    /// All rows of a set.
    All(&'a Rows),
    /// Some rows of a set.
    Some(Vec<Cow<'a, [u8]>>),
}

impl RowBatch<'_> {
    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => rows.len(),
            Self::Some(rows) => rows.len(),
        }
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the rows.
    pub fn rows(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        match self {
            Self::All(rows) => Box::new(rows.iter()),
            Self::Some(rows) => Box::new(rows.iter().map(AsRef::as_ref)),
        }
    }
}

/// Key of a service in a scope.
pub type ListenKey = (ListenScope, Box<[u8]>);

/// New timeouts for flows, after conntrack's sysctls changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retimed {
    /// New values of the sysctls.
    pub timeouts: KernelTimeouts,
    /// Present rules of the `spread` chains, which refer to the objects and tell which of them exist.
    pub spreads: BTreeMap<ListenScope, BTreeSet<SpreadRule>>,
    /// Optional sets that the present rules look up.
    pub optional_sets: OptionalSets,
}

/// A transaction, in the order in which it is sent: timeouts, sets, chains and rules, deletions, additions, and at last
/// the sets, chains and timeouts that nothing refers to any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanStep<'a> {
    /// Timeouts to write again, before all else.
    pub retimed: Option<Retimed>,
    /// Objects with timeouts to create, with the values of conntrack's sysctls.
    pub new_timeouts: BTreeMap<Timeouts, KernelTimeouts>,
    /// Width sets to create.
    pub new_widths: BTreeSet<(ListenScope, SpreadRule)>,
    /// Chains of round-robin services to create.
    pub new_round_robin_chains: BTreeSet<RoundRobinChain>,
    /// `spread` chains to write again, with these rules.
    pub spreads: BTreeMap<ListenScope, BTreeSet<SpreadRule>>,
    /// Optional sets that the rules look up before the transaction and after it, if these differ.
    pub optional_sets: Option<(OptionalSets, OptionalSets)>,
    /// Elements of round-robin services to delete.
    pub delete_round_robin_services: BTreeSet<ListenKey>,
    /// Rows to delete; their data is not used.
    pub delete: BTreeMap<SetName, RowBatch<'a>>,
    /// Rows to add.
    pub add: BTreeMap<SetName, RowBatch<'a>>,
    /// Elements of round-robin services to add.
    pub add_round_robin_services: BTreeMap<ListenKey, RoundRobinChain>,
    /// Width sets to remove.
    pub old_widths: BTreeSet<(ListenScope, SpreadRule)>,
    /// Chains of round-robin services to remove.
    pub old_round_robin_chains: BTreeSet<RoundRobinChain>,
    /// Objects with timeouts to remove. Established flows follow conntrack's sysctls from then on.
    pub old_timeouts: BTreeSet<Timeouts>,
}

impl<'a> PlanStep<'a> {
    /// Returns whether the step does nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the number of elements that the step adds or deletes.
    pub fn elements(&self) -> usize {
        let rows = self
            .delete
            .values()
            .chain(self.add.values())
            .map(RowBatch::len)
            .sum::<usize>();
        rows + self.delete_round_robin_services.len() + self.add_round_robin_services.len()
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

fn push<'a>(to: &mut BTreeMap<SetName, RowBatch<'a>>, set: SetName, row: Cow<'a, [u8]>) {
    match to.entry(set).or_insert_with(|| RowBatch::Some(Vec::new())) {
        RowBatch::Some(rows) => rows.push(row),
        RowBatch::All(_) => {}
    }
}
