//! Queries of a working gateway: reads from the kernel what the views show, for the command line and the API, so that
//! both show the same.
//!
//! It changes nothing, and needs no record: the desired services are passed to it.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;

use crate::date::since_1970;
use crate::traffic::Totals;
use crate::traffic::drop_sets;
use crate::view::drops::DropCounts;
use crate::view::facts::StatusFacts;
use crate::view::flow_rates::FirstSample;
use crate::view::flows::{FlowSelection, FlowView};
use crate::view::snapshot::Snapshot;
use crate::view::status::Status;
use crate::view::tally::{BackendIndex, Tally};
use crate::view::totals::ConnectionCounts;
use crate::view::who::WhoView;
use crate::view::{ConntrackSettings, Hint, NoService, ServiceName, ServicesView};
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::Problem;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::conntrack::{Flow, Selection};
use tcpgw_kernel::{Counted, Kernel, KernelError};

/// Reason why a query failed.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The kernel failed or refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The named service does not exist.
    #[error(transparent)]
    NoService(#[from] NoService),
    /// The addresses are of different families.
    #[error("{0} and {1} are addresses of different families; a backend only sees addresses of its own family")]
    Families(SocketAddr, SocketAddr),
    /// The client has disconnected.
    #[error("the request was cancelled")]
    Gone,
    /// The output could not be written.
    #[error("failed to write the result: {0}")]
    Write(#[from] io::Error),
}

/// Returns the data that conntrack records of new connections, in the network namespace of this thread.
pub fn noted() -> ConntrackSettings {
    let is_on = |name| {
        let value = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        Some(value.trim() != "0")
    };
    ConntrackSettings {
        traffic: is_on("nf_conntrack_acct"),
        begin: is_on("nf_conntrack_timestamp"),
    }
}

fn nanoseconds() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

/// Longest time for which a query waits without checking that it is still wanted.
const SLICE: Duration = Duration::from_millis(50);

/// Delay after which a stale flow is checked again; it exceeds the time from the end of a drain to the deletion of its
/// flows.
const FLUSHED: Duration = Duration::from_millis(500);

/// Client of a query, which may disconnect before the end.
#[derive(Clone, Default)]
pub struct QueryClient(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl QueryClient {
    /// Creates a client that may disconnect; `is_gone` tells whether it has.
    pub fn who_may_go(is_gone: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_gone)))
    }

    /// Waits for this time, or until the client has disconnected.
    ///
    /// # Errors
    /// Fails with [`ObserveError::Gone`] as soon as the client has disconnected.
    pub fn pause(&self, kernel: &mut dyn Kernel, time: Duration) -> Result<(), ObserveError> {
        let Some(is_gone) = &self.0 else {
            kernel.pause(time);
            return Ok(());
        };
        let mut left = time;
        while !left.is_zero() {
            if is_gone() {
                return Err(ObserveError::Gone);
            }
            let slice = left.min(SLICE);
            kernel.pause(slice);
            left -= slice;
        }
        Ok(())
    }
}

impl fmt::Debug for QueryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryClient")
            .field("may_go", &self.0.is_some())
            .finish()
    }
}

/// Query of the status.
#[derive(Debug, Clone, Default)]
pub struct StatusQuery {
    /// Only service to show.
    pub service: Option<ServiceName>,
    /// Time over which rates are measured; zero for none.
    pub interval: Duration,
    /// Client of the query.
    pub client: QueryClient,
    /// Totals that a daemon keeps.
    pub totals: Option<Arc<Totals>>,
    /// Whether only flows are read, and none of the table's counters: drops are left out, and connections without totals.
    pub flows_only: bool,
}

/// Facts about the gateway that are known before its flows and counters are read.
#[derive(Debug, Clone, Copy)]
pub struct StatusSources<'a> {
    /// The services.
    pub services: &'a ServicesView,
    /// State of the daemon, if there is one.
    pub daemon: Option<&'a Snapshot>,
    /// Problems found by the command itself, if no daemon was queried.
    pub found: &'a [Problem],
    /// Data that conntrack records.
    pub noted: ConntrackSettings,
}

/// Takes one sample, or two if there is an interval, and passes the status to `tell`.
///
/// # Errors
/// Fails with [`ObserveError::Kernel`] when the kernel cannot be read, [`ObserveError::NoService`] when the named
/// service does not exist, and [`ObserveError::Gone`] when the client has disconnected.
pub fn status<T>(
    kernel: &mut dyn Kernel,
    sources: StatusSources<'_>,
    query: &StatusQuery,
    tell: impl FnOnce(&Status<'_>) -> T,
) -> Result<T, ObserveError> {
    facts(kernel, sources, query, |facts| tell(&Status::new(facts)))
}

/// Takes one sample, or two if there is an interval, and passes the facts to `tell`.
///
/// # Errors
/// Fails as [`status`] does.
pub fn facts<T>(
    kernel: &mut dyn Kernel,
    sources: StatusSources<'_>,
    query: &StatusQuery,
    tell: impl FnOnce(&StatusFacts<'_>) -> T,
) -> Result<T, ObserveError> {
    let StatusSources {
        services,
        daemon,
        found,
        noted,
    } = sources;
    let service = query.service.as_ref().filter(|_| services.table.is_some());
    let only = service.map(|name| name.position(&services.summary)).transpose()?;
    let wanted = FlowSelection::new(service, None, None, services)?;
    let places = BackendIndex::new(&services.summary);
    let mut tally = Tally::new(services, &places);
    let (mut earlier, mut traffic, mut time) = (None, None, Duration::ZERO);
    if !query.interval.is_zero() && services.table.is_some() {
        let begin = kernel.now();
        earlier = Some(counts(kernel, services, &places)?);
        if noted.traffic == Some(true) {
            let mut first = FirstSample::default();
            each(kernel, services.mark, &wanted, |flow| first.note(flow))?;
            traffic = Some(first.end(places.len()));
        }
        let passed = kernel.now().saturating_duration_since(begin);
        query.client.pause(kernel, query.interval.saturating_sub(passed))?;
        time = kernel.now().saturating_duration_since(begin);
    }
    let (mut drops, mut connections) = (DropCounts::default(), ConnectionCounts::default());
    if !query.flows_only {
        drops = counts(kernel, services, &places)?;
        connections = connections_of(kernel, services, &places)?;
    }
    each(kernel, services.mark, &wanted, |flow| {
        let place = tally.count(flow);
        if let (Some(place), Some(traffic)) = (place, &mut traffic) {
            traffic.note(place, flow);
        }
    })?;
    if tally.stale.total > 0 {
        // Flows whose drain has just ended are being deleted.
        query.client.pause(kernel, FLUSHED)?;
        let mut again = Tally::new(services, &places);
        each(kernel, services.mark, &wanted, |flow| {
            again.count(flow);
        })?;
        tally.stale = again.stale;
    }
    Ok(tell(&StatusFacts {
        services,
        places: &places,
        tally,
        traffic,
        connections,
        totals: query.totals.as_deref(),
        drops,
        earlier,
        time,
        noted,
        only,
        daemon,
        found,
    }))
}

/// Passes the facts to `tell` as far as they are known without the kernel: no flows, no drops.
pub fn unread<T>(sources: StatusSources<'_>, tell: impl FnOnce(&StatusFacts<'_>) -> T) -> T {
    let StatusSources {
        services,
        daemon,
        found,
        noted,
    } = sources;
    let places = BackendIndex::new(&services.summary);
    let tally = Tally::new(services, &places);
    tell(&StatusFacts {
        services,
        places: &places,
        tally,
        traffic: None,
        connections: ConnectionCounts::default(),
        totals: None,
        drops: DropCounts::default(),
        earlier: None,
        time: Duration::ZERO,
        noted,
        only: None,
        daemon,
        found,
    })
}

/// Returns the number of entries of conntrack and their maximum, in the network namespace of this thread; `None`: conntrack is
/// not loaded.
pub fn conntrack_entries() -> Option<(u64, u64)> {
    let number = |name| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?;
        text.trim().parse().ok()
    };
    Some((number("count")?, number("max")?))
}

fn each(
    kernel: &mut dyn Kernel,
    mark: FlowMark,
    wanted: &FlowSelection,
    mut each: impl FnMut(&Flow),
) -> Result<(), KernelError> {
    kernel.select(mark, wanted.selection(), &mut |flow| {
        if wanted.matches(flow) {
            each(flow);
        }
        ControlFlow::Continue(())
    })
}

fn counts(kernel: &mut dyn Kernel, services: &ServicesView, places: &BackendIndex) -> Result<DropCounts, KernelError> {
    let mut counts = DropCounts::default();
    read_sets(kernel, services, drop_sets::sets(), |set, counted| {
        counts.add(set, counted, &services.summary, places);
    })?;
    Ok(counts)
}

fn connections_of(
    kernel: &mut dyn Kernel,
    services: &ServicesView,
    places: &BackendIndex,
) -> Result<ConnectionCounts, KernelError> {
    let mut counts = ConnectionCounts::default();
    read_sets(kernel, services, ConnectionCounts::sets(), |set, counted| {
        counts.add(set, counted, &services.summary, places);
    })?;
    Ok(counts)
}

/// Calls `each` with the counters of each of these sets; without a table, not at all.
fn read_sets(
    kernel: &mut dyn Kernel,
    services: &ServicesView,
    sets: impl IntoIterator<Item = SetName>,
    mut each: impl FnMut(SetName, &[Counted]),
) -> Result<(), KernelError> {
    if services.table.is_some() {
        for set in sets {
            each(set, &counted(kernel, set)?);
        }
    }
    Ok(())
}

/// Reads the counters of a set. The table may be of another version, without the set, or have just been removed.
fn counted(kernel: &mut dyn Kernel, set: SetName) -> Result<Vec<Counted>, KernelError> {
    match kernel.counted(set) {
        Err(KernelError::Netlink(error)) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// Query of flows.
#[derive(Debug, Clone, Default)]
pub struct FlowsQuery {
    /// Only service to show.
    pub service: Option<ServiceName>,
    /// Only backend to show.
    pub backend: Option<SocketAddr>,
    /// Only network of clients to show.
    pub client: Option<IpNet>,
}

/// Output of flows that is written while they are read.
pub trait FlowOutput {
    /// Writes what precedes the flows.
    fn begin(&mut self, hints: &[Hint]) -> io::Result<()>;
    /// Writes a flow.
    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()>;
    /// Writes the end, unless the kernel failed.
    fn end(&mut self) -> io::Result<()>;
}

/// Writes the flows as the kernel returns them, in no order, until all were written or writing fails.
///
/// # Errors
/// Fails with [`ObserveError::Kernel`] when the kernel cannot be read, [`ObserveError::NoService`] when the named
/// service does not exist, and [`ObserveError::Write`] when writing fails.
pub fn flows(
    kernel: &mut dyn Kernel,
    services: &ServicesView,
    noted: ConntrackSettings,
    query: &FlowsQuery,
    list: &mut dyn FlowOutput,
) -> Result<(), ObserveError> {
    let wanted = FlowSelection::new(query.service.as_ref(), query.backend, query.client, services)?;
    let now = nanoseconds();
    let mut written = list.begin(&noted.hints());
    if written.is_ok() {
        kernel.select(services.mark, wanted.selection(), &mut |flow| {
            if wanted.matches(flow) {
                written = list.flow(&FlowView::new(flow, services, now));
            }
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
    }
    written?;
    Ok(list.end()?)
}

/// The flows as one JSON document, a line for each.
#[derive(Debug)]
pub struct JsonFlows<W: Write> {
    out: W,
    count: u64,
}

impl<W: Write> JsonFlows<W> {
    /// Creates an output that writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, count: 0 }
    }
}

impl<W: Write> FlowOutput for JsonFlows<W> {
    fn begin(&mut self, hints: &[Hint]) -> io::Result<()> {
        let hints = serde_json::to_string(hints)?;
        write!(self.out, "{{\n\"hints\": {hints},\n\"flows\": [")
    }

    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()> {
        self.out.write_all(if self.count > 0 { b",\n" } else { b"\n" })?;
        self.count += 1;
        serde_json::to_writer(&mut self.out, flow).map_err(io::Error::from)
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out, "\n],\n\"count\": {}\n}}", self.count)?;
        self.out.flush()
    }
}

/// Returns the client behind a connection that a backend sees.
///
/// # Errors
/// Fails with [`ObserveError::Kernel`] when the kernel cannot be read, [`ObserveError::Families`] when the addresses
/// are of different families, and [`ObserveError::NoService`] when the named service does not exist.
pub fn who<'a>(
    kernel: &mut dyn Kernel,
    services: &'a ServicesView,
    noted: ConntrackSettings,
    seen_as: SocketAddr,
    backend: Option<SocketAddr>,
    service: Option<&ServiceName>,
) -> Result<WhoView<'a>, ObserveError> {
    if let Some(backend) = backend.filter(|backend| backend.is_ipv4() != seen_as.is_ipv4()) {
        return Err(ObserveError::Families(seen_as, backend));
    }
    let mut found = Vec::new();
    if let Some(backend) = backend {
        found.extend(kernel.who(services.mark, backend, seen_as)?);
    } else {
        let selection = Selection {
            seen_as: Some(seen_as),
            ..Selection::default()
        };
        kernel.select(services.mark, &selection, &mut |flow| {
            found.push(flow.clone());
            ControlFlow::Continue(())
        })?;
        found.sort_by_key(|flow| (flow.backend, flow.client, flow.id));
        // A flow may be listed twice.
        found.dedup_by_key(|flow| (flow.backend, flow.client, flow.id));
    }
    if let Some(service) = service {
        let wanted = service.position(&services.summary)?;
        found.retain(|flow| services.summary.position_at(flow.public) == Some(wanted));
    }
    let now = nanoseconds();
    Ok(WhoView {
        seen_as,
        backend,
        flows: found.iter().map(|flow| FlowView::new(flow, services, now)).collect(),
        hints: noted.hints(),
    })
}

/// Maximum number of backends in indented JSON, which makes the text of many three times as long.
const MOST_INDENTED: usize = 1000;

/// Writes a status as JSON: indented, unless it has many backends.
///
/// # Errors
/// Fails when writing fails.
pub fn write_status(mut out: impl Write, status: &Status<'_>) -> io::Result<()> {
    let backends: usize = status.services.iter().map(|service| service.backends.len()).sum();
    if backends <= MOST_INDENTED {
        return write_json(out, status);
    }
    serde_json::to_writer(&mut out, status)?;
    writeln!(out)?;
    out.flush()
}

/// Writes JSON for people and scripts: indented, with a line feed at its end.
///
/// # Errors
/// Fails when writing to `out` fails.
pub fn write_json(mut out: impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
