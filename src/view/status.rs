//! How the services are.

mod facts;
mod limit;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize, Serializer};

pub use self::facts::{Facts, IN_BALANCE, SOURCE_PORTS};
pub use self::limit::{LimitView, OfLimit};
use super::drops::{BackendDrops, ServiceDrops};
use super::problems::{self, Problem};
use super::rates::Rates;
use super::tally::{FlowCounts, Stranger};
use super::{Hint, Table};
use crate::addon::ServiceState;
use crate::record::Applied;
use crate::view::snapshot::{DaemonView, DrainView};
use tcpgw_core::problem::{MOST_OF_KIND, few};
use tcpgw_core::summary::FlowVerdict;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// Whether nothing is unhealthy.
    pub ok: bool,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// In order of port and addresses.
    pub services: Vec<ServiceStatus<'a>>,
    /// Flows to backends of these services.
    pub flows: FlowCounts,
    /// Flows that should have been flushed.
    pub stale: StrangersView,
    /// Flows of services that are gone, to backends that are leaving.
    pub leaving: StrangersView,
    /// Packets that were dropped for services and backends that are gone.
    pub other_drops: u64,
    /// Between which looks rates were taken.
    pub sample: Option<Sampled>,
    /// The table.
    pub table: Option<Cow<'a, Table>>,
    /// The last apply that changed it.
    #[serde(serialize_with = "when_and_whence")]
    pub applied: Option<Cow<'a, Applied>>,
    /// What conntrack does not note.
    pub hints: Vec<Hint>,
    /// The backends that leave; `None` without a daemon.
    pub drains: Option<Vec<Drain>>,
    /// The daemon, if it was asked.
    #[serde(skip_deserializing)]
    pub daemon: Option<&'a DaemonView>,
}

/// Writes when an apply was and where its state came from. What else the record keeps of it is of no use to readers.
#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
fn when_and_whence<S: Serializer>(applied: &Option<Cow<'_, Applied>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        at: u64,
        origin: &'a str,
    }
    let shown = applied
        .as_deref()
        .map(|Applied { at, origin, .. }| Shown { at: *at, origin });
    shown.serialize(serializer)
}

/// Two looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Seconds between them.
    pub seconds: f64,
    /// Flows that conntrack does not count: they began before it was told to.
    pub flows_not_counted: u64,
}

/// Flows whose backend is not one of the service that they came through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrangersView {
    /// How many.
    pub flows: u64,
    /// Who they are; at most 1,000.
    pub pairs: Vec<Stranger>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus<'a> {
    /// Its name, where it is known.
    pub name: Option<Cow<'a, str>>,
    /// Its public port.
    pub port: u16,
    /// Where it listens; empty for every local address.
    pub addresses: Cow<'a, BTreeSet<IpAddr>>,
    /// Which provider it comes from: `file`, `api`, or `orphan` for none any more. Without a daemon this is what the record
    /// says; `None` without a record.
    pub provider: Option<Cow<'static, str>>,
    /// Whether it has an active backend that can be reached, and that answers where it is probed.
    pub healthy: bool,
    /// Whether it was removed, and is only here until its backends have drained.
    pub leaving: bool,
    /// How it is if it belongs to a resource of the add-on: `active`, `waiting` (no backend has been registered) or `suspended`;
    /// `None` for all others.
    pub addon: Option<ServiceState>,
    /// How new connections are spread.
    pub balance: Cow<'static, str>,
    /// What each backend may receive and send.
    pub limit: Option<LimitView>,
    /// Its flows.
    pub flows: FlowCounts,
    /// Handshakes of clients that backends which answer probes have left unanswered for more than 3 s, at the daemon's last
    /// look; `None` without a daemon.
    pub unanswered: Option<u64>,
    /// What got no further, by reason.
    pub drops: ServiceDrops,
    /// Its backends, in order.
    pub backends: Vec<BackendStatus>,
    #[serde(skip)]
    pub(super) resets_when_empty: Option<bool>,
    /// Whether it has an active backend of a family that it listens on.
    #[serde(skip)]
    pub(super) reachable: bool,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its endpoint.
    pub backend: SocketAddr,
    /// Active or draining.
    pub state: FlowVerdict,
    /// Its share of new connections; `None` while it drains.
    pub weight: Option<u16>,
    /// What the daemon's probes found, see [`HealthView::state`](crate::view::snapshot::HealthView::state); `None` where nobody
    /// probes.
    pub health: Option<Cow<'static, str>>,
    /// Why the last probe failed, if it did.
    pub health_reason: Option<String>,
    /// Its flows.
    pub flows: FlowCounts,
    /// Traffic, before the limit took its share.
    pub rates: Option<Rates>,
    /// That traffic as a part of the limit: above 1 the rest is dropped.
    pub of_limit: Option<OfLimit>,
    /// What got no further, by reason.
    pub drops: BackendDrops,
    /// Source ports in use, by gateway address; none where it sees its clients.
    pub source_ports: Vec<SourcePorts>,
}

/// Source ports of one gateway address towards one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// The gateway's address.
    pub address: IpAddr,
    /// In use.
    pub used: u64,
    /// There are.
    pub of: u64,
}

/// A backend that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The service's name.
    pub service: Option<String>,
    /// Its public port.
    pub port: u16,
    /// The backend.
    pub backend: SocketAddr,
    /// Flows that are left, of the last count.
    pub flows: Option<u64>,
    /// Seconds until they are flushed.
    pub seconds_left: Option<u64>,
    /// See [`DrainView::waits_for`].
    pub waits_for: Cow<'static, str>,
}

impl From<&DrainView> for Drain {
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

impl<'a> Status<'a> {
    /// Out of what was found.
    pub fn new(facts: &Facts<'a>) -> Self {
        let all = facts.services.summary.services.iter().enumerate();
        let wanted = all.filter(|(at, _)| facts.only.is_none_or(|only| only == *at));
        let services: Vec<_> = wanted.map(|(at, service)| facts.service(at, service)).collect();
        let strangers = |of: &super::tally::Strangers| StrangersView {
            flows: of.total,
            pairs: of.pairs(),
        };
        let mut status = Self {
            ok: true,
            problems: Vec::new(),
            flows: services
                .iter()
                .fold(FlowCounts::default(), |sum, service| sum.and(service.flows)),
            services,
            stale: strangers(&facts.tally.stale),
            leaving: strangers(&facts.tally.leaving),
            other_drops: facts.drops.others,
            sample: facts.earlier.as_ref().map(|_| Sampled {
                seconds: (facts.time.as_secs_f64() * 1000.0).round() / 1000.0,
                flows_not_counted: facts.traffic.as_ref().map_or(0, |traffic| traffic.uncounted),
            }),
            table: facts.services.table.as_ref().map(Cow::Borrowed),
            applied: facts.services.applied.as_ref().map(Cow::Borrowed),
            hints: facts.noted.traffic_hint().into_iter().collect(),
            drains: facts
                .daemon
                .map(|daemon| daemon.drains.iter().map(Drain::from).collect()),
            daemon: facts.daemon.map(|daemon| &daemon.daemon),
        };
        status.problems = problems::find(
            &status,
            facts.services,
            facts.found,
            facts.daemon.map(|daemon| &daemon.apps),
        );
        status.ok = tcpgw_core::problem::is_ok(&status.problems);
        if status.problems.len() > MOST_OF_KIND {
            let told = few(&status.problems).into_iter();
            status.problems = told.map(Cow::into_owned).collect();
        }
        status
    }
}

impl ServiceStatus<'_> {
    /// Whether it serves nobody on purpose.
    pub fn is_idle(&self) -> bool {
        self.leaving || self.addon.is_some_and(ServiceState::is_idle)
    }

    /// Whether it has no active backend at all.
    pub fn is_empty(&self) -> bool {
        self.backends.iter().all(|backend| backend.weight.is_none())
    }
}
