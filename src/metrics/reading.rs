//! Everything that metrics show, read at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::own::OwnMetrics;
use crate::addon::id::PlanName;
use crate::traffic::Totals;
use crate::view::condition::ServiceCondition;
use crate::view::facts::StatusFacts;
use crate::view::snapshot::DaemonView;
use crate::view::status::{IN_BALANCE, LimitView, ServiceStatus, SourcePorts};
use crate::view::tally::FlowCounts;
use crate::view::totals_rates::TotalsChange;
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::summary::FlowVerdict;

/// Everything that metrics show, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Version of the program.
    pub version: &'static str,
    /// Whether the kernel holds the desired state.
    pub in_sync: bool,
    /// Number of draining backends.
    pub draining: usize,
    /// Time of the last change of the kernel, in seconds since the Unix epoch.
    pub last_commit: Option<u64>,
    /// Numbers of problems.
    pub problems: BTreeMap<(Severity, ProblemKind), usize>,
    /// Problems, the worst first; of many of one kind only the first ones.
    pub listed_problems: Vec<Problem>,
    /// The daemon itself.
    pub node: NodeValues,
    /// Mark of the gateway's flows.
    pub mark: FlowMark,
    /// Counters of the daemon.
    pub own: OwnMetrics,
    /// Values of the kernel; `None`: it could not be read.
    pub kernel: Option<KernelSample>,
    /// Totals of services; `None`: they could not be read.
    pub totals: Option<TotalsSample>,
    /// Counters of the reads of the kernel for metrics.
    pub reads: KernelReads,
    /// Number of backends of all services.
    pub backends: usize,
    /// Services in order of port and addresses.
    pub services: Vec<ServiceSample>,
}

/// Values of the daemon itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeValues {
    /// Process id.
    pub pid: u32,
    /// Time of its start, in seconds since the Unix epoch.
    pub started: u64,
    /// Whether the table is owned by this process.
    pub owns_table: bool,
    /// Whether the gateway is torn down, so that nothing is served.
    pub torn_down: bool,
    /// Reason why changes through the API are refused; `None`: they are accepted.
    pub store: Option<Box<str>>,
}

impl From<&DaemonView> for NodeValues {
    fn from(daemon: &DaemonView) -> Self {
        Self {
            pid: daemon.pid,
            started: daemon.started,
            owns_table: daemon.owns_table,
            torn_down: daemon.torn_down,
            store: daemon.store.as_deref().map(Into::into),
        }
    }
}

/// Values of the kernel that belong to no service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelSample {
    /// Read of these values, and of the services' flows.
    pub read: KernelRead,
    /// Age of the read, if it is that of an earlier reading.
    pub age: Option<Duration>,
    /// Largest fraction of its source ports that a gateway address uses towards one backend.
    pub source_ports_used: f64,
}

/// A read of the kernel that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelRead {
    /// Time at which the read ended.
    pub ended: Instant,
    /// The same time, since the Unix epoch.
    pub at: Duration,
    /// Entries of conntrack, and their maximum; `None`: conntrack is not loaded.
    pub conntrack: Option<(u64, u64)>,
}

/// Totals of services.
#[derive(Debug, Clone)]
pub struct TotalsSample {
    /// The totals.
    pub totals: Arc<Totals>,
    /// Time of the totals, since the Unix epoch; `None`: it is not known.
    pub at: Option<Duration>,
    /// Whether packets and bytes are counted.
    pub counts_bytes: bool,
    /// Change since the sample before; `None`: there was none shortly before.
    pub change: Option<TotalsChange>,
}

impl TotalsSample {
    /// Creates a sample. `is_accounted`: whether conntrack counts packets and bytes.
    pub fn new(totals: Arc<Totals>, is_accounted: bool) -> Self {
        Self {
            at: None,
            counts_bytes: is_accounted && totals.counts_flows,
            totals,
            change: None,
        }
    }

    /// Returns the sample with its time. `now` is the present time, `since_1970` the same since the Unix epoch.
    #[must_use]
    pub fn dated(self, now: Instant, since_1970: Duration) -> Self {
        let age = self.totals.at.map(|at| now.saturating_duration_since(at));
        Self {
            at: age.map(|age| since_1970.saturating_sub(age)),
            ..self
        }
    }

    /// Returns the sample with its change since an earlier one.
    #[must_use]
    pub fn after(self, earlier: Option<&Self>) -> Self {
        let change = match earlier {
            // Totals that are fresh enough are given out again.
            Some(earlier) if earlier.totals.at == self.totals.at => earlier.change.clone(),
            Some(earlier) => TotalsChange::new(Arc::clone(&earlier.totals), Arc::clone(&self.totals)),
            None => None,
        };
        Self { change, ..self }
    }
}

/// Reads of the kernel for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReads {
    /// Number of reads that have begun.
    pub begun: u64,
    /// Number of reads that failed.
    pub failed: u64,
    /// Duration of the last one.
    #[serde(skip)]
    pub took: Duration,
}

/// Values of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSample {
    /// Name, or `:PORT` if the name is not known.
    pub name: Box<str>,
    /// Public port of the service.
    pub port: u16,
    /// Addresses that it listens on; empty for every local address.
    pub addresses: Vec<IpAddr>,
    /// Provider, if there is one.
    pub provider: Box<str>,
    /// Plan of the add-on; empty for other services.
    pub plan: Box<str>,
    /// Limit of each backend.
    pub limit: Option<LimitView>,
    /// State of the service as a whole.
    pub condition: ServiceCondition,
    /// Number of unanswered handshakes.
    pub unanswered: u64,
    /// Flows; 0 if the kernel could not be read.
    pub flows: FlowCounts,
    /// Backends in order.
    pub backends: Vec<BackendValues>,
}

/// Values of a backend in a service.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendValues {
    /// Address of the backend.
    pub backend: SocketAddr,
    /// State: one of [`BackendValues::STATES`].
    pub state: &'static str,
    /// Number of its flows; 0 if the kernel could not be read.
    pub flows: u64,
}

impl BackendValues {
    /// States of a backend.
    pub const STATES: [&'static str; 5] = ["healthy", "unhealthy", "unknown", "draining", "waiting"];
}

impl Reading {
    /// Returns whether another reading soon will show rates, which this one cannot.
    pub fn is_measuring(&self) -> bool {
        self.totals.as_ref().is_some_and(|totals| totals.change.is_none())
    }

    /// Creates a reading from facts. `read`: the read that they have values of; `None`: the kernel was not read.
    pub fn new(
        facts: &StatusFacts<'_>,
        read: Option<KernelRead>,
        plans: &BTreeMap<Box<str>, PlanName>,
        own: OwnMetrics,
    ) -> Self {
        let drains = facts.daemon.map_or(&[][..], |daemon| &daemon.drains);
        let waiting = drains.iter().filter(|drain| drain.waits_for == "replacement");
        let waiting: BTreeSet<_> = waiting.map(|drain| (drain.port, drain.backend)).collect();
        let mut services = Vec::with_capacity(facts.number_of_services());
        let mut used = 0.0;
        let problems = facts.each_service(|of| {
            let ports = of.backends.iter().flat_map(|backend| &backend.source_ports);
            used = ports.map(used_part).fold(used, f64::max);
            services.push(service(&of, plans, &waiting));
        });
        let daemon = facts.daemon.map(|daemon| &daemon.daemon);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            in_sync: daemon.is_some_and(|daemon| daemon.in_sync),
            mark: FlowMark::default(),
            draining: drains.len(),
            last_commit: facts.services.applied.as_ref().map(|applied| applied.at),
            problems: problems.counts,
            listed_problems: problems.listed,
            node: daemon.map(NodeValues::from).unwrap_or_default(),
            own,
            kernel: read.map(|read| KernelSample {
                read,
                age: None,
                source_ports_used: used,
            }),
            totals: None,
            reads: KernelReads::default(),
            backends: services.iter().map(|service| service.backends.len()).sum(),
            services,
        }
    }

    /// Returns the reading with the values of the kernel of an earlier one. Services and backends that have come since have no flows.
    #[must_use]
    pub fn with_kernel_of(mut self, earlier: &Self, now: Instant) -> Self {
        let place = |of: &ServiceSample| (of.name.clone(), of.port, of.addresses.clone());
        let known: BTreeMap<_, &ServiceSample> = earlier.services.iter().map(|of| (place(of), of)).collect();
        for service in &mut self.services {
            let Some(known) = known.get(&place(service)) else {
                continue;
            };
            service.flows = known.flows;
            let flows: BTreeMap<SocketAddr, u64> = known.backends.iter().map(|of| (of.backend, of.flows)).collect();
            for backend in &mut service.backends {
                backend.flows = flows.get(&backend.backend).copied().unwrap_or(0);
            }
        }
        self.kernel = earlier.kernel.map(|kernel| KernelSample {
            age: Some(now.saturating_duration_since(kernel.read.ended)),
            ..kernel
        });
        self
    }
}

#[expect(clippy::cast_precision_loss, reason = "a source port is a number of 16 bits")]
fn used_part(ports: &SourcePorts) -> f64 {
    ports.used as f64 / ports.of.max(1) as f64
}

/// Returns the state of a backend that is to leave when another one answers. One that does not answer itself serves nobody.
fn waiting_state(health: Option<&str>) -> &'static str {
    if health.is_none_or(|health| IN_BALANCE.contains(&health)) {
        "waiting"
    } else {
        "unhealthy"
    }
}

fn service(
    of: &ServiceStatus<'_>,
    plans: &BTreeMap<Box<str>, PlanName>,
    waiting: &BTreeSet<(u16, SocketAddr)>,
) -> ServiceSample {
    let name = of.name.as_deref();
    let plan = name.and_then(|name| plans.get(name));
    let backends = of.backends.iter().map(|backend| BackendValues {
        backend: backend.backend,
        state: match (backend.state, backend.health.as_deref()) {
            (_, health) if waiting.contains(&(of.port, backend.backend)) => waiting_state(health),
            (FlowVerdict::Draining | FlowVerdict::Stale, _) => "draining",
            (FlowVerdict::Active, Some(UNKNOWN)) if backend.health_reason.is_none() => "unknown",
            (FlowVerdict::Active, Some(health)) if !IN_BALANCE.contains(&health) => "unhealthy",
            (FlowVerdict::Active, _) => "healthy",
        },
        flows: backend.flows.total(),
    });
    ServiceSample {
        name: name.map_or_else(|| format!(":{}", of.port).into(), Into::into),
        port: of.port,
        addresses: of.addresses.iter().copied().collect(),
        provider: of.provider.as_deref().unwrap_or_default().into(),
        plan: plan.map(ToString::to_string).unwrap_or_default().into(),
        limit: of.limit,
        condition: of.state,
        unanswered: of.unanswered.unwrap_or(0),
        flows: of.flows,
        backends: backends.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_to_leave_stands_in_only_while_it_answers() {
        for health in [None, Some("healthy"), Some("failing"), Some("presumed")] {
            assert_eq!(waiting_state(health), "waiting", "{health:?}");
        }
        for health in ["unhealthy", "rising"] {
            assert_eq!(waiting_state(Some(health)), "unhealthy", "{health}");
        }
    }
}
