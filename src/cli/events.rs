//! `tcpgw events`

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::{Code, Failure, Global, Outcome, Output, screen, unless_closed};
use crate::api::client::Target;
use crate::date::utc;
use tcpgw_core::escape;

/// Show what the daemon did and observed, one event per line
///
/// The daemon keeps the last 1,024 events: changes of the kernel and their causes, results of probes, backends that drain or
/// are gone, changes of the table by other programs, failures. With `-o json` each line is a JSON object.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Continue with new events as they happen
    #[arg(short, long)]
    follow: bool,
    /// Show only events after the one with this id, which stands at the end of each line. If the daemon does not know it, all kept events are shown, after a line
    /// `lagged`
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Show only events of this service: its name, or `app:APP_ID` for the service of an app's add-on. Changes of the kernel
    /// belong to no single service and are not shown
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has events")?;
    let target = Target::new("/v1/events")
        .with("after", arguments.after.as_ref().map(|after| after as _))
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("follow", Some(&arguments.follow));
    let answer = daemon.get(target.as_str())?;
    if !arguments.follow {
        let mut list: Value = answer.json()?;
        let missed = list["missed"].take();
        if missed != 0 {
            show(global, &serde_json::json!({"event": "lagged", "missed": missed}))?;
        }
        let events = list["events"].take();
        let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
        let shown = events.iter().try_for_each(|event| show(global, event));
        unless_closed(shown)?;
        return Ok(Code::Success);
    }
    let followed = answer.lines(true, |line| {
        if let Some(data) = line.strip_prefix(b"data: ") {
            show(global, &daemon.understand::<Value>(data)?)?;
        }
        Ok::<_, Failure>(true)
    });
    unless_closed(followed)?;
    Err(Failure::Refused("the daemon has ended".into()))
}

fn show(global: &Global, event: &Value) -> Result<(), Failure> {
    let (line, mut out) = match global.output {
        Output::Json => (event.to_string(), screen::json()),
        Output::Table | Output::Wide => (words(event), screen::stdout()),
    };
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })
}

/// `2026-11-25 13:40:57 committed cause="api: apply" elements=8 id=5f3a-17`
fn words(event: &Value) -> String {
    let mut line = String::new();
    if let Some(at) = event["at"].as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let _ = write!(line, "{} ", utc(at as i64));
    }
    line.push_str(event["event"].as_str().unwrap_or("unknown"));
    if event["event"] == "lagged" {
        return line + &lagged(&event["missed"]);
    }
    let members = event.as_object().into_iter().flatten();
    for (key, value) in
        members.filter(|(key, value)| !["at", "event", "id"].contains(&key.as_str()) && !value.is_null())
    {
        // What the JSON calls so is not understood at first sight.
        let key = if key == "adopted" { "in_kernel" } else { key };
        let _ = match value {
            Value::Number(micros) if key == "micros" => {
                write!(line, " took={}", took(micros.as_f64().unwrap_or_default()))
            }
            Value::String(text) if is_plain(text) => write!(line, " {key}={text}"),
            Value::String(text) => write!(line, " {key}={text:?}"),
            other => write!(line, " {key}={other}"),
        };
    }
    match &event["id"] {
        Value::Null => {}
        Value::String(id) => drop(write!(line, " id={}", escape::text(id))),
        id => drop(write!(line, " id={id}")),
    }
    line
}

/// Why some are missing before those that follow.
fn lagged(missed: &Value) -> String {
    let (missed, why) = match missed.as_u64() {
        Some(missed) => (
            missed.to_string(),
            "this many events before the next one are not shown: the daemon does not keep them any more, or they came faster than they were read",
        ),
        None => (
            "unknown".into(),
            "this daemon does not know the event of --after, which may be an event of an earlier daemon: all events that it keeps follow",
        ),
    };
    format!(" missed={missed} reason={why:?}")
}

/// `1.3ms`
fn took(micros: f64) -> String {
    format!("{:.1}ms", micros / 1000.0)
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lagging_is_explained() {
        let of = |missed| words(&serde_json::json!({"event": "lagged", "missed": missed}));
        let unknown = of(Value::Null);
        assert!(
            unknown.starts_with("lagged missed=unknown reason=\"this daemon does not know the event"),
            "{unknown}"
        );
        let some = of(3.into());
        assert!(some.starts_with("lagged missed=3 reason=\"this many events"), "{some}");
    }

    #[test]
    fn names_that_the_json_has_are_plain_here() {
        let of = |event| words(&event);
        assert_eq!(
            of(serde_json::json!({"event": "started", "adopted": "nothing", "version": "1"})),
            "started in_kernel=nothing version=1"
        );
        assert_eq!(
            of(serde_json::json!({"event": "committed", "micros": 40362, "cause": "start"})),
            "committed cause=start took=40.4ms"
        );
    }

    #[test]
    fn an_event_is_a_line_that_cannot_drive_a_terminal() {
        let event = serde_json::json!({
            "id": 3, "at": 1.5, "event": "health", "service": "web", "backend": "10.2.0.1:80", "state": "failing",
            "reason": "timed\u{1b} out", "flows": null,
        });
        assert_eq!(
            words(&event),
            r#"1970-01-01 00:00:01 health backend=10.2.0.1:80 reason="timed\u{1b} out" service=web state=failing id=3"#
        );
    }
}
