//! Obstacles by service.

use std::collections::BTreeMap;

use crate::control::name::Name;
use crate::control::obstacle::{Obstacle, ObstacleKind};
use crate::control::request::Refused;
use tcpgw_core::model::InputProblems;

/// Options by which clients of the API take a port over.
pub(super) const TAKE_OVER: &str = "--take-over (of `tcpgw apply`, `service add` and `service set`)";

/// Obstacles that prevent services from being served here now, by service.
pub(super) type Obstacles = BTreeMap<Name, Vec<Obstacle>>;

/// Groups obstacles by service.
pub(super) fn by_service(obstacles: impl IntoIterator<Item = Obstacle>) -> Obstacles {
    let mut of = Obstacles::new();
    for obstacle in obstacles {
        of.entry(obstacle.service.clone()).or_default().push(obstacle);
    }
    of
}

/// Fails when there are obstacles, for clients that wait for an answer.
pub(super) fn refuse(obstacles: &[Obstacle]) -> Result<(), Refused> {
    let is_taken = |obstacle: &&Obstacle| obstacle.kind == ObstacleKind::PortTaken;
    let others = obstacles.iter().filter(|obstacle| !is_taken(obstacle));
    let problems: InputProblems = others.map(|obstacle| obstacle.problem.clone()).collect();
    problems.into_result().map_err(Refused::Invalid)?;
    let taken: Vec<String> = obstacles
        .iter()
        .filter(is_taken)
        .map(|taken| taken.message_with(TAKE_OVER))
        .collect();
    if taken.is_empty() {
        Ok(())
    } else {
        Err(Refused::Refused(taken.join("\n")))
    }
}
