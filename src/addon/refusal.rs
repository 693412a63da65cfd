//! Reasons why a request is refused.

use thiserror::Error;

use super::id::PlatformId;
use super::ports::PortRefusal;
use super::resource::MAX_BINDINGS;

/// Reason why a request is refused. A refused request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No plan has this name.
    #[error("there is no plan {name:?}; the plans are {known}")]
    UnknownPlan {
        /// Name in the request.
        name: String,
        /// Names of the plans that exist.
        known: String,
    },
    /// No plan of the catalog has this id.
    #[error("plan_id is not that of a plan in the catalog")]
    UnlistedPlan,
    /// The id of a new app begins with `app:`.
    #[error("the app's id must not begin with app: (the gateway's commands write that before an id)")]
    Prefixed,
    /// The resource does not exist.
    #[error("there is no such resource")]
    NotFound,
    /// The resource was deprovisioned.
    #[error("the resource was deprovisioned")]
    Gone,
    /// The binding does not exist.
    #[error("there is no such binding")]
    NoBinding,
    /// The id is in use, with other values.
    #[error("{0}")]
    Conflict(String),
    /// No port can be given.
    #[error(transparent)]
    Port(#[from] PortRefusal),
    /// The resource has as many bindings as it may.
    #[error("a resource has at most {MAX_BINDINGS} bindings")]
    TooManyBindings,
    /// Several resources have bindings of this app.
    #[error("several resources are bound to app {0}: name one of them by its own id")]
    Ambiguous(PlatformId),
}

impl Refusal {
    /// Returns the message for a platform, whose users read it.
    pub fn for_platform(&self) -> String {
        match self {
            Self::Port(refusal) => refusal.for_platform(),
            other => other.to_string(),
        }
    }
}
