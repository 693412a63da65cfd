//! `tcpgw events`

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::{Code, Failure, Global, Outcome, Output, screen, unless_closed};
use crate::api::client::{PATIENCE, Target};

/// Tell what the daemon did and saw, one event a line
///
/// The daemon keeps the last 1,024: what it committed and why, what probes found, who drains and who has left, what others
/// did to the table, what failed. With `-o json` each line is a JSON object.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    /// Only those after this one, by its `id`; if it is of a daemon before this one, all, and that some were missed
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has events")?;
    let target = Target::new("/v1/events")
        .with("after", arguments.after.as_ref().map(|after| after as _))
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
    let followed = answer.lines(Some(PATIENCE), |line| {
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
        Output::Table => (words(event), screen::stdout()),
    };
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })
}

/// `2026-11-25 13:40:57 committed cause="api: apply" elements=8`
fn words(event: &Value) -> String {
    let mut line = String::new();
    if let Some(at) = event["at"].as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let _ = write!(line, "{} ", date(at as i64));
    }
    line.push_str(event["event"].as_str().unwrap_or("unknown"));
    let members = event.as_object().into_iter().flatten();
    for (key, value) in
        members.filter(|(key, value)| !["at", "event", "id"].contains(&key.as_str()) && !value.is_null())
    {
        let _ = match value {
            Value::String(text) if is_plain(text) => write!(line, " {key}={text}"),
            Value::String(text) => write!(line, " {key}={text:?}"),
            other => write!(line, " {key}={other}"),
        };
    }
    line
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]/".contains(&byte))
}

/// In UTC, of seconds since 1970. Days by Howard Hinnant's `civil_from_days`.
pub(super) fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_613_457, "2026-11-25 13:30:57"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date(seconds), shown);
        }
    }

    #[test]
    fn an_event_is_a_line_that_cannot_drive_a_terminal() {
        let event = serde_json::json!({
            "id": 3, "at": 1.5, "event": "health", "service": "web", "backend": "10.2.0.1:80", "state": "failing",
            "reason": "timed\u{1b} out", "flows": null,
        });
        assert_eq!(
            words(&event),
            r#"1970-01-01 00:00:01 health backend=10.2.0.1:80 reason="timed\u{1b} out" service=web state=failing"#
        );
    }
}
