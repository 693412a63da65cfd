//! Problems of a gateway: one type and one list for `status`, `/v1/healthz`, events, exit codes, the service manager's
//! status line and `doctor`.
//!
//! Owns the kinds of problems and their severities. Knows nothing of the checks that find them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};

/// A problem of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Severity of the problem.
    pub severity: Severity,
    /// Kind of the problem.
    pub kind: Kind,
    /// Name of the service that has it, if any.
    pub service: Option<String>,
    /// Public port of the service.
    pub port: Option<u16>,
    /// Backend that has it, if any.
    pub backend: Option<SocketAddr>,
    /// Description of what is wrong and what to do.
    pub message: String,
}

/// Severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients are not served, or an order is not in effect: `status` exits with 1, `/v1/healthz` answers 503.
    Error,
    /// The problem needs attention.
    Warning,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $id:literal, $severity:ident;)+) => {
        /// Kind of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Returns the identifier of the `doctor` finding about it, in kebab case.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$kind => $id,)+
                }
            }

            /// Returns the usual severity of this kind; a check may set another one.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)+
                }
            }
        }
    };
}

kinds! {
    /// The daemon has not read yet what the kernel holds.
    Starting = "starting", Error;
    /// Everything was removed by `teardown`, and nothing was ordered since.
    TornDown = "torn-down", Error;
    /// The table of tcpgw does not exist.
    NoTable = "no-table", Error;
    /// The table is switched off.
    TableDormant = "table-dormant", Error;
    /// The kernel refuses a request, or does not answer.
    KernelRefuses = "kernel-refuses", Error;
    /// A service has no active backend.
    NoActiveBackend = "no-active-backend", Error;
    /// A service has active backends, and none of them answers the daemon's probes.
    NoHealthyBackend = "no-healthy-backend", Error;
    /// A service is not possible here now, because of the gateway's addresses or listeners.
    HeldBack = "held-back", Error;
    /// Services of the API or orphans are not in the kernel, and no daemon runs that would put them there.
    NotServed = "not-served", Error;
    /// A service that is served shows its backends an address that the gateway has no more.
    SourceAddressGone = "source-address-gone", Error;
    /// A backend of a service that is served has become one of the gateway's own addresses.
    OwnBackend = "own-backend", Error;
    /// A service that is served is outside of the configuration's fences.
    OutsideFences = "outside-fences", Warning;
    /// Flows are left that should have been flushed.
    StaleFlows = "stale-flows", Error;
    /// The state file was rejected, so that its contents are not in effect.
    RejectedState = "rejected-state", Error;
    /// The services in the store conflict with each other.
    RejectedStore = "rejected-store", Error;
    /// The store cannot be written.
    Store = "store", Error;
    /// The file of the store was removed or replaced while the daemon runs.
    StoreMoved = "store-moved", Error;
    /// Handshakes of clients are not completed: an error if this holds for all handshakes.
    Unanswered = "unanswered", Error;
    /// IPv4 packets are not forwarded.
    IpForwardOff = "ip-forward-off", Error;
    /// IPv6 packets are not forwarded.
    Ipv6ForwardingOff = "ipv6-forwarding-off", Error;
    /// Another table drops packets between clients and backends.
    PacketsDropped = "packets-dropped", Error;
    /// Another table makes packets of services bypass conntrack.
    PacketsUntracked = "packets-untracked", Error;
    /// Another table translates connections to a service.
    PortTranslatedElsewhere = "port-translated-elsewhere", Error;
    /// A rule of another program overwrites the bits of the ct mark that belong to tcpgw.
    FlowMarkOverwritten = "flow-mark-overwritten", Error;
    /// Flows from services to their backends do not have the mark of tcpgw.
    FlowsUnmarked = "flows-unmarked", Error;
    /// The reverse path filter drops packets of clients or backends.
    ReversePathFilter = "reverse-path-filter", Error;
    /// The table of conntrack is full, or nearly.
    ConntrackFull = "conntrack-full", Error;
    /// The table of conntrack fills.
    ConntrackFilling = "conntrack-filling", Warning;
    /// A service listens on addresses that the gateway does not have.
    AddressNotLocal = "address-not-local", Error;
    /// The gateway has lost an address on which clients had connections.
    AddressLost = "address-lost", Warning;
    /// The gateway has no address that clients from outside could connect to.
    NoPublicAddress = "no-public-address", Error;
    /// The links that clients come in by have no carrier.
    NoCarrier = "no-carrier", Error;
    /// A service shows its backends an address that the gateway does not have.
    SourceAddressNotLocal = "source-address-not-local", Error;
    /// No route leads to a backend; a warning where probes take it out of the balance and its service has others.
    BackendWithoutRoute = "backend-without-route", Error;
    /// The default route leads to backends with private addresses.
    BackendByDefaultRoute = "backend-by-default-route", Warning;
    /// No route leads to clients for answers; a warning where some clients have one.
    AnswersWithoutRoute = "answers-without-route", Error;
    /// A backend's address is the gateway's own.
    BackendIsGateway = "backend-is-gateway", Error;
    /// Clients can reach backends directly, and so bypass limits and access lists.
    BackendsExposed = "backends-exposed", Warning;
    /// Another table drops probes, or their answers.
    ProbesDropped = "probes-dropped", Warning;
    /// Probes take another route than packets of clients, and fail.
    ProbesMisrouted = "probes-misrouted", Warning;
    /// Another table offloads flows, so that they bypass the rules.
    FlowsOffloaded = "flows-offloaded", Warning;
    /// conntrack has too few buckets for the entries that it may have.
    ConntrackLongChains = "conntrack-long-chains", Warning;
    /// A daemon runs, but its socket does not answer.
    DaemonUnreachable = "daemon-unreachable", Warning;
    /// The checks of the surroundings have not ended for a long time.
    ChecksStalled = "checks-stalled", Warning;
    /// The daemon that ran here was killed or has crashed, and was not started again.
    DaemonGone = "daemon-gone", Error;
    /// The daemon that answers runs in another network namespace than the command.
    OtherNamespace = "other-namespace", Warning;
    /// The daemon's socket is gone, and cannot be created again.
    SocketGone = "socket-gone", Warning;
    /// The table's rules are not those of this program; a warning where another version made them.
    TableChanged = "table-changed", Error;
    /// The table and the configuration have different flow marks.
    OtherMark = "other-mark", Warning;
    /// The add-on's provider API is not served.
    ProviderApi = "provider-api", Warning;
    /// Few public ports are left for resources of the add-on, or none.
    AddonPorts = "addon-ports", Warning;
    /// The configuration is not accepted: a running daemon keeps its old one, and a new one does not start.
    RejectedConfiguration = "rejected-configuration", Warning;
    /// Services that no provider defines any more are still in effect.
    Orphaned = "orphaned", Warning;
    /// The desired services could not be written beside the store, so that a machine that boots with a lost file or
    /// store does not find them.
    LastServices = "last-services", Warning;
    /// The record in the run directory cannot be written.
    Record = "record", Warning;
    /// The store was lost and replaced by a new one: the last orders may be undone.
    StoreLost = "store-lost", Warning;
    /// New connections of a service are held back for a time by a pause.
    Paused = "paused", Warning;
    /// A backend does not answer the daemon's probes.
    BackendUnhealthy = "backend-unhealthy", Warning;
    /// A gateway address has few source ports left towards a backend.
    SourcePorts = "source-ports", Warning;
    /// Packets over the limit were dropped; an error where a service turns new clients away by its `max_flows`.
    OverLimit = "over-limit", Warning;
}

impl Kind {
    /// Returns the name in events, `status` and the log, in snake case.
    pub fn word(self) -> String {
        self.id().replace('-', "_")
    }

    /// Returns whether the kernel does not hold what was ordered.
    pub fn is_out_of_sync(self) -> bool {
        matches!(
            self,
            Self::KernelRefuses | Self::RejectedState | Self::RejectedStore | Self::HeldBack
        )
    }

    /// Returns whether this kind has an event of its own, so that the log contains it already.
    fn is_told_otherwise(self) -> bool {
        matches!(
            self,
            Self::KernelRefuses
                | Self::RejectedState
                | Self::RejectedStore
                | Self::TornDown
                | Self::Paused
                | Self::Orphaned
        )
    }
}

impl Problem {
    /// Creates a problem of the gateway as a whole.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            severity: kind.severity(),
            kind,
            service: None,
            port: None,
            backend: None,
            message: message.into(),
        }
    }

    /// Returns the problem, attributed to a service.
    #[must_use]
    pub fn of_service(self, name: impl Into<String>, port: u16) -> Self {
        Self {
            service: Some(name.into()),
            port: Some(port),
            ..self
        }
    }

    /// Returns the problem, attributed to a backend.
    #[must_use]
    pub fn of_backend(self, backend: SocketAddr) -> Self {
        Self {
            backend: Some(backend),
            ..self
        }
    }

    /// Returns the problem with this severity.
    #[must_use]
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Returns the identity of the problem: the same problem can be found twice with different messages.
    fn key(&self) -> Key {
        Key {
            severity: self.severity,
            kind: self.kind,
            port: self.port,
            service: self.service.clone(),
            backend: self.backend,
        }
    }

    /// Logs the problem: as an error or a warning, or for debugging if an event of its own reports it.
    pub fn log(&self) {
        let Self { kind, message, .. } = self;
        let kind = kind.word();
        match self.severity {
            _ if self.kind.is_told_otherwise() => tracing::debug!(kind, "problem: {message}"),
            Severity::Error => tracing::error!(kind, "problem: {message}"),
            Severity::Warning => tracing::warn!(kind, "problem: {message}"),
        }
    }
}

/// A problem that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndedProblem {
    /// Severity that it had.
    pub severity: Severity,
    /// Kind that it had.
    pub kind: Kind,
    /// Name of the service that had it, if any.
    pub service: Option<String>,
    /// Public port of the service.
    pub port: Option<u16>,
    /// Backend that had it, if any.
    pub backend: Option<SocketAddr>,
}

impl From<Problem> for EndedProblem {
    fn from(problem: Problem) -> Self {
        let Problem {
            severity,
            kind,
            service,
            port,
            backend,
            message: _,
        } = problem;
        Self {
            severity,
            kind,
            service,
            port,
            backend,
        }
    }
}

/// Returns whether none of the problems is an error.
pub fn is_ok<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> bool {
    problems.into_iter().all(|problem| problem.severity != Severity::Error)
}

/// Number of problems of one kind and severity that are listed one by one: 10,000 services with 8 backends each may
/// have 90,000.
pub const MOST_OF_KIND: usize = 1000;

/// Returns sorted problems for output: those of one kind and severity beyond [`MOST_OF_KIND`] are replaced by their
/// number.
pub fn few<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<Cow<'a, Problem>> {
    let mut told = Vec::new();
    let mut counted: BTreeMap<(Severity, Kind), usize> = BTreeMap::new();
    for problem in problems {
        let number = counted.entry((problem.severity, problem.kind)).or_default();
        *number += 1;
        if *number <= MOST_OF_KIND {
            told.push(Cow::Borrowed(problem));
        }
    }
    for ((severity, kind), number) in counted {
        if let Some(more) = number.checked_sub(MOST_OF_KIND).filter(|more| *more > 0) {
            let message = format!("and {} of this kind", crate::diff::count(more, "more problem"));
            told.push(Cow::Owned(Problem::new(kind, message).with_severity(severity)));
        }
    }
    told.sort_by_key(|problem| (problem.severity, problem.kind));
    told
}

/// Serializes sorted problems as [`few`] returns them.
///
/// # Errors
///
/// Fails when the serializer fails.
pub fn serialize_few<S: Serializer>(problems: &[Problem], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(few(problems))
}

/// Sorts problems, the worst first, and removes duplicates: of two that differ in the message alone the first stays.
pub fn sort(problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.key()));
    problems.sort_by_key(|problem| (problem.severity, problem.kind));
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    severity: Severity,
    kind: Kind,
    port: Option<u16>,
    service: Option<String>,
    backend: Option<SocketAddr>,
}

/// Present problems, and those that were reported by the last call of [`ProblemList::news`].
#[derive(Debug, Clone, Default)]
pub struct ProblemList {
    there: BTreeMap<Key, Problem>,
    told: BTreeMap<Key, Problem>,
}

/// A problem that began or ended since the last call of [`ProblemList::news`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemNews {
    /// The problem began.
    Began(Problem),
    /// The problem ended.
    Ended(Problem),
}

impl ProblemList {
    /// Adds a problem, or replaces the message of one that is known.
    pub fn report(&mut self, problem: Problem) {
        self.resolve_where(|known| {
            known.kind == problem.kind
                && (&known.service, known.port, known.backend) == (&problem.service, problem.port, problem.backend)
        });
        self.there.insert(problem.key(), problem);
    }

    /// Removes the problems of a kind.
    pub fn resolve(&mut self, kind: Kind) {
        self.resolve_where(|problem| problem.kind == kind);
    }

    /// Removes the problems for which `is_over` returns true.
    pub fn resolve_where(&mut self, is_over: impl Fn(&Problem) -> bool) {
        self.there.retain(|_, problem| !is_over(problem));
    }

    /// Replaces all problems of these kinds by what a check has found.
    pub fn replace(&mut self, kinds: &[Kind], found: impl IntoIterator<Item = Problem>) {
        self.resolve_where(|problem| kinds.contains(&problem.kind));
        self.there
            .extend(found.into_iter().map(|problem| (problem.key(), problem)));
    }

    /// Returns the first problem of a kind.
    pub fn get(&self, kind: Kind) -> Option<&Problem> {
        self.iter().find(|problem| problem.kind == kind)
    }

    /// Returns all problems, the worst first.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.there.values()
    }

    /// Returns whether none of them is an error.
    pub fn is_ok(&self) -> bool {
        is_ok(self.iter())
    }

    /// Returns the problems that began or ended since the last call. A problem that did both is left out.
    pub fn news(&mut self) -> Vec<ProblemNews> {
        if self.there.is_empty() && self.told.is_empty() {
            return Vec::new();
        }
        let ended = self.told.iter().filter(|(key, _)| !self.there.contains_key(key));
        let ended = ended.map(|(_, problem)| ProblemNews::Ended(problem.clone()));
        let began = self.there.iter().filter(|(key, _)| !self.told.contains_key(key));
        let began = began.map(|(_, problem)| ProblemNews::Began(problem.clone()));
        let news: Vec<ProblemNews> = ended.chain(began).collect();
        if !news.is_empty() {
            self.told.clone_from(&self.there);
        }
        news
    }

    /// Returns the message of the worst problem and the number of others, as one line; `None` if there are none.
    pub fn line(&self) -> Option<String> {
        let first = &self.iter().next()?.message;
        Some(match self.there.len() - 1 {
            0 => first.clone(),
            more => format!("{first} (and {})", crate::diff::count(more, "more problem")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(list: &ProblemList) -> Vec<Kind> {
        list.iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn every_kind_has_one_name_in_two_spellings() {
        for kind in Kind::ALL {
            let name = serde_json::to_value(kind).unwrap();
            assert_eq!(name, kind.word());
        }
        let mut ids: Vec<_> = Kind::ALL.iter().map(|kind| kind.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Kind::ALL.len());
    }

    #[test]
    fn the_manual_says_of_every_kind_how_bad_it_is_what_it_means_and_what_to_do() {
        let manual = include_str!("../../../docs/reference/problems.md");
        let (_, section) = manual.split_once("\n## The kinds of problems\n").expect("a section");
        let section = section.split("\n## ").next().expect("text");
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let described: Vec<Vec<&str>> = rows
            .map(|row| row.trim_end_matches(" |").split(" | ").collect())
            .collect();
        let kinds: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| format!("{}`", kind.id().replace('-', "_")))
            .collect();
        assert_eq!(described.iter().map(|cells| cells[0]).collect::<Vec<_>>(), kinds);
        for (cells, kind) in described.iter().zip(Kind::ALL) {
            let [_, severity, meaning, cure] = cells.as_slice() else {
                panic!("{cells:?}");
            };
            let worst = serde_json::to_value(kind.severity()).unwrap();
            assert_eq!(severity.split(';').next(), worst.as_str(), "{kind:?}");
            assert!(meaning.len() > 10 && cure.len() > 10, "{kind:?}");
        }
    }

    #[test]
    fn a_problem_is_told_once_when_it_comes_and_once_when_it_goes() {
        let mut list = ProblemList::default();
        let of = |name: &str, words: &str| Problem::new(Kind::Paused, words).of_service(name, 1);
        list.report(of("a", "1 s left"));
        list.report(of("b", "2 s left"));
        assert_eq!(list.news().len(), 2);
        list.report(of("a", "other words"));
        assert_eq!(list.news(), []);
        assert_eq!(list.get(Kind::Paused).unwrap().message, "other words");
        list.resolve_where(|problem| problem.service.as_deref() == Some("a"));
        list.report(of("c", "both"));
        list.resolve_where(|problem| problem.service.as_deref() == Some("c"));
        assert!(matches!(&list.news()[..], [ProblemNews::Ended(problem)] if problem.service.as_deref() == Some("a")));
        list.replace(&[Kind::Paused], []);
        assert_eq!(list.news().len(), 1);
        assert_eq!((kinds(&list), list.news()), (vec![], vec![]));
    }

    #[test]
    fn one_that_gets_worse_is_told_again_and_there_once() {
        let mut list = ProblemList::default();
        list.report(Problem::new(Kind::OverLimit, "80 %"));
        list.news();
        list.report(Problem::new(Kind::OverLimit, "95 %").with_severity(Severity::Error));
        assert_eq!(kinds(&list), [Kind::OverLimit]);
        assert!(!list.is_ok());
        assert!(matches!(
            &list.news()[..],
            [ProblemNews::Ended(_), ProblemNews::Began(_)]
        ));
    }

    #[test]
    fn the_worst_comes_first_and_the_rest_is_counted() {
        let mut list = ProblemList::default();
        assert_eq!(list.line(), None);
        list.report(Problem::new(Kind::OverLimit, "much"));
        assert_eq!(list.line().unwrap(), "much");
        list.report(Problem::new(Kind::Store, "the disk is full"));
        assert_eq!(list.line().unwrap(), "the disk is full (and 1 more problem)");
        list.report(Problem::new(Kind::OtherMark, "mark"));
        assert_eq!(list.line().unwrap(), "the disk is full (and 2 more problems)");
    }

    #[test]
    fn of_many_problems_of_a_kind_the_rest_is_counted() {
        let of = |kind, number: usize| {
            let problem = move |number: usize| Problem::new(kind, "x").of_service(format!("s{number}"), 1);
            (0..number).map(problem).collect::<Vec<_>>()
        };
        let all = [
            of(Kind::OverLimit, MOST_OF_KIND),
            of(Kind::NoHealthyBackend, MOST_OF_KIND + 2),
        ]
        .concat();
        let told = few(&all);
        assert_eq!(told.len(), 2 * MOST_OF_KIND + 1);
        let more = &told[MOST_OF_KIND];
        assert_eq!(
            (more.kind, more.severity, &*more.message),
            (
                Kind::NoHealthyBackend,
                Severity::Error,
                "and 2 more problems of this kind"
            )
        );
        assert_eq!(is_ok(told.iter().map(AsRef::as_ref)), is_ok(&all));
        assert_eq!(few(&of(Kind::Paused, 3)).len(), 3);
    }

    #[test]
    fn the_same_problem_of_two_finders_is_listed_once() {
        let one = Problem::new(Kind::NoActiveBackend, "first").of_service("a", 80);
        let mut problems = vec![Problem::new(Kind::OverLimit, "x"), one.clone()];
        problems.push(Problem {
            message: "second".into(),
            ..one
        });
        sort(&mut problems);
        let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(told, ["first", "x"]);
    }
}
