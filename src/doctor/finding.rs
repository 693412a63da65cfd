//! What the doctor says.

use std::fmt;

use serde::Serialize;
use tcpgw_core::problem;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Traffic breaks, or will as soon as there is some.
    Broken,
    /// It may bite.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// What a problem of the gateway is as a finding.
    pub const fn of(severity: problem::Severity) -> Self {
        match severity {
            problem::Severity::Error => Self::Broken,
            problem::Severity::Warning => Self::Warning,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Broken => "broken",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that is, or may be, wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is called, always; in kebab case, and never another's.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub seen: String,
    /// Why that matters.
    pub cause: String,
    /// A command that puts it right, or words where there is none; `None` where nothing needs to be done.
    pub fix: Option<Fix>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// A line to type as root.
    Command(String),
    /// What no line can do.
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
    /// What was to be looked at.
    pub check: String,
    /// Why it could not be.
    pub reason: String,
}

/// What was found, and what could not be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// In no order that means anything.
    pub unchecked: Vec<Unchecked>,
}

impl Diagnosis {
    /// How many there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// Adds findings, and puts all in order again.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
        self.findings.sort_by_key(|finding| finding.severity);
    }

    /// Adds findings before all others that are as bad.
    pub fn add_first(&mut self, findings: impl IntoIterator<Item = Finding>) {
        let others = std::mem::take(&mut self.findings);
        self.add(findings);
        self.add(others);
    }

    pub(super) fn found(
        &mut self,
        id: &'static str,
        severity: Severity,
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
        self.found(id, Severity::Broken, seen.into(), cause.into(), Some(fix));
    }

    pub(super) fn warning(&mut self, id: &'static str, seen: impl Into<String>, cause: impl Into<String>, fix: Fix) {
        self.found(id, Severity::Warning, seen.into(), cause.into(), Some(fix));
    }

    pub(super) fn note(&mut self, id: &'static str, seen: impl Into<String>, cause: impl Into<String>) {
        self.found(id, Severity::Note, seen.into(), cause.into(), None);
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

    /// What was read, or a note that this check could not be made.
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
