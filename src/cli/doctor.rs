//! `tcpgw doctor`

use std::fmt::Write;

use super::{Code, Global, Outcome, Output, print, print_json};
use crate::api::client::Answer;
use crate::doctor::{self, Diagnosis, Finding, Fix, Severity, TableState};
use crate::words::count;

pub(super) fn run(global: &Global) -> Outcome {
    let config = global.config()?;
    let mut facts = doctor::gather(&global.run_dir, config.flow_mark);
    facts.protect_backends = config.protect_backends;
    if let Ok(table) = &mut facts.table
        && let Some(daemon) = Keeper::find(global)
    {
        table.daemon = daemon.owner.filter(|_| table.owner.is_some());
        // It notes what it has written a while later, and hears at once of what others write.
        if daemon.in_sync && matches!(table.state, TableState::Changed | TableState::Unrecorded) {
            table.state = TableState::AsWritten;
        }
    }
    let diagnosis = doctor::examine(&facts);
    match global.output {
        Output::Json => print_json(&serde_json::json!({
            "findings": diagnosis.findings,
            "unchecked": diagnosis.unchecked,
            "broken": diagnosis.count(Severity::Broken),
            "warnings": diagnosis.count(Severity::Warning),
            "notes": diagnosis.count(Severity::Note),
        }))?,
        Output::Table => print(&words(&diagnosis, global.colors(&std::io::stdout()), global.quiet))?,
    }
    Ok(if diagnosis.count(Severity::Broken) > 0 {
        Code::Failure
    } else {
        Code::Success
    })
}

/// The daemon of this network namespace. One that does not answer says nothing about the table.
struct Keeper {
    /// Its process, if it owns the table.
    owner: Option<u32>,
    in_sync: bool,
}

impl Keeper {
    fn find(global: &Global) -> Option<Self> {
        let daemon = global.daemon().ok().flatten()?;
        let view: serde_json::Value = daemon.get("/v1/daemon").and_then(Answer::json).ok()?;
        let pid = view["pid"].as_u64().filter(|_| view["owns_table"] == true);
        Some(Self {
            owner: pid.and_then(|pid| u32::try_from(pid).ok()),
            in_sync: view["in_sync"] == true,
        })
    }
}

fn words(diagnosis: &Diagnosis, colors: bool, quiet: bool) -> String {
    let mut text = String::new();
    for finding in &diagnosis.findings {
        if !quiet || finding.severity == Severity::Broken {
            one(&mut text, finding, colors);
        }
    }
    for unchecked in &diagnosis.unchecked {
        let _ = writeln!(text, "unchecked: {}: {}", unchecked.check, unchecked.reason);
    }
    if !quiet {
        text += &summary(diagnosis);
    }
    text
}

fn one(text: &mut String, finding: &Finding, colors: bool) {
    let (on, off) = match finding.severity {
        _ if !colors => ("", ""),
        Severity::Broken => ("\u{1b}[1;31m", "\u{1b}[0m"),
        Severity::Warning => ("\u{1b}[1;33m", "\u{1b}[0m"),
        Severity::Note => ("\u{1b}[1m", "\u{1b}[0m"),
    };
    let _ = writeln!(text, "{on}{}{off} [{}] {}", finding.severity, finding.id, finding.seen);
    let _ = writeln!(text, "    {}", finding.cause);
    match &finding.fix {
        Some(Fix::Command(line)) => drop(writeln!(text, "    $ {line}")),
        Some(Fix::Advice(words)) => drop(writeln!(text, "    -> {words}")),
        None => {}
    }
}

fn summary(diagnosis: &Diagnosis) -> String {
    let of = |severity| diagnosis.count(severity);
    let found = if diagnosis.findings.is_empty() {
        "nothing found".to_owned()
    } else {
        format!(
            "{} broken, {}, {}",
            of(Severity::Broken),
            count(of(Severity::Warning), "warning"),
            count(of(Severity::Note), "note")
        )
    };
    match diagnosis.unchecked.len() {
        0 => format!("{found}\n"),
        unchecked => format!("{found}; {} could not be made\n", count(unchecked, "check")),
    }
}
