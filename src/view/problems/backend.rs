//! Problems of a backend.

use std::net::SocketAddr;

use super::subject::{of, title};
use crate::view::drops::Dropped;
use crate::view::status::{BackendStatus, ServiceStatus, SourcePorts};
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_core::words::count;

pub(super) fn unhealthy(service: &ServiceStatus<'_>, backend: &BackendStatus) -> Option<Problem> {
    let state = backend.health.as_deref()?;
    if state != "unhealthy" || backend.weight.is_none() {
        return None;
    }
    let why = backend.health_reason.as_deref().unwrap_or("no reason given");
    let message = format!("{}: {} does not answer probes ({why})", title(service), backend.backend);
    let problem = Problem::new(ProblemKind::BackendUnhealthy, message);
    Some(of(service, Some(backend.backend), problem))
}

pub(super) fn is_filling(ports: &SourcePorts) -> bool {
    ports.used * 10 >= ports.of * 8
}

pub(super) fn source_ports(service: &ServiceStatus<'_>, backend: &BackendStatus, ports: &SourcePorts) -> Problem {
    let message = format!(
        "{}: {} of {} source ports from {} to {} are in use; when none is left, new connections to it fail: add backends, \
         or end idle connections",
        title(service),
        ports.used,
        ports.of,
        ports.address,
        backend.backend
    );
    of(
        service,
        Some(backend.backend),
        Problem::new(ProblemKind::SourcePorts, message),
    )
}

pub(super) fn over_limit(service: &ServiceStatus<'_>, backend: &BackendStatus) -> Option<Problem> {
    let rate = |dropped: Dropped| dropped.packets_per_second.unwrap_or_default();
    let rates = [rate(backend.drops.over_limit_to), rate(backend.drops.over_limit_from)];
    let problem = limit_reached(&title(service), backend.backend, rates)?;
    Some(of(service, Some(backend.backend), problem))
}

/// Returns the problem of a backend of which packets over the limit are dropped. `rates`: packets per second to it and from it.
pub fn limit_reached(title: &str, backend: SocketAddr, [to, from]: [f64; 2]) -> Option<Problem> {
    let mut ways = Vec::new();
    for (way, rate) in [("to", to), ("from", from)] {
        if rate > 0.0 {
            ways.push(format!("{}/s {way}", count(rate, "packet")));
        }
    }
    let message = format!(
        "{title}: {} {backend} are over the limit and dropped",
        ways.join(" and ")
    );
    (!ways.is_empty()).then(|| Problem::new(ProblemKind::OverLimit, message))
}
