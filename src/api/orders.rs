//! Bodies of orders: the types that the command line writes and the daemon reads. Unknown fields are refused, so that
//! none is ignored silently.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `POST /v1/services/{name}/deploys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployBody {
    /// The new backends, as in the state file: `"IP:port"`, or an object with a weight.
    pub targets: Vec<Value>,
    /// Minimum number of targets that must answer; `None`: all.
    #[serde(default)]
    pub min: Option<usize>,
    /// Maximum time for the targets to answer.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Maximum time that flows of the old backends live, instead of the service's `drain_timeout`.
    #[serde(default)]
    pub drain_timeout: Option<String>,
    /// Whether a deploy of the service that is still probing is ended by this one, instead of refusing this one.
    #[serde(default)]
    pub supersede: bool,
}

/// The body of `POST /v1/services/{name}/drain` and `undrain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendsBody {
    /// The backends; empty: all of the service.
    #[serde(default)]
    pub backends: Vec<String>,
}

/// The body of `POST /v1/services/{name}/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseBody {
    /// The length of the pause.
    #[serde(default, rename = "for")]
    pub time: Option<String>,
}

/// The body of `PUT /v1/addon/resources/{app}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisionBody {
    /// The name of the plan.
    pub plan: String,
    /// The public port; `None`: a free one of the range.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
}

/// The body of `POST /v1/addon/resources/{app}/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// The name of the new plan.
    pub plan: String,
}

/// Returns the JSON of a body.
pub fn json(body: &impl Serialize) -> Vec<u8> {
    // Strings, numbers, lists and objects with keys that are strings can always be written to memory.
    serde_json::to_vec(body).unwrap_or_default()
}
