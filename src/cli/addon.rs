//! `tcpgw addon`, `tcpgw env`

mod check;
mod manifest;
mod platform;

use std::fmt::Write as _;
use std::num::NonZeroU16;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{Code, Failure, Outcome, of_service};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json, show_answer, unless_closed};
use super::screen;
use super::table::{Cell, Column, TextTable};
use crate::addon::id::APP_PREFIX;
use crate::addon::settings::is_loopback;
use crate::addon::{PortUse, RestingPort};
use crate::api::answers::{AnswerWithJson, ResourceAnswer};
use crate::api::client::{DaemonResponse, RequestTarget};
use crate::api::orders::{self, PlanBody, ProvisionBody};
use crate::control::request::{ResourceList, ResourceView};
use crate::date::utc_of;
use tcpgw_core::escape;
use tcpgw_core::model::Word as _;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Provision a public port for an app; repeating it changes nothing
    Provision(ProvisionArguments),
    /// Change the plan of an app, and with it the limit; connections go on
    Plan(PlanArguments),
    /// Refuse new connections to an app until it is resumed; established ones drain
    Suspend(AppArgument),
    /// Serve a suspended app again on the same port
    Resume(AppArgument),
    /// Remove the resource and the service of an app; flows drain, and the port is not given to other apps for a while
    Deprovision(AppArgument),
    /// List the resources
    Ls,
    /// Show the resource of an app
    Show(AppArgument),
    /// Print the manifest of the provider API for a platform, as JSON with the credentials; needs no daemon
    Manifest(manifest::Arguments),
    Check(Box<check::Arguments>),
}

#[derive(Debug, Args)]
pub(super) struct AppArgument {
    /// The app, by the name that its platform uses; `app:` before it is left out
    #[arg(value_name = "APP", value_parser = app)]
    app: String,
}

/// Reads the name of an app. Other commands take `app:NAME` where they take a service, so that is understood here, too.
fn app(text: &str) -> Result<String, &'static str> {
    let name = text.strip_prefix(APP_PREFIX).unwrap_or(text);
    (!name.is_empty()).then(|| name.to_owned()).ok_or("must not be empty")
}

#[derive(Debug, Args)]
struct ProvisionArguments {
    #[command(flatten)]
    app: AppArgument,
    /// The plan
    #[arg(long, value_name = "PLAN")]
    plan: String,
    /// The public port [default: a free one of the range]
    #[arg(long, value_name = "PORT")]
    port: Option<NonZeroU16>,
}

#[derive(Debug, Args)]
struct PlanArguments {
    #[command(flatten)]
    app: AppArgument,
    /// The new plan, unless `--plan` names it
    #[arg(value_name = "PLAN", required_unless_present = "named_plan")]
    plan: Option<String>,
    /// The new plan, as `addon provision` names it
    #[arg(id = "named_plan", long = "plan", value_name = "PLAN", conflicts_with = "plan")]
    named_plan: Option<String>,
}

impl PlanArguments {
    /// Returns the new plan: the command line names it in one of two ways.
    fn plan(&self) -> String {
        self.plan.iter().chain(&self.named_plan).cloned().collect()
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Provision(ProvisionArguments { app, plan, port }) => {
            let (plan, port) = (plan.clone(), *port);
            order(global, app, "PUT", "", orders::json(&ProvisionBody { plan, port }))
        }
        Command::Plan(arguments) => {
            let plan = arguments.plan();
            order(
                global,
                &arguments.app,
                "POST",
                "/plan",
                orders::json(&PlanBody { plan }),
            )
        }
        Command::Suspend(app) => order(global, app, "POST", "/suspend", Vec::new()),
        Command::Resume(app) => order(global, app, "POST", "/resume", Vec::new()),
        Command::Deprovision(app) => order(global, app, "DELETE", "", Vec::new()),
        Command::Ls => list(global),
        Command::Manifest(arguments) => manifest::run(global, arguments),
        Command::Check(arguments) => check::run(global, arguments),
        Command::Show(app) => {
            let resource = resource(global, app)?;
            show_answer(global, &resource, || print(&resource_text(&resource)))
        }
    }
}

/// Runs `tcpgw env`.
pub(super) fn env(global: &Global, app: &AppArgument) -> Outcome {
    let resource = resource(global, app)?;
    let Some(url) = &resource.url else {
        return Err(Failure::Refused(
            "the add-on is off, so that the host of TCP_URL is not known: no [addon] of the configuration is in use (`tcpgw status` says \
             why, where there is one)"
                .into(),
        ));
    };
    match global.output {
        OutputFormat::Json => print_json(&json!({"TCP_URL": url}))?,
        OutputFormat::Table | OutputFormat::Wide => print(&format!("TCP_URL={}\n", escape::text(url)))?,
    }
    Ok(Code::Success)
}

fn resource(global: &Global, app: &AppArgument) -> Result<AnswerWithJson<ResourceView>, Failure> {
    let daemon = global.must_daemon("knows resources of the add-on")?;
    let resource: AnswerWithJson<ResourceView> =
        daemon.get(RequestTarget::of_resource(&app.app, "").as_str())?.json()?;
    warn_of(global, &resource);
    Ok(resource)
}

/// Returns the host of a `TCP_URL`, without brackets.
fn host_of(url: &str) -> Option<&str> {
    let (host, _) = url.strip_prefix("tcp://")?.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

/// Says that what is told of a resource may be out of date, or that its `TCP_URL` is of no use.
fn warn_of(global: &Global, resource: &ResourceView) {
    if let Some(warning) = &resource.warning {
        global.warn(warning);
    }
    let host = resource.url.as_deref().and_then(host_of);
    if let Some(host) = host.filter(|host| is_loopback(host)) {
        global.warn(&format_args!(
            "addon.host is {}, which leads each app to its own machine and not to the gateway: write the gateway's public name or address",
            escape::text(host)
        ));
    }
}

fn order(global: &Global, app: &AppArgument, method: &str, below: &str, body: Vec<u8>) -> Outcome {
    let daemon = global.must_daemon("changes resources of the add-on")?;
    let app = &app.app;
    let answer = daemon.send(method, RequestTarget::of_resource(app, below).as_str(), &[], body);
    let done: AnswerWithJson<ResourceAnswer> = answer.and_then(DaemonResponse::json).map_err(of_service(app))?;
    match global.output {
        OutputFormat::Json => print_json(&done)?,
        OutputFormat::Table | OutputFormat::Wide if global.quiet => {}
        OutputFormat::Table | OutputFormat::Wide => {
            let what = match (&done.resource, done.created, done.changed) {
                (None, ..) => "deprovisioned".into(),
                (Some(resource), true, _) => format!("provisioned: {}", in_words(resource)),
                (Some(resource), _, false) => format!("is unchanged: {}", in_words(resource)),
                (Some(resource), ..) => format!("changed: {}", in_words(resource)),
            };
            print(&format!("{}: {what}\n", escape::text(app)))?;
        }
    }
    Ok(Code::Success)
}

/// Returns a resource in words: `tcp://gateway.example.com:20003, plan free, waiting`.
fn in_words(resource: &ResourceView) -> String {
    let at = match &resource.url {
        Some(url) => escape::text(url),
        None => format!("port {}", resource.port),
    };
    format!("{at}, plan {}, {}", resource.plan, resource.state.word())
}

fn list(global: &Global) -> Outcome {
    const COLUMNS: &[Column] = &[
        Column::left("APP").names(12),
        Column::left("PLAN").names(8),
        Column::right("PORT"),
        Column::left("STATE"),
        Column::left("DIALECT").usual(2),
        Column::left("SERVICE").usual(1),
    ];
    let daemon = global.must_daemon("knows resources of the add-on")?;
    let list: AnswerWithJson<ResourceList> = daemon.get("/v1/addon/resources")?.json()?;
    if let Some(first) = list.resources.first() {
        warn_of(global, first);
    }
    if global.output == OutputFormat::Json {
        print_json(&list)?;
        return Ok(Code::Success);
    }
    let rows = list.resources.iter().map(|resource| {
        vec![
            Cell::from(escape::text(&resource.app.on_command_line())),
            resource.plan.to_string().into(),
            resource.port.to_string().into(),
            resource.state.word().to_owned().into(),
            resource.dialect.word().to_owned().into(),
            Cell::whole(escape::text(&resource.service)),
        ]
    });
    unless_closed(TextTable::new(screen::stdout(), COLUMNS, global.extent()).print(rows))?;
    if let Some(usage) = list.ports.as_ref().filter(|_| !global.quiet) {
        unless_closed(print(&ports(usage)))?;
    }
    Ok(Code::Success)
}

/// Ports that rest which `addon ls` names; `-o json` has all.
const MOST_RESTING: usize = 20;

/// Returns `ports 20000-20004: 3 of 5 in use, 1 free`, and a line for each port in quarantine.
fn ports(usage: &PortUse) -> String {
    let (all, used, free, resting) = (usage.all, usage.used, usage.free(), &usage.resting);
    let range = escape::text(&usage.range);
    let fenced = match usage.fenced {
        0 => String::new(),
        count => format!(", {count} outside of fences.ports"),
    };
    let mut text = format!("\nports {range}: {used} of {all} in use, {free} free{fenced}\n");
    for RestingPort { port, until } in resting.iter().take(MOST_RESTING) {
        let _ = writeln!(text, "  {port} rests until {} UTC", utc_of(*until));
    }
    if resting.len() > MOST_RESTING {
        let more = resting.len() - MOST_RESTING;
        let _ = writeln!(text, "  {more} more rest: `-o json` lists them");
    }
    text
}

fn resource_text(resource: &ResourceView) -> String {
    let app = escape::text(&resource.app.on_command_line());
    let mut text = format!("{app}: {}\n", in_words(resource));
    for (field, value) in [
        ("service", escape::text(&resource.service)),
        ("dialect", resource.dialect.word().to_owned()),
        ("id", resource.id.to_string()),
    ] {
        let _ = writeln!(text, "  {field:<14} {value}");
    }
    for binding in &resource.bindings {
        let app = binding
            .app
            .as_ref()
            .map_or("-".into(), |app| escape::text(app.as_str()));
        let id = escape::text(binding.id.as_str());
        let _ = writeln!(text, "  {:<14} {id} of app {app}", "binding");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn an_app_is_named_with_and_without_its_prefix() {
        for (text, expected) in [
            ("my-app", Ok("my-app")),
            ("app:my-app", Ok("my-app")),
            ("app:app:x", Ok("app:x")),
            ("application", Ok("application")),
            ("", Err("must not be empty")),
            ("app:", Err("must not be empty")),
        ] {
            assert_eq!(app(text).as_deref().map_err(|why| *why), expected, "{text}");
        }
    }

    #[test]
    fn the_new_plan_is_named_in_one_of_two_ways() {
        let plan_of = |words: &[&str]| {
            let command = PlanArguments::augment_args(clap::Command::new("plan"));
            let matches = command.try_get_matches_from(std::iter::once(&"plan").chain(words))?;
            PlanArguments::from_arg_matches(&matches).map(|arguments| arguments.plan())
        };
        for words in [
            ["my-app", "large"].as_slice(),
            &["my-app", "--plan", "large"],
            &["--plan=large", "my-app"],
        ] {
            assert_eq!(plan_of(words).expect("it is understood"), "large", "{words:?}");
        }
        for (words, expected) in [
            (["my-app"].as_slice(), "<PLAN>"),
            (&["my-app", "large", "--plan", "large"], "cannot be used with"),
        ] {
            let error = plan_of(words).expect_err("one plan is named").to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn the_host_of_a_url_has_no_brackets() {
        assert_eq!(host_of("tcp://[::1]:20000"), Some("::1"));
        assert_eq!(host_of("tcp://gw.example.com:20000"), Some("gw.example.com"));
    }
}
