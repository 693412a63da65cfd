//! State of the services.

mod limit;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize, Serializer};

pub use self::limit::{LimitView, OfLimit};
use super::condition::ServiceCondition;
use super::drops::{BackendDrops, ServiceDrops};
use super::flow_rates::Rates;
use super::tally::{FlowCounts, StrayPair};
use super::totals::TotalsView;
use super::{Hint, TableView};
use crate::addon::ServiceState;
use crate::record::ApplyNote;
use crate::view::snapshot::{DaemonView, DrainView};
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::summary::FlowVerdict;

/// Output of `tcpgw status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// Whether no problem is an error.
    pub ok: bool,
    /// Problems, the worst first.
    pub problems: Vec<Problem>,
    /// Numbers of problems, also of those that are left out of `problems`.
    #[serde(skip)]
    pub counts: BTreeMap<(Severity, ProblemKind), usize>,
    /// Services in order of port and addresses.
    pub services: Vec<ServiceStatus<'a>>,
    /// Flows to backends of these services.
    pub flows: FlowCounts,
    /// Flows that should have been deleted.
    pub stale: StrayFlowsView,
    /// Flows of removed services, to backends that drain.
    pub leaving: StrayFlowsView,
    /// Number of packets dropped for removed services and backends.
    pub other_drops: u64,
    /// Samples between which rates were measured.
    pub sample: Option<Sampled>,
    /// The table.
    pub table: Option<Cow<'a, TableView>>,
    /// Last apply that changed the table.
    #[serde(serialize_with = "when_and_whence")]
    pub applied: Option<Cow<'a, ApplyNote>>,
    /// Hints about data that conntrack does not record.
    pub hints: Vec<Hint>,
    /// Draining backends; `None` without a daemon.
    pub drains: Option<Vec<DrainStatus>>,
    /// State of the daemon, if it was queried.
    #[serde(skip_deserializing)]
    pub daemon: Option<&'a DaemonView>,
}

/// Writes the time and the origin of an apply, without its other fields.
#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
fn when_and_whence<S: Serializer>(applied: &Option<Cow<'_, ApplyNote>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        at: u64,
        origin: &'a str,
    }
    let shown = applied.as_deref().map(|applied| Shown {
        at: applied.at,
        origin: applied.shown_origin(),
    });
    shown.serialize(serializer)
}

/// Interval over which rates were measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Length in seconds.
    pub seconds: f64,
    /// Number of flows that conntrack does not count: they began before it counted.
    pub flows_not_counted: u64,
}

/// Flows whose backend does not belong to the service that they came through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrayFlowsView {
    /// Number of flows.
    pub flows: u64,
    /// Pairs of port and backend; at most 1,000.
    pub pairs: Vec<StrayPair>,
}

/// State of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus<'a> {
    /// Name, if it is known.
    pub name: Option<Cow<'a, str>>,
    /// Public port of the service.
    pub port: u16,
    /// Addresses that it listens on; empty for every local address.
    pub addresses: Cow<'a, BTreeSet<IpAddr>>,
    /// Provider: `file`, `api`, `docker`, or `orphan` for none any more. Without a daemon it comes from the record; `None`
    /// without a record.
    pub provider: Option<Cow<'static, str>>,
    /// State of the service as a whole.
    pub state: ServiceCondition,
    /// Whether it has an active backend that clients can reach, and that answers if it is probed.
    pub healthy: bool,
    /// Whether it was removed, and stays until its backends have drained.
    pub leaving: bool,
    /// State of a service of the add-on: `active`, `waiting` (no backend has been registered) or `suspended`; `None`
    /// for all others.
    pub addon: Option<ServiceState>,
    /// Method by which new connections are distributed.
    pub balance: Cow<'static, str>,
    /// Limit of what each backend may receive and send.
    pub limit: Option<LimitView>,
    /// Flows of the service.
    pub flows: FlowCounts,
    /// Number of handshakes that healthy backends left unanswered for more than 3 s, at the daemon's last observation;
    /// `None` without a daemon.
    pub unanswered: Option<u64>,
    /// Sums over its backends.
    pub totals: TotalsView,
    /// Drops by reason.
    pub drops: ServiceDrops,
    /// Backends in order.
    pub backends: Vec<BackendStatus>,
    #[serde(skip)]
    pub(super) resets_when_empty: Option<bool>,
    /// Whether it has an active backend of a family that it listens on.
    #[serde(skip)]
    pub(super) reachable: bool,
}

/// State of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Address of the backend.
    pub backend: SocketAddr,
    /// State in the service: active or draining.
    pub state: FlowVerdict,
    /// Weight for new connections; `None` while it drains.
    pub weight: Option<u16>,
    /// State by the daemon's probes, see [`HealthView::state`](crate::view::snapshot::HealthView::state); `None`: it
    /// is not probed.
    pub health: Option<Cow<'static, str>>,
    /// Reason why the last probe failed, if it did.
    pub health_reason: Option<String>,
    /// Flows of the backend.
    pub flows: FlowCounts,
    /// Traffic before the limit.
    pub rates: Option<Rates>,
    /// Traffic as a fraction of the limit: above 1 the rest is dropped.
    pub of_limit: Option<OfLimit>,
    /// Sums of the backend in this service.
    pub totals: TotalsView,
    /// Drops by reason.
    pub drops: BackendDrops,
    /// Source ports in use, by gateway address; empty if it sees the clients' addresses.
    pub source_ports: Vec<SourcePorts>,
}

/// Source ports of one gateway address towards one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// Address of the gateway.
    pub address: IpAddr,
    /// Number of ports in use.
    pub used: u64,
    /// Number of ports that exist.
    pub of: u64,
}

/// A draining backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Name of the service.
    pub service: Option<String>,
    /// Public port of the service.
    pub port: u16,
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Number of its flows at the last count.
    pub flows: Option<u64>,
    /// Seconds until they are deleted.
    pub seconds_left: Option<u64>,
    /// Reason why it is still there, see [`DrainView::waits_for`].
    pub waits_for: Cow<'static, str>,
}

impl From<&DrainView> for DrainStatus {
    fn from(drain: &DrainView) -> Self {
        Self {
            service: drain.service.clone(),
            port: drain.port,
            backend: drain.backend,
            flows: drain.flows,
            seconds_left: drain.seconds_left,
            waits_for: drain.waits_for.into(),
        }
    }
}

impl ServiceStatus<'_> {
    /// Returns whether it has no backends on purpose.
    pub fn is_idle(&self) -> bool {
        self.leaving || self.addon.is_some_and(ServiceState::is_idle)
    }

    /// Returns whether it has no active backend.
    pub fn is_empty(&self) -> bool {
        self.backends.iter().all(|backend| backend.weight.is_none())
    }
}

/// Number of source ports for each backend and gateway address: 1024 to 65535 (`nf_nat_core.c`, for clients' ports
/// from 1024 on).
pub const SOURCE_PORTS: u64 = 64_512;

/// Health states of backends that get new connections.
pub const IN_BALANCE: [&str; 3] = ["healthy", "failing", "presumed"];
