//! `tcpgw drain`, `undrain`, `pause`, `resume`, `wait`

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Code, Failure, Global, Outcome, Output, of_service, parse_duration, print, print_json};
use crate::api::client::{self, Answer, Client, ClientError, Target};
use crate::view::endpoint;
use tcpgw_core::diff::count;
use tcpgw_core::model::duration;

/// The longest that one request waits: a daemon that hangs is noticed soon after.
const PIECE: Duration = Duration::from_secs(1);
/// How long the daemon may take at least to say what is still amiss.
const LAST: Duration = Duration::from_secs(3);

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
pub(super) struct Drain {
    #[command(flatten)]
    chosen: Chosen,
    /// Return when the backends have no flows left; exit with 1 at the timeout
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "T", default_value = "60s", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
    /// How long flows of the backends may live [default: the service's `drain_timeout`]
    #[arg(long = "drain-timeout", value_name = "T", value_parser = parse_duration)]
    within: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Undrain {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Debug, Args)]
pub(super) struct Pause {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The length of the pause, at most 1h; the service resumes by itself
    #[arg(long = "for", value_name = "T", default_value = "30s", value_parser = parse_duration)]
    time: Duration,
}

#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The paused service [default: none: serve again after a teardown]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The state to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    what: What,
    /// How long to wait
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Every active backend is healthy and gets new connections
    Healthy,
    /// No backend that was removed or drains has flows left
    Drained,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Drained => "drained",
        }
    }
}

const ORDERS: &str = "changes single services";

pub(super) fn drain(global: &Global, arguments: &Drain) -> Outcome {
    let daemon = global.must_daemon(ORDERS)?;
    let time = arguments.within.map(duration::show);
    let edited = order(
        &daemon,
        &arguments.chosen,
        "/drain",
        time.as_ref().map(|time| time as _),
    )?;
    if !arguments.wait {
        return told(global, &arguments.chosen, &edited, "draining");
    }
    let service = &arguments.chosen.service;
    wait_for(global, &daemon, service, What::Drained, arguments.timeout)
}

pub(super) fn undrain(global: &Global, arguments: &Undrain) -> Outcome {
    let daemon = global.must_daemon(ORDERS)?;
    let edited = order(&daemon, &arguments.chosen, "/undrain", None)?;
    told(global, &arguments.chosen, &edited, "active")
}

fn order(daemon: &Client, chosen: &Chosen, what: &str, time: Option<&dyn std::fmt::Display>) -> Result<Value, Failure> {
    let target = Target::of_service(&chosen.service, what).with("drain", time);
    let body = json!({"backends": chosen.backends}).to_string();
    let answer = daemon.post(target.as_str(), body.into()).and_then(Answer::json);
    answer.map_err(of_service(&chosen.service))
}

fn told(global: &Global, chosen: &Chosen, edited: &Value, state: &str) -> Outcome {
    let warnings = edited["warnings"].as_array().into_iter().flatten();
    warnings.for_each(|warning| global.warn(&super::text_of(warning)));
    match global.output {
        Output::Json => print_json(edited)?,
        Output::Table | Output::Wide if global.quiet => {}
        Output::Table | Output::Wide => {
            let which = match chosen.backends.len() {
                0 => "all backends".to_owned(),
                number => count(number, "backend"),
            };
            let same = if edited["changed"] == false { " already" } else { "" };
            print(&format!(
                "{}: {which}{same} {state} (revision {})\n",
                chosen.service, edited["revision"]
            ))?;
        }
    }
    Ok(Code::Success)
}

pub(super) fn pause(global: &Global, arguments: &Pause) -> Outcome {
    let daemon = global.must_daemon("pauses services")?;
    let target = Target::of_service(&arguments.service, "/pause");
    let body = json!({"for": duration::show(arguments.time)}).to_string();
    let view: Value = daemon
        .post(target.as_str(), body.into())
        .and_then(Answer::json)
        .map_err(of_service(&arguments.service))?;
    let text = format!(
        "{}: new connections are dropped for {}; `tcpgw resume {}` ends that\n",
        arguments.service,
        duration::show(arguments.time),
        arguments.service
    );
    show(global, &view, &text)
}

pub(super) fn resume(global: &Global, arguments: &Resume) -> Outcome {
    let daemon = global.must_daemon("resumes services")?;
    let Some(service) = &arguments.service else {
        let view: Value = daemon.post("/v1/resume", Vec::new())?.json()?;
        let text = if view["resumed"] == true {
            "the teardown is over: what is desired is served\n"
        } else {
            "there was no teardown\n"
        };
        return show(global, &view, text);
    };
    let target = Target::of_service(service, "/resume");
    let view: Value = daemon.post(target.as_str(), Vec::new())?.json()?;
    show(global, &view, &format!("{service}: new connections are let in\n"))
}

pub(super) fn wait(global: &Global, arguments: &Wait) -> Outcome {
    let daemon = global.must_daemon("can be waited for")?;
    wait_for(global, &daemon, &arguments.service, arguments.what, arguments.timeout)
}

fn wait_for(global: &Global, daemon: &Client, service: &str, what: What, time: Duration) -> Outcome {
    let begin = std::time::Instant::now();
    loop {
        let left = time.saturating_sub(begin.elapsed());
        let piece = duration::show(left.min(PIECE));
        let target = Target::of_service(service, "/wait")
            .with("for", Some(&what.word()))
            .with("timeout", Some(&piece));
        let answer = daemon.get_within(target.as_str(), left.max(client::SLOW), || {
            global.warn(&daemon.is_slow());
        });
        match answer.and_then(Answer::json::<Value>) {
            Ok(view) => return show(global, &view, &format!("{service}: {}\n", what.word())),
            Err(ClientError::Refused { code, .. }) if code == "not_yet" => {}
            Err(error) => return Err(error.into()),
        }
        if left <= PIECE {
            break;
        }
    }
    let view: Value = daemon
        .get_within(Target::of_service(service, "").as_str(), LAST, || ())?
        .json()?;
    if global.output == Output::Json {
        print_json(&view)?;
    }
    let waiting = view["backends"].as_array().into_iter().flatten();
    let waiting: Vec<String> = waiting.filter_map(|backend| why(backend, what)).collect();
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

/// What is still amiss with a backend.
fn why(backend: &Value, what: What) -> Option<String> {
    let name = super::text_of(&backend["backend"]);
    match what {
        What::Drained if backend["leaving"] == true => Some(match backend["flows"].as_u64() {
            Some(flows) => format!(
                "{name} has {}",
                count(usize::try_from(flows).unwrap_or(usize::MAX), "flow")
            ),
            None => format!("{name} leaves"),
        }),
        What::Healthy if backend["desired"] == "active" && backend["health"] != "healthy" => {
            let state = tcpgw_core::escape::text(backend["health"].as_str().unwrap_or("not probed"));
            let reason = backend["reason"].as_str().map(tcpgw_core::escape::text);
            let reason = reason.map(|reason| format!(" ({reason})"));
            Some(format!("{name} is {state}{}", reason.unwrap_or_default()))
        }
        _ => None,
    }
}

fn show(global: &Global, view: &Value, text: &str) -> Outcome {
    match global.output {
        Output::Json => print_json(view)?,
        Output::Table | Output::Wide if global.quiet => {}
        Output::Table | Output::Wide => print(text)?,
    }
    Ok(Code::Success)
}
