//! Stages of a run.

use std::time::Duration;

use super::super::message::CheckExchange;
use crate::addon::check::message::CheckRequest;

/// Number of missing answers in a row after which the provider is taken for gone.
pub(super) const MAX_LOST: u32 = 3;

/// Stage of a run.
pub(super) enum CheckStage {
    /// No answer is awaited: the next check can begin.
    Ready,
    /// The answer to a check's own request is awaited.
    Asked(Box<CheckRequest>),
    /// The state of an operation is polled.
    Polling(Box<Poll>),
    /// Things that the run made are removed: those that are left, and the number of tries for the first one.
    Cleaning {
        left: Vec<usize>,
        tries: u32,
    },
    /// The answer to a removal is awaited.
    Removing {
        request: Box<CheckRequest>,
        left: Vec<usize>,
        tries: u32,
    },
    Over,
}

/// An operation whose state is polled.
pub(super) struct Poll {
    /// The exchange that began the operation.
    pub(super) exchange: CheckExchange,
    pub(super) request: CheckRequest,
    pub(super) spent: Duration,
    /// Things that are left and tries, to go on with the removal afterwards; `None`: the operation belongs to a check.
    pub(super) cleaning: Option<(Vec<usize>, u32)>,
}
