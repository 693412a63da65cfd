//! The doctor: finds what breaks, or may break, traffic through this gateway.
//!
//! [`gather()`] reads the kernel into plain [`Facts`]; [`examine`] draws conclusions. A check whose facts could not be
//! read is named in the diagnosis, never left out.
//!
//! The checks for what keeps clients from being served need [`CheapFacts`] only: a [`CheapReader`] reads these in some
//! milliseconds, without starting a program, and [`examine_cheap`] judges them.

mod advice;
mod checks;
mod clients;
mod condition_result;
mod conditions;
mod daemon_state;
mod facts;
mod field_value;
mod finding;
mod gather;
mod header;
mod judge;
mod mark_bits;
mod packet;
mod problems;
mod spans;

use std::sync::Arc;
use std::time::Instant;

use tcpgw_core::problem::ProblemKind;
use tcpgw_core::summary::Summary;

pub use self::daemon_state::{RunningDaemon, examine_beside};
pub use self::facts::{
    AnswerRoutes, CheapFacts, CheckSubject, ClientRoutes, Effort, Fact, Facts, FailingProbes, Firewall, LostAnswers,
    MisroutedProbe, RoutesByAddress, ServedClient, TableFacts, TableState,
};
pub use self::finding::{Diagnosis, Finding, FindingSeverity, Fix, Unchecked};
pub use self::gather::{CheapReader, MemoryFile, gather};
pub use self::problems::{KINDS, absent_addresses, add_of_daemon, finding, problems};

/// The possible findings, each with its worst severity; the names are permanent. A finding that is also a problem of
/// the gateway has the severity of [`ProblemKind::severity`].
pub const FINDINGS: &[(&str, FindingSeverity)] = &[
    of(ProblemKind::IpForwardOff),
    of(ProblemKind::Ipv6ForwardingOff),
    ("ipv6-router-advertisements", FindingSeverity::Note),
    of(ProblemKind::PacketsDropped),
    of(ProblemKind::ProbesDropped),
    of(ProblemKind::ProbesMisrouted),
    of(ProblemKind::PacketsUntracked),
    of(ProblemKind::PortTranslatedElsewhere),
    of(ProblemKind::FlowMarkOverwritten),
    of(ProblemKind::FlowsUnmarked),
    of(ProblemKind::FlowsOffloaded),
    of(ProblemKind::ReversePathFilter),
    ("bridge-without-hairpin", FindingSeverity::Warning),
    of(ProblemKind::ConntrackFull),
    of(ProblemKind::ConntrackFilling),
    ("conntrack-dropped", FindingSeverity::Warning),
    of(ProblemKind::ConntrackLongChains),
    ("conntrack-races", FindingSeverity::Note),
    ("conntrack-liberal", FindingSeverity::Note),
    ("conntrack-loose", FindingSeverity::Note),
    ("conntrack-long-timeout", FindingSeverity::Note),
    ("conntrack-accounting-off", FindingSeverity::Note),
    ("conntrack-timestamps-off", FindingSeverity::Note),
    ("snat-ports-exhausted", FindingSeverity::Broken),
    ("snat-port-reuse", FindingSeverity::Warning),
    of(ProblemKind::SourceAddressNotLocal),
    ("port-in-local-range", FindingSeverity::Warning),
    ("port-with-listener", FindingSeverity::Note),
    of(ProblemKind::AddressNotLocal),
    of(ProblemKind::AddressLost),
    of(ProblemKind::NoPublicAddress),
    of(ProblemKind::NoCarrier),
    of(ProblemKind::BackendsExposed),
    of(ProblemKind::BackendWithoutRoute),
    of(ProblemKind::AnswersWithoutRoute),
    of(ProblemKind::BackendByDefaultRoute),
    of(ProblemKind::BackendIsGateway),
    ("backend-unreachable", FindingSeverity::Warning),
    ("path-mtu", FindingSeverity::Note),
    ("large-receive-offload", FindingSeverity::Warning),
    ("packets-merged", FindingSeverity::Note),
    ("kernel-feature-missing", FindingSeverity::Broken),
    ("kernel-fallback", FindingSeverity::Note),
    ("kernel-untested", FindingSeverity::Warning),
    ("table-missing", worst(ProblemKind::NoTable)),
    ("table-of-another-version", FindingSeverity::Warning),
    of(ProblemKind::TableChanged),
    ("table-unrecorded", FindingSeverity::Note),
    ("table-owned", FindingSeverity::Warning),
    ("table-of-another-mark", worst(ProblemKind::OtherMark)),
];

/// Returns the finding of a kind of problem, under the same name.
const fn of(kind: ProblemKind) -> (&'static str, FindingSeverity) {
    (kind.id(), worst(kind))
}

/// Returns the worst severity of a finding for a kind of problem.
const fn worst(kind: ProblemKind) -> FindingSeverity {
    FindingSeverity::of(kind.severity())
}

/// Returns the findings of all checks.
pub fn examine(facts: &Facts) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    for check in checks::COSTLY {
        check(facts, &mut diagnosis);
    }
    cheap(&facts.cheap, &mut diagnosis);
    diagnosis.findings.sort_by_key(|finding| finding.severity);
    diagnosis
}

/// Returns the findings of the checks that need cheap facts only.
pub fn examine_cheap(facts: &CheapFacts) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    cheap(facts, &mut diagnosis);
    diagnosis.findings.sort_by_key(|finding| finding.severity);
    diagnosis
}

/// Returns the findings about forwarding, for services that may not exist yet.
pub fn examine_forwarding(services: Summary) -> Vec<Finding> {
    let mut diagnosis = Diagnosis::default();
    let subject = CheckSubject {
        services: Arc::new(services),
        ..CheckSubject::default()
    };
    let facts = CheapReader::new(Effort::Quick).read_routes(&subject);
    checks::forwarding::check(&facts, &mut diagnosis);
    diagnosis.findings
}

/// Returns the rules of other programs that keep processes of `tcpgw up` from the outside, for the app with this id.
pub fn examine_app(id: &str) -> Vec<Finding> {
    let facts = CheapReader::new(Effort::Quick).read(&CheckSubject::default(), Instant::now());
    let mut diagnosis = Diagnosis::default();
    checks::apps::check_one(&facts, id, &mut diagnosis);
    diagnosis.findings
}

fn cheap(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    for check in checks::CHEAP {
        check(facts, diagnosis);
    }
}

#[cfg(test)]
mod tests;
