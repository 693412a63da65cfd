//! The command `tcpgw events`.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::failure::{Code, Failure, Outcome};
use super::global::{Global, OutputFormat};
use super::print::unless_closed;
use super::screen;
use super::table::{Extent, wrap};
use crate::api::answers::{AnswerWithJson, EventAnswer, EventList};
use crate::api::client::RequestTarget;
use crate::date::utc;
use tcpgw_core::escape;

/// Indentation in columns of the further lines of an event: the width of its date and time, and a space.
const INDENT: usize = 20;

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
    let target = RequestTarget::new("/v1/events")
        .with("after", arguments.after.as_ref().map(|after| after as _))
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("follow", Some(&arguments.follow));
    let answer = daemon.get(target.as_str())?;
    if !arguments.follow {
        let list: EventList = answer.json()?;
        if list.missed != Some(0) {
            let lagged = EventAnswer::lagged(list.missed);
            show(global, &lagged, &lagged)?;
        }
        let shown = list.events.iter().try_for_each(|event| show(global, event, event));
        unless_closed(shown)?;
        return Ok(Code::Success);
    }
    let followed = answer.lines(true, |line| {
        if let Some(data) = line.strip_prefix(b"data: ") {
            let event: AnswerWithJson<EventAnswer> = daemon.understand(data)?;
            show(global, &event, &event)?;
        }
        Ok::<_, Failure>(true)
    });
    unless_closed(followed)?;
    Err(Failure::Refused(
        "the daemon has ended, and with it the events; `tcpgw status` says whether another one runs".into(),
    ))
}

/// Prints an event: as the JSON that came, or in words.
fn show(global: &Global, json: &impl Serialize, event: &EventAnswer) -> Result<(), Failure> {
    let written = match global.output {
        OutputFormat::Json => serde_json::to_string(json)
            .map_err(io::Error::from)
            .and_then(|line| write_line(screen::json(), &line)),
        OutputFormat::Table | OutputFormat::Wide => {
            write_line(screen::stdout(), &in_lines(words(event), global.extent()))
        }
    };
    written.map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    })
}

fn write_line(mut out: impl Write, line: &str) -> io::Result<()> {
    writeln!(out, "{line}")?;
    out.flush()
}

/// Breaks a long line into indented lines on a terminal; elsewhere each event is one line.
fn in_lines(line: String, extent: Extent) -> String {
    match extent {
        Extent::Width(width) => wrap(&line, 0, INDENT, width),
        Extent::Usual | Extent::All => line,
    }
}

/// Returns an event with all of its members, also those that this version does not know, in one line: `2026-11-25 13:40:57 committed cause="api: apply" elements=8 id=5f3a-17`.
fn words(event: &EventAnswer) -> String {
    let mut line = String::new();
    if let Some(at) = event.at {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let _ = write!(line, "{} ", utc(at as i64));
    }
    line.push_str(&escape::text(&event.event));
    if event.event == "lagged" {
        return line + &lagged(event.missed());
    }
    for (key, value) in event.members.iter().filter(|(_, value)| !value.is_null()) {
        let _ = match value {
            Value::Number(micros) if key == "micros" => {
                write!(line, " took={}", took(micros.as_f64().unwrap_or_default()))
            }
            Value::String(text) if is_plain(text) => write!(line, " {key}={text}"),
            Value::String(text) => write!(line, " {key}={text:?}"),
            other => write!(line, " {key}={other}"),
        };
    }
    if let Some(id) = &event.id {
        let _ = write!(line, " id={}", escape::text(id));
    }
    line
}

/// Returns the line that says why events are missing before the following ones.
fn lagged(missed: Option<u64>) -> String {
    let (missed, why) = match missed {
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

/// Returns a duration in short form: `1.3ms`.
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
        let of = |missed| words(&EventAnswer::lagged(missed));
        let unknown = of(None);
        assert!(
            unknown.starts_with("lagged missed=unknown reason=\"this daemon does not know the event"),
            "{unknown}"
        );
        let some = of(Some(3));
        assert!(some.starts_with("lagged missed=3 reason=\"this many events"), "{some}");
    }

    #[test]
    fn a_long_event_has_several_lines_on_a_terminal_only() {
        let line = "2026-11-30 07:54:51 deploy deploy=1 phase=undone reason=\"asked for by uid 0\" service=my-app id=18ec.287-16";
        assert_eq!(in_lines(line.to_owned(), Extent::Usual), line);
        assert_eq!(in_lines(line.to_owned(), Extent::Width(200)), line);
        assert_eq!(
            in_lines(line.to_owned(), Extent::Width(60)),
            "2026-11-30 07:54:51 deploy deploy=1 phase=undone\n                    reason=\"asked for by uid 0\"\n                    \
             service=my-app id=18ec.287-16"
        );
    }

    #[test]
    fn a_time_has_its_unit_in_a_line() {
        let of = |event| words(&serde_json::from_value(event).unwrap());
        assert_eq!(
            of(serde_json::json!({"event": "committed", "micros": 40362, "cause": "start"})),
            "committed cause=start took=40.4ms"
        );
    }

    #[test]
    fn an_event_is_a_line_that_cannot_drive_a_terminal() {
        let event = serde_json::json!({
            "id": "5f3a-3", "at": 1.5, "event": "health", "service": "web", "backend": "10.2.0.1:80", "state": "failing",
            "reason": "timed\u{1b} out", "flows": null,
        });
        assert_eq!(
            words(&serde_json::from_value(event).unwrap()),
            r#"1970-01-01 00:00:01 health backend=10.2.0.1:80 reason="timed\u{1b} out" service=web state=failing id=5f3a-3"#
        );
    }
}
