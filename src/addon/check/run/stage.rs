//! Stages of a run.

use super::super::message::Exchange;
use crate::addon::check::message::Request;
use std::time::Duration;

/// Number of missing answers in a row after which the provider is taken for gone.
pub(super) const MAX_LOST: u32 = 3;

/// Stage of a run.
pub(super) enum Stage {
    /// The next check.
    Ready,
    /// The answer to a check's own request is awaited.
    Asked(Box<Request>),
    /// The state of an operation is polled.
    Polling(Box<Poll>),
    /// Things that the run made are removed: those that are left, and the number of tries for the first one.
    Cleaning {
        left: Vec<usize>,
        tries: u32,
    },
    /// The answer to a removal is awaited.
    Removing {
        request: Box<Request>,
        left: Vec<usize>,
        tries: u32,
    },
    Over,
}

/// An operation whose state is polled.
pub(super) struct Poll {
    /// The exchange that began the operation.
    pub(super) exchange: Exchange,
    pub(super) request: Request,
    pub(super) spent: Duration,
    /// Things that are left and tries, to go on with the removal afterwards; `None`: the operation belongs to a check.
    pub(super) cleaning: Option<(Vec<usize>, u32)>,
}
