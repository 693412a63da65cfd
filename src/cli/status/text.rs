//! The status for people: whether all is well, what is not, then everything.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::states;
use crate::cli::amount::{short, span};
use crate::cli::table::{Cell, Column, Extent, TextTable, after};
use crate::view::TableView;
use crate::view::drops::Dropped;
use crate::view::flow_rates::Rates;
use crate::view::problems::title;
use crate::view::status::{BackendStatus, DrainStatus, LimitView, Sampled, ServiceStatus, SourcePorts, Status};
use crate::view::tally::FlowCounts;
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::problem::{MOST_OF_KIND, ProblemKind, Severity};
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::summary::FlowVerdict;
use tcpgw_core::words::count;

/// Number of problems that are listed; further ones are only counted.
const MOST_PROBLEMS: usize = 30;
/// Columns before further lines of a message.
const INDENT: usize = 4;

/// Format of a status.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusFormat {
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) colors: bool,
    pub(super) extent: Extent,
    /// Whether notes are wanted that hold for every status.
    pub(super) with_hints: bool,
}

pub(super) fn write(out: &mut impl Write, status: &Status<'_>, format: StatusFormat) -> io::Result<()> {
    let paint = |text: &str, color: &str| {
        if format.colors {
            format!("\u{1b}[1;{color}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    let (word, color) = if status.ok { ("ok", "32") } else { ("unhealthy", "31") };
    writeln!(out, "{}: {}", paint(word, color), sum(status))?;
    for problem in status.problems.iter().take(MOST_PROBLEMS) {
        let (label, color) = match problem.severity {
            Severity::Error => ("error:", "31"),
            Severity::Warning => ("warning:", "33"),
        };
        let text = tcpgw_core::escape::text(&problem.message);
        let text = after(label.len() + 1, &text, INDENT, format.extent.width());
        writeln!(out, "{} {text}", paint(label, color))?;
    }
    match status.problems.len().saturating_sub(MOST_PROBLEMS) {
        0 => {}
        more => writeln!(out, "and {more} more; -o json has up to {MOST_OF_KIND} of each kind")?,
    }
    if !status.services.is_empty() {
        writeln!(out)?;
        services(&mut *out, status, format.extent)?;
    }
    writeln!(out)?;
    notes(out, status, format)
}

/// Returns the line of sums: `2 services, 5 backends (1 draining), 123 flows`.
fn sum(status: &Status<'_>) -> String {
    let all = || status.services.iter().flat_map(|service| &service.backends);
    let draining = all().filter(|backend| backend.state == FlowVerdict::Draining).count();
    let draining = match draining {
        0 => String::new(),
        draining => format!(" ({draining} draining)"),
    };
    let unhealthy = status.services.iter();
    let unhealthy = unhealthy.filter(|service| !service.healthy && !service.is_idle());
    // Without a daemon the kernel has no backends of a paused service.
    let paused = status
        .problems
        .iter()
        .filter(|problem| problem.kind == ProblemKind::Paused);
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

/// The usual columns fit into 80 with names and endpoints of usual length.
const COLUMNS: &[Column] = &[
    Column::left("SERVICE").names(12),
    Column::left("STATE"),
    Column::right("UP").usual(1),
    Column::right("FLOWS").usual(2),
    Column::right("PKT/S").usual(4),
    Column::right("LIMIT").usual(5),
    Column::right("DROPPED").usual(3),
    Column::left("LAST PROBE").wide(1),
    Column::right("HANDSHAKE").wide(4),
    Column::right("UNANSWERED").wide(2),
    Column::right("ESTABLISHED").wide(4),
    Column::right("CLOSING").wide(4),
    Column::right("PKT/S TO").wide(3),
    Column::right("B/S TO").wide(3),
    Column::right("PKT/S FROM").wide(3),
    Column::right("B/S FROM").wide(3),
    Column::right("WEIGHT").wide(5),
    Column::right("PORTS").wide(5),
    Column::left("DROPPED BECAUSE").wide(6),
];

fn services(out: &mut impl Write, status: &Status<'_>, extent: Extent) -> io::Result<()> {
    let mut table = TextTable::new(out, COLUMNS, extent).holding_all();
    for service in &status.services {
        table.row(service_cells(service))?;
        for backend in &service.backends {
            table.row(backend_cells(backend))?;
        }
    }
    table.end().map(drop)
}

fn service_cells(service: &ServiceStatus<'_>) -> Vec<Cell> {
    let rates = service.backends.iter().map(|backend| backend.rates);
    let rates = rates.reduce(|sum, rates| Some(sum?.and(rates?))).flatten();
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    let title = Cell::ending(name, title(service).strip_prefix(name).unwrap_or_default());
    let active = || service.backends.iter().filter(|backend| backend.weight.is_some());
    let up = active().filter(|backend| states::is_up(backend)).count();
    let limit = service.limit.map_or_else(|| "none".into(), limit);
    let drops = service.drops.reasons();
    let mut cells = vec![
        title,
        service.state.word().into(),
        format!("{up}/{}", active().count()).into(),
    ];
    cells.extend(usual_cells(service.flows, rates, limit, &drops));
    cells.push(Cell::from(""));
    cells.extend(flow_cells(service.flows, service.unanswered));
    cells.extend(rate_cells(rates));
    cells.extend([Cell::from(""), Cell::from(""), because(&drops).into()]);
    cells
}

fn backend_cells(backend: &BackendStatus) -> Vec<Cell> {
    let limit = backend
        .of_limit
        .map_or_else(|| "-".into(), |of| format!("{:.0} %", of.most() * 100.0));
    let ports = backend.source_ports.iter().max_by_key(|ports| ports.used);
    let drops = backend.drops.reasons();
    let mut cells = vec![
        Cell::whole(format!("  {}", backend.backend)),
        states::of_backend(backend).into(),
        Cell::from(""),
    ];
    cells.extend(usual_cells(backend.flows, backend.rates, limit, &drops));
    cells.push(last_probe(backend));
    cells.extend(flow_cells(backend.flows, None));
    cells.extend(rate_cells(backend.rates));
    cells.extend([
        backend
            .weight
            .map_or_else(String::new, |weight| weight.to_string())
            .into(),
        ports
            .map_or_else(|| "-".into(), |SourcePorts { used, .. }| used.to_string())
            .into(),
        because(&drops).into(),
    ]);
    cells
}

/// Flows, packets per second in both directions, the limit, packets that were dropped.
fn usual_cells(flows: FlowCounts, rates: Option<Rates>, limit: String, drops: &[(&'static str, Dropped)]) -> [Cell; 4] {
    let packets = |Rates { to, from }: Rates| short(to.packets_per_second + from.packets_per_second);
    [
        flows.total().to_string().into(),
        rates.map_or_else(|| "-".into(), packets).into(),
        limit.into(),
        dropped(drops).into(),
    ]
}

fn flow_cells(flows: FlowCounts, unanswered: Option<u64>) -> [Cell; 4] {
    let unanswered = unanswered.map_or_else(|| "-".into(), |unanswered| unanswered.to_string());
    let [handshake, established, closing] =
        [flows.handshake, flows.established, flows.closing].map(|flows| flows.to_string());
    [handshake, unanswered, established, closing].map(Cell::from)
}

fn rate_cells(rates: Option<Rates>) -> [Cell; 4] {
    let shown = rates.map(|Rates { to, from }| {
        [
            to.packets_per_second,
            to.bytes_per_second,
            from.packets_per_second,
            from.bytes_per_second,
        ]
        .map(short)
    });
    shown.map_or_else(|| [(); 4].map(|()| "-".into()), |shown| shown.map(Cell::from))
}

fn limit(limit: LimitView) -> String {
    let shared = if limit.shared { " shared" } else { "" };
    format!("{}/s{shared}", limit.packets_per_second)
}

/// Returns the number of drops: `1310 (1203/s)`.
fn dropped(reasons: &[(&'static str, Dropped)]) -> String {
    let packets: u64 = reasons.iter().map(|(_, dropped)| dropped.packets).sum();
    let rates = reasons.iter().filter_map(|(_, dropped)| dropped.packets_per_second);
    let rate: f64 = rates.sum();
    match packets {
        0 => "-".into(),
        packets if rate > 0.0 => format!("{packets} ({}/s)", short(rate)),
        packets => packets.to_string(),
    }
}

/// Returns the reasons of drops: `117 over the limit to it (12/s), 3 invalid from it`.
fn because(reasons: &[(&'static str, Dropped)]) -> String {
    let dropping = reasons.iter().filter(|(_, dropped)| dropped.packets > 0);
    let words: Vec<String> = dropping
        .map(|(reason, dropped)| {
            let rate = dropped.packets_per_second.filter(|rate| *rate > 0.0);
            let rate = rate.map_or_else(String::new, |rate| format!(" ({}/s)", short(rate)));
            format!("{} {reason}{rate}", dropped.packets)
        })
        .collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn last_probe(backend: &BackendStatus) -> Cell {
    match (&backend.health_reason, backend.health.as_deref()) {
        (Some(reason), _) => reason.as_str(),
        (None, None) => "not probed",
        (None, Some("presumed" | UNKNOWN)) => "none yet",
        (None, Some(_)) => "answered",
    }
    .into()
}

fn notes(out: &mut impl Write, status: &Status<'_>, format: StatusFormat) -> io::Result<()> {
    let is_whole = format.extent == Extent::All;
    if let Some(sample) = status.sample {
        rates(out, status, sample, is_whole)?;
    }
    for drain in status.drains.iter().flatten() {
        write_drain(out, drain)?;
    }
    if status.leaving.flows > 0 {
        let flows = count(status.leaving.flows, "flow");
        writeln!(out, "leaving: {flows} to backends that belong to no service any more")?;
    }
    if status.other_drops > 0 {
        writeln!(
            out,
            "dropped: {} for services and backends that are gone",
            count(status.other_drops, "packet")
        )?;
    }
    if let Some(table) = status.table.as_deref().filter(|_| is_whole) {
        writeln!(out, "table: {}", about(table))?;
    }
    match &status.applied {
        Some(applied) => {
            let from = match applied.shown_origin() {
                "-" => "standard input",
                origin => origin,
            };
            writeln!(
                out,
                "last change: {} ago, from {from}",
                span(format.now.saturating_sub(applied.at))
            )?;
        }
        None if status.table.is_some() => writeln!(out, "last change: not on record")?,
        None => {}
    }
    for hint in status.hints.iter().filter(|_| format.with_hints) {
        writeln!(
            out,
            "note: {}",
            after("note: ".len(), &hint.to_string(), INDENT, format.extent.width())
        )?;
    }
    Ok(())
}

/// Writes the line of rates: `rates: over 1.0 s; 3 flows began before conntrack counted packets`.
fn rates(out: &mut impl Write, status: &Status<'_>, sample: Sampled, is_whole: bool) -> io::Result<()> {
    write!(out, "rates: over {:.1} s", sample.seconds)?;
    let mut backends = status.services.iter().flat_map(|service| &service.backends);
    if is_whole && backends.any(|backend| backend.rates.is_some()) {
        write!(
            out,
            ", with packets that the limit then drops; packets that were merged (GRO, GSO) count once"
        )?;
    }
    if sample.flows_not_counted > 0 {
        let flows = count(sample.flows_not_counted, "flow");
        write!(out, "; {flows} began before conntrack counted packets")?;
    }
    writeln!(out)
}

/// Returns the line about the table: version of its rules, flow mark, size, flags, generation.
fn about(table: &TableView) -> String {
    let comment = table.comment.as_deref();
    let version = comment.and_then(skeleton::version_of);
    let mut parts = vec![match (version, comment) {
        (Some(version), _) => format!("inet tcpgw, version {version} of its rules"),
        (None, Some(comment)) => format!("inet tcpgw, not made by this program: comment {comment:?}"),
        (None, None) => "inet tcpgw, not made by this program: without a comment".into(),
    }];
    parts.extend(
        comment
            .and_then(skeleton::mark_of)
            .map(|mark| format!("flow mark {mark}")),
    );
    parts.extend(table.room.map(|room| format!("room for {}", count(room, "backend"))));
    let mut parts = vec![parts.join(", ")];
    if !table.flags.is_empty() {
        parts.push(format!("flags {}", table.flags.join(", ")));
    }
    parts.extend(table.owner.map(|owner| format!("owned by the netlink socket {owner}")));
    parts.push(format!("nftables generation {}", table.generation));
    parts.join("; ")
}

/// Writes the line of a drain: `draining: web :20003, 10.2.0.9:80: 3 flows, 12 s left`.
fn write_drain(out: &mut impl Write, drain: &DrainStatus) -> io::Result<()> {
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

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
