//! Problems of a gateway: one type and one list for `status`, `/v1/healthz`, events, exit codes, the service manager's
//! status line and `doctor`.
//!
//! Owns the kinds of problems and their severities. Knows nothing of the checks that find them.

mod evidence;
mod key;
mod kind;
mod list;
mod severity;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use self::key::Key;
use serde::{Deserialize, Serialize, Serializer};

pub use self::evidence::EvidencePlace;
pub use self::kind::ProblemKind;
pub use self::list::{ProblemList, ProblemNews};
pub use self::severity::Severity;

/// A problem of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Severity of the problem.
    pub severity: Severity,
    /// Kind of the problem.
    pub kind: ProblemKind,
    /// Name of the service that has it, if any.
    pub service: Option<String>,
    /// Public port of the service.
    pub port: Option<u16>,
    /// Backend that has it, if any.
    pub backend: Option<SocketAddr>,
    /// Description of what is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// Creates a problem of the gateway as a whole.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
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
            _ if self.kind.has_own_event() => tracing::debug!(kind, "problem: {message}"),
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
    pub kind: ProblemKind,
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
    let mut shortened = Vec::new();
    let mut counted: BTreeMap<(Severity, ProblemKind), usize> = BTreeMap::new();
    for problem in problems {
        let number = counted.entry((problem.severity, problem.kind)).or_default();
        *number += 1;
        if *number <= MOST_OF_KIND {
            shortened.push(Cow::Borrowed(problem));
        }
    }
    for ((severity, kind), number) in counted {
        if let Some(more) = number.checked_sub(MOST_OF_KIND).filter(|more| *more > 0) {
            let message = format!("and {} of this kind", crate::words::count(more, "more problem"));
            shortened.push(Cow::Owned(Problem::new(kind, message).with_severity(severity)));
        }
    }
    shortened.sort_by_key(|problem| (problem.severity, problem.kind));
    shortened
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
    let mut distinct = BTreeSet::new();
    problems.retain(|problem| distinct.insert(problem.key()));
    problems.sort_by_key(|problem| (problem.severity, problem.kind));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(list: &ProblemList) -> Vec<ProblemKind> {
        list.iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn every_kind_has_one_name_in_two_spellings() {
        for kind in ProblemKind::ALL {
            let name = serde_json::to_value(kind).unwrap();
            assert_eq!(name, kind.word());
        }
        let mut ids: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ProblemKind::ALL.len());
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
        let kinds: Vec<String> = ProblemKind::ALL
            .iter()
            .map(|kind| format!("{}`", kind.id().replace('-', "_")))
            .collect();
        assert_eq!(described.iter().map(|cells| cells[0]).collect::<Vec<_>>(), kinds);
        for (cells, kind) in described.iter().zip(ProblemKind::ALL) {
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
        let of = |name: &str, words: &str| Problem::new(ProblemKind::Paused, words).of_service(name, 1);
        list.report(of("a", "1 s left"));
        list.report(of("b", "2 s left"));
        assert_eq!(list.news().len(), 2);
        list.report(of("a", "other words"));
        assert_eq!(list.news(), []);
        assert_eq!(list.get(ProblemKind::Paused).unwrap().message, "other words");
        list.replace(&[ProblemKind::Paused], [of("b", "2 s left")]);
        list.report(of("c", "both"));
        list.replace(&[ProblemKind::Paused], [of("b", "1 s left")]);
        assert!(matches!(&list.news()[..], [ProblemNews::Ended(problem)] if problem.service.as_deref() == Some("a")));
        list.resolve(ProblemKind::Paused);
        list.report(of("b", "again"));
        assert_eq!(list.news(), []);
        list.report(Problem::new(ProblemKind::OverLimit, "other"));
        list.replace(&[ProblemKind::Paused], []);
        assert_eq!(list.news().len(), 2);
        assert_eq!((kinds(&list), list.news()), (vec![ProblemKind::OverLimit], vec![]));
    }

    #[test]
    fn one_that_gets_worse_is_told_again_and_there_once() {
        let mut list = ProblemList::default();
        list.report(Problem::new(ProblemKind::OverLimit, "80 %"));
        list.news();
        list.report(Problem::new(ProblemKind::OverLimit, "95 %").with_severity(Severity::Error));
        assert_eq!(kinds(&list), [ProblemKind::OverLimit]);
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
        list.report(Problem::new(ProblemKind::OverLimit, "much"));
        assert_eq!(list.line().unwrap(), "much");
        list.report(Problem::new(ProblemKind::Store, "the disk is full"));
        assert_eq!(list.line().unwrap(), "the disk is full (and 1 more problem)");
        list.report(Problem::new(ProblemKind::OtherMark, "mark"));
        assert_eq!(list.line().unwrap(), "the disk is full (and 2 more problems)");
    }

    #[test]
    fn of_many_problems_of_a_kind_the_rest_is_counted() {
        let of = |kind, number: usize| {
            let problem = move |number: usize| Problem::new(kind, "x").of_service(format!("s{number}"), 1);
            (0..number).map(problem).collect::<Vec<_>>()
        };
        let all = [
            of(ProblemKind::OverLimit, MOST_OF_KIND),
            of(ProblemKind::NoHealthyBackend, MOST_OF_KIND + 2),
        ]
        .concat();
        let reduced = few(&all);
        assert_eq!(reduced.len(), 2 * MOST_OF_KIND + 1);
        let more = &reduced[MOST_OF_KIND];
        assert_eq!(
            (more.kind, more.severity, &*more.message),
            (
                ProblemKind::NoHealthyBackend,
                Severity::Error,
                "and 2 more problems of this kind"
            )
        );
        assert_eq!(is_ok(reduced.iter().map(AsRef::as_ref)), is_ok(&all));
        assert_eq!(few(&of(ProblemKind::Paused, 3)).len(), 3);
    }

    #[test]
    fn the_same_problem_of_two_finders_is_listed_once() {
        let one = Problem::new(ProblemKind::NoActiveBackend, "first").of_service("a", 80);
        let mut problems = vec![Problem::new(ProblemKind::OverLimit, "x"), one.clone()];
        problems.push(Problem {
            message: "second".into(),
            ..one
        });
        sort(&mut problems);
        let message: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(message, ["first", "x"]);
    }
}
