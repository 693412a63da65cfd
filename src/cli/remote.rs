//! `apply` and `diff` by way of the daemon.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::apply_output::ReportJson;
use super::arguments::FileArgument;
use super::denied::Denied;
use super::failure::Failure;
use super::global::{Global, OutputFormat};
use super::print::print;
use crate::api::answers::{AnswerWithJson, ApplyAnswer};
use crate::api::client::{Client, ClientError, DaemonResponse, RequestTarget};
use crate::apply_report::ReportText;
use crate::control::request::ApplyOptions;
use tcpgw_core::model::duration;

/// Sends a state that was read from that file to the daemon, and prints and returns its report, and the result for connections
/// of denied clients. A dry run is answered with a [`DiffReport`](crate::apply_report::DiffReport), anything else with an
/// [`ApplyReport`](crate::apply_report::ApplyReport).
pub(super) fn apply<R: DeserializeOwned + ReportText>(
    global: &Global,
    daemon: &Client,
    (file, state): (&FileArgument, Vec<u8>),
    options: &ApplyOptions,
    flush_denied: bool,
) -> Result<(AnswerWithJson<R>, Option<Denied>), Failure> {
    let dry = options.dry_run.then(|| state.clone());
    let drain = options.drain.map(duration::show);
    let target = RequestTarget::new("/v1/apply")
        .with("dry_run", Some(&options.dry_run))
        .with("take_over", Some(&options.take_over))
        .with("hold_back", Some(&options.hold_back))
        .with("allow_empty", Some(&options.allow_empty))
        .with("prune", Some(&options.prune))
        .with("drain", drain.as_ref().map(|drain| drain as _))
        .with("origin", Some(&origin(file)));
    let answer = daemon.post(target.as_str(), state).and_then(DaemonResponse::json);
    let applied: ApplyAnswer<AnswerWithJson<R>> = answer.map_err(|error| match error {
        ClientError::Invalid(problems) => Failure::Invalid {
            file: file.file.clone(),
            problems,
        },
        other => other.into(),
    })?;
    for warning in &applied.warnings {
        global.warn(warning);
    }
    let denied = match dry {
        Some(state) => Denied::if_applied(daemon, state),
        None => Denied::through(daemon, None, flush_denied),
    };
    let denied = match denied {
        Err(error) if !flush_denied => {
            global.warn(&format!("failed to count connections of denied clients: {error}"));
            None
        }
        other => Some(other?),
    };
    let json = ReportJson {
        report: &applied.report,
        denied: Denied::counts(denied.as_ref(), options.dry_run),
        // Services of others are not in a daemon's way.
        kept: (!options.dry_run).then(Vec::new),
    };
    match global.output {
        OutputFormat::Json => json.print()?,
        OutputFormat::Table | OutputFormat::Wide if global.quiet && !options.dry_run => {}
        OutputFormat::Table | OutputFormat::Wide => print(&tcpgw_core::escape::lines(&applied.report.text()))?,
    }
    Ok((applied.report, denied))
}

/// Returns the origin of the state for the record.
pub(super) fn origin(file: &FileArgument) -> String {
    // A relative path has no meaning for readers of the record in other directories.
    let origin = if file.file.as_os_str() == "-" {
        PathBuf::from("-")
    } else {
        std::path::absolute(&file.file).unwrap_or_else(|_| file.file.clone())
    };
    tcpgw_core::escape::path(&origin)
}
