//! Accepted orders that are being written.

use std::time::Duration;

use super::acceptance::AcceptedChange;
use super::deploys::PendingStep;
use super::obstacles::Obstacles;
use super::order::{by, refused};
use super::provisioned::Provisioned;
use crate::addon::{Removed, ResourceChange};
use crate::control::reply::ReplySender;
use crate::control::request::{Applied, EditOrder, Edited, EditedBatch, Refused};
use crate::store::{ChangeAuthor, StoreError};
use tcpgw_core::model::Edits;

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
    Apply(ReplySender<Result<Applied, Refused>>),
    Edit(Box<str>, ReplySender<Result<Edited, Refused>>),
    Batch(Vec<Box<str>>, ReplySender<Result<EditedBatch, Refused>>),
    Deploy(PendingStep),
    Addon(Provisioned),
    /// These changes of resources and rests of ports, which no request ordered, are in the store.
    Amended(Vec<ResourceChange>, Vec<Removed>),
}

impl PendingWrite {
    /// Returns the pending write of an edit of a service, and its author.
    pub(super) fn of_edit(
        order: EditOrder,
        edits: Edits,
        judged: AcceptedChange,
        reply: ReplySender<Result<Edited, Refused>>,
    ) -> (Self, ChangeAuthor) {
        let what = order.edit.name();
        let accepted = Self {
            edits,
            cause: format!("{what} {} ({})", order.name, order.by.author()),
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
            OnWritten::Amended(..) => {}
        }
        None
    }
}
