//! Past deploys, events and changes of a service.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::frame::short_table;
use crate::addon::id::ResourceId;
use crate::control::events::Event;
use crate::date::utc_of;
use crate::store::{DeployPhase, HistoryEntry, StoredDeploy};
use crate::web::table::PageColumn;
use tcpgw_core::escape;
use tcpgw_core::model::Word as _;
use tcpgw_core::words::count;

/// Returns the URL of a deploy's page.
pub(super) fn deploy_url(id: u64) -> String {
    format!("/deploys/{id}")
}

/// Returns the URL of an app's page.
pub(super) fn app_url(id: ResourceId) -> String {
    format!("/apps/{id}")
}

/// Returns the table of deploys.
pub(super) fn deploys(deploys: Option<&[StoredDeploy]>) -> Markup {
    let Some(deploys) = deploys else { return unknown() };
    if deploys.is_empty() {
        return html! { p { "None." } };
    }
    let columns = ["Deploy", "Begun (UTC)", "New backends", "Outcome"].map(PageColumn::Text);
    let row = |deploy: &StoredDeploy| {
        vec![
            html! { a href=(deploy_url(deploy.id)) { (deploy.id) } },
            html! { (utc_of(deploy.began.as_secs())) },
            html! { (count(deploy.targets.len(), "backend")) },
            html! { (phase(deploy.phase.word())) @if let Some(reason) = &deploy.reason { small { (escape::text(reason)) } } },
        ]
    };
    let rows: Vec<_> = deploys.iter().map(row).collect();
    short_table("Last deploys", &columns, &rows)
}

/// Returns a phase of a deploy with its colour.
pub(super) fn phase(word: &str) -> Markup {
    let class = if word == DeployPhase::Drained.word() {
        "up"
    } else if [DeployPhase::Failed, DeployPhase::Undone]
        .iter()
        .any(|phase| phase.word() == word)
    {
        "down"
    } else {
        "leaving"
    };
    html! { span class={ "state " (class) } { (word) } }
}

/// Returns the table of events.
pub(super) fn events(events: Option<&[&Event]>) -> Markup {
    let Some(events) = events else { return unknown() };
    if events.is_empty() {
        return html! { p { "None since the daemon started." } };
    }
    let columns = ["Time (UTC)", "Event", "Details"].map(PageColumn::Text);
    let row = |event: &&Event| {
        let (kind, details) = words(event);
        vec![
            html! { (utc_of(seconds(event.at))) },
            html! { (kind) },
            html! { (details) },
        ]
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    short_table("Last events", &columns, &rows)
}

/// Returns the table of changes.
pub(super) fn history(entries: Option<&[HistoryEntry]>) -> Markup {
    let Some(entries) = entries else { return unknown() };
    if entries.is_empty() {
        return html! { p { "None: services of the state file have no history here." } };
    }
    let columns = ["Time (UTC)", "Order", "By user", "Change"].map(PageColumn::Text);
    let row = |entry: &HistoryEntry| {
        vec![
            html! { (utc_of(entry.at.as_secs())) },
            html! { (escape::text(&entry.what)) @if let Some(deploy) = entry.deploy { " " a href=(deploy_url(deploy)) { (deploy) } } },
            html! { (entry.uid) },
            html! { (change(entry)) },
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    short_table("Last changes", &columns, &rows)
}

fn unknown() -> Markup {
    html! { p { "Not known at the moment." } }
}

/// Returns which fields of a service a change has changed.
fn change(entry: &HistoryEntry) -> String {
    let members = |of: &RawValue| serde_json::from_str::<Map<String, Value>>(of.get()).unwrap_or_default();
    let (Some(old), Some(new)) = (&entry.old, &entry.new) else {
        return if entry.old.is_none() { "added" } else { "removed" }.into();
    };
    let (old, new) = (members(old), members(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let changed: Vec<String> = changed.map(|name| escape::text(name)).collect();
    if changed.is_empty() {
        "–".into()
    } else {
        changed.join(", ")
    }
}

/// Returns the kind of an event, and its other members as text.
fn words(event: &Event) -> (String, String) {
    let Ok(Value::Object(members)) = serde_json::to_value(event) else {
        return ("event".into(), String::new());
    };
    let kind = members.get("event").and_then(Value::as_str).unwrap_or("event");
    let known = ["id", "at", "event", "service", "app", "port"];
    let details = members
        .iter()
        .filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    let details = details.map(|(name, value)| match value {
        Value::String(text) => format!("{name} {}", escape::text(text)),
        value => format!("{name} {}", escape::text(&value.to_string())),
    });
    let details: Vec<String> = details.collect();
    (kind.replace('_', " "), details.join(", "))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds since 1970, and a cast of floats saturates"
)]
fn seconds(at: f64) -> u64 {
    at as u64
}
