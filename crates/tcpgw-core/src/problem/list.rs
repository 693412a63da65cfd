//! The problems of a gateway, and what changed in them.

use std::collections::BTreeMap;

use super::key::Key;
use super::kind::ProblemKind;
use super::{Problem, is_ok};

/// Present problems, and those that were reported by the last call of [`ProblemList::news`].
#[derive(Debug, Clone, Default)]
pub struct ProblemList {
    there: BTreeMap<Key, Problem>,
    reported: BTreeMap<Key, Problem>,
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
    pub fn resolve(&mut self, kind: ProblemKind) {
        self.resolve_where(|problem| problem.kind == kind);
    }

    /// Removes the problems for which `is_over` returns true.
    pub fn resolve_where(&mut self, is_over: impl Fn(&Problem) -> bool) {
        self.there.retain(|_, problem| !is_over(problem));
    }

    /// Replaces all problems of these kinds by what a check has found.
    pub fn replace(&mut self, kinds: &[ProblemKind], found: impl IntoIterator<Item = Problem>) {
        self.resolve_where(|problem| kinds.contains(&problem.kind));
        self.there
            .extend(found.into_iter().map(|problem| (problem.key(), problem)));
    }

    /// Returns the first problem of a kind.
    pub fn get(&self, kind: ProblemKind) -> Option<&Problem> {
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
        if self.there.is_empty() && self.reported.is_empty() {
            return Vec::new();
        }
        let ended = self.reported.iter().filter(|(key, _)| !self.there.contains_key(key));
        let ended = ended.map(|(_, problem)| ProblemNews::Ended(problem.clone()));
        let began = self.there.iter().filter(|(key, _)| !self.reported.contains_key(key));
        let began = began.map(|(_, problem)| ProblemNews::Began(problem.clone()));
        let news: Vec<ProblemNews> = ended.chain(began).collect();
        if !news.is_empty() {
            self.reported.clone_from(&self.there);
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
