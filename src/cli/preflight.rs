//! What is checked against the gateway itself before anything is changed.

use super::gateway::Gateway;
use super::{Failure, File, Global};
use crate::model::State;
use crate::preflight;
use crate::summary::Summary;

/// What speaks against the state is an error; what only does not work yet is a warning.
pub(super) fn check(global: &Global, gateway: &mut Gateway, file: &File, state: &State) -> Result<(), Failure> {
    let problems = preflight::check(&mut gateway.routes, state)?;
    problems.into_result().map_err(|problems| Failure::Invalid {
        file: file.file.clone(),
        problems,
    })?;
    for warning in preflight::warnings(&mut gateway.routes, state)? {
        global.warn(&warning);
    }
    Ok(())
}

/// Refuses new services on ports where a local program listens.
pub(super) fn check_listeners(state: &State, known: &Summary) -> Result<(), Failure> {
    let lines = preflight::taken_ports(state, &|service| known.has_door(service))?;
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Failure::Refused(lines.join("\n")))
    }
}
