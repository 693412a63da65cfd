//! The gateway apart from its table: the ports of local programs, and its own addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tcpgw::control::core::GatewayFindings;
use tcpgw::control::obstacle::{Obstacle, ObstacleKind};
use tcpgw_core::model::{InputProblem, Service, State};

use super::examinations::IsKnown;

/// What stands in the way of services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Ports on which local programs listen.
    pub(crate) listening: BTreeSet<u16>,
    /// Backends that are the gateway itself.
    pub(crate) own: BTreeSet<SocketAddr>,
}

impl Surroundings {
    /// Returns the result of an examination of the gateway.
    pub(crate) fn vet(&self, state: &State, is_known: &IsKnown<'_>) -> GatewayFindings {
        let mut obstacles = Vec::new();
        for service in &state.services {
            if self.listening.contains(&service.port.get()) && !is_known(service) {
                obstacles.push(obstacle(service, ObstacleKind::PortTaken, "port is in use"));
            }
            for backend in service.backends.iter().map(|backend| backend.endpoint) {
                if self.own.contains(&backend.into()) {
                    obstacles.push(obstacle(
                        service,
                        ObstacleKind::OwnBackend(backend),
                        "it is the gateway",
                    ));
                }
            }
        }
        GatewayFindings {
            obstacles,
            warnings: Vec::new(),
        }
    }
}

fn obstacle(service: &Service, kind: ObstacleKind, message: &str) -> Obstacle {
    Obstacle {
        service: service.name.clone(),
        kind,
        problem: InputProblem {
            place: format!("service \"{}\"", service.name),
            message: message.into(),
        },
    }
}
