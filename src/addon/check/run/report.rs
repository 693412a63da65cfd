//! What a run found.

use serde::Serialize;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The rule is kept.
    Pass,
    /// What is recommended, or usual, is not done.
    Warn,
    /// The rule is broken.
    Fail,
    /// It could not be checked.
    Skip,
}

/// A check with what came of it. Texts are the provider's: they are not safe to show on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What is wrong, or why nothing was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// What came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
    /// What the rule says.
    pub rule: &'static str,
    /// Document and section of the rule.
    pub source: &'static str,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All checks.
    pub findings: Vec<Finding>,
    /// What may have been left at the provider, each with what removes it.
    pub left: Vec<String>,
}
