//! Findings of the doctor.

use std::fmt;

use serde::Serialize;
use tcpgw_core::problem;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingSeverity {
    /// Traffic is broken, or will be as soon as there is some.
    Broken,
    /// Traffic may be broken.
    Warning,
    /// Information without an effect on traffic.
    Note,
}

impl FindingSeverity {
    /// Returns the severity of a finding for that of a problem.
    pub const fn of(severity: problem::Severity) -> Self {
        match severity {
            problem::Severity::Error => Self::Broken,
            problem::Severity::Warning => Self::Warning,
        }
    }
}

impl fmt::Display for FindingSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Broken => "broken",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// A finding: something that is, or may be, wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Permanent and unique name of the finding, in kebab case.
    pub id: &'static str,
    /// Severity.
    pub severity: FindingSeverity,
    /// Description of what was found.
    pub seen: String,
    /// Description of the effect and its reason.
    pub cause: String,
    /// Command that solves it, or advice if there is no command; `None`: nothing needs to be done.
    pub fix: Option<Fix>,
}

/// Solution of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// A command line for root.
    Command(String),
    /// Advice, where no single command helps.
    Advice(String),
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Command(text) | Self::Advice(text)) = self;
        f.write_str(text)
    }
}

/// A check that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unchecked {
    /// Subject of the check.
    pub check: String,
    /// Reason why it could not be made.
    pub reason: String,
}

/// Findings, and checks that could not be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Findings, the worst first.
    pub findings: Vec<Finding>,
    /// Checks that could not be made, in no particular order.
    pub unchecked: Vec<Unchecked>,
}

impl Diagnosis {
    /// Returns the number of findings of a severity.
    pub fn count(&self, severity: FindingSeverity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// Adds findings, and restores the order.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
        self.findings.sort_by_key(|finding| finding.severity);
    }

    /// Adds findings before all others of their severity.
    pub fn add_first(&mut self, findings: impl IntoIterator<Item = Finding>) {
        let others = std::mem::take(&mut self.findings);
        self.add(findings);
        self.add(others);
    }

    pub(super) fn found(
        &mut self,
        id: &'static str,
        severity: FindingSeverity,
        seen: String,
        cause: String,
        fix: Option<Fix>,
    ) {
        self.findings.push(Finding {
            id,
            severity,
            seen,
            cause,
            fix,
        });
    }

    pub(super) fn broken(&mut self, id: &'static str, seen: impl Into<String>, cause: impl Into<String>, fix: Fix) {
        self.found(id, FindingSeverity::Broken, seen.into(), cause.into(), Some(fix));
    }

    pub(super) fn warning(&mut self, id: &'static str, seen: impl Into<String>, cause: impl Into<String>, fix: Fix) {
        self.found(id, FindingSeverity::Warning, seen.into(), cause.into(), Some(fix));
    }

    pub(super) fn note(&mut self, id: &'static str, seen: impl Into<String>, cause: impl Into<String>) {
        self.found(id, FindingSeverity::Note, seen.into(), cause.into(), None);
    }

    pub(super) fn unchecked(&mut self, check: impl Into<String>, reason: impl Into<String>) {
        let unchecked = Unchecked {
            check: check.into(),
            reason: reason.into(),
        };
        if !self.unchecked.contains(&unchecked) {
            self.unchecked.push(unchecked);
        }
    }

    /// Returns the fact, or records that the check could not be made.
    pub(super) fn known<'a, T>(&mut self, check: &str, fact: &'a Result<T, String>) -> Option<&'a T> {
        match fact {
            Ok(fact) => Some(fact),
            Err(reason) => {
                self.unchecked(check, reason);
                None
            }
        }
    }
}

pub(super) fn command(line: impl Into<String>) -> Fix {
    Fix::Command(line.into())
}

pub(super) fn advice(words: impl Into<String>) -> Fix {
    Fix::Advice(words.into())
}
