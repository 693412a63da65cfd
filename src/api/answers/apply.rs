//! Answer to an apply or a dry run.

use serde::{Deserialize, Serialize};

use crate::apply_report::{AnyReport, ReportText as _};
use crate::control::request::Applied;

/// Result of an apply, or of a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyAnswer<R = AnyReport> {
    /// Output of `tcpgw apply -o json` (or `diff -o json`, for a dry run).
    pub report: R,
    /// Output of `tcpgw apply` (or `diff`, for a dry run).
    pub text: String,
    /// Warnings about the state.
    pub warnings: Vec<String>,
}

impl From<Applied> for ApplyAnswer {
    fn from(applied: Applied) -> Self {
        Self {
            text: applied.report.text(),
            report: applied.report,
            warnings: applied.warnings,
        }
    }
}
