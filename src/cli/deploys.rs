//! `tcpgw deploys`, `tcpgw rollback`

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::table::{Cell, Column, Extent, TextTable};
use super::{Code, Failure, Global, Outcome, Output, history, print, print_json, screen, text_of, unless_closed};
use crate::api::client::Target;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The number of the deploy [default: the list of the last ones]
    #[arg(value_name = "ID")]
    id: Option<u64>,
    /// List only deploys of this service
    #[arg(long, value_name = "SERVICE", conflicts_with = "id")]
    service: Option<String>,
    /// The most deploys to list
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
    let target = Target::of_service(&arguments.service, "/rollback");
    let deploy: Value = daemon.post(target.as_str(), Vec::new())?.json()?;
    match global.output {
        Output::Json => print_json(&deploy)?,
        Output::Table | Output::Wide if global.quiet => {}
        Output::Table | Output::Wide => print(&line(&deploy))?,
    }
    Ok(Code::Success)
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has deploys")?;
    if let Some(id) = arguments.id {
        let deploy: Value = daemon.get(&format!("/v1/deploys/{id}"))?.json()?;
        match global.output {
            Output::Json => print_json(&deploy)?,
            Output::Table | Output::Wide => print(&details(&deploy))?,
        }
        return Ok(Code::Success);
    }
    let target = Target::new("/v1/deploys")
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("limit", Some(&arguments.limit));
    let list: Value = daemon.get(target.as_str())?.json()?;
    match global.output {
        Output::Json => print_json(&list)?,
        Output::Table | Output::Wide => unless_closed(table(&list, global.extent()))?,
    }
    Ok(Code::Success)
}

/// `deploy 7 of web: undone (asked)`
pub(super) fn line(deploy: &Value) -> String {
    let reason = deploy["reason"]
        .as_str()
        .map(|_| format!(": {}", text_of(&deploy["reason"])));
    format!(
        "deploy {} of {}: {}{}\n",
        deploy["id"],
        text_of(&deploy["service"]),
        text_of(&deploy["phase"]),
        reason.unwrap_or_default()
    )
}

fn details(deploy: &Value) -> String {
    let mut text = line(deploy);
    let mut add = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<8} {value}");
    };
    add("targets", words(&deploy["targets"]));
    let by = history::user(&deploy["uid"]);
    add(
        "begun",
        format!("{} by {by} ({})", time(&deploy["began"]), text_of(&deploy["what"])),
    );
    add("updated", time(&deploy["updated"]));
    let progress = &deploy["progress"];
    if !progress.is_null() {
        for target in progress["targets"].as_array().into_iter().flatten() {
            let reason = target["reason"]
                .as_str()
                .map(|_| format!(" ({})", text_of(&target["reason"])));
            let state = format!("{} {}", text_of(&target["backend"]), text_of(&target["health"]));
            add("target", state + &reason.unwrap_or_default());
        }
        add("old", words(&progress["old"]));
        add("flows", text_of(&progress["flows"]));
        add(
            "left",
            progress["seconds_left"]
                .as_u64()
                .map_or("-".into(), |left| format!("{left} s")),
        );
    }
    text
}

fn table(list: &Value, extent: Extent) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        Column::right("ID"),
        Column::left("SERVICE").names(8),
        Column::left("PHASE"),
        Column::left("BEGAN").usual(2),
        Column::left("BY").names(6).usual(3),
        Column::left("TARGETS").words(12).usual(1),
        Column::left("REASON").words(12).usual(4),
    ];
    let rows = list["deploys"].as_array().into_iter().flatten().map(|deploy| {
        vec![
            Cell::whole(deploy["id"].to_string()),
            text_of(&deploy["service"]).into(),
            text_of(&deploy["phase"]).into(),
            time(&deploy["began"]).into(),
            history::user(&deploy["uid"]).into(),
            words(&deploy["targets"]).into(),
            deploy["reason"]
                .as_str()
                .map_or(String::new(), |_| text_of(&deploy["reason"]))
                .into(),
        ]
    });
    TextTable::new(screen::stdout(), COLUMNS, extent)
        .holding_all()
        .print(rows)
}

/// Seconds since 1970, in UTC.
pub(super) fn time(value: &Value) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let shown = value.as_f64().map(|seconds| crate::date::utc(seconds as i64));
    shown.unwrap_or_else(|| "-".into())
}

/// The strings of a list.
pub(super) fn words(list: &Value) -> String {
    let words: Vec<String> = list.as_array().into_iter().flatten().map(text_of).collect();
    words.join(" ")
}
