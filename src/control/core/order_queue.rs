//! Orders of the API that wait, and those that are being written to the store.
use std::collections::VecDeque;
use std::time::Duration;

use super::addon_orders::Provisioned;
use super::deploys::PendingStep;
use super::judge::Judged;
use super::orders::by;
use super::surroundings::Obstacles;
use super::together::Grouping;
use crate::addon::AddonOutcome;
use crate::control::request::{
    AddonOrder, AddonRefused, Applied, Apply, BatchOrder, DeployOrder, EditOrder, Edited, EditedBatch, Refused, Reply,
    UndoOrder,
};
use crate::store::{By, StoreError};
use tcpgw_core::model::{Edits, State};

/// Maximum number of waiting orders. It exceeds the number of connections of the API, so that only clients that send
/// orders without waiting for the answers are refused.
pub const MOST_ORDERS: usize = 256;

/// An order of the API.
pub enum Order {
    /// Replaces all services of the API.
    Apply(ApplyOrder),
    /// Changes one service.
    Edit(EditOrder, Reply<Result<Edited, Refused>>),
    /// Changes several services, all or none.
    Batch(BatchOrder, Reply<Result<EditedBatch, Refused>>),
    /// Begins a deploy.
    Deploy(DeployOrder, Reply<Result<u64, Refused>>),
    /// Ends a deploy, or takes it back.
    Undo(UndoOrder, Reply<Result<u64, Refused>>),
    /// Carries out a request about a resource of the add-on.
    Addon(AddonOrder, Reply<Result<AddonOutcome, AddonRefused>>),
}

impl Order {
    /// Answers with an error. The client may have disconnected.
    pub(super) fn refuse(self, why: Refused) {
        match self {
            Self::Apply(order) => drop(order.reply.send(Err(why))),
            Self::Edit(_, reply) => drop(reply.send(Err(why))),
            Self::Batch(_, reply) => drop(reply.send(Err(why))),
            Self::Deploy(_, reply) | Self::Undo(_, reply) => drop(reply.send(Err(why))),
            Self::Addon(_, reply) => drop(reply.send(Err(AddonRefused::Daemon(why)))),
        }
    }
}

/// An `apply` whose text has been parsed.
pub struct ApplyOrder {
    /// The request.
    pub apply: Apply,
    /// The parsed state.
    pub state: State,
    /// Channel for the answer.
    pub reply: Reply<Result<Applied, Refused>>,
}

/// An order that is not decided because the gateway is being examined. It stays the first in the queue.
pub(super) struct Undecided(pub(super) Box<Order>);

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
    pub(super) resources: Knowledge,
    /// Whether the daemon is to end: no more orders are taken.
    pub(super) ending: bool,
    /// Id of a deploy that was just begun.
    pub(super) began: Option<u64>,
}

/// Certainty about the contents of the store. A write that failed may have been made all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Knowledge {
    #[default]
    Certain,
    /// The store has to be read before a decision.
    Doubtful,
    /// The store had to be read, and could not be.
    Unreadable,
}

impl OrderQueue {
    /// Returns whether the next order changes a resource and the store has to be read before.
    pub(super) fn reads_first(&self) -> bool {
        let is_next = matches!(self.orders.front(), Some(Order::Addon(..)));
        is_next && self.resources == Knowledge::Doubtful && !self.lost
    }

    /// Returns whether the known resources are those of the store.
    pub(super) fn is_certain_of_resources(&self) -> bool {
        self.resources == Knowledge::Certain && !self.lost
    }

    /// Returns whether nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.accepted.is_empty() && !self.refreshing
    }
}

/// An accepted order that is being written.
pub(super) struct PendingWrite {
    pub(super) edits: Edits,
    /// Reason for the change of the kernel, for people.
    pub(super) cause: String,
    /// Drain time of backends that this order removes.
    pub(super) drain: Option<Duration>,
    pub(super) warnings: Vec<String>,
    /// Obstacles that prevent services of it from being served here now.
    pub(super) obstacles: Obstacles,
    pub(super) then: OnWritten,
}

/// Action after the write.
pub(super) enum OnWritten {
    Apply(Reply<Result<Applied, Refused>>),
    Edit(Box<str>, Reply<Result<Edited, Refused>>),
    Batch(Vec<Box<str>>, Reply<Result<EditedBatch, Refused>>),
    Deploy(PendingStep),
    Addon(Provisioned),
    /// The correction of resources in the store needs no further action.
    Corrected,
}

impl PendingWrite {
    /// Returns the pending write of an edit of a service, and its author.
    pub(super) fn of_edit(
        order: EditOrder,
        edits: Edits,
        judged: Judged,
        reply: Reply<Result<Edited, Refused>>,
    ) -> (Self, By) {
        let what = order.edit.name();
        let accepted = Self {
            edits,
            cause: format!("{what} {} (uid {})", order.name, order.by.uid),
            drain: order.drain,
            warnings: judged.warnings,
            obstacles: judged.obstacles,
            then: OnWritten::Edit(order.name, reply),
        };
        (accepted, by(order.by, what))
    }

    /// Returns the pending write of a step of a deploy that changes no service.
    pub(super) fn step(step: PendingStep) -> Self {
        Self::of_nobody(OnWritten::Deploy(step))
    }

    /// Returns a pending write that itself changes no service.
    pub(super) fn of_nobody(then: OnWritten) -> Self {
        Self {
            edits: Edits::default(),
            cause: String::new(),
            drain: None,
            warnings: Vec::new(),
            obstacles: Obstacles::new(),
            then,
        }
    }

    pub(super) fn refuse(self, error: &StoreError) -> Option<PendingStep> {
        let refused = || refused(error);
        match self.then {
            OnWritten::Apply(reply) => drop(reply.send(Err(refused()))),
            OnWritten::Edit(_, reply) => drop(reply.send(Err(refused()))),
            OnWritten::Batch(_, reply) => drop(reply.send(Err(refused()))),
            OnWritten::Deploy(step) => return Some(step),
            OnWritten::Addon(provisioned) => provisioned.refuse(error),
            OnWritten::Corrected => {}
        }
        None
    }
}

/// Returns the error of the store as an answer to the client.
pub(super) fn refused(error: &StoreError) -> Refused {
    match error {
        StoreError::Conflict { current, .. } => Refused::Conflict(error.to_string(), current.clone()),
        StoreError::Deploying { .. } => Refused::Refused(error.to_string()),
        _ => Refused::Store(error.to_string()),
    }
}
