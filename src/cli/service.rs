//! The command `tcpgw service`.

pub(super) mod fields;
pub(super) mod options;

use std::fmt::Write as _;

use clap::{Args, Subcommand};

use self::fields::{one, plain, text_of};
use self::options::ServiceOptions;
use super::arguments::parse_duration;
use super::denied::Denied;
use super::failure::{Code, Failure, Outcome, of_service};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json, show_answer};
use super::screen;
use super::table::{Cell, Column, Extent, TextTable};
use crate::addon::ServiceState;
use crate::api::answers::{AnswerWithJson, EditAnswer, ListedAnswer, ServiceAnswer, ServiceFields, ServiceList};
use crate::api::client::{DaemonResponse, RequestTarget};
use crate::control::request::BackendView;
use crate::date::utc_of;
use tcpgw_core::escape;
use tcpgw_core::model::{Word as _, duration};
use tcpgw_core::words::count;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a service that does not exist yet
    Add(AddArguments),
    /// Change the given fields of a service
    Set(SetArguments),
    /// Remove a service and let its flows drain
    Rm(RemoveArguments),
    /// List the services of all providers
    Ls(ListArguments),
    /// Show a service with its fields, backends and deploy
    Show(NameArgument),
}

#[derive(Debug, Args)]
struct NameArgument {
    /// The name of the service
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Only services with this label; may be repeated, and all must hold
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = wanted_label)]
    label: Vec<String>,
    /// Only services of this provider
    #[arg(long, value_parser = ["api", "docker", "file", "orphan"])]
    provider: Option<String>,
}

/// Checks a label: it must have no comma, since the API separates labels by commas.
fn wanted_label(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('=') || text.contains(',') {
        return Err("must be KEY or KEY=VALUE, without commas");
    }
    Ok(text.to_owned())
}

#[derive(Debug, Args)]
struct AddArguments {
    #[command(flatten)]
    name: NameArgument,
    #[command(flatten)]
    options: ServiceOptions,
    /// Accept the port although a local program listens on it; its new connections then go to the service
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Args)]
struct SetArguments {
    #[command(flatten)]
    name: NameArgument,
    #[command(flatten)]
    options: ServiceOptions,
    /// Set a field back to its default (limit, limit.burst, allow, labels, ...); may be repeated
    #[arg(long, value_name = "FIELD")]
    reset: Vec<String>,
    #[command(flatten)]
    how: ChangeOptions,
    /// Accept the port although a local program listens on it; its new connections then go to the service
    #[arg(long)]
    take_over: bool,
    /// End connections of clients that its lists `allow` and `deny` now refuse; without it these connections go on and are counted
    #[arg(long)]
    flush_denied: bool,
}

#[derive(Debug, Args)]
struct RemoveArguments {
    #[command(flatten)]
    name: NameArgument,
    #[command(flatten)]
    how: ChangeOptions,
}

#[derive(Debug, Args)]
struct ChangeOptions {
    /// Change nothing unless the service still has this revision (see `service show`)
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    /// Longest time that flows of the backends that this change removes may live [default: the service's `drain_timeout`]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    drain: Option<std::time::Duration>,
}

impl ChangeOptions {
    /// Returns the condition of the order, as the value of `if-match`.
    fn expected(&self) -> String {
        self.if_revision
            .map_or_else(|| "*".into(), |revision| format!("\"{revision}\""))
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Add(add) => {
            let body = add.options.json(&[])?;
            let target = RequestTarget::of_service(&add.name.name, "").with("take_over", Some(&add.take_over));
            let absent = ("if-none-match", "*");
            edit(global, &add.name.name, "PUT", &target, absent, body.to_string())
        }
        Command::Set(set) => {
            let body = set.options.json(&set.reset)?;
            if body.as_object().is_some_and(serde_json::Map::is_empty) && !set.flush_denied && !set.take_over {
                let message = "no field to change is given: name one, or use --file";
                return Err(Failure::Usage(message.into()));
            }
            let target = with_drain(RequestTarget::of_service(&set.name.name, ""), &set.how);
            let target = target.with("take_over", Some(&set.take_over));
            let expected = set.how.expected();
            let there = ("if-match", &*expected);
            let judges = ["allow", "deny"].iter().any(|list| body.get(list).is_some());
            edit(global, &set.name.name, "PATCH", &target, there, body.to_string())?;
            if judges || set.flush_denied {
                let daemon = global.must_daemon("changes single services")?;
                Denied::through(&daemon, Some(&set.name.name), set.flush_denied)?.tell(global)?;
            }
            Ok(Code::Success)
        }
        Command::Rm(remove) => {
            let target = with_drain(RequestTarget::of_service(&remove.name.name, ""), &remove.how);
            let expected = remove.how.expected();
            let there = ("if-match", &*expected);
            edit(global, &remove.name.name, "DELETE", &target, there, String::new())
        }
        Command::Ls(wanted) => list(global, wanted),
        Command::Show(NameArgument { name }) => {
            let daemon = global.must_daemon("knows services")?;
            let view: AnswerWithJson<ServiceAnswer> =
                daemon.get(RequestTarget::of_service(name, "").as_str())?.json()?;
            show_answer(global, &view, || print(&service_text(&view)))
        }
    }
}

fn with_drain(target: RequestTarget, how: &ChangeOptions) -> RequestTarget {
    let drain = how.drain.map(duration::show);
    target.with("drain", drain.as_ref().map(|drain| drain as _))
}

fn edit(
    global: &Global,
    name: &str,
    method: &str,
    target: &RequestTarget,
    expected: (&str, &str),
    body: String,
) -> Outcome {
    let daemon = global.must_daemon("changes single services")?;
    let headers = [expected];
    let answer = daemon.send(method, target.as_str(), &headers, body.into());
    let edited: AnswerWithJson<EditAnswer> = answer.and_then(DaemonResponse::json).map_err(of_service(name))?;
    edited.warnings.iter().for_each(|warning| global.warn(warning));
    match global.output {
        OutputFormat::Json => print_json(&edited)?,
        OutputFormat::Table | OutputFormat::Wide if global.quiet => {}
        OutputFormat::Table | OutputFormat::Wide => {
            let what = match &*edited {
                EditAnswer { service: None, .. } => "removed",
                EditAnswer { created: true, .. } => "added",
                EditAnswer { changed: false, .. } => "is unchanged",
                _ => "changed",
            };
            print(&format!("{name}: {what} (revision {})\n", edited.revision))?;
        }
    }
    Ok(Code::Success)
}

fn list(global: &Global, wanted: &ListArguments) -> Outcome {
    let daemon = global.must_daemon("knows services")?;
    let label = (!wanted.label.is_empty()).then(|| wanted.label.join(","));
    let target = RequestTarget::new("/v1/services")
        .with("label", label.as_ref().map(|label| label as _))
        .with("provider", wanted.provider.as_ref().map(|provider| provider as _));
    let list: AnswerWithJson<ServiceList> = daemon.get(target.as_str())?.json()?;
    show_answer(global, &list, || table(&list, global.extent()))
}

fn table(list: &ServiceList, extent: Extent) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        Column::left("NAME").names(12),
        Column::right("PORT"),
        Column::left("PROVIDER").usual(2),
        Column::right("REVISION").usual(4),
        Column::right("PPS").usual(3),
        Column::left("BACKENDS").words(20).usual(1),
    ];
    let rows = list.services.iter().map(|listed| {
        let service = &listed.service;
        vec![
            escape::text(service.name()).into(),
            text_of(service.get("port")).into(),
            provider(listed).into(),
            Cell::whole(revision(listed.revision)),
            text_of(&service.get("limit")["pps"]).into(),
            backends(service).into(),
        ]
    });
    TextTable::new(screen::stdout(), COLUMNS, extent).print(rows)
}

/// Returns the revision of a service of the API in words.
fn revision(revision: Option<u64>) -> String {
    revision.map_or("-".into(), |revision| revision.to_string())
}

/// Returns the provider, and the reasons that keep clients out.
fn provider(listed: &ListedAnswer) -> String {
    let state = listed.addon.as_ref().map(|addon| addon.state);
    let words = [
        (!listed.held_back.is_empty(), "held back"),
        (listed.paused.is_some(), "paused"),
        (state == Some(ServiceState::Suspended), "suspended"),
        (state == Some(ServiceState::Waiting), "waiting for a backend"),
    ];
    let words: Vec<&str> = words
        .iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, word)| *word)
        .collect();
    let name = escape::text(&listed.provider);
    if words.is_empty() {
        return name;
    }
    format!("{name} ({})", words.join(", "))
}

fn backends(service: &ServiceFields) -> String {
    let all = service.get("backends").as_array().into_iter().flatten();
    all.map(one).collect::<Vec<_>>().join(" ")
}

fn service_text(view: &ServiceAnswer) -> String {
    let service = &view.listed.service;
    let mut text = format!(
        "{} :{} of {}, revision {}\n",
        escape::text(service.name()),
        text_of(service.get("port")),
        escape::text(&view.listed.provider),
        revision(view.listed.revision)
    );
    let mut add = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    for (field, value) in service.iter() {
        if !["name", "port", "backends"].contains(&field) {
            add(&escape::text(field), plain(value));
        }
    }
    for (field, is_set) in [("healthy", view.healthy), ("drained", view.drained)] {
        add(field, if is_set { "yes" } else { "no" }.into());
    }
    if let Some(addon) = &view.listed.addon {
        let (app, plan, state) = (&addon.app, &addon.plan, addon.state.word());
        add("add-on", format!("of app {app}, plan {plan}, {state}"));
    }
    for why in &view.listed.held_back {
        add("held back", escape::text(why));
    }
    if let (Some(left), Some(pause)) = (view.paused_for, view.listed.paused) {
        let [since, until] = [pause.since, pause.until].map(utc_of);
        let uid = pause.uid;
        add(
            "paused",
            format!("for {left} s more, until {until} UTC; by uid {uid} since {since} UTC"),
        );
    }
    if let Some(deploy) = &view.deploy {
        add("deploy", format!("{}, {}", deploy.id, escape::text(&deploy.phase)));
    }
    for backend in &view.backends {
        add("backend", one_backend(backend));
    }
    text
}

fn one_backend(backend: &BackendView) -> String {
    let mut words = format!("{} {}", backend.backend, escape::text(&backend.desired));
    if let Some(health) = &backend.health {
        let _ = write!(words, ", {}", escape::text(health));
    }
    if let Some(reason) = &backend.reason {
        let _ = write!(words, " ({})", escape::text(reason));
    }
    if backend.balanced {
        words += ", gets new connections";
    }
    if backend.leaving {
        let flows = backend.flows;
        let flows = flows.map_or_else(|| "flows not counted yet".into(), |flows| count(flows, "flow"));
        let _ = write!(words, ", leaving: {flows}");
        if let Some(left) = backend.seconds_left {
            let _ = write!(words, ", {left} s left");
        }
    }
    words
}
