//! Orders about deploys, and views of them.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Peer;

/// An order of a deploy: switches the service to new backends when they answer probes.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployOrder {
    /// Name of the service.
    pub service: Box<str>,
    /// The new backends, as in the state file: `"IP:PORT"`, or an object with a weight.
    pub targets: Vec<Value>,
    /// Minimum number of targets that must answer; `None`: all.
    pub min: Option<usize>,
    /// Maximum time until they answer.
    pub timeout: Duration,
    /// Drain time of the old backends after the switch, in place of the service's `drain_timeout`.
    pub drain: Option<Duration>,
    /// Whether to end a deploy of the service that still probes; otherwise this one is refused.
    pub supersede: bool,
    /// Author.
    pub by: Peer,
}

/// An order that ends a deploy, or takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoOrder {
    /// The deploy.
    pub which: DeploySelector,
    /// Author.
    pub by: Peer,
}

/// Selection of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeploySelector {
    /// The deploy with this id.
    Id(u64),
    /// The last deploy of this service.
    Last(Box<str>),
}

/// A deploy that has not ended, or whose end the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployView {
    /// Id of the deploy.
    pub id: u64,
    /// Name of the service.
    pub service: String,
    /// Phase: `probing`; `switching` (decided, and the kernel does not hold it yet); `switched`: new connections go to
    /// the new backends, the old ones drain and can be told to end; `drained`, `failed` or `undone`: ended, and the
    /// store does not know that yet.
    pub phase: Cow<'static, str>,
    /// Reason why it ended, if it has.
    pub reason: Option<String>,
    /// The new backends.
    pub targets: Vec<TargetView>,
    /// Old backends that are not among the new ones.
    pub old: Vec<SocketAddr>,
    /// Number of old backends that have drained.
    pub left: usize,
    /// Number of flows of the old backends, at the last count.
    pub flows: Option<u64>,
    /// Seconds until the timeout of the probes, or until the old backends' flows are deleted.
    pub seconds_left: Option<u64>,
}

/// A new backend of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetView {
    /// Address of the backend.
    pub backend: SocketAddr,
    /// State by probes: see [`HealthView::state`](crate::view::snapshot::HealthView::state).
    pub health: Cow<'static, str>,
    /// Reason why the last probe failed, if it did.
    pub reason: Option<String>,
}
