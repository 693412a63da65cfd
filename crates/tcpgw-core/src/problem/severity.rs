//! Severities of problems.

use serde::{Deserialize, Serialize};

/// Severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients are not served, or an order is not in effect: `status` exits with 1, `/v1/healthz` answers 503.
    Error,
    /// The problem needs attention.
    Warning,
}

impl Severity {
    /// All severities, the worst first.
    pub const ALL: [Self; 2] = [Self::Error, Self::Warning];
}
