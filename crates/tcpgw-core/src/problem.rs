//! What is wrong with a gateway: one type and one list for `status`, `/v1/healthz`, events, exit codes, the service
//! manager's status line and `doctor`.
//!
//! Owns the kinds of problems and how bad each is. Knows nothing of who finds them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients are not served, or what somebody ordered is not in effect: `status` exits with 1, `/v1/healthz` answers 503.
    Error,
    /// Something needs a look.
    Warning,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $id:literal, $severity:ident;)+) => {
        /// What can be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// The identifier of the `doctor` finding that tells of it, in kebab case.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$kind => $id,)+
                }
            }

            /// How bad it is, unless whoever finds it knows better.
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
    /// There is no table of tcpgw.
    NoTable = "no-table", Error;
    /// The table is switched off.
    TableDormant = "table-dormant", Error;
    /// The kernel refuses what it is told, or does not answer.
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
    /// The state file was rejected, so that what it says is not in effect.
    RejectedState = "rejected-state", Error;
    /// The services in the store do not go together.
    RejectedStore = "rejected-store", Error;
    /// The store does not take changes.
    Store = "store", Error;
    /// The file of the store was removed or replaced while the daemon runs.
    StoreMoved = "store-moved", Error;
    /// Handshakes of clients are not completed: an error where these are all there is.
    Unanswered = "unanswered", Error;
    /// IPv4 packets are not forwarded.
    IpForwardOff = "ip-forward-off", Error;
    /// IPv6 packets are not forwarded.
    Ipv6ForwardingOff = "ipv6-forwarding-off", Error;
    /// Another table drops packets between clients and backends.
    PacketsDropped = "packets-dropped", Error;
    /// Another table takes packets of services off conntrack.
    PacketsUntracked = "packets-untracked", Error;
    /// Another table translates connections to a service.
    PortTranslatedElsewhere = "port-translated-elsewhere", Error;
    /// Another program's rule writes over our bits of the ct mark.
    FlowMarkOverwritten = "flow-mark-overwritten", Error;
    /// Flows from services to their backends do not have our mark.
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
    /// There is no route to a backend; a warning where probes take it out of the balance and its service has others.
    BackendWithoutRoute = "backend-without-route", Error;
    /// The default route leads to backends with private addresses.
    BackendByDefaultRoute = "backend-by-default-route", Warning;
    /// There is no route for answers to clients; a warning where some clients have one.
    AnswersWithoutRoute = "answers-without-route", Error;
    /// A backend's address is the gateway's own.
    BackendIsGateway = "backend-is-gateway", Error;
    /// Clients reach backends past their services, and with that past limits and access lists.
    BackendsExposed = "backends-exposed", Warning;
    /// Another table drops probes, or their answers.
    ProbesDropped = "probes-dropped", Warning;
    /// Probes go another way than packets of clients, and fail.
    ProbesMisrouted = "probes-misrouted", Warning;
    /// Another table sends flows past the rules.
    FlowsOffloaded = "flows-offloaded", Warning;
    /// conntrack has few buckets for the entries that it may have.
    ConntrackLongChains = "conntrack-long-chains", Warning;
    /// A daemon is at work, and nobody answers where its socket should be.
    DaemonUnreachable = "daemon-unreachable", Warning;
    /// The checks of the surroundings have not ended for long.
    ChecksStalled = "checks-stalled", Warning;
    /// The daemon that ran here was killed or has crashed, and nothing has started it again.
    DaemonGone = "daemon-gone", Error;
    /// The daemon that answers is of another network namespace than the command.
    OtherNamespace = "other-namespace", Warning;
    /// The daemon's socket is gone, and cannot be made again.
    SocketGone = "socket-gone", Warning;
    /// The table's rules are not those of this program; a warning where another version made them.
    TableChanged = "table-changed", Error;
    /// The table and the configuration say different flow marks.
    OtherMark = "other-mark", Warning;
    /// The add-on's provider API is not served.
    ProviderApi = "provider-api", Warning;
    /// Few public ports are left for resources of the add-on, or none.
    AddonPorts = "addon-ports", Warning;
    /// The configuration is not accepted: a daemon that runs goes on with its old one, and none starts.
    RejectedConfiguration = "rejected-configuration", Warning;
    /// Services that no provider defines any more are served on.
    Orphaned = "orphaned", Warning;
    /// What is desired could not be written beside the store, for a machine that boots with a lost file or store.
    LastServices = "last-services", Warning;
    /// The record in the run directory cannot be written.
    Record = "record", Warning;
    /// The store was lost, and a new one is in its place: what was ordered just before may be undone.
    StoreLost = "store-lost", Warning;
    /// New connections of a service are held back for a time, by order.
    Paused = "paused", Warning;
    /// A backend does not answer the daemon's probes.
    BackendUnhealthy = "backend-unhealthy", Warning;
    /// A gateway address has few source ports left towards a backend.
    SourcePorts = "source-ports", Warning;
    /// Packets over the limit, or new connections over `max_flows`, were dropped between both looks.
    OverLimit = "over-limit", Warning;
}

impl Kind {
    /// Returns it as events, `status` and the log write it.
    pub fn word(self) -> String {
        self.id().replace('-', "_")
    }

    /// Whether it says that the kernel does not hold what somebody ordered.
    pub fn is_out_of_sync(self) -> bool {
        matches!(
            self,
            Self::KernelRefuses | Self::RejectedState | Self::RejectedStore | Self::HeldBack
        )
    }

    /// Whether an event of its own tells of it, so that the log has it already.
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
    /// One of the gateway as a whole.
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

    /// The same of a service, by its name.
    #[must_use]
    pub fn of_service(self, name: impl Into<String>, port: u16) -> Self {
        Self {
            service: Some(name.into()),
            port: Some(port),
            ..self
        }
    }

    /// The same of a backend.
    #[must_use]
    pub fn of_backend(self, backend: SocketAddr) -> Self {
        Self {
            backend: Some(backend),
            ..self
        }
    }

    /// The same, as bad as that.
    #[must_use]
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Returns what makes it another one: the same problem can be found twice, in other words.
    fn key(&self) -> Key {
        Key {
            severity: self.severity,
            kind: self.kind,
            port: self.port,
            service: self.service.clone(),
            backend: self.backend,
        }
    }

    /// Writes to the log that it is there.
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

/// A problem that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndedProblem {
    /// How bad it was.
    pub severity: Severity,
    /// What it was.
    pub kind: Kind,
    /// The service that had it, where there is one with a name.
    pub service: Option<String>,
    /// The public port.
    pub port: Option<u16>,
    /// The backend.
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

/// Returns whether nothing in it is an error.
pub fn is_ok<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> bool {
    problems.into_iter().all(|problem| problem.severity != Severity::Error)
}

/// Problems of one kind and severity that are told one by one to whoever asks for all: 10,000 services with 8 backends each may have
/// 90,000.
pub const MOST_OF_KIND: usize = 1000;

/// Returns sorted problems as they are told: of those of one kind and severity beyond [`MOST_OF_KIND`] only how many there are.
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
/// Those of the serializer.
pub fn serialize_few<S: Serializer>(problems: &[Problem], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(few(problems))
}

/// Sorts problems, the worst first, and removes those that were found before: of two that differ in words alone the first
/// stays.
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

/// The problems that are there now, and what was said of them.
#[derive(Debug, Clone, Default)]
pub struct ProblemList {
    there: BTreeMap<Key, Problem>,
    told: BTreeMap<Key, Problem>,
}

/// A problem that came or went since the last call of [`ProblemList::news`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemNews {
    /// It is there.
    Began(Problem),
    /// It is over.
    Ended(Problem),
}

impl ProblemList {
    /// Notes a problem; the same one again has the later words.
    pub fn report(&mut self, problem: Problem) {
        self.resolve_where(|known| {
            known.kind == problem.kind
                && (&known.service, known.port, known.backend) == (&problem.service, problem.port, problem.backend)
        });
        self.there.insert(problem.key(), problem);
    }

    /// Forgets the problems of a kind.
    pub fn resolve(&mut self, kind: Kind) {
        self.resolve_where(|problem| problem.kind == kind);
    }

    /// Forgets the problems that are so.
    pub fn resolve_where(&mut self, is_over: impl Fn(&Problem) -> bool) {
        self.there.retain(|_, problem| !is_over(problem));
    }

    /// Puts what a check has found in the place of what it found before: all problems of its kinds.
    pub fn replace(&mut self, kinds: &[Kind], found: impl IntoIterator<Item = Problem>) {
        self.resolve_where(|problem| kinds.contains(&problem.kind));
        self.there
            .extend(found.into_iter().map(|problem| (problem.key(), problem)));
    }

    /// The first problem of a kind.
    pub fn get(&self, kind: Kind) -> Option<&Problem> {
        self.iter().find(|problem| problem.kind == kind)
    }

    /// All of them, the worst first.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.there.values()
    }

    /// Returns whether none of them is an error.
    pub fn is_ok(&self) -> bool {
        is_ok(self.iter())
    }

    /// Takes what came and went since the last call. One that both came and went is not told.
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

    /// All in one line: the worst, and how many there are besides; `None` if there are none.
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
