//! `tcpgw history`, `tcpgw export`

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::columns::{Align, Columns};
use super::deploys::time;
use super::{Code, Failure, Global, Outcome, Output, parse_duration, print_json, screen, text_of, unless_closed};
use crate::api::client::Target;
use crate::look::now;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Of this service only: its name, or `app:APP_ID` for all that the add-on of an app has and had
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// So many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Not older than that
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The services of all providers: those of the daemon's state file, too
    #[arg(long, conflicts_with = "provider")]
    all: bool,
    /// The services of this provider; `api` are those that came in through the API, with orphans [default: api]
    #[arg(long, value_enum)]
    provider: Option<Provider>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// The daemon's state file: brings a lost one back
    File,
    /// The API and its store
    Api,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has a history")?;
    let since = arguments.since.map(|since| now().saturating_sub(since).as_secs());
    let target = Target::new("/v1/history")
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("since", since.as_ref().map(|since| since as _))
        .with("limit", Some(&arguments.limit));
    let list: Value = daemon.get(target.as_str())?.json()?;
    match global.output {
        Output::Json => print_json(&list)?,
        Output::Table => unless_closed(table(&list))?,
    }
    Ok(Code::Success)
}

pub(super) fn export(global: &Global, arguments: &Export) -> Outcome {
    let daemon = global.must_daemon("has services to export")?;
    let provider = arguments.provider.map(|provider| match provider {
        Provider::File => "file",
        Provider::Api => "api",
    });
    let target = Target::new("/v1/export")
        .with("all", Some(&arguments.all))
        .with("provider", provider.as_ref().map(|provider| provider as _));
    let text = daemon.get(target.as_str())?.text()?;
    let mut stdout = screen::json();
    let printed = stdout.write_all(&text).and_then(|()| stdout.flush());
    unless_closed(printed.map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    }))?;
    Ok(Code::Success)
}

fn table(list: &Value) -> Result<(), Failure> {
    const ALIGNED: &[Align] = &[
        Align::Right,
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Left,
    ];
    let columns = Columns::new(screen::stdout(), ALIGNED).holding_all();
    let head = ["REVISION", "AT", "BY", "WHAT", "DEPLOY", "SERVICE", "CHANGE"];
    let rows = list["entries"].as_array().into_iter().flatten().map(|entry| {
        [
            entry["revision"].to_string(),
            time(&entry["at"]),
            user(&entry["uid"]),
            text_of(&entry["what"]),
            text_of(&entry["deploy"]),
            service(entry),
            change(&entry["old"], &entry["new"]),
        ]
    });
    columns.print(head, rows)
}

/// The service, and the app that it is, or was, of.
fn service(entry: &Value) -> String {
    let service = text_of(&entry["service"]);
    match entry["app"].as_str() {
        Some(app) => format!("{service} (app {app})"),
        None => service,
    }
}

/// The fields that are not as they were.
fn change(old: &Value, new: &Value) -> String {
    let (old, new) = match (old.as_object(), new.as_object()) {
        (None, _) => return "added".into(),
        (_, None) => return "removed".into(),
        (Some(old), Some(new)) => (old, new),
    };
    let mut fields: Vec<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
    fields.sort_unstable();
    fields.dedup();
    fields.retain(|field| old.get(*field) != new.get(*field));
    // What happened to its resource changes nothing of a service.
    if fields.is_empty() {
        "-".into()
    } else {
        fields.join(" ")
    }
}

/// A user by name, if this machine knows it.
pub(super) fn user(uid: &Value) -> String {
    let number = uid.as_u64().and_then(|uid| u32::try_from(uid).ok());
    let known = number.and_then(|uid| {
        nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
            .ok()
            .flatten()
    });
    known.map_or_else(|| text_of(uid), |user| user.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_names_the_fields() {
        let old = json!({"name": "web", "port": 1, "limit": {"pps": 1}});
        let new = json!({"name": "web", "port": 2, "labels": {}});
        assert_eq!(change(&old, &new), "labels limit port");
        assert_eq!(change(&Value::Null, &new), "added");
        assert_eq!(change(&old, &Value::Null), "removed");
    }

    #[test]
    fn a_service_of_the_add_on_has_an_app() {
        let of = |app: Value| service(&json!({"service": "addon-aaaaaaaaaaaa", "app": app}));
        assert_eq!(of(json!("my-app")), "addon-aaaaaaaaaaaa (app my-app)");
        assert_eq!(of(Value::Null), "addon-aaaaaaaaaaaa");
    }

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(user(&json!(0)), "root");
        assert_eq!(user(&json!(4_000_000_123_u32)), "4000000123");
    }
}
