//! Orders about deploys, and what is told of them.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Peer;

/// A new version of a service is up: its backends shall be these from the moment at which they answer.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployOrder {
    /// The service.
    pub service: Box<str>,
    /// The new backends, as in the state file: `"IP:PORT"`, or an object with a weight.
    pub targets: Vec<Value>,
    /// So many of them have to answer; `None`: all.
    pub min: Option<usize>,
    /// How long they may take.
    pub timeout: Duration,
    /// How long the old ones' flows may live after the switch, instead of the service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// Whether a deploy of the service that probes still is ended by this one, instead of refusing this one.
    pub supersede: bool,
    /// By whom.
    pub by: Peer,
}

/// A deploy that shall not go on, or be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoOrder {
    /// Which.
    pub which: Which,
    /// By whom.
    pub by: Peer,
}

/// Which deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// That of this id.
    Id(u64),
    /// The last one of this service.
    Last(Box<str>),
}

/// A deploy that is not over, or that the store does not know to be over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployView {
    /// Its id.
    pub id: u64,
    /// The service.
    pub service: String,
    /// `probing`; `switching` (decided, and the kernel does not hold it yet); `switched`: new connections go to the new
    /// backends, the old ones drain and may be told to end; `drained`, `failed` or `undone`: over, and the store does not
    /// know that yet.
    pub phase: Cow<'static, str>,
    /// Why it is over, if it is.
    pub reason: Option<String>,
    /// The new backends.
    pub targets: Vec<TargetView>,
    /// The old backends that are none of the new ones.
    pub old: Vec<SocketAddr>,
    /// Of the old ones: how many have left.
    pub left: usize,
    /// Flows of the old ones, of the last count.
    pub flows: Option<u64>,
    /// Seconds until the targets have taken too long, or the old ones' flows are flushed.
    pub seconds_left: Option<u64>,
}

/// A new backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetView {
    /// Where.
    pub backend: SocketAddr,
    /// What probes say: see [`HealthView::state`](super::HealthView::state).
    pub health: Cow<'static, str>,
    /// Why the last probe failed, if it did.
    pub reason: Option<String>,
}
