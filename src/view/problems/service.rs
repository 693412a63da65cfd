//! Problems of a service: what keeps its clients from its backends.

use std::net::SocketAddr;

use super::subject::{of, title};
use crate::view::status::{BackendStatus, IN_BALANCE, ServiceStatus};
use tcpgw_core::health::UNKNOWN;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;

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
    pub(in crate::view) fn of(service: &'a ServiceStatus<'_>, is_told_of_drains: bool) -> Self {
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
        family.protocol_name(),
        service.refusal().replacen("clients", "these clients", 1)
    );
    Problem::new(ProblemKind::NoActiveBackend, message)
}

/// Returns the problem of a service without a backend of a family that answers probes.
fn none_answers(service: &ServiceFacts<'_>, of: &FamilyFacts, is_all: bool) -> Problem {
    let (active, for_whom) = if is_all {
        (service.active, String::new())
    } else {
        (of.active, format!(" for {} clients", of.family.protocol_name()))
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
            "{} has no healthy backend{for_whom}: none of {active} answers probes (each backend's last probe says why)",
            service.title
        );
        return Problem::new(ProblemKind::NoHealthyBackend, message);
    };
    let message = format!(
        "{}: {} that shall serve{for_whom} {} not answered a probe yet, so clients are served by {stand_in}, which leaves when another \
         one answers (each backend's last probe says why)",
        service.title,
        count(of.active, "backend"),
        if of.active == 1 { "has" } else { "have" },
    );
    Problem::new(ProblemKind::NoHealthyBackend, message).with_severity(Severity::Warning)
}

/// Returns the problem of a service that has its `max_flows` and turns new clients away. `dropped`: how many of their
/// SYNs were dropped.
pub fn full(title: &str, dropped: &str) -> Problem {
    let message = format!("{title}: {dropped}, since the service has its max_flows: raise it, or end idle connections");
    Problem::new(ProblemKind::OverLimit, message).with_severity(Severity::Error)
}

/// Returns the problem of a service that has its `max_flows`, if a client was turned away between both looks.
pub(super) fn over_flows(service: &ServiceStatus<'_>) -> Option<Problem> {
    let rate = service.drops.over_flows.packets_per_second.filter(|rate| *rate > 0.0)?;
    let dropped = format!("{}/s of new clients are dropped", count(rate, "SYN"));
    Some(of(service, None, full(&title(service), &dropped)))
}
