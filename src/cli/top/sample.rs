//! A sample of the gateway: the part of the status that the live view keeps.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::cli::status::states;
use crate::view::condition::ServiceCondition;
use crate::view::drops::Dropped;
use crate::view::flow_rates::Rates;
use crate::view::problems::title;
use crate::view::status::{BackendStatus, DrainStatus, LimitView, OfLimit, ServiceStatus, Status};
use tcpgw_core::problem::Severity;

/// Largest number of problems that are kept; more are counted.
const MOST_PROBLEMS: usize = 100;

/// State of the gateway at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TopSample {
    /// Whether no problem is an error.
    pub(super) ok: bool,
    /// Problems, the worst first; at most [`MOST_PROBLEMS`].
    pub(super) problems: Vec<ProblemLine>,
    /// Number of all problems.
    pub(super) problem_count: usize,
    /// Services in order of port and addresses.
    pub(super) services: Vec<ServiceLine>,
    /// Number of flows to backends of these services.
    pub(super) flows: u64,
    /// Time over which rates were measured, in seconds; `None`: there are no rates.
    pub(super) seconds: Option<f64>,
    /// Hints about values that conntrack does not record.
    pub(super) hints: Vec<String>,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProblemLine {
    /// Whether clients are not served, or an order is not in effect.
    pub(super) is_error: bool,
    /// Description of what is wrong and what to do.
    pub(super) message: String,
}

/// State of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceLine {
    /// Name and addresses: `my-app :20003`. No two services have the same.
    pub(super) title: Box<str>,
    /// Name, if it is known.
    pub(super) name: Option<Box<str>>,
    /// Public port of the service.
    pub(super) port: u16,
    /// Parameter that selects its flows: its name, `:PORT` or `ADDRESS:PORT`.
    pub(super) selector: Box<str>,
    /// State in one word.
    pub(super) state: ServiceCondition,
    /// Number of backends that new connections are sent to.
    pub(super) up: usize,
    /// Number of active backends.
    pub(super) active: usize,
    /// Values of the service.
    pub(super) load: TopLoad,
    /// Limit of each backend.
    pub(super) limit: Option<LimitView>,
    /// Backends in order.
    pub(super) backends: Vec<BackendLine>,
}

/// State of a backend.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BackendLine {
    /// Address of the backend.
    pub(super) backend: SocketAddr,
    /// State in one word.
    pub(super) state: String,
    /// Reason why the last probe failed, if it did.
    pub(super) reason: Option<Box<str>>,
    /// Whether it is meant to get new connections.
    pub(super) is_active: bool,
    /// Whether new connections are sent to it.
    pub(super) is_up: bool,
    /// Seconds until its flows are deleted, while it drains.
    pub(super) seconds_left: Option<u64>,
    /// Values of the backend.
    pub(super) load: TopLoad,
}

/// Values of a service or backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TopLoad {
    /// Number of flows.
    pub(super) flows: u64,
    /// Number of connections so far, which only grows.
    pub(super) connections: u64,
    /// Traffic before the limit.
    pub(super) rates: Option<Rates>,
    /// Used fraction of the limit; that of the backend that uses most of it, for a service.
    pub(super) of_limit: Option<f64>,
    /// Number of packets dropped so far.
    pub(super) dropped: u64,
    /// Number of packets dropped per second.
    pub(super) drop_rate: Option<f64>,
}

impl TopLoad {
    /// Returns the packets per second of both directions.
    pub(super) fn packets(&self) -> Option<f64> {
        self.rates
            .map(|Rates { to, from }| to.packets_per_second + from.packets_per_second)
    }

    /// Returns the bytes per second of both directions.
    pub(super) fn bytes(&self) -> Option<f64> {
        self.rates
            .map(|Rates { to, from }| to.bytes_per_second + from.bytes_per_second)
    }

    fn add_drops(&mut self, reasons: &[(&'static str, Dropped)]) {
        for (_, dropped) in reasons {
            self.dropped = self.dropped.saturating_add(dropped.packets);
            if let Some(rate) = dropped.packets_per_second {
                self.drop_rate = Some(self.drop_rate.unwrap_or(0.0) + rate);
            }
        }
    }
}

impl TopSample {
    /// Creates the sample of a status.
    pub(super) fn new(status: &Status<'_>) -> Self {
        let mut drains: BTreeMap<(u16, SocketAddr), &DrainStatus> = BTreeMap::new();
        for drain in status.drains.iter().flatten() {
            drains.insert((drain.port, drain.backend), drain);
        }
        let problems = status.problems.iter().take(MOST_PROBLEMS);
        Self {
            ok: status.ok,
            problems: problems
                .map(|problem| ProblemLine {
                    is_error: problem.severity == Severity::Error,
                    message: problem.message.clone(),
                })
                .collect(),
            problem_count: status.problems.len(),
            services: status
                .services
                .iter()
                .map(|service| ServiceLine::new(service, &drains))
                .collect(),
            flows: status.flows.total(),
            seconds: status.sample.map(|sample| sample.seconds),
            hints: status.hints.iter().map(ToString::to_string).collect(),
        }
    }

    /// Returns the number of backends.
    pub(super) fn backend_count(&self) -> usize {
        self.services.iter().map(|service| service.backends.len()).sum()
    }

    /// Returns the service with this title.
    pub(super) fn service(&self, title: &str) -> Option<&ServiceLine> {
        self.services.iter().find(|service| &*service.title == title)
    }
}

impl ServiceLine {
    fn new(service: &ServiceStatus<'_>, drains: &BTreeMap<(u16, SocketAddr), &DrainStatus>) -> Self {
        let backends: Vec<BackendLine> = service
            .backends
            .iter()
            .map(|backend| BackendLine::new(backend, drains.get(&(service.port, backend.backend)).copied()))
            .collect();
        let rates = backends.iter().map(|backend| backend.load.rates);
        let mut load = TopLoad {
            flows: service.flows.total(),
            connections: service.totals.connections,
            rates: rates.reduce(|sum, rates| Some(sum?.and(rates?))).flatten(),
            of_limit: backends
                .iter()
                .filter_map(|backend| backend.load.of_limit)
                .reduce(f64::max),
            ..TopLoad::default()
        };
        load.add_drops(&service.drops.reasons());
        for backend in &backends {
            load.dropped = load.dropped.saturating_add(backend.load.dropped);
            load.drop_rate = match (load.drop_rate, backend.load.drop_rate) {
                (Some(sum), Some(rate)) => Some(sum + rate),
                (one, other) => one.or(other),
            };
        }
        let selector: Cow<'_, str> = match (&service.name, service.addresses.first()) {
            (Some(name), _) => name.as_ref().into(),
            (None, Some(address)) => SocketAddr::new(*address, service.port).to_string().into(),
            (None, None) => format!(":{}", service.port).into(),
        };
        let active = || backends.iter().filter(|backend| backend.is_active);
        Self {
            title: title(service).into(),
            name: service.name.as_deref().map(Into::into),
            port: service.port,
            selector: selector.into(),
            state: service.state,
            up: active().filter(|backend| backend.is_up).count(),
            active: active().count(),
            load,
            limit: service.limit,
            backends,
        }
    }

    /// Returns whether its new connections are dropped for a time.
    pub(super) fn is_paused(&self) -> bool {
        self.state == ServiceCondition::Paused
    }
}

impl BackendLine {
    fn new(backend: &BackendStatus, drain: Option<&DrainStatus>) -> Self {
        let mut load = TopLoad {
            flows: backend.flows.total(),
            connections: backend.totals.connections,
            rates: backend.rates,
            of_limit: backend.of_limit.as_ref().map(OfLimit::most),
            ..TopLoad::default()
        };
        load.add_drops(&backend.drops.reasons());
        Self {
            backend: backend.backend,
            state: states::of_backend(backend),
            reason: backend.health_reason.as_deref().map(Into::into),
            is_active: backend.weight.is_some(),
            is_up: states::is_up(backend),
            seconds_left: drain.and_then(|drain| drain.seconds_left),
            load,
        }
    }
}
