//! A request to apply a state, parsed.

use crate::control::reply::ReplySender;
use crate::control::request::{Applied, Apply, Refused};
use tcpgw_core::model::{InputProblems, State};

/// An `apply` whose text has been parsed.
pub(super) struct Parsed {
    pub(super) apply: Apply,
    pub(super) state: Result<State, InputProblems>,
    pub(super) reply: ReplySender<Result<Applied, Refused>>,
}
