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
mod conditions;
mod facts;
mod finding;
mod gather;
mod holds;
mod judge;
mod packet;
mod problems;
mod spans;

use std::sync::Arc;
use std::time::Instant;

use tcpgw_core::problem::Kind;
use tcpgw_core::summary::Summary;

pub use self::facts::{
    CheapFacts, Effort, Fact, Facts, FailingProbes, Firewall, LostAnswers, MisroutedProbe, ServedClient, Subject,
    TableFacts, TableState, Ways, WaysOfAnswers, WaysOut,
};
pub use self::finding::{Diagnosis, Finding, Fix, Severity, Unchecked};
pub use self::gather::{CheapReader, gather};
pub use self::problems::{KINDS, absent_addresses, add_of_daemon, finding, problems};

/// The possible findings, each with its worst severity; the names are permanent. A finding that is also a problem of
/// the gateway has the severity of [`Kind::severity`].
pub const FINDINGS: &[(&str, Severity)] = &[
    of(Kind::IpForwardOff),
    of(Kind::Ipv6ForwardingOff),
    ("ipv6-router-advertisements", Severity::Note),
    of(Kind::PacketsDropped),
    of(Kind::ProbesDropped),
    of(Kind::ProbesMisrouted),
    of(Kind::PacketsUntracked),
    of(Kind::PortTranslatedElsewhere),
    of(Kind::FlowMarkOverwritten),
    of(Kind::FlowsUnmarked),
    of(Kind::FlowsOffloaded),
    of(Kind::ReversePathFilter),
    ("bridge-without-hairpin", Severity::Warning),
    of(Kind::ConntrackFull),
    of(Kind::ConntrackFilling),
    ("conntrack-dropped", Severity::Warning),
    of(Kind::ConntrackLongChains),
    ("conntrack-races", Severity::Note),
    ("conntrack-liberal", Severity::Note),
    ("conntrack-loose", Severity::Note),
    ("conntrack-long-timeout", Severity::Note),
    ("conntrack-accounting-off", Severity::Note),
    ("conntrack-timestamps-off", Severity::Note),
    ("snat-ports-exhausted", Severity::Broken),
    ("snat-port-reuse", Severity::Warning),
    of(Kind::SourceAddressNotLocal),
    ("port-in-local-range", Severity::Warning),
    ("port-with-listener", Severity::Note),
    of(Kind::AddressNotLocal),
    of(Kind::AddressLost),
    of(Kind::NoPublicAddress),
    of(Kind::NoCarrier),
    of(Kind::BackendsExposed),
    of(Kind::BackendWithoutRoute),
    of(Kind::AnswersWithoutRoute),
    of(Kind::BackendByDefaultRoute),
    of(Kind::BackendIsGateway),
    ("backend-unreachable", Severity::Warning),
    ("path-mtu", Severity::Note),
    ("large-receive-offload", Severity::Warning),
    ("packets-merged", Severity::Note),
    ("kernel-feature-missing", Severity::Broken),
    ("kernel-fallback", Severity::Note),
    ("kernel-untested", Severity::Warning),
    ("table-missing", worst(Kind::NoTable)),
    ("table-of-another-version", Severity::Warning),
    of(Kind::TableChanged),
    ("table-unrecorded", Severity::Note),
    ("table-owned", Severity::Warning),
    ("table-of-another-mark", worst(Kind::OtherMark)),
];

/// Returns the finding of a kind of problem, under the same name.
const fn of(kind: Kind) -> (&'static str, Severity) {
    (kind.id(), worst(kind))
}

/// Returns the worst severity of a finding for a kind of problem.
const fn worst(kind: Kind) -> Severity {
    Severity::of(kind.severity())
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
    let subject = Subject {
        services: Arc::new(services),
        ..Subject::default()
    };
    let facts = CheapReader::new(Effort::Quick).read_ways(&subject);
    checks::forwarding::check(&facts, &mut diagnosis);
    diagnosis.findings
}

/// Returns the rules of other programs that keep processes of `tcpgw up` from the outside, for the app with this id.
pub fn examine_app(id: &str) -> Vec<Finding> {
    let facts = CheapReader::new(Effort::Quick).read(&Subject::default(), Instant::now());
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
