//! The backends of a service: state, last probe, connections, traffic.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use maud::{Markup, html};

use super::rates::used;
use crate::control::request::{BackendView, ServiceView};
use crate::metrics::{BackendValues, Reading, ServiceSample};
use crate::web::table::{PageColumn, captioned};
use crate::web::units;
use tcpgw_core::escape;
use tcpgw_core::words::count;

/// Number of backends that are shown; of more the first ones, those that need attention before the others.
const MOST: usize = 200;
const COLUMNS: [PageColumn<'_>; 9] = [
    PageColumn::Text("Backend"),
    PageColumn::Text("State"),
    PageColumn::Text("Last probe"),
    PageColumn::Numbers("Open"),
    PageColumn::Numbers("New per second"),
    PageColumn::Numbers("Connections"),
    PageColumn::Numbers("To it"),
    PageColumn::Numbers("From it"),
    PageColumn::Text("Limit used"),
];

/// Values of a backend: those of the kernel, and what the daemon knows.
type BackendRow<'b> = (Option<&'b BackendValues>, Option<&'b BackendView>);

/// Returns the table of backends.
pub(super) fn backends(
    name: &str,
    reading: &Reading,
    sample: Option<&ServiceSample>,
    view: Option<&ServiceView>,
) -> Markup {
    let mut rows: BTreeMap<SocketAddr, BackendRow<'_>> = BTreeMap::new();
    for backend in sample.iter().flat_map(|of| &of.backends) {
        rows.entry(backend.backend).or_default().0 = Some(backend);
    }
    for backend in view.iter().flat_map(|view| &view.backends) {
        rows.entry(backend.backend).or_default().1 = Some(backend);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| is_well(*row));
    let all = rows.len();
    if rows.is_empty() {
        return html! { p { "There are none: new connections are refused." } };
    }
    let caption = html! {
        caption {
            (count(all, "backend"))
            @if all > MOST { "; these are the first " (MOST) ", those that need attention before the others" }
        }
    };
    let rows: Vec<_> = rows
        .into_iter()
        .take(MOST)
        .map(|(backend, row)| cells(name, reading, sample, backend, row))
        .collect();
    captioned("dense", &caption, &COLUMNS, &rows)
}

fn is_well((values, view): BackendRow<'_>) -> bool {
    values.is_some_and(|values| values.state == "healthy") && view.is_none_or(|view| !view.leaving)
}

fn cells(
    name: &str,
    reading: &Reading,
    sample: Option<&ServiceSample>,
    backend: SocketAddr,
    (values, view): BackendRow<'_>,
) -> Vec<Markup> {
    let totals = reading.totals.as_ref();
    let change = totals.and_then(|totals| totals.change.as_ref());
    let pace = change.map(|change| change.of_backend(name, backend));
    let bytes = pace.filter(|_| totals.is_some_and(|totals| totals.counts_bytes));
    let all = totals.map(|totals| totals.totals.backend(name, backend).map_or(0, |of| of.connections));
    let flows = values.filter(|_| reading.kernel.is_some()).map(|values| values.flows);
    let text = |text: Option<String>| html! { (text.unwrap_or_else(|| "–".into())) };
    vec![
        html! { (backend) },
        state(values, view),
        probe(view),
        text(flows.map(units::count)),
        text(pace.map(|pace| units::event_rate(pace.connections))),
        text(all.map(units::count)),
        text(bytes.map(|pace| units::byte_rate(pace.rates.to.bytes_per_second))),
        text(bytes.map(|pace| units::byte_rate(pace.rates.from.bytes_per_second))),
        match (bytes, sample.and_then(|of| of.limit)) {
            (Some(pace), Some(limit)) => used(pace, limit),
            (None, Some(_)) => text(None),
            (_, None) => html! { "none" },
        },
    ]
}

fn state(values: Option<&BackendValues>, view: Option<&BackendView>) -> Markup {
    let state = values.map_or("not served", |values| values.state);
    let class = match state {
        "healthy" => "up",
        "unhealthy" | "not served" => "down",
        "unknown" => "probing",
        _ => "leaving",
    };
    html! {
        span class={ "state " (class) } { (state) }
        @if let Some(view) = view {
            @if view.leaving && view.balanced {
                small { "gets connections until another one answers" }
            } @else if let Some(seconds) = view.seconds_left.filter(|_| view.leaving) {
                small { "ends in at most " (units::span(seconds)) }
            } @else if view.desired == "draining" {
                small { "set aside by order" }
            } @else if !view.balanced && !view.leaving {
                small { "gets no new connections" }
            }
        }
    }
}

fn probe(view: Option<&BackendView>) -> Markup {
    let Some(view) = view else { return html! { "–" } };
    let Some(health) = &view.health else {
        return html! { "not probed" };
    };
    html! {
        @match &**health {
            "healthy" => "answered",
            "failing" => "failed; it gets connections still",
            "rising" => "answered, after failures",
            "presumed" => "none yet: taken over as it was",
            "unhealthy" => "failed",
            _ => "no answer yet",
        }
        @if let Some(reason) = &view.reason { small { (escape::text(reason)) } }
    }
}
