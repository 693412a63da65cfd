//! Orders of the API.

use crate::addon::AddonOutcome;
use crate::control::reply::ReplySender;
use crate::control::request::{
    AddonOrder, AddonRefused, Applied, Apply, BatchOrder, DeployOrder, EditOrder, Edited, EditedBatch, Peer, Refused,
    UndoOrder,
};
use crate::store::{ChangeAuthor, StoreError};
use tcpgw_core::model::State;

/// An order of the API.
pub enum Order {
    /// Replaces all services of the API.
    Apply(ApplyOrder),
    /// Changes one service.
    Edit(EditOrder, ReplySender<Result<Edited, Refused>>),
    /// Changes several services, all or none.
    Batch(BatchOrder, ReplySender<Result<EditedBatch, Refused>>),
    /// Begins a deploy.
    Deploy(DeployOrder, ReplySender<Result<u64, Refused>>),
    /// Ends a deploy, or takes it back.
    Undo(UndoOrder, ReplySender<Result<u64, Refused>>),
    /// Carries out a request about a resource of the add-on.
    Addon(AddonOrder, ReplySender<Result<AddonOutcome, AddonRefused>>),
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
    pub reply: ReplySender<Result<Applied, Refused>>,
}

/// An order that is not decided because the gateway is being examined. It stays the first in the queue.
pub(super) struct Undecided(pub(super) Box<Order>);

/// Returns the author of a change, for the history.
pub(super) fn by(peer: Peer, what: &str) -> ChangeAuthor {
    let through = peer.through().map(|way| format!(" through {way}"));
    ChangeAuthor {
        uid: peer.uid,
        pid: peer.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        what: format!("{what}{}", through.unwrap_or_default()),
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
