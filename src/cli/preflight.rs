//! What is checked against the gateway itself before anything is changed.

use super::gateway::Gateway;
use super::{Failure, File, Global};
use crate::preflight::{self, Obstacle};
use tcpgw_core::model::State;
use tcpgw_core::summary::Summary;

/// Returns what keeps services from being served here, but for listeners; warns of what only does not work yet.
pub(super) fn look(global: &Global, gateway: &mut Gateway, state: &State) -> Result<Vec<Obstacle>, Failure> {
    let obstacles = preflight::obstacles(&mut gateway.routes, state)?;
    for warning in preflight::warnings(&mut gateway.routes, state)? {
        global.warn(&warning);
    }
    Ok(obstacles)
}

/// Fails when there are such obstacles.
pub(super) fn refuse(file: &File, obstacles: &[Obstacle]) -> Result<(), Failure> {
    let problems = obstacles.iter().map(|obstacle| obstacle.problem.clone()).collect();
    tcpgw_core::model::Problems::into_result(problems).map_err(|problems| Failure::Invalid {
        file: file.file.clone(),
        problems,
    })
}

/// Returns new services on ports where a local program listens.
pub(super) fn listeners(state: &State, known: &Summary, take_over: bool) -> Result<Vec<Obstacle>, Failure> {
    let is_known = |service: &_| take_over || known.has_door(service);
    Ok(preflight::taken_ports(state, &is_known)?)
}

/// Fails when there are any.
pub(super) fn refuse_taken(taken: &[Obstacle]) -> Result<(), Failure> {
    let lines: Vec<String> = taken.iter().map(|taken| taken.told_with("--take-over")).collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Failure::Refused(lines.join("\n")))
    }
}

/// Returns the state without the services that these obstacles hold back, and with what is served of them already; `None` if
/// all of it is possible. Warns of each.
pub(super) fn possible(
    global: &Global,
    state: &State,
    obstacles: impl Iterator<Item = Obstacle>,
    known: &Summary,
) -> Option<State> {
    let (possible, held_back) = preflight::possible(state, obstacles, known);
    for obstacle in &held_back {
        global.warn(&format_args!("held back: {}", obstacle.told_with("--take-over")));
    }
    (!held_back.is_empty()).then_some(possible)
}
