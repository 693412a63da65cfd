//! The problems of a gateway, and what changed in them.

use std::collections::BTreeMap;

use super::key::Key;
use super::kind::ProblemKind;
use super::severity::Severity;
use super::{Problem, is_ok};

/// Present problems, and those that were reported by the last call of [`ProblemList::news`].
#[derive(Debug, Clone, Default)]
pub struct ProblemList {
    there: BTreeMap<Key, Problem>,
    reported: BTreeMap<Key, Problem>,
    /// Whether a problem began or ended since the last call of [`ProblemList::news`]. Thousands of problems that stay are not
    /// compared each time.
    has_news: bool,
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
        let key = problem.key();
        for severity in Severity::ALL {
            let other = Key {
                severity,
                ..key.clone()
            };
            if severity != key.severity && self.there.remove(&other).is_some() {
                self.has_news = true;
            }
        }
        self.has_news |= self.there.insert(key, problem).is_none();
    }

    /// Removes the problems of a kind.
    pub fn resolve(&mut self, kind: ProblemKind) {
        for key in self.keys_of(kind) {
            self.there.remove(&key);
            self.has_news = true;
        }
    }

    /// Replaces all problems of these kinds by what a check has found.
    pub fn replace(&mut self, kinds: &[ProblemKind], found: impl IntoIterator<Item = Problem>) {
        let found: BTreeMap<Key, Problem> = found.into_iter().map(|problem| (problem.key(), problem)).collect();
        let known: Vec<Key> = kinds.iter().flat_map(|kind| self.keys_of(*kind)).collect();
        for key in known {
            if !found.contains_key(&key) {
                self.there.remove(&key);
                self.has_news = true;
            }
        }
        for (key, problem) in found {
            self.has_news |= self.there.insert(key, problem).is_none();
        }
    }

    /// Returns the first problem of a kind.
    pub fn get(&self, kind: ProblemKind) -> Option<&Problem> {
        self.of_kind(kind).next().map(|(_, problem)| problem)
    }

    fn keys_of(&self, kind: ProblemKind) -> Vec<Key> {
        self.of_kind(kind).map(|(key, _)| key.clone()).collect()
    }

    /// Returns the problems of a kind, the worst first.
    fn of_kind(&self, kind: ProblemKind) -> impl Iterator<Item = (&Key, &Problem)> {
        Severity::ALL.into_iter().flat_map(move |severity| {
            self.there
                .range(Key::first(severity, kind)..)
                .take_while(move |(key, _)| key.severity == severity && key.kind == kind)
        })
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
        if !std::mem::take(&mut self.has_news) {
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
            more => format!("{first} (and {})", crate::words::count(more, "more problem")),
        })
    }
}
