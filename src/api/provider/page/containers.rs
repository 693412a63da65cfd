//! The containers: state, health, connections, and traffic against the limit.

use maud::{Markup, html};

use super::notices::lets_connections_in;
use crate::addon::ResourceStatus;
use crate::control::request::{AppView, BackendView};
use crate::view::app::{AppReading, BackendReading};
use crate::view::flow_rates::{Rate, Rates};
use crate::view::status::OfLimit;
use crate::web::meter::meter;
use crate::web::table::table;
use crate::web::units;
use tcpgw_core::model::Limit;
use tcpgw_core::words::count;

/// Returns the table of containers.
pub(super) fn containers(app: &AppView, reading: Option<&AppReading>) -> Markup {
    let view = app.service.as_ref();
    let backends = view.map(|view| &*view.backends).unwrap_or_default();
    let container = ContainerState::of(app);
    if backends.is_empty() {
        return html! {
            p {
                "None is registered"
                @if container == ContainerState::Suspended {
                    "."
                } @else {
                    ", and new connections are refused. Declare a " code { "tcp" } " process in the Procfile, and deploy."
                }
            }
        };
    }
    let limit = app.served.as_ref().and_then(|service| service.limit);
    let rows: Vec<Vec<Markup>> = backends
        .iter()
        .map(|backend| row(backend, reading, limit, container))
        .collect();
    let columns = ["Container", "State", "Health", "Connections", "To it", "From it"];
    html! {
        p { (count(backends.len(), "container")) ":" }
        (table(&columns, &rows))
    }
}

/// Returns the traffic of all containers in one direction; `None` where it is not known of any.
pub(super) fn sum(reading: &AppReading, direction: impl Fn(Rates) -> Rate) -> Option<Rate> {
    let rates = reading.backends.values().filter_map(|backend| backend.rates);
    rates.map(direction).reduce(|sum, rate| Rate {
        packets_per_second: sum.packets_per_second + rate.packets_per_second,
        bytes_per_second: sum.bytes_per_second + rate.bytes_per_second,
    })
}

fn row(
    backend: &BackendView,
    reading: Option<&AppReading>,
    limit: Option<Limit>,
    container: ContainerState,
) -> Vec<Markup> {
    let read = reading.and_then(|reading| reading.backends.get(&backend.backend));
    let of_limit = read
        .and_then(|read| read.rates)
        .zip(limit)
        .map(|(rates, limit)| OfLimit::new(rates, limit.into()));
    let to = of_limit.and_then(|of| of.to.or(of.shared));
    let from = of_limit.and_then(|of| of.from.or(of.shared));
    vec![
        html! { (backend.backend) },
        state(backend, container),
        health(backend, container),
        connections(backend, read),
        traffic(read.and_then(|read| read.rates).map(|rates| rates.to), to),
        traffic(read.and_then(|read| read.rates).map(|rates| rates.from), from),
    ]
}

/// State of the app as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContainerState {
    Suspended,
    /// Paused, held back or torn down: no container gets new connections, whether it answers or not.
    Closed,
    Open,
}

impl ContainerState {
    fn of(app: &AppView) -> Self {
        if app.resource.status == ResourceStatus::Suspended {
            Self::Suspended
        } else if lets_connections_in(app) {
            Self::Open
        } else {
            Self::Closed
        }
    }
}

fn state(backend: &BackendView, container: ContainerState) -> Markup {
    html! {
        @if container == ContainerState::Closed && backend.desired == "active" {
            "waits"
            small { "the app gets no new connections now" }
        } @else if backend.leaving && backend.balanced {
            "kept"
            small { "gets new connections until another container answers" }
        } @else if backend.leaving {
            "drains"
            @if let Some(seconds) = backend.seconds_left { small { "its connections end in " (seconds) " s at the latest" } }
        } @else if container == ContainerState::Suspended {
            "suspended"
            small { "gets new connections again when the add-on is resumed" }
        } @else if backend.balanced {
            "in use"
            small { "gets new connections" }
        } @else if backend.desired == "draining" {
            "set aside"
            small { "gets no new connections, by order" }
        } @else {
            "waits"
            small {
                @if backend.is_serving() {
                    "gets new connections when the change is in effect"
                } @else {
                    "gets no new connections until it answers"
                }
            }
        }
    }
}

fn health(backend: &BackendView, container: ContainerState) -> Markup {
    // The known health is that of before the suspension: now it is not probed.
    if container == ContainerState::Suspended {
        return html! { "not probed" };
    }
    let (class, text) = match backend.health.as_deref() {
        Some("healthy") => ("good", "answers"),
        Some("failing") => ("bad", "did not answer the last probe"),
        Some("unhealthy") => ("bad", "does not answer"),
        Some("rising") => ("", "answers again"),
        _ => ("", "not probed yet"),
    };
    html! {
        span class=(class) { (text) }
        @if let Some(reason) = &backend.reason { small { (reason) } }
    }
}

fn connections(backend: &BackendView, read: Option<&BackendReading>) -> Markup {
    html! {
        @if let Some(read) = read {
            (units::count(read.flows.established))
            @if read.flows.handshake > 0 { small { (units::count(read.flows.handshake)) " connecting" } }
        } @else if let Some(flows) = backend.flows {
            (units::count(flows))
        } @else {
            "–"
        }
    }
}

fn traffic(rate: Option<Rate>, part: Option<f64>) -> Markup {
    let Some(rate) = rate else {
        return html! { "–" };
    };
    html! {
        (units::byte_rate(rate.bytes_per_second))
        small { (units::packet_rate(rate.packets_per_second)) }
        @if let Some(part) = part { (meter(part)) }
    }
}
