//! `tcpgw drain`, `undrain`

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::arguments::parse_duration;
use super::failure::{Code, Failure, Outcome, of_service};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json};
use super::wait::{WaitCondition, wait_for};
use crate::api::answers::{AnswerWithJson, EditAnswer};
use crate::api::client::{Client, DaemonResponse, RequestTarget};
use crate::api::orders::{BackendsBody, json};
use crate::view::endpoint;
use tcpgw_core::model::duration;
use tcpgw_core::words::count;

#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Its backends [default: all]
    #[arg(value_name = "IP:PORT", value_parser = endpoint)]
    backends: Vec<SocketAddr>,
}

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Return when the backends have no flows left; exit with 1 at the timeout
    #[arg(long)]
    wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "T", default_value = "60s", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
    /// Longest time that flows of the backends may live [default: the service's `drain_timeout`]
    #[arg(long = "drain-timeout", value_name = "T", value_parser = parse_duration)]
    within: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct UndrainArguments {
    #[command(flatten)]
    chosen: Chosen,
}

const ORDERS: &str = "changes single services";

pub(super) fn drain(global: &Global, arguments: &DrainArguments) -> Outcome {
    let daemon = global.must_daemon(ORDERS)?;
    let time = arguments.within.map(duration::show);
    let edited = order(
        &daemon,
        &arguments.chosen,
        "/drain",
        time.as_ref().map(|time| time as _),
    )?;
    if !arguments.wait {
        return print_edit(global, &arguments.chosen, &edited, "draining");
    }
    let service = &arguments.chosen.service;
    wait_for(global, &daemon, service, WaitCondition::Drained, arguments.timeout)
}

pub(super) fn undrain(global: &Global, arguments: &UndrainArguments) -> Outcome {
    let daemon = global.must_daemon(ORDERS)?;
    let edited = order(&daemon, &arguments.chosen, "/undrain", None)?;
    let state = if edited.changed { "active again" } else { "active" };
    print_edit(global, &arguments.chosen, &edited, state)
}

fn order(
    daemon: &Client,
    chosen: &Chosen,
    what: &str,
    time: Option<&dyn std::fmt::Display>,
) -> Result<AnswerWithJson<EditAnswer>, Failure> {
    let target = RequestTarget::of_service(&chosen.service, what).with("drain", time);
    let body = BackendsBody {
        backends: chosen.backends.iter().map(ToString::to_string).collect(),
    };
    let answer = daemon.post(target.as_str(), json(&body)).and_then(DaemonResponse::json);
    answer.map_err(of_service(&chosen.service))
}

fn print_edit(global: &Global, chosen: &Chosen, edited: &AnswerWithJson<EditAnswer>, state: &str) -> Outcome {
    edited.warnings.iter().for_each(|warning| global.warn(warning));
    match global.output {
        OutputFormat::Json => print_json(edited)?,
        OutputFormat::Table | OutputFormat::Wide if global.quiet => {}
        OutputFormat::Table | OutputFormat::Wide => {
            let which = match chosen.backends.len() {
                0 => "all backends".to_owned(),
                number => count(number, "backend"),
            };
            let same = if edited.changed { "" } else { " already" };
            print(&format!(
                "{}: {which}{same} {state} (revision {})\n",
                chosen.service, edited.revision
            ))?;
        }
    }
    Ok(Code::Success)
}
