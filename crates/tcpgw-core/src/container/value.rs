//! A container as its engine describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::escape;
use crate::model::BackendState;

/// Largest number of characters of a name that messages show.
const SHOWN: usize = 64;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Id, by which the engine knows it.
    pub id: Box<str>,
    /// Name, without the slash that engines put in front of it.
    pub name: Box<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that it exposes.
    pub exposed: BTreeSet<NonZeroU16>,
    /// Networks, sorted by name.
    pub networks: Vec<ContainerNetwork>,
    /// State of its first process.
    pub state: RunState,
    /// Result of its health check.
    pub health: ContainerHealth,
    /// Time at which it was created, in seconds since the Unix epoch.
    pub created: i64,
    /// Whether it was told to stop.
    pub is_stopping: bool,
    /// Number that is another one after each start of its first process.
    pub start: u64,
}

/// State of a container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// There is no process: it has not been started, has ended, or is started again later.
    Down,
}

/// Result of a container's health check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerHealth {
    /// The container has no health check.
    #[default]
    Unchecked,
    /// No check has succeeded since the start.
    Starting,
    /// The last check has succeeded.
    Healthy,
    /// The last checks have failed.
    Unhealthy,
}

/// A network that a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerNetwork {
    /// Name of the network.
    pub name: Box<str>,
    /// Whether packets from the gateway get there.
    pub reach: NetworkReach,
    /// Addresses of the container in it; none while it does not run.
    pub addresses: Vec<IpAddr>,
}

/// Way from the gateway to the containers of a network, by the network's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkReach {
    /// A bridge of the gateway, or a driver that is not known.
    Routed,
    /// The gateway's own network.
    Host,
    /// No network.
    Nothing,
    /// The network of another container.
    Shared,
    /// A link of the gateway, which the gateway itself cannot reach the containers by.
    Macvlan,
    /// An ipvlan link of the gateway, with the same limit as macvlan.
    Ipvlan,
    /// A network of a swarm, whose addresses no node has a route to.
    Overlay,
}

impl NetworkReach {
    /// Returns the reason why no service can have a container's address in such a network.
    pub(super) fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Routed => None,
            Self::Host => Some("it shares the gateway's own network, and so has no address of its own"),
            Self::Nothing => Some("it has no network"),
            Self::Shared => Some("it shares the network of another container: set the labels on that one"),
            Self::Macvlan => Some("the gateway cannot reach containers in a macvlan network of its own link"),
            Self::Ipvlan => Some("the gateway cannot reach containers in an ipvlan network of its own link"),
            Self::Overlay => Some("the gateway has no route to the addresses of an overlay network"),
        }
    }
}

impl Container {
    /// Returns the state of its backends; `None`: it is no backend now.
    pub(super) fn backend_state(&self) -> Option<BackendState> {
        match (self.state, self.health) {
            (RunState::Down, _) => None,
            _ if self.is_stopping => Some(BackendState::Draining),
            (RunState::Running, ContainerHealth::Starting) => None,
            (RunState::Running, ContainerHealth::Unchecked | ContainerHealth::Healthy) => Some(BackendState::Active),
            (RunState::Running, ContainerHealth::Unhealthy) | (RunState::Paused, _) => Some(BackendState::Draining),
        }
    }

    /// Returns whether it is no backend only because its health check has no result yet.
    pub(super) fn is_unchecked(&self) -> bool {
        !self.is_stopping && (self.state, self.health) == (RunState::Running, ContainerHealth::Starting)
    }

    /// Returns the rank of its labels beside others that contradict them: those of a container that runs count before those of one
    /// that ends or has ended.
    pub(super) fn rank(&self) -> u8 {
        match self.state {
            RunState::Down => 2,
            _ if self.is_stopping => 1,
            RunState::Running | RunState::Paused => 0,
        }
    }
}

/// Name of something for messages: short, in quotes, without control characters.
pub(super) struct ShownName<'a>(pub(super) &'a str);

impl fmt::Display for ShownName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "\"{}...\"", escape::text(self.0.get(..end).unwrap_or_default())),
            None => write!(f, "\"{}\"", escape::text(self.0)),
        }
    }
}
