//! `tcpgw deploys`, `tcpgw rollback`

use std::fmt::Write as _;
use std::net::SocketAddr;

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use super::global::{Global, OutputFormat};
use super::moment::time;
use super::print::{print, print_json, show, show_answer};
use super::table::{Cell, Column, Extent, TextTable};
use super::{history, screen};
use crate::api::answers::{AnswerWithJson, DeployAnswer, DeployList};
use crate::api::client::RequestTarget;
use tcpgw_core::escape;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The number of the deploy [default: the list of the last ones]
    #[arg(value_name = "ID")]
    id: Option<u64>,
    /// List only deploys of this service
    #[arg(long, value_name = "SERVICE", conflicts_with = "id")]
    service: Option<String>,
    /// Maximum number of deploys to list
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "id")]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
}

pub(super) fn rollback(global: &Global, arguments: &Rollback) -> Outcome {
    let daemon = global.must_daemon("rolls back")?;
    let target = RequestTarget::of_service(&arguments.service, "/rollback");
    let deploy: AnswerWithJson<DeployAnswer> = daemon.post(target.as_str(), Vec::new())?.json()?;
    show(global, &deploy, &line(&deploy))
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has deploys")?;
    if let Some(id) = arguments.id {
        let deploy: AnswerWithJson<DeployAnswer> = daemon.get(&format!("/v1/deploys/{id}"))?.json()?;
        match global.output {
            OutputFormat::Json => print_json(&deploy)?,
            OutputFormat::Table | OutputFormat::Wide => print(&details(&deploy))?,
        }
        return Ok(Code::Success);
    }
    let target = RequestTarget::new("/v1/deploys")
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("limit", Some(&arguments.limit));
    let list: AnswerWithJson<DeployList> = daemon.get(target.as_str())?.json()?;
    show_answer(global, &list, || table(&list, global.extent()))
}

/// Returns a deploy in one line: `deploy 7 of web: undone (asked)`.
pub(super) fn line(deploy: &DeployAnswer) -> String {
    let reason = deploy.reason.as_ref();
    let reason = reason.map(|reason| format!(": {}", escape::text(reason)));
    format!(
        "deploy {} of {}: {}{}\n",
        deploy.id,
        escape::text(&deploy.service),
        escape::text(&deploy.phase),
        reason.unwrap_or_default()
    )
}

fn details(deploy: &DeployAnswer) -> String {
    let mut text = line(deploy);
    let mut add = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<8} {value}");
    };
    add("targets", words(&deploy.targets));
    let (began, by) = (time(deploy.began), history::user(deploy.uid));
    add("begun", format!("{began} by {by} ({})", escape::text(&deploy.what)));
    add("updated", time(deploy.updated));
    let Some(progress) = &deploy.progress else { return text };
    for target in &progress.targets {
        let reason = target.reason.as_ref();
        let reason = reason.map(|reason| format!(" ({})", escape::text(reason)));
        let state = format!("{} {}", target.backend, escape::text(&target.health));
        add("target", state + &reason.unwrap_or_default());
    }
    let or_none = |number: Option<u64>, unit: &str| number.map_or("-".into(), |number| format!("{number}{unit}"));
    add("old", words(&progress.old));
    add("flows", or_none(progress.flows, ""));
    add("left", or_none(progress.seconds_left, " s"));
    text
}

fn table(list: &DeployList, extent: Extent) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        Column::right("ID"),
        Column::left("SERVICE").names(8),
        Column::left("PHASE"),
        Column::left("BEGAN").usual(2),
        Column::left("BY").names(6).usual(3),
        Column::left("TARGETS").words(12).usual(1),
        Column::left("REASON").wrapped(),
    ];
    let rows = list.deploys.iter().map(|deploy| {
        vec![
            Cell::whole(deploy.id.to_string()),
            escape::text(&deploy.service).into(),
            escape::text(&deploy.phase).into(),
            time(deploy.began).into(),
            history::user(deploy.uid).into(),
            words(&deploy.targets).into(),
            escape::text(deploy.reason.as_deref().unwrap_or_default()).into(),
        ]
    });
    TextTable::new(screen::stdout(), COLUMNS, extent)
        .holding_all()
        .print(rows)
}

/// Returns endpoints with spaces between them.
pub(super) fn words(backends: &[SocketAddr]) -> String {
    let words: Vec<String> = backends.iter().map(ToString::to_string).collect();
    words.join(" ")
}
