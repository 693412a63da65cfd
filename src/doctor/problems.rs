//! Findings of the doctor as problems of the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::advice;
use super::finding::{Diagnosis, Finding, FindingSeverity, Fix};
use tcpgw_core::problem::{self, Problem, ProblemKind};
use tcpgw_core::summary::{ServiceSummary, Summary};

/// Maximum number of services' addresses that are examined.
const MOST_ADDRESSES: usize = 1000;

/// Kinds of problems that the cheap checks and [`absent_addresses`] can find.
pub const KINDS: &[ProblemKind] = &[
    ProblemKind::IpForwardOff,
    ProblemKind::Ipv6ForwardingOff,
    ProblemKind::PacketsDropped,
    ProblemKind::PacketsUntracked,
    ProblemKind::PortTranslatedElsewhere,
    ProblemKind::FlowMarkOverwritten,
    ProblemKind::FlowsUnmarked,
    ProblemKind::ReversePathFilter,
    ProblemKind::ConntrackFull,
    ProblemKind::ConntrackFilling,
    ProblemKind::ConntrackLongChains,
    ProblemKind::AddressNotLocal,
    ProblemKind::AddressLost,
    ProblemKind::NoPublicAddress,
    ProblemKind::NoCarrier,
    ProblemKind::SourceAddressNotLocal,
    ProblemKind::BackendWithoutRoute,
    ProblemKind::BackendByDefaultRoute,
    ProblemKind::AnswersWithoutRoute,
    ProblemKind::BackendIsGateway,
    ProblemKind::BackendsExposed,
    ProblemKind::ProbesDropped,
    ProblemKind::ProbesMisrouted,
    ProblemKind::FlowsOffloaded,
];

/// Returns the problems of findings; notes have none.
pub fn problems(diagnosis: &Diagnosis) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for problem in diagnosis.findings.iter().filter_map(problem) {
        // Several chains may drop packets: there is one problem of each kind.
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

/// Returns the finding for a problem that the daemon, or its absence, reports.
pub fn finding(problem: &Problem) -> Finding {
    let (cause, fix) = advice::of(problem.kind).unwrap_or_else(|| {
        let cause = "the daemon found it at its last check, some seconds ago at most, and this command did not: it is over, \
                     or comes and goes, or could not be checked from here";
        (cause, Fix::Advice("see `tcpgw status`, which tells whether it is still there".into()))
    });
    Finding {
        id: problem.kind.id(),
        severity: FindingSeverity::of(problem.severity),
        seen: problem.message.clone(),
        cause: cause.into(),
        fix: Some(fix),
    }
}

/// Maximum number of the daemon's problems that are reported one by one.
const MOST_PROBLEMS: usize = 50;

/// Adds the daemon's problems, and gives findings of the same kind the severity that the daemon reports, so that the
/// exit codes of `status` and `doctor` agree.
pub fn add_of_daemon(diagnosis: &mut Diagnosis, problems: &[Problem]) {
    let mut worst: BTreeMap<&str, FindingSeverity> = BTreeMap::new();
    for problem in problems {
        let severity = FindingSeverity::of(problem.severity);
        let known = worst.entry(problem.kind.id()).or_insert(severity);
        *known = severity.min(*known);
    }
    let mut found = BTreeSet::new();
    for (id, severity) in worst {
        let mut same = diagnosis.findings.iter_mut().filter(|finding| finding.id == id);
        let Some(first) = same.next() else { continue };
        first.severity = severity;
        // Several chains may drop packets, and some of them not surely.
        same.for_each(|finding| finding.severity = finding.severity.max(severity));
        found.insert(id);
    }
    let others = problems.iter().filter(|problem| !found.contains(problem.kind.id()));
    diagnosis.add(others.take(MOST_PROBLEMS).map(finding));
}

fn problem(finding: &Finding) -> Option<Problem> {
    // The daemon reports it for each service, see [`absent_addresses`].
    if finding.severity == FindingSeverity::Note || finding.id == "address-not-local" {
        return None;
    }
    let known = KINDS.iter().find(|kind| kind.id() == finding.id);
    debug_assert!(known.is_some(), "{} has no kind of problem", finding.id);
    let kind = *known?;
    let severity = match finding.severity {
        FindingSeverity::Broken => problem::Severity::Error,
        FindingSeverity::Warning | FindingSeverity::Note => problem::Severity::Warning,
    };
    let fix = match &finding.fix {
        Some(Fix::Command(line)) => format!(". To fix it, as root: `{line}`"),
        Some(Fix::Advice(words)) => format!(". To fix it: {words}"),
        None => String::new(),
    };
    let message = format!("{}: {}{fix}", finding.seen, finding.cause);
    Some(Problem::new(kind, message).with_severity(severity))
}

/// Returns a problem for each service that listens on addresses which the gateway does not have: an error if it has
/// none of them.
///
/// # Errors
/// Fails with the first error of `is_local`.
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
    Problem::new(ProblemKind::AddressNotLocal, message)
        .of_service(name, service.port)
        .with_severity(severity)
}
