//! Obstacles that prevent a service from being served on this gateway now.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::own_listener::OwnListener;
use tcpgw_core::model::{Endpoint, InputProblem, Service};

/// An obstacle that prevents a service from being served on this gateway now. It may vanish later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Name of the service.
    pub service: Box<str>,
    /// Kind of the obstacle.
    pub kind: ObstacleKind,
    /// Description with its place.
    pub problem: InputProblem,
}

/// The kinds of obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// A local program listens on the port.
    PortTaken,
    /// The daemon itself listens on the port.
    OwnListener(OwnListener),
    /// A source address is not one of the gateway's own.
    ForeignSource(IpAddr),
    /// A backend is one of the gateway's own addresses, or the broadcast address of a network that the gateway is in.
    OwnBackend(Endpoint),
    /// The port is outside of the configuration's fence.
    FencedPort(NonZeroU16),
    /// A backend is outside of the configuration's fence.
    FencedBackend(Endpoint),
    /// The configuration allows no more services, or no more backends.
    FencedSize,
    /// The gateway could not be examined, so other obstacles are unknown.
    NotLookedAt,
}

impl ObstacleKind {
    /// Returns whether it comes from the configuration and not from the gateway.
    pub fn is_fence(self) -> bool {
        matches!(self, Self::FencedPort(_) | Self::FencedBackend(_) | Self::FencedSize)
    }
}

impl Obstacle {
    /// Returns the description without the service's name.
    pub fn reason(&self) -> String {
        let message = &self.problem.message;
        match self.kind {
            ObstacleKind::PortTaken
            | ObstacleKind::OwnListener(_)
            | ObstacleKind::FencedSize
            | ObstacleKind::NotLookedAt => message.clone(),
            ObstacleKind::FencedPort(_) => format!("port {message}"),
            ObstacleKind::FencedBackend(_) => format!("backend {message}"),
            ObstacleKind::ForeignSource(address) => format!("source address {address} {message}"),
            ObstacleKind::OwnBackend(endpoint) => format!("backend {endpoint} {message}"),
        }
    }

    /// Returns the description for the client that ordered the service, with the option that overrides the obstacle.
    pub fn message_with(&self, way_around: &str) -> String {
        match self.kind {
            ObstacleKind::PortTaken => {
                format!(
                    "{}; {way_around} sends its new connections to the service",
                    self.problem
                )
            }
            _ => self.problem.to_string(),
        }
    }

    /// Returns whether a served service has it, too, so that it is no reason not to serve it.
    pub fn is_in(&self, served: &Service) -> bool {
        match self.kind {
            // Services that are served unchanged get no such obstacle: see `not_examined`.
            ObstacleKind::PortTaken | ObstacleKind::NotLookedAt => false,
            ObstacleKind::OwnListener(listener) => listener.is_behind(served),
            ObstacleKind::FencedPort(port) => served.port == port,
            ObstacleKind::FencedSize => true,
            ObstacleKind::ForeignSource(address) => served.source_addresses.contains(&address),
            ObstacleKind::OwnBackend(endpoint) | ObstacleKind::FencedBackend(endpoint) => {
                served.backends.iter().any(|backend| backend.endpoint == endpoint)
            }
        }
    }
}

/// Returns an obstacle for a service when the gateway could not be examined; `None` if the service needs nothing that
/// `served` does not have already.
pub fn not_examined<'a>(
    service: &Service,
    served: impl IntoIterator<Item = &'a Arc<Service>>,
    why: &str,
) -> Option<Obstacle> {
    let needs_nothing = |served: &&Arc<Service>| {
        let has = |endpoint: Endpoint| served.backends.iter().any(|backend| backend.endpoint == endpoint);
        let mut sources = service.source_addresses.iter();
        (served.port == service.port && served.listen == service.listen)
            && service.backends.iter().all(|backend| has(backend.endpoint))
            && sources.all(|source| served.source_addresses.contains(source))
    };
    let is_new = served.into_iter().find(needs_nothing).is_none();
    is_new.then(|| Obstacle {
        service: service.name.clone(),
        kind: ObstacleKind::NotLookedAt,
        problem: InputProblem {
            place: format!("service \"{}\"", service.name),
            message: format!("the gateway could not be examined, which is tried again every few seconds: {why}"),
        },
    })
}

/// Adds the obstacles that the daemon's own listeners are for a service to those found of it. A program that was found on its port is
/// the daemon then, and no option sends its connections to the service.
pub fn add_own_listeners(
    service: &Service,
    listeners: impl IntoIterator<Item = OwnListener>,
    found: &mut Vec<Obstacle>,
) {
    let own = listeners.into_iter().filter(|listener| listener.is_behind(service));
    let own = own.map(|listener| Obstacle {
        service: service.name.clone(),
        kind: ObstacleKind::OwnListener(listener),
        problem: InputProblem {
            place: format!("service \"{}\"", service.name),
            message: listener.refuses(service),
        },
    });
    let own: Vec<Obstacle> = own.collect();
    if !own.is_empty() {
        found.retain(|obstacle| obstacle.service != service.name || obstacle.kind != ObstacleKind::PortTaken);
        found.extend(own);
    }
}
