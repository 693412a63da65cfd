//! Problems of the services, as text and as data.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::ServicesView;
use super::status::{BackendStatus, IN_BALANCE, ServiceStatus, SourcePorts, StrayFlowsView};
use super::tally::StrayPair;
use crate::addon::id::{PlatformId, ResourceId, with_apps};
use crate::date::utc_of;
use crate::view::snapshot::DaemonView;
use tcpgw_core::diff::count;
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{self, Problem, ProblemKind, Severity};
use tcpgw_core::ruleset::name::Family;

/// Maximum number of names in one problem.
const MOST_NAMES: usize = 20;
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

/// Returns the problem of services that no provider defines any more, by the record.
pub fn orphaned_services(services: &ServicesView) -> Option<Problem> {
    let names = services
        .summary
        .services
        .iter()
        .filter_map(|service| service.name.as_deref());
    let names: Vec<&str> = names
        .filter(|name| services.owner(name).is_some_and(Owner::is_orphan))
        .collect();
    (!names.is_empty()).then(|| orphaned(&names, true))
}

/// Returns the problem that no provider defines these services any more. `are_served`: false while the gateway is torn
/// down.
pub fn orphaned(names: &[&str], are_served: bool) -> Problem {
    let (is, it) = if names.len() == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let kept = if are_served {
        "served on"
    } else {
        "kept, and not served while the gateway is torn down,"
    };
    let message = format!(
        "{} that no provider defines any more {is} {kept} as orphaned: {}; define {it} anew, or remove {it} with `tcpgw service rm \
         NAME` or `tcpgw apply --prune`",
        count(names.len(), "service"),
        some_of(names)
    );
    Problem::new(ProblemKind::Orphaned, message)
}

/// Returns the first names, and the number of further ones.
pub fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
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

fn of(service: &ServiceStatus<'_>, backend: Option<SocketAddr>, problem: Problem) -> Problem {
    Problem {
        service: service.name.as_deref().map(str::to_owned),
        port: Some(service.port),
        backend,
        ..problem
    }
}

/// Facts that decide whether a service has a problem.
#[derive(Debug)]
pub struct ServiceFacts<'a> {
    /// Name and addresses, for people.
    pub title: String,
    /// Name of the service.
    pub name: Option<&'a str>,
    /// Public port of the service.
    pub port: u16,
    /// Number of active backends.
    pub active: usize,
    /// Number of draining backends.
    pub draining: usize,
    /// Facts for each family that it listens in.
    pub families: Vec<FamilyFacts>,
    /// Whether clients that meet no backend get a reset; otherwise their packets are dropped.
    pub resets_when_empty: Option<bool>,
    /// Reason why a new service has no backends yet, if that is no error.
    pub awaits: Option<&'static str>,
}

/// Facts of a service for clients of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyFacts {
    /// The family.
    pub family: Family,
    /// Whether clients of the family are expected: the service has a backend of it, or listens on a chosen address of
    /// it.
    pub is_expected: bool,
    /// Number of active backends of the family.
    pub active: usize,
    /// Number of them that answer probes, or are not probed.
    pub well: usize,
    /// Number of them whose first probes have not decided yet.
    pub undecided: usize,
    /// A backend that is to be removed, answers probes, and still gets new connections until another one answers.
    pub stand_in: Option<SocketAddr>,
}

impl<'a> ServiceFacts<'a> {
    /// Returns the facts of a service. `is_told_of_drains`: whether a daemon distinguishes backends that drain by
    /// order from those that were removed. Otherwise both count as backends of the service.
    pub(super) fn of(service: &'a ServiceStatus<'_>, is_told_of_drains: bool) -> Self {
        let active = service.backends.iter().filter(|backend| backend.weight.is_some());
        let active = active.count();
        let is_open = service.addresses.is_empty();
        let families = Family::BOTH.into_iter().filter_map(|family| {
            let is_chosen = service.addresses.iter().any(|address| Family::of(*address) == family);
            let backends = service.backends.iter();
            let backends = backends.filter(|backend| Family::of(backend.backend.ip()) == family);
            let active = backends.clone().filter(|backend| backend.weight.is_some());
            let is_well = |backend: &&BackendStatus| {
                let health = backend.health.as_deref();
                health.is_none_or(|health| IN_BALANCE.contains(&health))
            };
            let is_undecided = |backend: &&BackendStatus| {
                backend.health.as_deref() == Some(UNKNOWN) && backend.health_reason.is_none()
            };
            let has_any = if is_told_of_drains {
                active.clone().next().is_some()
            } else {
                backends.clone().next().is_some()
            };
            (is_open || is_chosen).then(|| FamilyFacts {
                family,
                is_expected: is_chosen || has_any,
                active: active.clone().count(),
                undecided: active.clone().filter(is_undecided).count(),
                well: active.filter(is_well).count(),
                stand_in: None,
            })
        });
        Self {
            title: title(service),
            name: service.name.as_deref(),
            port: service.port,
            active,
            draining: service.backends.len() - active,
            families: families.collect(),
            resets_when_empty: service.resets_when_empty,
            awaits: None,
        }
    }

    /// Returns the effect on clients that meet no backend.
    fn refusal(&self) -> &'static str {
        match self.resets_when_empty {
            Some(true) => "clients are refused",
            Some(false) => "clients time out",
            None => "no client gets in",
        }
    }
}

/// Returns the reason why a service does not serve all of its clients, if so: clients of a family count if the service
/// has a backend or a chosen address of it.
pub fn service_problem(service: &ServiceFacts<'_>) -> Option<Problem> {
    let is_served = |of: &&FamilyFacts| of.well > 0;
    let is_without = |of: &&FamilyFacts| of.is_expected && of.active == 0;
    let is_dead = |of: &&FamilyFacts| of.is_expected && of.well == 0;
    let families = || service.families.iter();
    let problem = if families().all(|of| of.active == 0 && of.stand_in.is_none()) {
        empty(service)
    } else if let Some(of) = families().filter(is_without).find(|of| of.stand_in.is_none()) {
        empty_family(service, of.family)
    } else {
        let dead = families().filter(is_dead);
        // A family that no backend serves comes first.
        let of = dead.min_by_key(|of| of.stand_in.is_some())?;
        let is_all = families().find(is_served).is_none();
        none_answers(service, of, is_all)
    };
    Some(Problem {
        service: service.name.map(str::to_owned),
        port: Some(service.port),
        ..problem
    })
}

/// Returns the name and the addresses of a service: `my-app :20003`.
pub fn title(service: &ServiceStatus<'_>) -> String {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    let listen_keys: Vec<String> = service
        .addresses
        .iter()
        .map(|address| SocketAddr::new(*address, service.port).to_string())
        .collect();
    if listen_keys.is_empty() {
        format!("{name} :{}", service.port)
    } else {
        format!("{name} {}", listen_keys.join(","))
    }
}

fn table(services: &ServicesView, problems: &mut Vec<Problem>) {
    let Some(table) = &services.table else {
        let message =
            "there is no table `inet tcpgw` in this network namespace, so no service works: run `tcpgw apply FILE`";
        problems.push(Problem::new(ProblemKind::NoTable, message));
        return;
    };
    if let Some(why) = &services.changed {
        let message =
            format!("{why}: what follows is as far as it can be read; run `tcpgw apply FILE` to put it right");
        let severity = if services.is_edited {
            Severity::Error
        } else {
            Severity::Warning
        };
        problems.push(Problem::new(ProblemKind::TableChanged, message).with_severity(severity));
    }
    if table.flags.iter().any(|flag| flag == "dormant") {
        let message = "the table is dormant, so none of its rules work: run `tcpgw apply FILE`";
        problems.push(Problem::new(ProblemKind::TableDormant, message));
    }
    if services.mark != services.configured {
        let message = other_mark(services.mark, services.configured, "`tcpgw apply` refuses to work");
        problems.push(Problem::new(ProblemKind::OtherMark, message));
    }
}

/// Returns the message about a table whose flow mark differs from the configured one; `effect`: the consequence.
pub fn other_mark(theirs: FlowMark, ours: FlowMark, effect: &str) -> String {
    format!(
        "the table marks its flows with {theirs}, the configuration says {ours}: {effect}. Put `flow_mark = \"{theirs}\"` back into the \
         configuration. Only if {ours} is meant: `tcpgw teardown`, which ends every service and its connections, then `tcpgw apply`, or \
         where a daemon runs, a restart of it and `tcpgw resume`"
    )
}

fn empty(service: &ServiceFacts<'_>) -> Problem {
    if let Some(awaited) = service.awaits.filter(|_| service.active == 0) {
        let message = format!(
            "{} waits for {awaited}: {} until one answers",
            service.title,
            service.refusal()
        );
        return Problem::new(ProblemKind::NoActiveBackend, message).with_severity(Severity::Warning);
    }
    let but = match (service.active, service.draining) {
        (0, 0) => String::new(),
        (0, draining) => format!(" ({draining} draining)"),
        _ => " of a family that it listens on".into(),
    };
    let message = format!("{} has no active backend{but}: {}", service.title, service.refusal());
    Problem::new(ProblemKind::NoActiveBackend, message)
}

/// Returns the problem of a service whose active backends are all of the other family.
fn empty_family(service: &ServiceFacts<'_>, family: Family) -> Problem {
    let message = format!(
        "{} has no active backend for {} clients: {}",
        service.title,
        protocol(family),
        service.refusal().replacen("clients", "these clients", 1)
    );
    Problem::new(ProblemKind::NoActiveBackend, message)
}

/// Returns the problem of a service without a backend of a family that answers probes.
fn none_answers(service: &ServiceFacts<'_>, of: &FamilyFacts, is_all: bool) -> Problem {
    let (active, for_whom) = if is_all {
        (service.active, String::new())
    } else {
        (of.active, format!(" for {} clients", protocol(of.family)))
    };
    let Some(stand_in) = of.stand_in else {
        if of.undecided == of.active {
            let message = format!(
                "{} waits for the first probes of its {}{for_whom}: {} until one answers",
                service.title,
                count(of.active, "backend"),
                service.refusal(),
            );
            return Problem::new(ProblemKind::NoHealthyBackend, message).with_severity(Severity::Warning);
        }
        let message = format!(
            "{} has no healthy backend{for_whom}: none of {active} answers probes, see health_reason or the column LAST PROBE",
            service.title
        );
        return Problem::new(ProblemKind::NoHealthyBackend, message);
    };
    let message = format!(
        "{}: {} that shall serve{for_whom} {} not answered a probe yet, so clients are served by {stand_in}, which leaves when another \
         one answers; see health_reason or the column LAST PROBE",
        service.title,
        count(of.active, "backend"),
        if of.active == 1 { "has" } else { "have" },
    );
    Problem::new(ProblemKind::NoHealthyBackend, message).with_severity(Severity::Warning)
}

/// Returns the name of the family for people.
fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn unhealthy(service: &ServiceStatus<'_>, backend: &BackendStatus) -> Option<Problem> {
    let state = backend.health.as_deref()?;
    if state != "unhealthy" || backend.weight.is_none() {
        return None;
    }
    let why = backend.health_reason.as_deref().unwrap_or("no reason given");
    let message = format!("{}: {} does not answer probes ({why})", title(service), backend.backend);
    let problem = Problem::new(ProblemKind::BackendUnhealthy, message);
    Some(of(service, Some(backend.backend), problem))
}

fn stale(pair: &StrayPair) -> Problem {
    let StrayPair { port, backend, flows } = pair;
    let are = if *flows == 1 { "is" } else { "are" };
    let stale_flows = count(*flows, "flow");
    let message = format!(
        "{stale_flows} to port {port} {are} still at {backend}, which is no backend of it any more: run `tcpgw apply FILE` \
         to flush them"
    );
    Problem {
        port: Some(*port),
        backend: Some(*backend),
        ..Problem::new(ProblemKind::StaleFlows, message)
    }
}

fn is_filling(ports: &SourcePorts) -> bool {
    ports.used * 10 >= ports.of * 8
}

fn source_ports(service: &ServiceStatus<'_>, backend: &BackendStatus, ports: &SourcePorts) -> Problem {
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

/// Returns the problem of a service that has its `max_flows` and turns new clients away. `dropped`: how many of their
/// SYNs were dropped.
pub fn full(title: &str, dropped: &str) -> Problem {
    let message = format!("{title}: {dropped}, since the service has its max_flows: raise it, or end idle connections");
    Problem::new(ProblemKind::OverLimit, message).with_severity(Severity::Error)
}

/// Returns the problem of a service that has its `max_flows`, if a client was turned away between both looks.
fn over_flows(service: &ServiceStatus<'_>) -> Option<Problem> {
    let rate = service.drops.over_flows.packets_per_second.filter(|rate| *rate > 0.0)?;
    let dropped = format!("{rate} SYNs/s of new clients are dropped");
    Some(of(service, None, full(&title(service), &dropped)))
}

fn over_limit(service: &ServiceStatus<'_>, backend: &BackendStatus) -> Option<Problem> {
    let rate = |dropped: super::drops::Dropped| dropped.packets_per_second.unwrap_or_default();
    let (to, from) = (rate(backend.drops.over_limit_to), rate(backend.drops.over_limit_from));
    let mut ways = Vec::new();
    for (way, rate) in [("to", to), ("from", from)] {
        if rate > 0.0 {
            ways.push(format!("{rate} packets/s {way}"));
        }
    }
    let message = format!(
        "{}: {} {} are over the limit and dropped",
        title(service),
        ways.join(" and "),
        backend.backend
    );
    let problem = Problem::new(ProblemKind::OverLimit, message);
    (!ways.is_empty()).then(|| of(service, Some(backend.backend), problem))
}
