//! What an apply came to, for people and for scripts.

use std::fmt::Write;
use std::time::Duration;

use crate::reconcile::Report;
use tcpgw_core::diff::{ChangeCounts, count};

/// The keys of `tcpgw apply -o json`.
pub fn json(report: &Report, time: Duration) -> serde_json::Value {
    serde_json::json!({
        "services": report.services,
        "backends": report.backends,
        "flows_flushed": report.flushed,
        "handshakes_forgotten": report.forgotten,
        "flows_not_flushed": report.failed,
        "elements": report.elements,
        "transactions": report.transactions,
        "rebuilt": report.rebuilt,
        "milliseconds": milliseconds(time),
        "kernel_milliseconds": milliseconds(report.committing),
        "flush_milliseconds": milliseconds(report.flushing),
    })
}

/// The line that `tcpgw apply` prints, after one that says why the table was replaced, if it was.
pub fn text(report: &Report, time: Duration) -> String {
    let mut text = String::new();
    if let Some(why) = &report.rebuilt {
        let _ = writeln!(text, "the table was replaced: {why}");
    }
    let forgotten = if report.forgotten > 0 {
        format!(" and {} forgotten", count(report.forgotten, "handshake"))
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "services {}; backends {}; {} flushed{forgotten}; {} changed in {:.1} ms",
        words(report.services),
        words(report.backends),
        count(report.flushed, "flow"),
        count(report.elements, "element"),
        milliseconds(time),
    );
    text
}

fn words(counts: ChangeCounts) -> String {
    format!("+{} ~{} -{}", counts.added, counts.changed, counts.removed)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
