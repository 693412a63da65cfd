//! What the doctor finds, as problems of the gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::advice;
use super::facts::CheapFacts;
use super::finding::{Diagnosis, Finding, Fix, Severity};
use tcpgw_core::problem::{self, Kind, Problem};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::route::RouteTo;

/// Addresses of services that are looked at.
const MOST_ADDRESSES: usize = 1000;

/// What the cheap checks can find, and [`absent_addresses`]: all that is no note has one of these kinds.
pub const KINDS: &[Kind] = &[
    Kind::IpForwardOff,
    Kind::Ipv6ForwardingOff,
    Kind::PacketsDropped,
    Kind::PacketsUntracked,
    Kind::PortTranslatedElsewhere,
    Kind::FlowMarkOverwritten,
    Kind::FlowsUnmarked,
    Kind::ReversePathFilter,
    Kind::ConntrackFull,
    Kind::ConntrackFilling,
    Kind::ConntrackLongChains,
    Kind::AddressNotLocal,
    Kind::AddressLost,
    Kind::NoPublicAddress,
    Kind::NoCarrier,
    Kind::SourceAddressNotLocal,
    Kind::BackendWithoutRoute,
    Kind::BackendByDefaultRoute,
    Kind::AnswersWithoutRoute,
    Kind::BackendIsGateway,
    Kind::BackendsExposed,
    Kind::ProbesDropped,
    Kind::FlowsOffloaded,
];

/// Returns the problems that findings stand for. Notes are none.
pub fn problems(diagnosis: &Diagnosis) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for problem in diagnosis.findings.iter().filter_map(problem) {
        // Several chains may drop packets: of each kind there is one problem.
        match problems.iter_mut().find(|known| known.kind == problem.kind) {
            Some(known) => {
                known.severity = known.severity.min(problem.severity);
                known.message = format!("{}. {}", known.message, problem.message);
            }
            None => problems.push(problem),
        }
    }
    problems
}

/// Makes missing routes an error where clients fail by them: nothing takes a backend out of the balance, or all that a service
/// has of one family have none. `is_probed`: a daemon takes backends out that do not answer.
pub fn judge_routes(problems: &mut [Problem], facts: &CheapFacts, is_probed: bool) {
    let of_routes = problems
        .iter_mut()
        .find(|problem| problem.kind == Kind::BackendWithoutRoute);
    if let Some(problem) = of_routes
        && (!is_probed || facts.services.services.iter().any(|service| is_cut_off(service, facts)))
    {
        problem.severity = problem::Severity::Error;
    }
}

/// Whether all active backends of one family are without a route.
fn is_cut_off(service: &ServiceSummary, facts: &CheapFacts) -> bool {
    let leads_nowhere = |way: &Option<RouteTo>| way.as_ref().is_none_or(|way| way.shared);
    let is_lost = |address: IpAddr| matches!(&facts.ways, Ok(ways) if ways.get(&address).is_some_and(leads_nowhere));
    let mut families: BTreeMap<Family, bool> = BTreeMap::new();
    for backend in service.active.keys() {
        *families.entry(Family::of(backend.ip())).or_insert(true) &= is_lost(backend.ip());
    }
    families.into_values().any(|lost| lost)
}

/// Returns what the doctor says of a problem that the daemon, or its absence, tells of; `None` where a check of its own finds it.
pub fn finding(problem: &Problem) -> Option<Finding> {
    let id = problem.kind.id();
    let is_own = super::FINDINGS.iter().any(|(own, _)| *own == id);
    // A single look has nothing to compare with.
    if is_own && problem.kind != Kind::AddressLost {
        return None;
    }
    let (cause, fix) = advice::of(problem.kind)?;
    Some(Finding {
        id,
        severity: match problem.severity {
            problem::Severity::Error => Severity::Broken,
            problem::Severity::Warning => Severity::Warning,
        },
        seen: problem.message.clone(),
        cause: cause.into(),
        fix: Some(fix),
    })
}

fn problem(finding: &Finding) -> Option<Problem> {
    // Told service by service, see [`absent_addresses`].
    if finding.severity == Severity::Note || finding.id == "address-not-local" {
        return None;
    }
    let known = KINDS.iter().find(|kind| kind.id() == finding.id);
    debug_assert!(known.is_some(), "{} has no kind of problem", finding.id);
    let kind = *known?;
    let severity = match finding.severity {
        Severity::Broken => kind.severity(),
        Severity::Warning | Severity::Note => problem::Severity::Warning,
    };
    let fix = match &finding.fix {
        Some(Fix::Command(line)) => format!(". To fix it, as root: `{line}`"),
        Some(Fix::Advice(words)) => format!(". To fix it: {words}"),
        None => String::new(),
    };
    let message = format!("{}: {}{fix}", finding.seen, finding.cause);
    Some(Problem::new(kind, message).with_severity(severity))
}

/// Returns a problem for each service that listens on addresses which the gateway does not have: an error where it has none
/// of them.
///
/// # Errors
/// The first of `is_local`.
pub fn absent_addresses<E>(
    services: &Summary,
    is_local: &mut impl FnMut(IpAddr) -> Result<bool, E>,
) -> Result<Vec<Problem>, E> {
    let mut found = Vec::new();
    let mut left = MOST_ADDRESSES;
    for service in services.services.iter().filter(|service| !service.addresses.is_empty()) {
        if left < service.addresses.len() {
            break;
        }
        left -= service.addresses.len();
        let mut absent = Vec::new();
        for address in &service.addresses {
            if !is_local(*address)? {
                absent.push(*address);
            }
        }
        if !absent.is_empty() {
            found.push(absent_address(service, &absent));
        }
    }
    Ok(found)
}

fn absent_address(service: &ServiceSummary, absent: &[IpAddr]) -> Problem {
    let addresses: Vec<String> = absent.iter().map(ToString::to_string).collect();
    let is_all = absent.len() == service.addresses.len();
    let message = format!(
        "{service}: the gateway does not have {}, so no client reaches the service there: give it the address (`ip address \
         add`), or take it out of the state",
        addresses.join(", ")
    );
    let severity = if is_all {
        problem::Severity::Error
    } else {
        problem::Severity::Warning
    };
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    Problem::new(Kind::AddressNotLocal, message)
        .of_service(name, service.port)
        .with_severity(severity)
}
