//! How the services are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::drops::{BackendDrops, Counts, ServiceDrops};
use super::problems::{self, Problem};
use super::rates::{Rate, Rates, Second};
use super::tally::{FlowCounts, Places, Stranger, Tally};
use super::{Hint, Noted, Services, Table};
use crate::addon::ServiceState;
use crate::addon::id::ResourceId;
use crate::record::Applied;
use crate::view::snapshot::{DaemonView, DrainView, Snapshot};
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::model::{Limit, LimitDirection};
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{MOST_OF_KIND, few};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{FlowVerdict, ServiceSummary, balance_name};

/// Source ports for each backend and gateway address: 1024 to 65535 (`nf_nat_core.c`, for clients' ports from 1024 on).
pub const SOURCE_PORTS: u64 = 64_512;

/// What probes say of a backend that gets new connections.
pub const IN_BALANCE: [&str; 3] = ["healthy", "failing", "presumed"];

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

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Packets per second.
    pub packets_per_second: u32,
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Packets at once after a pause.
    pub burst: u32,
    /// Whether both directions share it.
    pub shared: bool,
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

/// How much of a limit is used; 1 is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OfLimit {
    /// To the backend.
    pub to: Option<f64>,
    /// From it.
    pub from: Option<f64>,
    /// Both, of a shared limit.
    pub shared: Option<f64>,
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

/// What was found out.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What the gateway is meant to do.
    pub services: &'a Services,
    /// Where the backends are.
    pub places: &'a Places,
    /// The flows.
    pub tally: Tally<'a>,
    /// The traffic, where conntrack counts it.
    pub traffic: Option<Second>,
    /// The counters.
    pub drops: Counts,
    /// The counters at the first look.
    pub earlier: Option<Counts>,
    /// The time between the begins of both looks.
    pub time: Duration,
    /// What conntrack notes.
    pub noted: Noted,
    /// The one service that is asked for.
    pub only: Option<usize>,
    /// What a daemon knows.
    pub daemon: Option<&'a Snapshot>,
    /// What was found besides, where no daemon was asked.
    pub found: &'a [Problem],
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

impl Facts<'_> {
    fn earlier(&self) -> Option<(&Counts, Duration)> {
        self.earlier.as_ref().map(|earlier| (earlier, self.time))
    }

    fn service<'s>(&self, at: usize, service: &'s ServiceSummary) -> ServiceStatus<'s> {
        let limit = service.settings.limit.map(|(pps, burst, mtu, shared)| LimitView {
            packets_per_second: pps,
            bytes_per_second: u64::from(pps) * u64::from(mtu),
            burst,
            shared,
        });
        let backends: Vec<_> = self
            .places
            .of_service(at)
            .map(|(place, backend)| self.backend(place, backend, service, limit))
            .collect();
        let reachable = || {
            let active = service.active.keys();
            active.filter(|backend| service.listens_in(Family::of(backend.ip())))
        };
        ServiceStatus {
            name: service.name.as_deref().map(Cow::Borrowed),
            port: service.port,
            addresses: Cow::Borrowed(&service.addresses),
            provider: service
                .name
                .as_deref()
                .and_then(|name| self.provider(name))
                .map(Cow::Borrowed),
            healthy: reachable().any(|backend| self.is_well(service, *backend)),
            leaving: service.name.as_deref().is_some_and(|name| self.is_leaving(name)),
            addon: service.name.as_deref().and_then(|name| self.addon(name, service)),
            balance: balance_name(service.settings.balance).into(),
            limit,
            flows: backends
                .iter()
                .fold(FlowCounts::default(), |sum, backend| sum.and(backend.flows)),
            unanswered: self.daemon.map(|daemon| {
                let of_name = service.name.as_deref().and_then(|name| daemon.unanswered.get(name));
                of_name.copied().unwrap_or(0)
            }),
            drops: self.drops.of_service(at, self.earlier()),
            backends,
            resets_when_empty: service.settings.empty_reset,
            reachable: reachable().next().is_some(),
        }
    }

    /// Without a daemon a name and no backends have to do: whether it is suspended is not known.
    fn addon(&self, name: &str, service: &ServiceSummary) -> Option<ServiceState> {
        if let Some(daemon) = self.daemon {
            return daemon.addon.get(name).copied();
        }
        ResourceId::of_service(name).filter(|_| self.services.owner(name) == Some(Owner::Api))?;
        let is_empty = service.active.is_empty() && service.draining.is_empty();
        Some(if is_empty {
            ServiceState::Waiting
        } else {
            ServiceState::Active
        })
    }

    fn provider(&self, name: &str) -> Option<&'static str> {
        match self.daemon {
            Some(daemon) => daemon.providers.get(name).copied(),
            None => self
                .services
                .owner(name)
                .filter(|owner| *owner != Owner::Removed)
                .map(Owner::name),
        }
    }

    fn is_leaving(&self, name: &str) -> bool {
        match self.daemon {
            Some(daemon) => daemon.leaving.contains(name),
            None => self.services.owner(name) == Some(Owner::Removed),
        }
    }

    /// Whether a backend answers probes, or there are none.
    fn is_well(&self, service: &ServiceSummary, backend: SocketAddr) -> bool {
        self.health(service, backend)
            .is_none_or(|state| IN_BALANCE.contains(&state))
    }

    /// What probes found of a backend, as one of that service; `None` where nobody probes.
    fn health(&self, service: &ServiceSummary, backend: SocketAddr) -> Option<&'static str> {
        let daemon = self.daemon?;
        let state = daemon.health.get(&backend)?.state;
        let member = || Some((service.name.clone()?, backend));
        let is_unproven =
            !daemon.unproven.is_empty() && member().is_some_and(|member| daemon.unproven.contains(&member));
        Some(if is_unproven { UNKNOWN } else { state })
    }

    fn backend(
        &self,
        place: usize,
        backend: SocketAddr,
        service: &ServiceSummary,
        limit: Option<LimitView>,
    ) -> BackendStatus {
        let flows = self.tally.backends[place].flows;
        let weight = service.active.get(&backend).copied();
        let found = self.daemon.and_then(|daemon| daemon.health.get(&backend));
        let rates = self.traffic.as_ref().map(|traffic| traffic.rates(place, self.time));
        // Buckets and source ports are the endpoint's, whatever service its flows came through.
        let together = |traffic: &Second| {
            let of_each = self
                .places
                .of_backend(backend)
                .map(|place| traffic.rates(place, self.time));
            of_each.fold(Rates::default(), Rates::and)
        };
        let rates_of_all = self.traffic.as_ref().map(together);
        BackendStatus {
            backend,
            state: if weight.is_some() {
                FlowVerdict::Active
            } else {
                FlowVerdict::Draining
            },
            weight,
            health: self.health(service, backend).map(Cow::Borrowed),
            health_reason: found.and_then(|health| health.reason.clone()),
            flows,
            rates,
            of_limit: rates_of_all.zip(limit).map(|(rates, limit)| OfLimit::new(rates, limit)),
            drops: self.drops.of_backend(place, self.earlier()),
            source_ports: self.source_ports(backend),
        }
    }

    /// Those of which some are used, in the order in which they were met.
    fn source_ports(&self, backend: SocketAddr) -> Vec<SourcePorts> {
        let mut all: Vec<SourcePorts> = Vec::new();
        let places = self.places.of_backend(backend);
        for (address, used) in places.flat_map(|place| &self.tally.backends[place].source_ports) {
            match all.iter_mut().find(|ports| ports.address == *address) {
                Some(ports) => ports.used += used,
                None => all.push(SourcePorts {
                    address: *address,
                    used: *used,
                    of: SOURCE_PORTS,
                }),
            }
        }
        all
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

impl From<Limit> for LimitView {
    fn from(limit: Limit) -> Self {
        Self {
            packets_per_second: limit.pps,
            bytes_per_second: limit.bytes_per_second(),
            burst: limit.burst,
            shared: limit.direction == LimitDirection::Shared,
        }
    }
}

impl OfLimit {
    /// Returns how much of a limit that traffic is: of its packets or its bytes, whichever is more.
    pub fn new(rates: Rates, limit: LimitView) -> Self {
        let part = |rate: Rate| {
            #[expect(clippy::cast_precision_loss, reason = "a part is rounded anyway")]
            let bytes = rate.bytes_per_second / limit.bytes_per_second.max(1) as f64;
            let packets = rate.packets_per_second / f64::from(limit.packets_per_second.max(1));
            (bytes.max(packets) * 1000.0).round() / 1000.0
        };
        if limit.shared {
            let both = Rate {
                packets_per_second: rates.to.packets_per_second + rates.from.packets_per_second,
                bytes_per_second: rates.to.bytes_per_second + rates.from.bytes_per_second,
            };
            return Self {
                shared: Some(part(both)),
                ..Self::default()
            };
        }
        Self {
            to: Some(part(rates.to)),
            from: Some(part(rates.from)),
            shared: None,
        }
    }

    /// The larger of what there is.
    pub fn most(&self) -> f64 {
        [self.to, self.from, self.shared]
            .into_iter()
            .flatten()
            .fold(0.0, f64::max)
    }
}
