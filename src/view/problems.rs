//! What is wrong with the services, in words and as data.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Services;
use super::status::{BackendStatus, ServiceStatus, SourcePorts, Status};
use super::tally::Stranger;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: Kind,
    /// The service that has it, where there is one with a name.
    pub service: Option<String>,
    /// The public port.
    pub port: Option<u16>,
    /// The backend.
    pub backend: Option<SocketAddr>,
    /// What is wrong and what to do.
    pub message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is unhealthy.
    Error,
    /// Something needs a look.
    Warning,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is no table of tcpgw.
    NoTable,
    /// A service has no active backend.
    NoActiveBackend,
    /// A service has active backends, and none of them answers the daemon's probes.
    NoHealthyBackend,
    /// Flows are left that should have been flushed.
    StaleFlows,
    /// The table's rules are not those of this program.
    TableChanged,
    /// The table is switched off.
    TableDormant,
    /// The table and the configuration say different flow marks.
    OtherMark,
    /// A gateway address has few source ports left towards a backend.
    SourcePorts,
    /// Packets were dropped over the limit between both looks.
    OverLimit,
    /// A backend does not answer the daemon's probes.
    BackendUnhealthy,
    /// The daemon cannot do what it is meant to.
    DaemonProblem,
}

/// At most so many flows that should not be there are told one by one.
const MOST_PAIRS: usize = 10;

pub(super) fn find(status: &Status<'_>, services: &Services) -> Vec<Problem> {
    let mut problems = Vec::new();
    table(services, &mut problems);
    for service in &status.services {
        if !service.healthy {
            problems.push(if service.reachable {
                none_answers(service)
            } else {
                empty(service)
            });
        }
        for backend in &service.backends {
            problems.extend(unhealthy(service, backend));
            problems.extend(over_limit(service, backend));
            let full = backend.source_ports.iter().filter(|ports| is_filling(ports));
            problems.extend(full.map(|ports| source_ports(service, backend, ports)));
        }
    }
    problems.extend(status.stale.pairs.iter().take(MOST_PAIRS).map(stale));
    let told: u64 = status.stale.pairs.iter().take(MOST_PAIRS).map(|pair| pair.flows).sum();
    if status.stale.flows > told {
        problems.push(bare(
            Severity::Error,
            Kind::StaleFlows,
            format!("{} more flows should have been flushed", status.stale.flows - told),
        ));
    }
    if let Some(daemon) = &status.daemon {
        problems.extend(daemon.problems.iter().map(|problem| {
            // Forwarding goes on, and whoever deploys is refused.
            let refuses = daemon.store.as_ref() == Some(problem);
            let severity = if refuses { Severity::Error } else { Severity::Warning };
            bare(severity, Kind::DaemonProblem, format!("daemon: {problem}"))
        }));
    }
    problems.sort_by_key(|problem| (problem.severity, problem.kind));
    problems
}

fn bare(severity: Severity, kind: Kind, message: String) -> Problem {
    Problem {
        severity,
        kind,
        service: None,
        port: None,
        backend: None,
        message,
    }
}

fn of(service: &ServiceStatus<'_>, backend: Option<SocketAddr>, problem: Problem) -> Problem {
    Problem {
        service: service.name.as_deref().map(str::to_owned),
        port: Some(service.port),
        backend,
        ..problem
    }
}

/// `my-app :20003`
pub fn title(service: &ServiceStatus<'_>) -> String {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    let doors: Vec<String> = service
        .addresses
        .iter()
        .map(|address| SocketAddr::new(*address, service.port).to_string())
        .collect();
    if doors.is_empty() {
        format!("{name} :{}", service.port)
    } else {
        format!("{name} {}", doors.join(","))
    }
}

fn table(services: &Services, problems: &mut Vec<Problem>) {
    let Some(table) = &services.table else {
        let message =
            "there is no table `inet tcpgw` in this network namespace, so no service works: run `tcpgw apply FILE`";
        problems.push(bare(Severity::Error, Kind::NoTable, message.into()));
        return;
    };
    if let Some(why) = &services.changed {
        let message =
            format!("{why}: what follows is as far as it can be read; run `tcpgw apply FILE` to put it right");
        problems.push(bare(Severity::Warning, Kind::TableChanged, message));
    }
    if table.flags.iter().any(|flag| flag == "dormant") {
        let message = "the table is dormant, so none of its rules work: run `tcpgw apply FILE`";
        problems.push(bare(Severity::Error, Kind::TableDormant, message.into()));
    }
    if services.mark != services.configured {
        let message = format!(
            "the table marks its flows with {}, the configuration says {}: `tcpgw apply` refuses to work until `tcpgw \
             teardown`",
            services.mark, services.configured
        );
        problems.push(bare(Severity::Warning, Kind::OtherMark, message));
    }
}

fn empty(service: &ServiceStatus<'_>) -> Problem {
    let clients = match service.resets_when_empty {
        Some(true) => "clients are refused",
        Some(false) => "clients time out",
        None => "no client gets in",
    };
    let draining = service
        .backends
        .iter()
        .filter(|backend| backend.weight.is_none())
        .count();
    let active = service.backends.len() - draining;
    let but = match (active, draining) {
        (0, 0) => String::new(),
        (0, draining) => format!(" ({draining} draining)"),
        _ => " of a family that it listens on".into(),
    };
    let message = format!("{} has no active backend{but}: {clients}", title(service));
    of(service, None, bare(Severity::Error, Kind::NoActiveBackend, message))
}

/// One that has active backends of its families, but none that answers.
fn none_answers(service: &ServiceStatus<'_>) -> Problem {
    let message = format!(
        "{} has no healthy backend: none of {} answers probes, see health_reason or the HEALTH column",
        title(service),
        service
            .backends
            .iter()
            .filter(|backend| backend.weight.is_some())
            .count()
    );
    of(service, None, bare(Severity::Error, Kind::NoHealthyBackend, message))
}

fn unhealthy(service: &ServiceStatus<'_>, backend: &BackendStatus) -> Option<Problem> {
    let state = backend.health.as_deref()?;
    if state != "unhealthy" || backend.weight.is_none() {
        return None;
    }
    let why = backend.health_reason.as_deref().unwrap_or("no reason given");
    let message = format!("{}: {} does not answer probes ({why})", title(service), backend.backend);
    let problem = bare(Severity::Warning, Kind::BackendUnhealthy, message);
    Some(of(service, Some(backend.backend), problem))
}

fn stale(pair: &Stranger) -> Problem {
    let Stranger { port, backend, flows } = pair;
    let (are, s) = if *flows == 1 { ("is", "") } else { ("are", "s") };
    let message = format!(
        "{flows} flow{s} to port {port} {are} still at {backend}, which is no backend of it any more: run `tcpgw apply FILE` \
         to flush them"
    );
    Problem {
        port: Some(*port),
        backend: Some(*backend),
        ..bare(Severity::Error, Kind::StaleFlows, message)
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
        bare(Severity::Warning, Kind::SourcePorts, message),
    )
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
    let problem = bare(Severity::Warning, Kind::OverLimit, message);
    (!ways.is_empty()).then(|| of(service, Some(backend.backend), problem))
}
