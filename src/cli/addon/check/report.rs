//! Output and exit code of `tcpgw addon check`.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use super::arguments::Arguments;
use crate::addon::check::{CheckFinding, CheckReport, CheckVerdict};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::global::{Global, OutputFormat};
use crate::cli::print::print_json;
use crate::cli::screen;
use tcpgw_core::words::count;

/// Number of `-v` from which requests and answers of passed checks are shown.
const DETAILS: u8 = 1;

#[derive(Serialize)]
struct CheckSummary<'t> {
    url: &'t str,
    dialect: &'t str,
    passed: usize,
    warnings: usize,
    failed: usize,
    skipped: usize,
    checks: &'t [CheckFinding],
    left: &'t [String],
}

/// Prints findings as they come.
pub(super) struct FindingPrinter {
    is_silent: bool,
    is_verbose: bool,
    printed: usize,
    /// Error of printing, which does not keep things from being removed at the provider.
    failed: Option<io::Error>,
}

impl FindingPrinter {
    pub(super) fn new(global: &Global) -> Self {
        Self {
            is_silent: global.is_silent() || global.output == OutputFormat::Json,
            is_verbose: global.verbose >= DETAILS,
            printed: 0,
            failed: None,
        }
    }

    pub(super) fn follow(&mut self, findings: &[CheckFinding]) {
        for finding in findings.get(self.printed..).unwrap_or_default() {
            self.printed += 1;
            if !self.is_silent {
                self.line(&lines(finding, self.is_verbose));
            }
        }
    }

    fn line(&mut self, text: &str) {
        if self.failed.is_none() {
            let mut stdout = screen::stdout();
            let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            self.failed = printed.err();
        }
    }
}

/// Returns one line for a check that passed, and, for others, also request, answer and rule.
fn lines(finding: &CheckFinding, is_verbose: bool) -> String {
    let word = match finding.verdict {
        CheckVerdict::Pass => "PASS",
        CheckVerdict::Warn => "WARN",
        CheckVerdict::Fail => "FAIL",
        CheckVerdict::Skip => "SKIP",
    };
    let text = finding.why.as_deref().unwrap_or(finding.rule);
    let mut lines = format!("{word}  {:<30}  {}\n", finding.name, tcpgw_core::escape::text(text));
    let has_details = matches!(finding.verdict, CheckVerdict::Warn | CheckVerdict::Fail) || is_verbose;
    if has_details && finding.verdict != CheckVerdict::Skip {
        let rule = format!("{} ({})", finding.rule, finding.source);
        let details = [
            ("sent", finding.sent.as_deref()),
            ("came", finding.came.as_deref()),
            ("rule", Some(rule.as_str())),
        ];
        for (name, text) in details {
            if let Some(text) = text {
                let _ = writeln!(lines, "        {name}  {}", tcpgw_core::escape::text(text));
            }
        }
    }
    lines
}

/// Prints the sum, and returns the exit code.
pub(super) fn conclude(
    global: &Global,
    arguments: &Arguments,
    report: &CheckReport,
    mut printer: FindingPrinter,
    signal: Option<u8>,
) -> Outcome {
    let counted = |verdict| {
        report
            .findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let [passed, warnings, failed, skipped] = [
        CheckVerdict::Pass,
        CheckVerdict::Warn,
        CheckVerdict::Fail,
        CheckVerdict::Skip,
    ]
    .map(counted);
    if global.output == OutputFormat::Json {
        print_json(&CheckSummary {
            url: &arguments.url,
            dialect: arguments.dialect.word(),
            passed,
            warnings,
            failed,
            skipped,
            checks: &report.findings,
            left: &report.left,
        })?;
    } else if !printer.is_silent {
        printer.line(&format!(
            "{}: {passed} passed, {}, {failed} failed, {skipped} skipped\n",
            count(report.findings.len(), "check"),
            count(warnings, "warning")
        ));
    }
    for left in &report.left {
        global.error(&format!("may be left at the provider: {left}"));
    }
    if let Some(source) = printer.failed {
        return Err(Failure::Io {
            what: "write to standard output",
            source,
        });
    }
    if let Some(signal) = signal {
        return Ok(Code::Signal(signal));
    }
    let provisioned = report.findings.iter().find(|finding| finding.name == "provision");
    if let Some(CheckFinding {
        verdict: CheckVerdict::Skip,
        why,
        ..
    }) = provisioned
    {
        let why = why.as_deref().unwrap_or("no reason is known");
        global.error(&format!("nothing was provisioned, so most checks were skipped: {why}"));
        return Ok(Code::Failure);
    }
    let is_well = failed == 0 && report.left.is_empty() && !(arguments.strict && warnings > 0);
    Ok(if is_well { Code::Success } else { Code::Failure })
}
