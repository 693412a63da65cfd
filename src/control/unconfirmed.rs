//! Errors that a single observation of the gateway's surroundings has found. Another program may be in the middle of a
//! change at that moment, as an engine that has created a container's link and not yet attached it to its bridge: such an
//! error is reported when a second observation finds it as well.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// Time after which errors that are not confirmed are looked for again.
pub(crate) const CONFIRM_AFTER: Duration = Duration::from_millis(500);

/// Identity of an error: its kind, service and backend.
type Subject = (ProblemKind, Option<String>, Option<SocketAddr>);

/// The errors that the last observation has found.
#[derive(Debug, Default)]
pub(crate) struct UnconfirmedErrors {
    /// `None` before the first observation.
    found_last: Option<BTreeSet<Subject>>,
}

impl UnconfirmedErrors {
    /// Returns the problems to report of those that an observation has `found`, and whether errors have to be confirmed by
    /// another observation. An error is reported if the last observation has found it, too, or if it is `reported` already;
    /// instead of another one, what is reported about the same subject goes on. The first observation is reported whole.
    pub(crate) fn confirm<'a>(
        &mut self,
        found: Vec<Problem>,
        reported: impl IntoIterator<Item = &'a Problem>,
    ) -> (Vec<Problem>, bool) {
        let errors = found.iter().filter(|problem| problem.severity == Severity::Error);
        let errors: BTreeSet<Subject> = errors.map(subject).collect();
        let reported: Vec<&Problem> = reported.into_iter().collect();
        let errors_before = reported.iter().filter(|problem| problem.severity == Severity::Error);
        let errors_before: BTreeSet<Subject> = errors_before.map(|problem| subject(problem)).collect();
        let found_last = self.found_last.replace(errors);
        let is_confirmed = |of: &Subject| match &found_last {
            Some(last) => last.contains(of) || errors_before.contains(of),
            None => errors_before.contains(of),
        };
        let is_first = found_last.is_none();
        let mut is_open = false;
        let mut confirmed = Vec::with_capacity(found.len());
        for problem in found {
            let of = subject(&problem);
            if problem.severity != Severity::Error || is_confirmed(&of) {
                confirmed.push(problem);
                continue;
            }
            is_open = true;
            if is_first {
                confirmed.push(problem);
            } else {
                let same = reported.iter().filter(|before| subject(before) == of);
                for before in same.copied() {
                    if !confirmed.contains(before) {
                        confirmed.push(before.clone());
                    }
                }
            }
        }
        (confirmed, is_open)
    }

    /// Forgets the last observation.
    pub(crate) fn clear(&mut self) {
        self.found_last = None;
    }
}

fn subject(problem: &Problem) -> Subject {
    (problem.kind, problem.service.clone(), problem.backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> Problem {
        Problem::new(ProblemKind::NoPublicAddress, message).with_severity(Severity::Error)
    }

    fn warning(message: &str) -> Problem {
        Problem::new(ProblemKind::NoPublicAddress, message).with_severity(Severity::Warning)
    }

    fn of(service: &str) -> Problem {
        error("x").of_service(service, 2001)
    }

    #[test]
    fn an_error_is_reported_when_it_is_found_twice() {
        let mut errors = UnconfirmedErrors::default();
        assert_eq!(errors.confirm(Vec::new(), []), (Vec::new(), false));
        assert_eq!(errors.confirm(vec![error("a")], []), (Vec::new(), true));
        let (reported, is_open) = errors.confirm(vec![error("b")], []);
        assert_eq!((&*reported, is_open), (&[error("b")][..], false));
        // It goes on at once, and is found twice again after its end.
        assert_eq!(errors.confirm(vec![error("c")], &reported), (vec![error("c")], false));
        assert_eq!(errors.confirm(Vec::new(), &reported), (Vec::new(), false));
        assert_eq!(errors.confirm(vec![error("d")], []), (Vec::new(), true));
        assert_eq!(errors.confirm(Vec::new(), []), (Vec::new(), false));
    }

    #[test]
    fn the_first_observation_is_reported_at_once_and_made_again() {
        let mut errors = UnconfirmedErrors::default();
        let (reported, is_open) = errors.confirm(vec![error("a")], []);
        assert_eq!((&*reported, is_open), (&[error("a")][..], true));
        assert_eq!(errors.confirm(vec![error("a")], &reported), (vec![error("a")], false));
        errors.clear();
        assert_eq!(errors.confirm(vec![error("a")], []), (vec![error("a")], true));
    }

    #[test]
    fn each_subject_is_confirmed_by_itself_and_warnings_are_reported_at_once() {
        let mut errors = UnconfirmedErrors::default();
        let _ = errors.confirm(vec![of("a")], []);
        let (reported, is_open) = errors.confirm(vec![of("a"), of("b"), warning("w")], &[of("a")]);
        assert_eq!((&*reported, is_open), (&[of("a"), warning("w")][..], true));
        let (reported, is_open) = errors.confirm(vec![of("b")], &reported);
        assert_eq!((&*reported, is_open), (&[of("b")][..], false));
    }

    #[test]
    fn a_warning_stays_until_the_error_is_confirmed() {
        let mut errors = UnconfirmedErrors::default();
        let _ = errors.confirm(vec![warning("w")], []);
        let (reported, is_open) = errors.confirm(vec![error("e")], &[warning("w")]);
        assert_eq!((&*reported, is_open), (&[warning("w")][..], true));
        assert_eq!(errors.confirm(vec![error("e")], &reported), (vec![error("e")], false));
    }
}
