//! `tcpgw history`, `tcpgw export`

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::arguments::parse_duration;
use super::failure::{Code, Failure, Outcome};
use super::global::Global;
use super::moment::time;
use super::print::{show_answer, unless_closed};
use super::screen;
use super::service::fields;
use super::table::{Cell, Column, Extent, TextTable};
use crate::api::answers::{AnswerWithJson, HistoryAnswer, HistoryList};
use crate::api::client::{self, RequestTarget};
use crate::date::since_1970;
use crate::record::boot_id;
use crate::store::last_services::LastServices;
use crate::unserved;
use crate::view::changes;
use tcpgw_core::diff::Changes;
use tcpgw_core::escape;
use tcpgw_core::model::{Listen, Service, State, parse_service, write};
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::ProblemKind;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show only changes of this service: its name, or `app:APP_ID` for all services that an app has or had by the add-on
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Maximum number of changes to show; the newest come first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Show only changes of the last T
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Print the services of all providers, also those of the daemon's state file
    #[arg(long, conflicts_with = "provider")]
    all: bool,
    /// Print the services of this provider [default: api]
    #[arg(long, value_enum)]
    provider: Option<ExportProvider>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportProvider {
    /// The services of the daemon's state file, to restore a lost one
    File,
    /// The services that came in through the API, and orphans
    Api,
    /// The services of Docker's containers
    Docker,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let daemon = global.must_daemon("has a history")?;
    let since = arguments
        .since
        .map(|since| since_1970().saturating_sub(since).as_secs());
    let target = RequestTarget::new("/v1/history")
        .with("service", arguments.service.as_ref().map(|service| service as _))
        .with("since", since.as_ref().map(|since| since as _))
        .with("limit", Some(&arguments.limit));
    let list: AnswerWithJson<HistoryList> = daemon.get(target.as_str())?.json()?;
    show_answer(global, &list, || table(&list, global.extent()))
}

pub(super) fn export(global: &Global, arguments: &Export) -> Outcome {
    let daemon = match global.daemon_or_why()? {
        Ok(daemon) => daemon,
        Err(why) => {
            let is_dead = why.as_ref().is_none_or(|why| why.kind == ProblemKind::DaemonGone);
            let last = if is_dead { last_services(global)? } else { None };
            return match last {
                Some((path, last)) => export_last(global, arguments, &path, &last),
                None => Err(Global::without_daemon("has services to export", why)),
            };
        }
    };
    let provider = arguments.provider.map(|provider| match provider {
        ExportProvider::File => "file",
        ExportProvider::Api => "api",
        ExportProvider::Docker => "docker",
    });
    let target = RequestTarget::new("/v1/export")
        .with("all", Some(&arguments.all))
        .with("provider", provider.as_ref().map(|provider| provider as _));
    let text = daemon.get(target.as_str())?.text()?;
    print_state(&text)
}

/// Returns the services that the last daemon of this network namespace served, with the path of their file, if there is one of this
/// boot.
fn last_services(global: &Global) -> Result<Option<(PathBuf, LastServices)>, Failure> {
    let store = unserved::store_path(&global.config_for_looking());
    let Ok(namespace) = client::namespace() else {
        return Ok(None);
    };
    let last = unserved::last_here(&store, namespace).map_err(|error| Failure::Refused(error.to_string()))?;
    let last = last.filter(|last| last.boot == boot_id());
    Ok(last.map(|last| (LastServices::path(&store), last)))
}

fn export_last(global: &Global, arguments: &Export, path: &Path, last: &LastServices) -> Outcome {
    // Orphans belong to the API's, as in an export by the daemon.
    let is_meant = |owner: Owner| match arguments.provider {
        _ if owner == Owner::Removed => false,
        _ if arguments.all => true,
        Some(ExportProvider::File) => owner == Owner::File,
        Some(ExportProvider::Docker) => owner == Owner::Docker,
        Some(ExportProvider::Api) | None => !matches!(owner, Owner::File | Owner::Docker),
    };
    let chosen = last.services.iter().filter(|(owner, _)| is_meant(*owner));
    let services: Vec<Service> = chosen.map(|(_, service)| Service::clone(service)).collect();
    let state = State::new(services).map_err(|problems| {
        Failure::Refused(format!(
            "the services of all providers contradict each other: {problems}"
        ))
    })?;
    global.warn(&format!(
        "no daemon runs: these are the services as the last one left them, from {}",
        escape::path(path)
    ));
    print_state(write::state_text(&state).as_bytes())
}

fn print_state(text: &[u8]) -> Outcome {
    let mut stdout = screen::json();
    let printed = stdout.write_all(text).and_then(|()| stdout.flush());
    unless_closed(printed.map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    }))?;
    Ok(Code::Success)
}

fn table(list: &HistoryList, extent: Extent) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        Column::right("REVISION"),
        Column::left("AT").usual(2),
        Column::left("BY").names(6),
        Column::left("WHAT").usual(1),
        Column::left("SERVICE").names(8),
        Column::left("CHANGE").wrapped(),
    ];
    let rows = list.entries.iter().map(|entry| {
        vec![
            Cell::whole(entry.revision.to_string()),
            time(entry.at).into(),
            user(entry.uid).into(),
            Cell::whole(order(entry)),
            service_and_app(entry).into(),
            change(entry.old.as_deref(), entry.new.as_deref()).into(),
        ]
    });
    TextTable::new(screen::stdout(), COLUMNS, extent)
        .holding_all()
        .print(rows)
}

/// Returns the order of an entry: `apply`, `deploy 7`.
fn order(entry: &HistoryAnswer) -> String {
    let what = escape::text(&entry.what);
    match entry.deploy {
        Some(deploy) => format!("{what} {deploy}"),
        None => what,
    }
}

/// Returns the service, and the app that it belongs or belonged to.
fn service_and_app(entry: &HistoryAnswer) -> String {
    let service = escape::text(&entry.service);
    match &entry.app {
        Some(app) => format!("{service} (app {})", escape::text(app.as_str())),
        None => service,
    }
}

/// Returns the differences in the words of `tcpgw diff`: `+ 10.2.0.3:80, - 10.2.0.1:80, limit 1000 packets/s -> none`.
fn change(old: Option<&RawValue>, new: Option<&RawValue>) -> String {
    let (old, new) = match (old, new) {
        (None, _) => return "added".into(),
        (_, None) => return "removed".into(),
        (Some(old), Some(new)) => (old, new),
    };
    let [before, after] = [old, new].map(|service| parse_service(service.get().as_bytes()).ok());
    let words = before.zip(after).map(|(old, new)| service_changes(&old, &new));
    match words.filter(|words| !words.is_empty()) {
        Some(words) => escape::text(&words),
        // A daemon of another version may know other fields than this program, and the order of a list may have changed.
        None => member_changes(old, new),
    }
}

/// Returns the changes of a service that has the same name.
fn service_changes(old: &Service, new: &Service) -> String {
    let mut words = Vec::new();
    if old.port != new.port {
        words.push(format!("port {} -> {}", old.port, new.port));
    }
    if old.listen != new.listen {
        let [before, after] = [&old.listen, &new.listen].map(addresses);
        words.push(format!("addresses {before} -> {after}"));
    }
    // Services are compared by port and addresses.
    let moved = Service {
        port: new.port,
        listen: new.listen.clone(),
        ..old.clone()
    };
    let changes = Changes::of_services(&[&moved], &[new]).services;
    words.extend(changes.iter().flat_map(changes::details));
    words.join(", ")
}

fn addresses(listen: &Listen) -> String {
    match listen {
        Listen::Everywhere => "every local one".into(),
        Listen::At(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Returns the differences of the fields as they were written: `backends +10.2.0.3:80 -10.2.0.1:80; limit.pps 1000 -> 500`.
fn member_changes(old: &RawValue, new: &RawValue) -> String {
    let [old, new] =
        [old, new].map(|service| serde_json::from_str::<Map<String, Value>>(service.get()).unwrap_or_default());
    let mut changes = Vec::new();
    fields("", &old, &new, &mut changes);
    // Changes of the resource do not change the service.
    if changes.is_empty() {
        "-".into()
    } else {
        changes.join("; ")
    }
}

/// Collects the fields that differ; those of nested objects by their paths.
fn fields(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<String>) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (before, after) = (&old.get(name), &new.get(name));
        if before == after {
            continue;
        }
        let path = format!("{path}{}", escape::text(name));
        match (before, after) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                fields(&format!("{path}."), before, after, changes);
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                changes.push(format!("{path} {}", items(before, after)));
            }
            _ => changes.push(format!(
                "{path} {} -> {}",
                value_or_default(*before),
                value_or_default(*after)
            )),
        }
    }
}

/// Returns the added and removed items: `+added -removed`.
fn items(old: &[Value], new: &[Value]) -> String {
    let missing = |all: &[Value], from: &[Value], sign: char| {
        let missing = all.iter().filter(|item| !from.contains(item));
        missing
            .map(|item| format!("{sign}{}", fields::one(item)))
            .collect::<Vec<_>>()
    };
    let mut words = missing(new, old, '+');
    words.extend(missing(old, new, '-'));
    if words.is_empty() {
        "in another order".into()
    } else {
        words.join(" ")
    }
}

fn value_or_default(value: Option<&Value>) -> String {
    value.map_or_else(|| "default".into(), fields::plain)
}

/// Returns the name of a user, if this machine knows it.
pub(super) fn user(uid: u32) -> String {
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    known.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_says_from_what_to_what() {
        let of = |old: &Value, new: &Value| {
            let [old, new] = [old, new].map(|service| RawValue::from_string(service.to_string()).unwrap());
            change(Some(&old), Some(&new))
        };
        let old = json!({
            "name": "web", "port": 2001, "limit": {"pps": 1000, "burst": 5}, "labels": {"a": "b"},
            "backends": ["10.2.0.1:80", {"address": "10.2.0.2", "port": 80, "weight": 2}], "allow": ["10.0.0.0/8", "192.0.2.0/24"],
        });
        let new = json!({
            "name": "web", "port": 2002, "addresses": ["192.0.2.1"], "limit": {"pps": 500, "burst": 5}, "on_retire": "reset",
            "backends": ["10.2.0.1:80", {"address": "fd00::2", "port": 80, "weight": 3}], "allow": ["192.0.2.0/24", "10.0.0.0/8"],
        });
        assert_eq!(
            of(&old, &new),
            "port 2001 -> 2002, addresses every local one -> 192.0.2.1, + [fd00::2]:80, - 10.2.0.2:80, limit 1000 packets/s, burst 5 -> \
             500 packets/s, burst 5, on_retire drop -> reset, labels.a \"b\" -> none"
        );
        assert_eq!(of(&old, &old), "-");
        let mut reordered = old.clone();
        reordered["backends"].as_array_mut().unwrap().reverse();
        assert_eq!(of(&old, &reordered), "backends in another order");
        let [old, new] = [old, new].map(|service| RawValue::from_string(service.to_string()).unwrap());
        assert_eq!(change(None, Some(&new)), "added");
        assert_eq!(change(Some(&old), None), "removed");
    }

    #[test]
    fn a_service_that_this_version_does_not_accept_is_compared_field_by_field() {
        let of = |old: &Value, new: &Value| {
            let [old, new] = [old, new].map(|service| RawValue::from_string(service.to_string()).unwrap());
            change(Some(&old), Some(&new))
        };
        let old = json!({
            "name": "web", "port": 1, "newer": true, "limit": {"pps": 1000, "burst": 5}, "labels": {"a": "b"},
            "backends": ["10.2.0.1:80", {"address": "10.2.0.2", "port": 80, "weight": 2}], "allow": ["10.0.0.0/8", "192.0.2.0/24"],
        });
        let new = json!({
            "name": "web", "port": 2, "limit": {"pps": 500, "burst": 5}, "on_retire": "reset",
            "backends": ["10.2.0.1:80", {"address": "fd00::2", "port": 80, "weight": 3}], "allow": ["192.0.2.0/24", "10.0.0.0/8"],
        });
        assert_eq!(
            of(&old, &new),
            "allow in another order; backends +[fd00::2]:80=3 -10.2.0.2:80=2; labels a b -> default; limit.pps 1000 -> 500; \
             newer true -> default; on_retire default -> reset; port 1 -> 2"
        );
        assert_eq!(of(&old, &old), "-");
        let hostile = of(&json!({"a": "b"}), &json!({"a": "\u{1b}[2J"}));
        assert_eq!(hostile, r"a b -> \u{1b}[2J");
    }

    #[test]
    fn a_service_of_the_add_on_has_an_app() {
        let of = |app: &str| {
            let entry = format!(
                r#"{{"revision": 1, "at": 1, "uid": 0, "what": "addon provision", "deploy": null, "service": "addon-aaaaaaaaaaaa",
                "app": {app}, "old": null, "new": {{}}}}"#
            );
            service_and_app(&serde_json::from_str(&entry).unwrap())
        };
        assert_eq!(of("\"my-app\""), "addon-aaaaaaaaaaaa (app my-app)");
        assert_eq!(of("null"), "addon-aaaaaaaaaaaa");
    }

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(user(0), "root");
        assert_eq!(user(4_000_000_123), "4000000123");
    }
}
