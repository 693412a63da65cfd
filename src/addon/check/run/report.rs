//! Findings of a run.

use serde::Serialize;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// The rule is kept.
    Pass,
    /// Something that is recommended or usual is missing.
    Warn,
    /// The rule is broken.
    Fail,
    /// The rule could not be checked.
    Skip,
}

/// A check with its result. Texts are the provider's: they are not safe to show on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckFinding {
    /// Name of the check.
    pub name: &'static str,
    /// Result of the check.
    pub verdict: CheckVerdict,
    /// The flaw, or the reason why the check was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The request, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// The answer, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
    /// Text of the rule.
    pub rule: &'static str,
    /// Document and section of the rule.
    pub source: &'static str,
}

/// Result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Findings of all checks.
    pub findings: Vec<CheckFinding>,
    /// Things that may be left at the provider, each with the request that removes it.
    pub left: Vec<String>,
}
