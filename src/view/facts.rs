//! Facts about the services, and the state of each that follows.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::addon::ServiceState;
use crate::addon::id::ResourceId;
use crate::traffic::{ServiceTotals, Totals};
use crate::view::condition::ServiceCondition;
use crate::view::drops::DropCounts;
use crate::view::flow_rates::{Rates, SecondSample};
use crate::view::problems::ProblemSearch;
use crate::view::service_state::state_of;
use crate::view::snapshot::Snapshot;
use crate::view::status::{
    BackendStatus, DrainStatus, IN_BALANCE, LimitView, OfLimit, SOURCE_PORTS, Sampled, ServiceStatus, SourcePorts,
    Status, StrayFlowsView,
};
use crate::view::tally::{BackendIndex, FlowCounts, StrayFlows, Tally};
use crate::view::totals::{ConnectionCounts, TotalsView};
use crate::view::{ConntrackSettings, ServicesView};
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{MOST_OF_KIND, Problem, ProblemKind, Severity, few, is_ok};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{FlowVerdict, ServiceSummary, balance_name};

/// Facts for the status.
#[derive(Debug)]
pub struct StatusFacts<'a> {
    /// The services.
    pub services: &'a ServicesView,
    /// Places of the backends.
    pub places: &'a BackendIndex,
    /// Flows by backend.
    pub tally: Tally<'a>,
    /// Traffic, if conntrack counts it.
    pub traffic: Option<SecondSample>,
    /// Counters of connections.
    pub connections: ConnectionCounts,
    /// Totals that a daemon keeps.
    pub totals: Option<&'a Totals>,
    /// Counters of drops.
    pub drops: DropCounts,
    /// Counters of drops at the first sample.
    pub earlier: Option<DropCounts>,
    /// Time between the begins of both samples.
    pub time: Duration,
    /// Data that conntrack records.
    pub noted: ConntrackSettings,
    /// Position of the only service to show.
    pub only: Option<usize>,
    /// State of the daemon.
    pub daemon: Option<&'a Snapshot>,
    /// Problems found by the command itself, if no daemon was queried.
    pub found: &'a [Problem],
}

impl StatusFacts<'_> {
    fn earlier(&self) -> Option<(&DropCounts, Duration)> {
        self.earlier.as_ref().map(|earlier| (earlier, self.time))
    }

    fn service<'s>(&self, at: usize, service: &'s ServiceSummary, paused: &BTreeSet<&str>) -> ServiceStatus<'s> {
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
        let mut status = ServiceStatus {
            name: service.name.as_deref().map(Cow::Borrowed),
            port: service.port,
            addresses: Cow::Borrowed(&service.addresses),
            provider: service
                .name
                .as_deref()
                .and_then(|name| self.provider(name))
                .map(Cow::Borrowed),
            state: ServiceCondition::Up,
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
            totals: self.totals_of_service(service, &backends),
            drops: self.drops.of_service(at, self.earlier()),
            backends,
            resets_when_empty: service.settings.empty_reset,
            reachable: reachable().next().is_some(),
        };
        let is_paused = status.name.as_deref().is_some_and(|name| paused.contains(name))
            && (self.daemon.is_some() || !status.reachable);
        status.state = state_of(&status, is_paused, self.daemon.is_some());
        status
    }

    /// Returns the names of paused services.
    fn paused(&self) -> BTreeSet<&str> {
        match self.daemon {
            Some(daemon) => {
                let problems = daemon.daemon.problems.iter();
                let paused = problems.filter(|problem| problem.kind == ProblemKind::Paused);
                paused.filter_map(|problem| problem.service.as_deref()).collect()
            }
            None => self.services.pauses.iter().map(|pause| &*pause.service).collect(),
        }
    }

    /// Returns the state of an add-on service. Without a daemon it follows from its name and backends: whether it is
    /// suspended is not known.
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

    /// Returns whether a backend answers probes, or is not probed.
    fn is_well(&self, service: &ServiceSummary, backend: SocketAddr) -> bool {
        self.health(service, backend)
            .is_none_or(|state| IN_BALANCE.contains(&state))
    }

    /// Returns the health of a backend in this service; `None`: it is not probed.
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
        // Rate limits and source ports belong to the endpoint, whatever service its flows came through.
        let together = |traffic: &SecondSample| {
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
            totals: self.totals_of_backend(place, backend, service),
            drops: self.drops.of_backend(place, self.earlier()),
            source_ports: self.source_ports(backend),
        }
    }

    /// Returns the totals of a service: those that the daemon keeps include backends that were removed.
    fn totals_of_service(&self, service: &ServiceSummary, backends: &[BackendStatus]) -> TotalsView {
        match self.totals.zip(service.name.as_deref()) {
            Some((totals, name)) => {
                let sum = totals.service(name).map(ServiceTotals::sum);
                TotalsView::new(sum.unwrap_or_default(), self.knows_traffic(totals))
            }
            None => backends
                .iter()
                .fold(TotalsView::default(), |sum, backend| sum.and(backend.totals)),
        }
    }

    fn totals_of_backend(&self, place: usize, backend: SocketAddr, service: &ServiceSummary) -> TotalsView {
        match self.totals.zip(service.name.as_deref()) {
            Some((totals, name)) => {
                let backend = totals.backend(name, backend).copied();
                TotalsView::new(backend.unwrap_or_default(), self.knows_traffic(totals))
            }
            None => TotalsView {
                connections: self.connections.of_backend(place),
                ..TotalsView::default()
            },
        }
    }

    fn knows_traffic(&self, totals: &Totals) -> Option<bool> {
        totals.counts_flows.then_some(self.noted.traffic == Some(true))
    }

    /// Returns the source ports in use, by gateway address in the order of their first use.
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

impl<'a> StatusFacts<'a> {
    /// Passes the state of each service to show to `each`, one after the other, and returns the problems. Of ten thousand services, all
    /// states at once would take tens of megabytes.
    pub fn each_service(&self, mut each: impl FnMut(ServiceStatus<'a>)) -> StatusProblems {
        let all = || {
            let services = self.services.summary.services.iter().enumerate();
            services.filter(|(at, _)| self.only.is_none_or(|only| only == *at))
        };
        let names: OnceCell<BTreeSet<&str>> = OnceCell::new();
        let is_shown = |name: &str| {
            let names = names.get_or_init(|| all().filter_map(|(_, service)| service.name.as_deref()).collect());
            names.contains(name)
        };
        let daemon = self.daemon.map(|daemon| &daemon.daemon);
        let mut search = ProblemSearch::begin(self.services, daemon, self.found, is_shown);
        let paused = self.paused();
        for (at, service) in all() {
            let service = self.service(at, service, &paused);
            search.add(&service);
            each(service);
        }
        let apps = self.daemon.map(|daemon| &daemon.apps);
        StatusProblems::new(search.end(&strangers(&self.tally.stale), apps, is_shown))
    }

    /// Returns the number of services to show.
    pub fn number_of_services(&self) -> usize {
        self.only.map_or(self.services.summary.services.len(), |_| 1)
    }
}

/// Problems that a status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusProblems {
    /// Whether none is an error.
    pub ok: bool,
    /// Problems, the worst first; of many of one kind only the first ones.
    pub listed: Vec<Problem>,
    /// Numbers of all problems.
    pub counts: BTreeMap<(Severity, ProblemKind), usize>,
}

impl StatusProblems {
    fn new(all: Vec<Problem>) -> Self {
        let mut counts = BTreeMap::new();
        for problem in &all {
            *counts.entry((problem.severity, problem.kind)).or_default() += 1;
        }
        let ok = is_ok(&all);
        let listed = if all.len() > MOST_OF_KIND {
            few(&all).into_iter().map(Cow::into_owned).collect()
        } else {
            all
        };
        Self { ok, listed, counts }
    }
}

fn strangers(of: &StrayFlows) -> StrayFlowsView {
    StrayFlowsView {
        flows: of.total,
        pairs: of.pairs(),
    }
}

impl<'a> Status<'a> {
    /// Creates the status from the facts.
    pub fn new(facts: &StatusFacts<'a>) -> Self {
        // Of ten thousand, growing would need half as much again.
        let mut services = Vec::with_capacity(facts.number_of_services());
        let problems = facts.each_service(|service| services.push(service));
        Self {
            ok: problems.ok,
            problems: problems.listed,
            counts: problems.counts,
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
                .map(|daemon| daemon.drains.iter().map(DrainStatus::from).collect()),
            daemon: facts.daemon.map(|daemon| &daemon.daemon),
        }
    }
}
