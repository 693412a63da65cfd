//! Settings of a run.

use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::addon::Dialect;
use crate::addon::credentials::ProviderCredentials;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct CheckSettings {
    /// Dialect of the provider API that is checked.
    pub dialect: Dialect,
    /// The credentials of a platform.
    pub credentials: ProviderCredentials,
    /// The offering, by name or id (OSB); otherwise the first of the catalog that has the plan.
    pub offering: Option<String>,
    /// The plan, by name (OSB: or id); otherwise the first one of the catalog or of the manifest.
    pub plan: Option<String>,
    /// The plan that is changed to; otherwise the next one.
    pub other_plan: Option<String>,
    /// The platform's organization (OSB).
    pub organization: String,
    /// The platform's space (OSB).
    pub space: String,
    /// Options that instances are provisioned with: `parameters` (OSB) or `options`.
    pub parameters: Map<String, Value>,
    /// The manifest of the provider.
    pub manifest: Option<Value>,
    /// Whether the URL of single sign-on is known.
    pub has_sign_on: bool,
    /// Longest time for which an asynchronous operation is waited for.
    pub poll_limit: Duration,
}

/// Reason why nothing can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckSettingsError {
    /// The plan is not known.
    #[error(
        "no plan is known by which an add-on can be provisioned: name a plan of the provider (--plan NAME), or give a manifest that lists its plans (--manifest FILE)"
    )]
    NoPlan,
    /// Both plans are the same.
    #[error("--plan and --other-plan name the same plan: leave --other-plan out, or name another one")]
    SamePlan,
}
