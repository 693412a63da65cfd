//! Orders of the API that wait, and those that are being written to the store.
use std::collections::VecDeque;

use super::grouping::Grouping;
use super::order::Order;
use super::pending_write::PendingWrite;

/// Maximum number of waiting orders. It exceeds the number of connections of the API, so that only clients that send
/// orders without waiting for the answers are refused.
pub const MOST_ORDERS: usize = 256;

/// Orders between the API and the store.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or false whatever the others are"
)]
pub(super) struct OrderQueue {
    /// Orders that were not decided yet.
    pub(super) orders: VecDeque<Order>,
    /// Writes under way: one, or several in one transaction.
    pub(super) accepted: Vec<PendingWrite>,
    /// State of the grouping of orders.
    pub(super) grouping: Grouping,
    /// Whether the store is being read again, or the file of last services is being written.
    pub(super) refreshing: bool,
    /// Whether the file of last services is being written.
    pub(super) remembering: bool,
    /// Whether the contents of the store are unknown.
    pub(super) lost: bool,
    /// Whether the known resources are those of the store.
    pub(super) resources: StoreKnowledge,
    /// Whether the daemon is to end: no more orders are taken.
    pub(super) ending: bool,
    /// Id of a deploy that was just begun.
    pub(super) began: Option<u64>,
}

/// Certainty about the contents of the store. A write that failed may have been made all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum StoreKnowledge {
    #[default]
    Certain,
    /// The store has to be read before a decision.
    Uncertain,
    /// The store had to be read, and could not be.
    Unreadable,
}

impl OrderQueue {
    /// Returns whether the next order changes a resource and the store has to be read before.
    pub(super) fn reads_first(&self) -> bool {
        let is_next = matches!(self.orders.front(), Some(Order::Addon(..)));
        is_next && self.resources == StoreKnowledge::Uncertain && !self.lost
    }

    /// Returns whether the known resources are those of the store.
    pub(super) fn is_certain_of_resources(&self) -> bool {
        self.resources == StoreKnowledge::Certain && !self.lost
    }

    /// Returns whether nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.accepted.is_empty() && !self.refreshing
    }
}
