//! Problems of the services, as text and as data.

mod backend;
mod orphans;
mod service;
mod subject;
mod table;

use std::collections::BTreeMap;

pub use self::backend::limit_reached;
use self::backend::{is_filling, over_limit, source_ports, unhealthy};
pub use self::orphans::{orphaned, orphaned_services, some_of};
use self::service::over_flows;
pub use self::service::{FamilyFacts, ServiceFacts, full, service_problem};
use self::subject::of;
pub use self::subject::{title, title_of};
pub use self::table::other_mark;
use self::table::{stale, table};
use super::ServicesView;
use super::status::{ServiceStatus, StrayFlowsView};
use crate::addon::id::{PlatformId, ResourceId, with_apps};
use crate::date::utc_of;
use crate::view::snapshot::DaemonView;
use tcpgw_core::problem::{self, Problem, ProblemKind, Severity};
use tcpgw_core::words::count;

/// Maximum number of stale flows that are reported one by one.
const MOST_PAIRS: usize = 10;

/// Search for problems: of the gateway, then of one service after the other, then of the flows and of the daemon.
pub(super) struct ProblemSearch<'s> {
    services: &'s ServicesView,
    daemon: Option<&'s DaemonView>,
    told: BTreeMap<ServiceKey<'s>, &'s Problem>,
    problems: Vec<Problem>,
}

impl<'s> ProblemSearch<'s> {
    /// Begins the search. `found`: problems that a command found itself. `is_shown` tells whether a service is among those that are shown.
    pub(super) fn begin(
        services: &'s ServicesView,
        daemon: Option<&'s DaemonView>,
        found: &[Problem],
        is_shown: impl Fn(&str) -> bool,
    ) -> Self {
        let problems = shown(found, is_shown).collect();
        let mut search = Self {
            services,
            daemon,
            told: told_by_daemon(daemon),
            problems,
        };
        // The services are in another network namespace.
        let is_elsewhere = found.iter().any(|problem| problem.kind == ProblemKind::OtherNamespace);
        let is_explained = is_elsewhere && services.table.is_none();
        if !is_explained && daemon.is_none_or(|daemon| !is_without_table(daemon)) {
            table(services, &mut search.problems);
        }
        search
    }

    /// Adds the problems of a service.
    pub(super) fn add(&mut self, service: &ServiceStatus<'_>) {
        let problems = &mut self.problems;
        if !service.is_idle() {
            let known = held(service, self.services).or_else(|| self.told.get(&key_of(service)).copied().cloned());
            problems.extend(known.or_else(|| service_problem(&ServiceFacts::of(service, self.daemon.is_some()))));
        }
        // The daemon has its own count, which its other lists of problems have too.
        problems.extend(over_flows(service).filter(|_| self.daemon.is_none()));
        for backend in &service.backends {
            problems.extend(unhealthy(service, backend));
            problems.extend(over_limit(service, backend));
            let full = backend.source_ports.iter().filter(|ports| is_filling(ports));
            problems.extend(full.map(|ports| source_ports(service, backend, ports)));
        }
    }

    /// Returns all problems, the worst first. `apps`: the apps of the add-on's services, if a daemon knows them.
    pub(super) fn end(
        self,
        flows: &StrayFlowsView,
        apps: Option<&BTreeMap<Box<str>, PlatformId>>,
        is_shown: impl Fn(&str) -> bool,
    ) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.extend(flows.pairs.iter().take(MOST_PAIRS).map(stale));
        let listed: u64 = flows.pairs.iter().take(MOST_PAIRS).map(|pair| pair.flows).sum();
        if flows.flows > listed {
            let more = count(flows.flows - listed, "more flow");
            problems.push(Problem::new(
                ProblemKind::StaleFlows,
                format!("{more} should have been flushed"),
            ));
        }
        match self.daemon {
            Some(daemon) => problems.extend(shown(&daemon.problems, is_shown)),
            None => problems.extend(orphaned_services(self.services)),
        }
        problem::sort(&mut problems);
        if let Some(apps) = apps.filter(|apps| !apps.is_empty()) {
            let app_of = |id: ResourceId| apps.get(id.service().as_str()).cloned();
            for problem in &mut problems {
                problem.message = with_apps(&problem.message, app_of);
            }
        }
        problems
    }
}

/// Returns problems of the whole gateway, and of shown services. A held-back service, or one whose containers have wrong labels, is not in
/// the kernel and thus not shown.
fn shown<'p>(problems: &'p [Problem], is_shown: impl Fn(&str) -> bool + 'p) -> impl Iterator<Item = Problem> + 'p {
    let is_meant = move |problem: &&Problem| {
        let name = problem
            .service
            .as_deref()
            .filter(|_| ![ProblemKind::HeldBack, ProblemKind::Container].contains(&problem.kind));
        name.is_none_or(&is_shown)
    };
    problems.iter().filter(is_meant).cloned()
}

/// Returns the problem of a service that is paused by the record while no daemon runs that could end the pause.
fn held(service: &ServiceStatus<'_>, services: &ServicesView) -> Option<Problem> {
    let name = service.name.as_deref().filter(|_| !service.reachable)?;
    // Few services are paused at a time.
    let pause = services.pauses.iter().find(|pause| *pause.service == *name)?;
    let message = format!(
        "{} is paused by {} since {} UTC, until {} UTC, and only a daemon ends that, which does not run: clients that connect \
         wait until one runs again and the pause is over; start it (`systemctl start tcpgw`, or `tcpgw daemon`), then `tcpgw resume \
         {name}` lets them in at once",
        title(service),
        pause.author(),
        utc_of(pause.since),
        utc_of(pause.since.saturating_add(pause.time.as_secs())),
    );
    let problem = Problem::new(ProblemKind::Paused, message).with_severity(Severity::Error);
    Some(of(service, None, problem))
}

/// Name and port of a service.
type ServiceKey<'s> = (Option<&'s str>, Option<u16>);

fn key_of<'s>(service: &'s ServiceStatus<'_>) -> ServiceKey<'s> {
    (service.name.as_deref(), Some(service.port))
}

/// Returns the daemon's problems that clients of a service are not served: it knows what the service waits for, and for how long.
fn told_by_daemon(daemon: Option<&DaemonView>) -> BTreeMap<ServiceKey<'_>, &Problem> {
    let kinds = [ProblemKind::NoActiveBackend, ProblemKind::NoHealthyBackend];
    let problems = daemon.map_or(&[][..], |daemon| &daemon.problems);
    let told = problems.iter().filter(|problem| kinds.contains(&problem.kind));
    // The first one of a service counts.
    told.rev()
        .map(|problem| ((problem.service.as_deref(), problem.port), problem))
        .collect()
}

/// Returns whether the daemon has a problem that explains a missing table.
fn is_without_table(daemon: &DaemonView) -> bool {
    let kinds = [ProblemKind::Starting, ProblemKind::TornDown];
    daemon.problems.iter().any(|problem| kinds.contains(&problem.kind))
}
