//! One sample as text or JSON, without a terminal.

use std::io::{self, Write};

use serde::Serialize;

use super::history::TopHistory;
use super::list::ServiceListing;
use super::sample::{ServiceLine, TopLoad, TopSample};
use crate::cli::amount::short;
use crate::cli::table::{Cell, Column, Extent, TextTable};
use crate::view::flow_rates::Rates;
use tcpgw_core::escape;
use tcpgw_core::words::count;

/// More problems than these are counted only.
const MOST_PROBLEMS: usize = 10;

/// A sample as JSON.
#[derive(Debug, Serialize)]
struct TopDocument<'a> {
    /// Time of the sample, in seconds since the Unix epoch.
    at: u64,
    ok: bool,
    /// Time over which rates were measured.
    seconds: Option<f64>,
    problems: Vec<&'a str>,
    flows: u64,
    services: Vec<ServiceDocument<'a>>,
}

/// A service in JSON.
#[derive(Debug, Serialize)]
struct ServiceDocument<'a> {
    name: Option<&'a str>,
    port: u16,
    state: &'a str,
    backends_up: usize,
    backends_active: usize,
    #[serde(flatten)]
    load: LoadDocument,
    limit_packets_per_second: Option<u32>,
    connections_per_second: Option<f64>,
    backends: Vec<BackendDocument<'a>>,
}

/// A backend in JSON.
#[derive(Debug, Serialize)]
struct BackendDocument<'a> {
    backend: std::net::SocketAddr,
    state: &'a str,
    #[serde(flatten)]
    load: LoadDocument,
}

/// Values of a service or backend in JSON.
#[derive(Debug, Serialize)]
struct LoadDocument {
    flows: u64,
    connections: u64,
    rates: Option<Rates>,
    of_limit: Option<f64>,
    dropped_packets: u64,
    dropped_packets_per_second: Option<f64>,
}

impl From<TopLoad> for LoadDocument {
    fn from(load: TopLoad) -> Self {
        Self {
            flows: load.flows,
            connections: load.connections,
            rates: load.rates,
            of_limit: load.of_limit,
            dropped_packets: load.dropped,
            dropped_packets_per_second: load.drop_rate,
        }
    }
}

/// Writes a sample as one line of JSON, its services in the order of the list. `at`: seconds since the Unix epoch.
pub(super) fn write_json(
    mut out: impl Write,
    at: u64,
    (sample, history): (&TopSample, &TopHistory),
    list: &ServiceListing,
) -> io::Result<()> {
    let services = list.order.iter().filter_map(|at| sample.services.get(*at));
    let document = TopDocument {
        at,
        ok: sample.ok,
        seconds: sample.seconds,
        problems: sample.problems.iter().map(|problem| &*problem.message).collect(),
        flows: sample.flows,
        services: services
            .map(|service| ServiceDocument {
                name: service.name.as_deref(),
                port: service.port,
                state: service.state.word(),
                backends_up: service.up,
                backends_active: service.active,
                load: service.load.into(),
                limit_packets_per_second: service.limit.map(|limit| limit.packets_per_second),
                connections_per_second: history.connection_rate(&service.title),
                backends: service
                    .backends
                    .iter()
                    .map(|backend| BackendDocument {
                        backend: backend.backend,
                        state: &backend.state,
                        load: backend.load.into(),
                    })
                    .collect(),
            })
            .collect(),
    };
    serde_json::to_writer(&mut out, &document)?;
    writeln!(out)?;
    out.flush()
}

const COLUMNS: &[Column] = &[
    Column::left("SERVICE").names(12),
    Column::left("STATE"),
    Column::right("UP").usual(2),
    Column::right("FLOWS").usual(1),
    Column::right("CONN/S").usual(3),
    Column::right("PKT/S").usual(1),
    Column::right("B/S").usual(1),
    Column::right("DROP/S").usual(4),
    Column::right("LIMIT").usual(2),
];

/// Writes a sample as text, its services in the order of the list.
pub(super) fn write_text(
    mut out: impl Write,
    (sample, history): (&TopSample, &TopHistory),
    list: &ServiceListing,
    extent: Extent,
) -> io::Result<()> {
    let word = if sample.ok { "ok" } else { "unhealthy" };
    writeln!(
        out,
        "{word}: {}, {}, {}",
        count(sample.services.len(), "service"),
        count(sample.backend_count(), "backend"),
        count(usize::try_from(sample.flows).unwrap_or(usize::MAX), "flow"),
    )?;
    for problem in sample.problems.iter().take(MOST_PROBLEMS) {
        let label = if problem.is_error { "error" } else { "warning" };
        writeln!(out, "{label}: {}", escape::text(&problem.message))?;
    }
    match sample.problem_count.saturating_sub(MOST_PROBLEMS) {
        0 => {}
        more => writeln!(out, "and {more} more")?,
    }
    writeln!(out)?;
    let mut table = TextTable::new(out, COLUMNS, extent).holding_all();
    for service in list.order.iter().filter_map(|at| sample.services.get(*at)) {
        table.row(cells(service, history))?;
    }
    let mut out = table.end()?;
    for hint in &sample.hints {
        writeln!(out, "note: {}", escape::text(hint))?;
    }
    out.flush()
}

fn cells(service: &ServiceLine, history: &TopHistory) -> Vec<Cell> {
    let load = &service.load;
    let rate = |value: Option<f64>| Cell::from(value.map_or_else(|| "-".to_owned(), short));
    let limit = match (service.limit, load.of_limit) {
        (None, _) => "none".to_owned(),
        (Some(_), None) => "-".to_owned(),
        (Some(_), Some(of)) => format!("{:.0} %", of * 100.0),
    };
    vec![
        Cell::from(&*service.title),
        service.state.word().into(),
        format!("{}/{}", service.up, service.active).into(),
        load.flows.to_string().into(),
        rate(history.connection_rate(&service.title)),
        rate(load.packets()),
        rate(load.bytes()),
        rate(load.drop_rate),
        limit.into(),
    ]
}
