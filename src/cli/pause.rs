//! `tcpgw pause`, `resume`

use std::time::Duration;

use clap::Args;

use super::arguments::parse_duration;
use super::failure::{Outcome, of_service};
use super::global::Global;
use super::print::show;
use crate::api::answers::{AnswerWithJson, ServiceAnswer};
use crate::api::client::{DaemonResponse, RequestTarget};
use crate::api::orders::{PauseBody, json};
use crate::control::request::Resumed;
use tcpgw_core::model::duration;

#[derive(Debug, Args)]
pub(super) struct PauseArguments {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The length of the pause, at most 1h; the service resumes by itself
    #[arg(long = "for", value_name = "T", default_value = "30s", value_parser = parse_duration)]
    time: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArguments {
    /// The paused service [default: none: serve again after a teardown]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

pub(super) fn pause(global: &Global, arguments: &PauseArguments) -> Outcome {
    let daemon = global.must_daemon("pauses services")?;
    let target = RequestTarget::of_service(&arguments.service, "/pause");
    let body = PauseBody {
        time: Some(duration::show(arguments.time)),
    };
    let view: AnswerWithJson<ServiceAnswer> = daemon
        .post(target.as_str(), json(&body))
        .and_then(DaemonResponse::json)
        .map_err(of_service(&arguments.service))?;
    warn(global, view.warnings.iter().flatten());
    let text = format!(
        "{}: new connections are dropped for {}; `tcpgw resume {}` ends that\n",
        arguments.service,
        duration::show(arguments.time),
        arguments.service
    );
    show(global, &view, &text)
}

pub(super) fn resume(global: &Global, arguments: &ResumeArguments) -> Outcome {
    let daemon = global.must_daemon("resumes services")?;
    let Some(service) = &arguments.service else {
        let view: AnswerWithJson<Resumed> = daemon.post("/v1/resume", Vec::new())?.json()?;
        warn(global, &view.warnings);
        let text = if view.resumed {
            "the teardown is over: services are served again\n"
        } else {
            "there was no teardown\n"
        };
        return show(global, &view, text);
    };
    let target = RequestTarget::of_service(service, "/resume");
    let view: AnswerWithJson<ServiceAnswer> = daemon.post(target.as_str(), Vec::new())?.json()?;
    warn(global, view.warnings.iter().flatten());
    show(
        global,
        &view,
        &format!("{service}: new connections are accepted again\n"),
    )
}

fn warn<'w>(global: &Global, warnings: impl IntoIterator<Item = &'w String>) {
    for warning in warnings {
        global.warn(warning);
    }
}
