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

/// Number of orders that may wait: more than the API has connections, so that only those are refused who order and do not wait for
/// the answer.
pub const MOST_ORDERS: usize = 256;

/// What may be ordered.
pub enum Order {
    /// All services of the API shall be these.
    Apply(ApplyOrder),
    /// One service shall be otherwise.
    Edit(EditOrder, Reply<Result<Edited, Refused>>),
    /// Several services shall be otherwise, all or none.
    Batch(BatchOrder, Reply<Result<EditedBatch, Refused>>),
    /// A deploy.
    Deploy(DeployOrder, Reply<Result<u64, Refused>>),
    /// A deploy shall end, or be taken back.
    Undo(UndoOrder, Reply<Result<u64, Refused>>),
    /// A request about a resource of the add-on.
    Addon(AddonOrder, Reply<Result<AddonOutcome, AddonRefused>>),
}

impl Order {
    /// Whoever asked may be gone.
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

/// An `apply` whose text has been read.
pub struct ApplyOrder {
    /// As it was asked for.
    pub apply: Apply,
    /// What its text says.
    pub state: State,
    /// Who waits for it.
    pub reply: Reply<Result<Applied, Refused>>,
}

/// An order of which nothing is decided, since the gateway is being looked at. It stays the first.
pub(super) struct Undecided(pub(super) Box<Order>);

/// What goes on between orders and the store.
#[derive(Default)]
pub(super) struct OrderQueue {
    /// Not looked at yet.
    pub(super) orders: VecDeque<Order>,
    /// What is being written: one thing, or several that are one transaction.
    pub(super) accepted: Vec<PendingWrite>,
    /// How far orders are taken together.
    pub(super) grouping: Grouping,
    /// The store is looked at anew, or the file of last services is written.
    pub(super) refreshing: bool,
    /// The file of last services is being written.
    pub(super) remembering: bool,
    /// Nobody knows what it held.
    pub(super) lost: bool,
    /// Whether what is known of resources is what the store holds.
    pub(super) resources: Knowledge,
    /// The id of a deploy that was just begun.
    pub(super) began: Option<u64>,
}

/// Whether something is known. A write that failed may have been made all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Knowledge {
    #[default]
    Certain,
    /// The store is to be read before anything is decided.
    Doubtful,
    /// The store was to be read, and could not be.
    Unreadable,
}

impl OrderQueue {
    /// Whether a resource is to be changed next, and the store has to be read before.
    pub(super) fn reads_first(&self) -> bool {
        let is_next = matches!(self.orders.front(), Some(Order::Addon(..)));
        is_next && self.resources == Knowledge::Doubtful && !self.lost
    }

    /// Whether what is known of resources is what the store holds.
    pub(super) fn is_certain_of_resources(&self) -> bool {
        self.resources == Knowledge::Certain && !self.lost
    }

    /// Whether nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.accepted.is_empty() && !self.refreshing
    }
}

/// What was accepted, and is being written.
pub(super) struct PendingWrite {
    pub(super) edits: Edits,
    /// Why the kernel changes, for people.
    pub(super) cause: String,
    /// For those who begin to drain by it.
    pub(super) drain: Option<Duration>,
    pub(super) warnings: Vec<String>,
    /// What keeps services of it from being served here now.
    pub(super) obstacles: Obstacles,
    pub(super) then: OnWritten,
}

/// What follows when it is written.
pub(super) enum OnWritten {
    Apply(Reply<Result<Applied, Refused>>),
    Edit(Box<str>, Reply<Result<Edited, Refused>>),
    Batch(Vec<Box<str>>, Reply<Result<EditedBatch, Refused>>),
    Deploy(PendingStep),
    Addon(Provisioned),
    /// Resources are in the store as the record tells.
    Corrected,
}

impl PendingWrite {
    /// What an edit of a service comes to, and whose it is.
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

    /// A step of a deploy that changes no service.
    pub(super) fn step(step: PendingStep) -> Self {
        Self::of_nobody(OnWritten::Deploy(step))
    }

    /// What changes no service by itself.
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

/// What the store said, for whoever asked.
pub(super) fn refused(error: &StoreError) -> Refused {
    match error {
        StoreError::Conflict { current, .. } => Refused::Conflict(error.to_string(), current.clone()),
        StoreError::Deploying { .. } => Refused::Refused(error.to_string()),
        _ => Refused::Store(error.to_string()),
    }
}
