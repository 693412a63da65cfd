//! Looks at a gateway at work: asks the kernel for what the views show. For the command line and the API, so that both show
//! the same.
//!
//! Changes nothing, and needs no record: what is meant to be there is given to it.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use nix::errno::Errno;
use thiserror::Error;

use crate::view::drops::{self, DropCounts};
use crate::view::flows::{FlowView, Wanted};
use crate::view::rates::First;
use crate::view::snapshot::Snapshot;
use crate::view::status::{Facts, Status};
use crate::view::tally::{Places, Tally};
use crate::view::who::Who;
use crate::view::{Hint, NoService, Noted, ServiceName, ServicesView};
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::Problem;
use tcpgw_kernel::conntrack::{Flow, Selection};
use tcpgw_kernel::{Kernel, KernelError};

/// Why there was nothing to see.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The kernel did not tell.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// There is no such service.
    #[error(transparent)]
    NoService(#[from] NoService),
    /// What was asked cannot be.
    #[error("{0} and {1} are addresses of different families; a backend only sees addresses of its own family")]
    Families(SocketAddr, SocketAddr),
    /// Whoever asked has gone.
    #[error("the request was cancelled")]
    Gone,
    /// Whoever asked does not listen any more.
    #[error("failed to write what was seen: {0}")]
    Write(#[from] io::Error),
}

/// What conntrack notes of connections that begin now, in the network namespace of this thread.
pub fn noted() -> Noted {
    let is_on = |name| {
        let value = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        Some(value.trim() != "0")
    };
    Noted {
        traffic: is_on("nf_conntrack_acct"),
        begin: is_on("nf_conntrack_timestamp"),
    }
}

/// Since 1970, by the clock that conntrack notes begins with.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn nanoseconds() -> u64 {
    u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
}

/// Longest time for which a look waits without asking whether it is still wanted.
const SLICE: Duration = Duration::from_millis(50);

/// A flow that is nobody's is looked at again after this: from the end of a drain until its flows are flushed it is less.
const FLUSHED: Duration = Duration::from_millis(500);

/// Whoever asked for a look, who may go away before it ends.
#[derive(Clone, Default)]
pub struct Asker(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Asker {
    /// One who may go away; `is_gone` tells.
    pub fn who_may_go(is_gone: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_gone)))
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`ObserveError::Gone`] as soon as nobody wants the look any more.
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

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("may_go", &self.0.is_some()).finish()
    }
}

/// Which status is wanted.
#[derive(Debug, Clone, Default)]
pub struct StatusQuery {
    /// Of this service only.
    pub service: Option<ServiceName>,
    /// How long packets and drops are counted for rates; zero for none.
    pub interval: Duration,
    /// Who wants it.
    pub asker: Asker,
}

/// Looks, twice if there is an interval, and hands out what was seen. `daemon` is what a daemon knows besides.
///
/// # Errors
/// [`ObserveError::Kernel`], [`ObserveError::NoService`].
pub fn status<T>(
    kernel: &mut dyn Kernel,
    services: &ServicesView,
    daemon: Option<&Snapshot>,
    found: &[Problem],
    noted: Noted,
    query: &StatusQuery,
    tell: impl FnOnce(&Status<'_>) -> T,
) -> Result<T, ObserveError> {
    let service = query.service.as_ref().filter(|_| services.table.is_some());
    let only = match service {
        Some(name) => {
            let found = name.find(&services.summary)?;
            let all = &services.summary.services;
            all.iter().position(|of| std::ptr::eq(of, found))
        }
        None => None,
    };
    let wanted = Wanted::new(service, None, None, services)?;
    let places = Places::new(&services.summary);
    let mut tally = Tally::new(services, &places);
    let (mut earlier, mut traffic, mut time) = (None, None, Duration::ZERO);
    if !query.interval.is_zero() && services.table.is_some() {
        let begin = kernel.now();
        earlier = Some(counts(kernel, services, &places)?);
        if noted.traffic == Some(true) {
            let mut first = First::default();
            each(kernel, services.mark, &wanted, |flow| first.note(flow))?;
            traffic = Some(first.end(places.len()));
        }
        let passed = kernel.now().saturating_duration_since(begin);
        query.asker.pause(kernel, query.interval.saturating_sub(passed))?;
        time = kernel.now().saturating_duration_since(begin);
    }
    let drops = counts(kernel, services, &places)?;
    each(kernel, services.mark, &wanted, |flow| {
        let place = tally.count(flow);
        if let (Some(place), Some(traffic)) = (place, &mut traffic) {
            traffic.note(place, flow);
        }
    })?;
    if tally.stale.total > 0 {
        // Those whose time is just over are being flushed.
        query.asker.pause(kernel, FLUSHED)?;
        let mut again = Tally::new(services, &places);
        each(kernel, services.mark, &wanted, |flow| {
            again.count(flow);
        })?;
        tally.stale = again.stale;
    }
    Ok(tell(&Status::new(&Facts {
        services,
        places: &places,
        tally,
        traffic,
        drops,
        earlier,
        time,
        noted,
        only,
        daemon,
        found,
    })))
}

fn each(
    kernel: &mut dyn Kernel,
    mark: FlowMark,
    wanted: &Wanted,
    mut each: impl FnMut(&Flow),
) -> Result<(), KernelError> {
    kernel.select(mark, wanted.selection(), &mut |flow| {
        if wanted.matches(flow) {
            each(flow);
        }
        ControlFlow::Continue(())
    })
}

fn counts(kernel: &mut dyn Kernel, services: &ServicesView, places: &Places) -> Result<DropCounts, KernelError> {
    let mut counts = DropCounts::default();
    if services.table.is_none() {
        return Ok(counts);
    }
    for set in drops::sets() {
        let counted = match kernel.counted(set) {
            // Another version's table, or one that has just been removed.
            Err(KernelError::Netlink(error)) if error.errno() == Some(Errno::ENOENT) => Vec::new(),
            other => other?,
        };
        counts.add(set, &counted, &services.summary, places);
    }
    Ok(counts)
}

/// Which flows are wanted.
#[derive(Debug, Clone, Default)]
pub struct FlowsQuery {
    /// Of this service only.
    pub service: Option<ServiceName>,
    /// Of this backend only.
    pub backend: Option<SocketAddr>,
    /// Of clients in this network only.
    pub client: Option<IpNet>,
}

/// A list that is written while it is read.
pub trait List {
    /// Comes first.
    fn begin(&mut self, hints: &[Hint]) -> io::Result<()>;
    /// One flow.
    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()>;
    /// Comes last, if the kernel did not fail.
    fn end(&mut self) -> io::Result<()>;
}

/// Writes the flows as the kernel shows them, in no order, until all were shown or writing fails.
///
/// # Errors
/// [`ObserveError::Kernel`], [`ObserveError::NoService`], [`ObserveError::Write`].
pub fn flows(
    kernel: &mut dyn Kernel,
    services: &ServicesView,
    noted: Noted,
    query: &FlowsQuery,
    list: &mut dyn List,
) -> Result<(), ObserveError> {
    let wanted = Wanted::new(query.service.as_ref(), query.backend, query.client, services)?;
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
    /// Writes there.
    pub fn new(out: W) -> Self {
        Self { out, count: 0 }
    }
}

impl<W: Write> List for JsonFlows<W> {
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

/// Who is behind what a backend sees.
///
/// # Errors
/// [`ObserveError::Kernel`], [`ObserveError::Families`].
pub fn who<'a>(
    kernel: &mut dyn Kernel,
    services: &'a ServicesView,
    noted: Noted,
    seen_as: SocketAddr,
    backend: Option<SocketAddr>,
    service: Option<&ServiceName>,
) -> Result<Who<'a>, ObserveError> {
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
        // One may have been shown twice.
        found.dedup_by_key(|flow| (flow.backend, flow.client, flow.id));
    }
    if let Some(service) = service {
        let wanted = service.find(&services.summary)?;
        found.retain(|flow| {
            let at = services.summary.position_at(flow.public);
            at.and_then(|at| services.summary.services.get(at))
                .is_some_and(|of| std::ptr::eq(of, wanted))
        });
    }
    let now = nanoseconds();
    Ok(Who {
        seen_as,
        backend,
        flows: found.iter().map(|flow| FlowView::new(flow, services, now)).collect(),
        hints: noted.hints(),
    })
}

/// Backends that are shown with an indent for each level, which makes the text of many three times as long.
const MOST_INDENTED: usize = 1000;

/// Writes a status as JSON: indented, unless it has many backends.
///
/// # Errors
/// Those of writing.
pub fn write_status(mut out: impl Write, status: &Status<'_>) -> io::Result<()> {
    let backends: usize = status.services.iter().map(|service| service.backends.len()).sum();
    if backends <= MOST_INDENTED {
        return write_json(out, status);
    }
    serde_json::to_writer(&mut out, status)?;
    writeln!(out)?;
    out.flush()
}

/// JSON for people and scripts: indented, with a line feed at its end.
///
/// # Errors
/// Those of `out`.
pub fn write_json(mut out: impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
