//! The command `tcpgw wait`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::arguments::parse_duration;
use super::failure::{Failure, Outcome};
use super::global::{Global, OutputFormat};
use super::print::{print_json, show};
use crate::api::answers::{AnswerWithJson, ServiceAnswer};
use crate::api::client::{self, Client, ClientError, DaemonResponse, RequestTarget};
use crate::control::request::BackendView;
use tcpgw_core::escape;
use tcpgw_core::model::duration;
use tcpgw_core::words::count;

/// The longest that one request waits: a daemon that hangs is noticed soon after.
const PIECE: Duration = Duration::from_secs(1);
/// Minimum time for the daemon to say what is still missing.
const LAST: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The state to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    what: WaitCondition,
    /// Longest time to wait
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Condition that the command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WaitCondition {
    /// Every active backend is healthy and gets new connections
    Healthy,
    /// No backend that was removed or drains has flows left
    Drained,
}

impl WaitCondition {
    fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Drained => "drained",
        }
    }
}

pub(super) fn wait(global: &Global, arguments: &Wait) -> Outcome {
    let daemon = global.must_daemon("can be waited for")?;
    wait_for(global, &daemon, &arguments.service, arguments.what, arguments.timeout)
}

pub(super) fn wait_for(
    global: &Global,
    daemon: &Client,
    service: &str,
    what: WaitCondition,
    time: Duration,
) -> Outcome {
    let begin = std::time::Instant::now();
    loop {
        let remaining = time.saturating_sub(begin.elapsed());
        let piece = duration::show(remaining.min(PIECE));
        let target = RequestTarget::of_service(service, "/wait")
            .with("for", Some(&what.word()))
            .with("timeout", Some(&piece));
        let answer = daemon.get_within(target.as_str(), remaining.max(client::SLOW), || {
            global.warn(&daemon.is_slow());
        });
        match answer.and_then(DaemonResponse::json::<AnswerWithJson<ServiceAnswer>>) {
            Ok(view) => return show(global, &view, &format!("{service}: {}\n", what.word())),
            Err(ClientError::Refused { code, .. }) if code == "not_yet" => {}
            Err(error) => return Err(error.into()),
        }
        if remaining <= PIECE {
            break;
        }
    }
    let view: AnswerWithJson<ServiceAnswer> = daemon
        .get_within(RequestTarget::of_service(service, "").as_str(), LAST, || ())?
        .json()?;
    if global.output == OutputFormat::Json {
        print_json(&view)?;
    }
    let waiting: Vec<String> = view.backends.iter().filter_map(|backend| why(backend, what)).collect();
    let why = if waiting.is_empty() {
        String::new()
    } else {
        format!(": {}", waiting.join("; "))
    };
    Err(Failure::Refused(format!(
        "{service} is not {} after {}{why}",
        what.word(),
        duration::show(time)
    )))
}

/// Returns why a backend does not meet the condition; `None`: it does.
fn why(backend: &BackendView, what: WaitCondition) -> Option<String> {
    let name = backend.backend;
    match what {
        WaitCondition::Drained if backend.leaving => Some(match backend.flows {
            Some(flows) => format!("{name} has {}", count(flows, "flow")),
            None => format!("{name} leaves"),
        }),
        WaitCondition::Healthy if backend.desired == "active" && backend.health.as_deref() != Some("healthy") => {
            let state = escape::text(backend.health.as_deref().unwrap_or("not probed"));
            let reason = backend.reason.as_ref();
            let reason = reason.map(|reason| format!(" ({})", escape::text(reason)));
            Some(format!("{name} is {state}{}", reason.unwrap_or_default()))
        }
        _ => None,
    }
}
