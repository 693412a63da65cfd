//! The command `tcpgw apply`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;

use super::apply_output::ReportJson;
use super::arguments::{FileArgument, Locking, parse_duration};
use super::denied::Denied;
use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::others;
use super::others::Others;
use super::print::print;
use super::{diff, preflight, remote};
use crate::api::client::Client;
use crate::apply_report::{ApplyReport, DiffReport, ReportText as _};
use crate::config::copy;
use crate::control::request::ApplyOptions;
use crate::date::since_1970;
use crate::reconcile::{ReconcileError, ReconcileOptions, ReconcileReport};
use crate::record::{ApplyNote, since_boot};
use crate::vanished;
use tcpgw_core::words::count;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Longest time that flows of removed backends may go on before they are flushed [default: 0s; with a daemon, the service's
    /// `drain_timeout`]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    drain: Option<Duration>,
    /// Accept ports on which a local program listens; their new connections then go to the service
    #[arg(long)]
    take_over: bool,
    /// Leave out services that cannot be served yet (a port in use, an address that this machine does not have) instead of
    /// refusing the whole file; what is already served of them stays. A daemon adds them when the obstacle is gone
    #[arg(long)]
    hold_back: bool,
    /// Accept a state file without services although the kernel has some
    #[arg(long)]
    allow_empty: bool,
    /// End connections of clients that the lists `allow` and `deny` now refuse; without it these connections go on and are
    /// counted
    #[arg(long, conflicts_with = "dry_run")]
    flush_denied: bool,
    /// Also remove services that no provider defines any more (orphans); without a daemon also services of its API
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    locking: Locking,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let begin = Instant::now();
    let config = global.config()?;
    let text = global.read(&arguments.file)?;
    if let Some(daemon) = global.daemon()? {
        return through(global, &daemon, arguments, text);
    }
    let mut state = global.parse(&arguments.file, &text, &config)?;
    drop(text);
    let mut gateway = Gateway::open(global)?;
    let obstacles = preflight::obstacles(global, &mut gateway, &state)?;
    if !arguments.hold_back {
        preflight::refuse(&arguments.file, &obstacles)?;
    }
    let _lock = if arguments.dry_run {
        None
    } else {
        Some(gateway.lock(global, arguments.locking.lock_timeout)?)
    };
    let is_empty = state.services.is_empty();
    let (known, mut others) = others::read(&mut gateway, &config, &arguments.file, &mut state, arguments.prune)?;
    others.tell(global);
    let taken = preflight::listeners(&state, &config, &known.summary, arguments.take_over)?;
    if !arguments.hold_back {
        preflight::refuse_taken(&taken)?;
    }
    let mut held = BTreeSet::new();
    if arguments.hold_back {
        let before = others.before(&state);
        let before = preflight::unhindered(&mut gateway, &config, before, &known.summary, arguments.take_over)?;
        let obstacles = obstacles.into_iter().chain(taken);
        if let Some(possible) = preflight::possible(global, &state, obstacles, &known.summary, &before) {
            state = possible.state;
            held = possible.held;
        }
    }
    let desired = gateway.desired(&state, &others.services, &config)?;
    let details = others.details_with(&state);
    let mut reconciler = gateway
        .reconciler(&config)
        .signed(signature(&arguments.file))
        .detailed(details)
        .recording_first(others.prunes_orphans())
        .keeping(&known, |name| others.stays(name));
    let replaced = known.summary.services.len().saturating_sub(others.services.len());
    if is_empty && replaced > 0 && !arguments.allow_empty {
        return Err(Failure::Refused(format!(
            "the state has no services and the kernel has {replaced}; --allow-empty removes them all"
        )));
    }
    if arguments.dry_run {
        diff::show(global, &mut reconciler, &known, &desired)?;
        return Ok(Code::Success);
    }
    // All that is left to do works on what was made of it.
    drop(state);
    others.remember_lost(global);
    others.forget_pruned(&held)?;
    let drain = arguments.drain.unwrap_or_default();
    let applied = reconciler.apply(known, &desired, &ReconcileOptions { drain });
    let report = applied.inspect_err(|error| {
        if !matches!(error, ReconcileError::Unswept(_)) {
            others.remember_pruned(global);
        }
    })?;
    let took = begin.elapsed();
    if let Err(error) = copy::keep(&config, &copy::path(None)) {
        global.warn(&error);
    }
    let denied = Denied::local(&mut reconciler, &desired.summary, arguments.flush_denied)?;
    // The process ends here: taking a million elements apart would only take time.
    std::mem::forget(desired);
    others.forget_replaced(global, &held);
    tell(global, &report, &others, &denied, took).map_err(untold)?;
    if report.failed > 0 {
        return Err(not_flushed(report.failed));
    }
    denied.tell(global)?;
    vanished::remove_files(&global.run_dir);
    Ok(Code::Success)
}

/// Applies by the daemon, which is the only writer.
fn through(global: &Global, daemon: &Client, arguments: &Arguments, text: Vec<u8>) -> Outcome {
    let options = ApplyOptions {
        dry_run: arguments.dry_run,
        take_over: arguments.take_over,
        allow_empty: arguments.allow_empty,
        prune: arguments.prune,
        hold_back: arguments.hold_back,
        drain: arguments.drain,
    };
    let input = (&arguments.file, text);
    let (failed, denied) = if options.dry_run {
        let (_, denied) = remote::apply::<DiffReport>(global, daemon, input, &options, false)?;
        (0, denied)
    } else {
        let applied = remote::apply::<ApplyReport>(global, daemon, input, &options, arguments.flush_denied);
        let (report, denied) = applied.map_err(untold)?;
        (report.flows_not_flushed, denied)
    };
    if failed > 0 {
        return Err(not_flushed(failed));
    }
    if let Some(denied) = denied {
        denied.tell(global)?;
    }
    if !arguments.dry_run {
        vanished::remove_files(&global.run_dir);
    }
    Ok(Code::Success)
}

fn not_flushed(flows: u64) -> Failure {
    Failure::Refused(format!("applied; {} not flushed; run again", count(flows, "flow")))
}

fn untold(failure: Failure) -> Failure {
    match failure {
        Failure::Io { source, .. } => Failure::Io {
            what: "write to standard output that the state was applied",
            source,
        },
        other => other,
    }
}

/// Returns the record's entry about this apply.
fn signature(file: &FileArgument) -> ApplyNote {
    ApplyNote {
        at: since_1970().as_secs(),
        origin: remote::origin(file),
        known: since_boot(),
        store: None,
        provider: None,
    }
}

fn tell(
    global: &Global,
    report: &ReconcileReport,
    others: &Others,
    denied: &Denied,
    time: Duration,
) -> Result<(), Failure> {
    // The backends that leave have left when this is printed.
    let report = ApplyReport::new(report, time, 0);
    match global.output {
        OutputFormat::Json => ReportJson {
            report: &report,
            denied: Denied::counts(Some(denied), false),
            kept: Some(others.names().collect()),
        }
        .print(),
        OutputFormat::Table | OutputFormat::Wide if global.quiet => Ok(()),
        OutputFormat::Table | OutputFormat::Wide => print(&report.text()),
    }
}
