//! The status for people: whether all is well, what is not, then everything.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::addon::ServiceState;
use crate::cli::columns::{Align, Columns, short, span};
use crate::view::drops::Dropped;
use crate::view::problems::{Problem, Severity, title};
use crate::view::rates::Rates;
use crate::view::status::{BackendStatus, Drain, LimitView, ServiceStatus, SourcePorts, Status};
use crate::view::tally::FlowCounts;
use tcpgw_core::problem::{Kind, MOST_OF_KIND};
use tcpgw_core::summary::Standing;
use tcpgw_core::words::count;

/// More problems than these are counted only.
const MOST_PROBLEMS: usize = 30;

pub(super) fn write(out: &mut impl Write, status: &Status<'_>, now: u64, colors: bool) -> io::Result<()> {
    let paint = |text: &str, color: &str| {
        if colors {
            format!("\u{1b}[1;{color}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    let (word, color) = if status.ok { ("ok", "32") } else { ("unhealthy", "31") };
    writeln!(out, "{}: {}", paint(word, color), sum(status))?;
    for problem in status.problems.iter().take(MOST_PROBLEMS) {
        let label = match problem.severity {
            Severity::Error => paint("error:", "31"),
            Severity::Warning => paint("warning:", "33"),
        };
        writeln!(out, "{label} {}", tcpgw_core::escape::text(&problem.message))?;
    }
    match status.problems.len().saturating_sub(MOST_PROBLEMS) {
        0 => {}
        more => writeln!(out, "and {more} more; -o json has up to {MOST_OF_KIND} of each kind")?,
    }
    if !status.services.is_empty() {
        writeln!(out)?;
        services(&mut *out, status)?;
    }
    writeln!(out)?;
    notes(out, status, now)
}

/// `2 services, 5 backends (1 draining), 123 flows`
fn sum(status: &Status<'_>) -> String {
    let all = || status.services.iter().flat_map(|service| &service.backends);
    let draining = all().filter(|backend| backend.state == Standing::Draining).count();
    let draining = match draining {
        0 => String::new(),
        draining => format!(" ({draining} draining)"),
    };
    let unhealthy = status.services.iter();
    let unhealthy = unhealthy.filter(|service| !service.healthy && !service.is_idle());
    // Without a daemon the kernel has no backends of one that is paused.
    let paused = status.problems.iter().filter(|problem| problem.kind == Kind::Paused);
    let paused: BTreeSet<&str> = paused.filter_map(|problem| problem.service.as_deref()).collect();
    let is_paused = |service: &&ServiceStatus<'_>| service.name.as_deref().is_some_and(|name| paused.contains(name));
    let (held, unhealthy): (Vec<_>, Vec<_>) = unhealthy.partition(is_paused);
    let (some, none): (Vec<_>, Vec<_>) = unhealthy
        .into_iter()
        .partition(|service| service.backends.iter().any(|backend| backend.weight.is_some()));
    let unhealthy: Vec<String> = [(none.len(), "an active"), (some.len(), "a healthy")]
        .into_iter()
        .filter(|(services, _)| *services > 0)
        .map(|(services, backend)| format!("{services} without {backend} backend"))
        .chain((!held.is_empty()).then(|| format!("{} paused", held.len())))
        .collect();
    let unhealthy = if unhealthy.is_empty() {
        String::new()
    } else {
        format!(" ({})", unhealthy.join(", "))
    };
    let stale = match status.stale.flows {
        0 => String::new(),
        stale => format!(", {stale} stale"),
    };
    format!(
        "{}{unhealthy}, {}{draining}, {}{stale}",
        count(status.services.len(), "service"),
        count(all().count(), "backend"),
        count(status.flows.total(), "flow"),
    )
}

const TITLES: [&str; 16] = [
    "SERVICE / BACKEND",
    "STATE",
    "WEIGHT",
    "HEALTH",
    "FLOWS",
    "HANDSHAKE",
    "UNANSWERED",
    "ESTABLISHED",
    "CLOSING",
    "PKT/S TO",
    "B/S TO",
    "PKT/S FROM",
    "B/S FROM",
    "LIMIT",
    "PORTS",
    "DROPPED",
];
const ALIGNED: &[Align] = &[
    Align::Left,
    Align::Left,
    Align::Right,
    Align::Left,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Left,
];

fn services(out: &mut impl Write, status: &Status<'_>) -> io::Result<()> {
    let mut table = Columns::new(out, ALIGNED).holding_all();
    table.row(TITLES.map(str::to_owned).to_vec())?;
    for service in &status.services {
        table.row(service_cells(service, &status.problems))?;
        for backend in &service.backends {
            table.row(backend_cells(backend))?;
        }
    }
    table.end().map(drop)
}

/// What a service is called that is here: whatever the problems say of it comes before what its backends do.
fn state_of(service: &ServiceStatus<'_>, problems: &[Problem]) -> &'static str {
    let of_it = || {
        let named = problems.iter();
        named.filter(|problem| {
            problem.port == Some(service.port) && problem.service.as_deref() == service.name.as_deref()
        })
    };
    let is_partial = of_it().any(|problem| {
        let kinds = [Kind::NoActiveBackend, Kind::NoHealthyBackend];
        kinds.contains(&problem.kind) && problem.severity == Severity::Error
    });
    match (service.healthy, service.is_empty()) {
        _ if service.leaving => "leaving",
        _ if service.addon == Some(ServiceState::Suspended) => "SUSPENDED",
        _ if service.addon == Some(ServiceState::Waiting) => "WAITING",
        _ if of_it().any(|problem| problem.kind == Kind::Paused) => "PAUSED",
        (true, _) if is_partial => "PARTLY",
        (true, _) => "up",
        (false, true) => "EMPTY",
        (false, false) => "DOWN",
    }
}

fn service_cells(service: &ServiceStatus<'_>, problems: &[Problem]) -> Vec<String> {
    let rates = service.backends.iter().map(|backend| backend.rates);
    let rates = rates.reduce(|sum, rates| Some(sum?.and(rates?))).flatten();
    let mut cells = vec![
        title(service),
        state_of(service, problems).into(),
        String::new(),
        String::new(),
    ];
    cells.extend(flow_cells(service.flows, service.unanswered));
    cells.extend(rate_cells(rates));
    cells.push(service.limit.map_or_else(|| "none".into(), limit));
    cells.push(String::new());
    cells.push(dropped(service.drops.reasons()));
    cells
}

fn backend_cells(backend: &BackendStatus) -> Vec<String> {
    let state = if backend.state == Standing::Draining {
        "draining"
    } else {
        "active"
    };
    let mut cells = vec![
        format!("  {}", backend.backend),
        state.into(),
        backend.weight.map_or_else(String::new, |weight| weight.to_string()),
        health(backend),
    ];
    cells.extend(flow_cells(backend.flows, None));
    cells.extend(rate_cells(backend.rates));
    cells.push(
        backend
            .of_limit
            .map_or_else(|| "-".into(), |of| format!("{:.0} %", of.most() * 100.0)),
    );
    let ports = backend.source_ports.iter().max_by_key(|ports| ports.used);
    cells.push(ports.map_or_else(|| "-".into(), |SourcePorts { used, .. }| used.to_string()));
    cells.push(dropped(backend.drops.reasons()));
    cells
}

fn flow_cells(flows: FlowCounts, unanswered: Option<u64>) -> [String; 5] {
    let unanswered = unanswered.map_or_else(|| "-".into(), |unanswered| unanswered.to_string());
    let [total, handshake, established, closing] =
        [flows.total(), flows.handshake, flows.established, flows.closing].map(|flows| flows.to_string());
    [total, handshake, unanswered, established, closing]
}

fn rate_cells(rates: Option<Rates>) -> [String; 4] {
    rates.map_or_else(
        || [(); 4].map(|()| "-".into()),
        |Rates { to, from }| {
            [
                to.packets_per_second,
                to.bytes_per_second,
                from.packets_per_second,
                from.bytes_per_second,
            ]
            .map(short)
        },
    )
}

fn limit(limit: LimitView) -> String {
    let shared = if limit.shared { " shared" } else { "" };
    format!("{} pkt/s{shared}", limit.packets_per_second)
}

/// `117 over the limit to it (12/s), 3 invalid from it`
fn dropped<const N: usize>(reasons: [(&'static str, Dropped); N]) -> String {
    let told = reasons.into_iter().filter(|(_, dropped)| dropped.packets > 0);
    let words: Vec<String> = told
        .map(|(reason, dropped)| {
            let rate = dropped.packets_per_second.filter(|rate| *rate > 0.0);
            let rate = rate.map_or_else(String::new, |rate| format!(" ({}/s)", short(rate)));
            format!("{} {reason}{rate}", dropped.packets)
        })
        .collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn notes(out: &mut impl Write, status: &Status<'_>, now: u64) -> io::Result<()> {
    if let Some(sample) = &status.sample {
        write!(out, "rates: over {:.1} s", sample.seconds)?;
        if status
            .services
            .iter()
            .flat_map(|s| &s.backends)
            .any(|b| b.rates.is_some())
        {
            write!(out, ", before the limit drops; merged packets count once")?;
        }
        if sample.flows_not_counted > 0 {
            write!(
                out,
                "; {} began before conntrack counted",
                count(sample.flows_not_counted, "flow")
            )?;
        }
        writeln!(out)?;
    }
    for drain in status.drains.iter().flatten() {
        write_drain(out, drain)?;
    }
    if status.leaving.flows > 0 {
        let flows = count(status.leaving.flows, "flow");
        writeln!(out, "leaving: {flows} to backends of no service")?;
    }
    if status.other_drops > 0 {
        writeln!(
            out,
            "dropped: {} for services and backends that are gone",
            count(status.other_drops, "packet")
        )?;
    }
    if let Some(table) = &status.table {
        write!(
            out,
            "table: {}",
            table.comment.as_deref().unwrap_or("without a comment")
        )?;
        if let Some(room) = table.room {
            write!(out, " ({room} backends, and as many slots)")?;
        }
        if !table.flags.is_empty() {
            write!(out, "; flags {}", table.flags.join(", "))?;
        }
        if let Some(owner) = table.owner {
            write!(out, "; owner {owner}")?;
        }
        writeln!(out, "; generation {}", table.generation)?;
    }
    match &status.applied {
        Some(applied) => {
            let from = if applied.origin == "-" {
                "standard input"
            } else {
                &applied.origin
            };
            writeln!(
                out,
                "last change: {} ago, from {from}",
                span(now.saturating_sub(applied.at))
            )
        }
        None if status.table.is_some() => writeln!(out, "last change: not on record"),
        None => Ok(()),
    }
}

/// `draining: web :20003, 10.2.0.9:80: 3 flows, 12 s left`
fn write_drain(out: &mut impl Write, drain: &Drain) -> io::Result<()> {
    let name = drain.service.as_deref().unwrap_or("(unnamed)");
    write!(out, "draining: {name} :{}, {}", drain.port, drain.backend)?;
    if drain.waits_for == "replacement" {
        return writeln!(out, ": still gets new connections, until another backend is healthy");
    }
    match drain.flows {
        Some(flows) => write!(out, ": {}", count(flows, "flow"))?,
        None => write!(out, ": flows not counted yet")?,
    }
    match drain.seconds_left {
        Some(seconds) => writeln!(out, ", {seconds} s left"),
        None => writeln!(out, ", no deadline"),
    }
}

fn health(backend: &BackendStatus) -> String {
    let state = backend.health.as_deref().unwrap_or("not probed");
    match &backend.health_reason {
        Some(reason) => format!("{state} ({reason})"),
        None => state.to_owned(),
    }
}
