//! Warnings about states that are valid.

use std::sync::Arc;

use super::problem::InputProblem;
use super::{Service, State, access, limit};

/// Returns warnings about services that are valid but will not do all that they say.
pub fn warnings(state: &State) -> Vec<InputProblem> {
    let of_each = |service: &Arc<Service>| [limit::warning(service), access::warning(service)];
    state.services.iter().flat_map(of_each).flatten().collect()
}
