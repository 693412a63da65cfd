//! The command `tcpgw doctor`.

use std::fmt::Write;

use super::configuration::Configuration;
use super::daemon_absence::elsewhere;
use super::failure::{Code, Outcome};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json};
use super::table::after;
use crate::api::answers::DaemonAnswer;
use crate::api::client::{ClientError, DaemonResponse};
use crate::doctor::{self, Diagnosis, Finding, FindingSeverity, Fix, RunningDaemon, TableFacts, TableState, Unchecked};
use tcpgw_core::escape;
use tcpgw_core::problem::{self, Problem, ProblemKind};
use tcpgw_core::words::count;

/// Columns before further lines of a finding.
const INDENT: usize = 4;

pub(super) fn run(global: &Global) -> Outcome {
    let configuration = global.judged_config();
    let mut facts = doctor::gather(&global.run_dir, &configuration.config);
    let daemon = DaemonState::ask(global);
    facts.cheap.is_probed = daemon.may_probe();
    if let Ok(table) = &mut facts.table {
        judge_owned(table, global.running_daemon());
    }
    if let DaemonState::Answers(view) = &daemon {
        facts.beside(&RunningDaemon {
            pid: view.pid,
            owns_table: view.owns_table,
            in_sync: view.in_sync,
            problems: view.problems(),
        });
    }
    let mut diagnosis = doctor::examine(&facts);
    match &daemon {
        DaemonState::Answers(view) => doctor::add_of_daemon(&mut diagnosis, view.problems()),
        // The daemon's failure may be the cause of the other findings.
        _ => diagnosis.add_first(daemon.findings()),
    }
    diagnosis.add(daemon.judge_configuration(&configuration));
    let unreadable = configuration.unchecked.map(|reason| Unchecked {
        check: "the configuration".into(),
        reason,
    });
    diagnosis.unchecked.extend(unreadable);
    if !matches!(daemon, DaemonState::Answers(_)) {
        diagnosis.add(facts.orphaned.as_ref().map(doctor::finding));
    }
    if daemon.is_dead() {
        diagnosis.add_first(facts.unserved.as_ref().map(doctor::finding));
    }
    diagnosis.unchecked.extend(daemon.unchecked());
    match global.output {
        OutputFormat::Json => print_json(&serde_json::json!({
            "findings": diagnosis.findings,
            "unchecked": diagnosis.unchecked,
            "broken": diagnosis.count(FindingSeverity::Broken),
            "warnings": diagnosis.count(FindingSeverity::Warning),
            "notes": diagnosis.count(FindingSeverity::Note),
        }))?,
        OutputFormat::Table | OutputFormat::Wide if global.is_silent() => {}
        OutputFormat::Table | OutputFormat::Wide => print(&words(
            &diagnosis,
            FindingsFormat {
                colors: global.colors(&std::io::stdout()),
                width: global.extent().width(),
            },
        ))?,
    }
    Ok(if diagnosis.count(FindingSeverity::Broken) > 0 {
        Code::Failure
    } else {
        Code::Success
    })
}

/// Treats a table that a running daemon owns as unchanged, since no other program can change it, whether the daemon answers or
/// not.
fn judge_owned(table: &mut TableFacts, daemon: Option<u32>) {
    table.daemon = daemon.filter(|pid| table.owner.as_ref().is_some_and(|(port, _)| port == pid));
    if table.daemon.is_some() && matches!(table.state, TableState::Changed | TableState::Unrecorded) {
        table.state = TableState::AsWritten;
    }
}

/// State of the daemon of this network namespace. A daemon that does not answer says nothing about the table.
enum DaemonState {
    /// The daemon answers, with what it tells of itself.
    Answers(DaemonAnswer),
    /// A daemon, or something else behind its socket, does not answer, for this reason.
    Silent(String),
    /// No daemon was asked; the problem to report about that, if any.
    Absent(Option<Problem>),
    /// A daemon may run, but this user may not ask it, for this reason.
    Forbidden(String),
}

impl DaemonState {
    fn ask(global: &Global) -> Self {
        let daemon = match global.daemon_or_why() {
            Ok(Ok(daemon)) => daemon,
            Ok(Err(why)) => return Self::Absent(why),
            Err(ClientError::OtherNamespace(socket)) => return Self::Absent(Some(elsewhere(&socket))),
            Err(error @ ClientError::Forbidden(_)) => return Self::Forbidden(error.to_string()),
            Err(error) => return Self::Silent(error.to_string()),
        };
        match daemon.get("/v1/daemon").and_then(DaemonResponse::json) {
            Ok(view) => Self::Answers(view),
            Err(error) => Self::Silent(error.to_string()),
        }
    }

    /// Returns whether no daemon is known to run.
    fn is_dead(&self) -> bool {
        match self {
            Self::Absent(problem) => problem
                .as_ref()
                .is_none_or(|problem| problem.kind == ProblemKind::DaemonGone),
            _ => false,
        }
    }

    /// Returns whether a daemon runs, or may run, that takes backends out of the balance.
    fn may_probe(&self) -> bool {
        matches!(self, Self::Answers(_) | Self::Forbidden(_))
    }

    /// Returns the findings about a daemon that does not answer.
    fn findings(&self) -> Vec<Finding> {
        match self {
            Self::Forbidden(_) | Self::Answers(_) => Vec::new(),
            Self::Absent(problem) => problem.as_ref().map(doctor::finding).into_iter().collect(),
            Self::Silent(why) => vec![Finding {
                id: "daemon-not-answering",
                severity: FindingSeverity::Broken,
                seen: format!("the daemon does not answer: {why}"),
                cause:
                    "it takes no orders and may not probe backends or repair the table; the kernel forwards as before"
                        .into(),
                fix: Some(Fix::Advice(
                    "restart it (`systemctl restart tcpgw`): drains keep their deadlines".into(),
                )),
            }],
        }
    }
}

impl DaemonState {
    /// Returns the finding about a configuration that no daemon starts with, unless a running daemon has reported it.
    fn judge_configuration(&self, configuration: &Configuration) -> Option<Finding> {
        let problem = match self {
            Self::Absent(why) => configuration.problem_beside(why.as_ref())?,
            _ => configuration.problem.clone()?.with_severity(problem::Severity::Warning),
        };
        let is_known = |known: &Problem| known.kind == problem.kind;
        match self {
            Self::Answers(view) if view.problems().iter().any(is_known) => None,
            _ => Some(doctor::finding(&problem)),
        }
    }

    /// Returns the checks of the daemon whose results are not known here.
    fn unchecked(&self) -> Option<Unchecked> {
        let (check, reason) = match self {
            Self::Forbidden(reason) => ("the daemon's own checks".into(), reason.clone()),
            Self::Answers(view) if view.reported.unknown > 0 => (
                count(view.reported.unknown, "problem"),
                "the daemon reports problems that this version of tcpgw does not know: `tcpgw status` of the daemon's version shows them".into(),
            ),
            _ => return None,
        };
        Some(Unchecked { check, reason })
    }
}

/// Form of the findings for people.
#[derive(Debug, Clone, Copy)]
struct FindingsFormat {
    colors: bool,
    /// Width of the terminal, if there is one.
    width: Option<usize>,
}

fn words(diagnosis: &Diagnosis, form: FindingsFormat) -> String {
    let mut text = String::new();
    for finding in &diagnosis.findings {
        one(&mut text, finding, form);
    }
    for unchecked in &diagnosis.unchecked {
        let line = format!("unchecked: {}: {}", unchecked.check, unchecked.reason);
        let _ = writeln!(text, "{}", after(0, &line, INDENT, form.width));
    }
    text + &summary(diagnosis)
}

fn one(text: &mut String, finding: &Finding, form: FindingsFormat) {
    let (on, off) = match finding.severity {
        _ if !form.colors => ("", ""),
        FindingSeverity::Broken => ("\u{1b}[1;31m", "\u{1b}[0m"),
        FindingSeverity::Warning => ("\u{1b}[1;33m", "\u{1b}[0m"),
        FindingSeverity::Note => ("\u{1b}[1m", "\u{1b}[0m"),
    };
    let severity = finding.severity.to_string();
    let label = format!(" [{}] ", finding.id);
    let seen = after(
        severity.len() + label.len(),
        &escape::text(&finding.seen),
        INDENT,
        form.width,
    );
    let _ = writeln!(text, "{on}{severity}{off}{label}{seen}");
    let _ = writeln!(
        text,
        "    {}",
        after(INDENT, &escape::text(&finding.cause), INDENT, form.width)
    );
    match &finding.fix {
        // Never broken, so that it can be copied.
        Some(Fix::Command(line)) => drop(writeln!(text, "    $ {line}")),
        Some(Fix::Advice(words)) => drop(writeln!(
            text,
            "    -> {}",
            after(INDENT + 3, words, INDENT + 3, form.width)
        )),
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
            of(FindingSeverity::Broken),
            count(of(FindingSeverity::Warning), "warning"),
            count(of(FindingSeverity::Note), "note")
        )
    };
    match diagnosis.unchecked.len() {
        0 => format!("{found}\n"),
        unchecked => format!("{found}; {} could not be made\n", count(unchecked, "check")),
    }
}
