//! Reports of an apply, for people and for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reconcile::ReconcileReport;
use crate::view::changes;
use tcpgw_core::diff::{ChangeCounts, ServiceChange};
use tcpgw_core::words::count;

/// Result of an apply: the output of `tcpgw apply -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Numbers of services that were added, changed and removed.
    pub services: ChangeCounts,
    /// Numbers of backends that were added, changed and removed.
    pub backends: ChangeCounts,
    /// Number of flows that were deleted.
    pub flows_flushed: u64,
    /// Number of unanswered handshakes that were deleted, so that clients retry at another backend.
    pub handshakes_forgotten: u64,
    /// Number of flows that could not be deleted.
    pub flows_not_flushed: u64,
    /// Number of elements that were added and deleted.
    pub elements: usize,
    /// Number of transactions.
    pub transactions: usize,
    /// Reason why the table was replaced, if it was.
    pub rebuilt: Option<String>,
    /// Duration of the whole apply, in milliseconds.
    pub milliseconds: f64,
    /// Time that the kernel's transactions took, in milliseconds.
    pub kernel_milliseconds: f64,
    /// Time that the deletion of flows took, in milliseconds.
    pub flush_milliseconds: f64,
    /// Number of backends that begin to drain.
    #[serde(default)]
    pub draining: usize,
}

impl ApplyReport {
    /// Creates a report; `time`: duration of the apply; `draining`: number of backends that begin to drain.
    pub fn new(report: &ReconcileReport, time: Duration, draining: usize) -> Self {
        Self {
            services: report.services,
            backends: report.backends,
            flows_flushed: report.flushed,
            handshakes_forgotten: report.forgotten,
            flows_not_flushed: report.failed,
            elements: report.elements,
            transactions: report.transactions,
            rebuilt: report.rebuilt.clone(),
            milliseconds: milliseconds(time),
            kernel_milliseconds: milliseconds(report.committing),
            flush_milliseconds: milliseconds(report.flushing),
            draining,
        }
    }
}

/// Text of a report, for people.
pub trait ReportText {
    /// Returns the lines that the command prints.
    fn text(&self) -> String;
}

impl ReportText for ApplyReport {
    /// Returns the line that `tcpgw apply` prints, after one that says why the table was replaced, if it was.
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(why) = &self.rebuilt {
            let _ = writeln!(text, "the table was replaced: {why}");
        }
        let forgotten = match self.handshakes_forgotten {
            0 => String::new(),
            number => format!(" and {} forgotten", count(number, "handshake")),
        };
        let draining = match self.draining {
            0 => String::new(),
            number => format!("; {} draining", count(number, "backend")),
        };
        let _ = writeln!(
            text,
            "services {}; backends {}; {} flushed{forgotten}; {} changed in {:.1} ms{draining}",
            words(self.services),
            words(self.backends),
            count(self.flows_flushed, "flow"),
            count(self.elements, "element"),
            self.milliseconds,
        );
        text
    }
}

/// Result of a dry run: the output of `tcpgw diff -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffReport {
    /// Whether anything would change.
    pub changed: bool,
    /// Reason why the table would be replaced, if it would.
    pub rebuild: Option<String>,
    /// Changes by service.
    pub services: Vec<ServiceChange>,
    /// Number of flows that would be deleted.
    pub flows: u64,
}

impl ReportText for DiffReport {
    /// Returns the lines that `tcpgw diff` prints about the services.
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(why) = &self.rebuild {
            let _ = writeln!(text, "! the table is replaced: {why}");
        }
        for change in &self.services {
            let _ = writeln!(text, "{}", changes::line(change));
        }
        let listed: u64 = self.services.iter().map(|change| change.flows).sum();
        if self.flows > listed {
            let stale = count(self.flows - listed, "stale flow");
            let _ = writeln!(text, "! {stale} of earlier backends will be flushed");
        }
        text
    }
}

/// Result of an apply or a dry run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnyReport {
    /// Result of an apply.
    Apply(ApplyReport),
    /// Result of a dry run.
    Diff(DiffReport),
}

impl ReportText for AnyReport {
    fn text(&self) -> String {
        match self {
            Self::Apply(report) => report.text(),
            Self::Diff(report) => report.text(),
        }
    }
}

impl From<ApplyReport> for AnyReport {
    fn from(report: ApplyReport) -> Self {
        Self::Apply(report)
    }
}

impl From<DiffReport> for AnyReport {
    fn from(report: DiffReport) -> Self {
        Self::Diff(report)
    }
}

fn words(counts: ChangeCounts) -> String {
    format!("+{} ~{} -{}", counts.added, counts.changed, counts.removed)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
