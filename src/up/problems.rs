//! Problems of the app's service, as the daemon reports them. Every app that shares a daemon prints its own problems.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::gateway;
use crate::api::client::Client;
use tcpgw_core::escape;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// Interval between questions to the daemon. A problem that is over within that time is not reported.
const INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of an app's problems that are reported.
const MOST: usize = 16;

/// Problems of one service: those that were told, and those that were there at the last request.
#[derive(Debug, Default)]
pub struct AppProblems {
    /// Message of each kind of problem at the last request.
    seen: BTreeMap<ProblemKind, String>,
    reported: BTreeMap<ProblemKind, String>,
}

impl AppProblems {
    /// Takes the problems of the gateway, and returns lines about what keeps clients of the service from being served, if that
    /// was there at the look before, too, and about what is over.
    pub fn news(&mut self, problems: &[Problem], service: &str) -> Vec<String> {
        let is_meant =
            |problem: &&Problem| problem.service.as_deref() == Some(service) && problem.severity == Severity::Error;
        let now: BTreeMap<ProblemKind, String> = problems
            .iter()
            .filter(is_meant)
            .map(|problem| (problem.kind, escape::text(&problem.message)))
            .take(MOST)
            .collect();
        let mut news = Vec::new();
        let over: Vec<ProblemKind> = self
            .reported
            .keys()
            .filter(|kind| !now.contains_key(*kind))
            .copied()
            .collect();
        for kind in over {
            if let Some(words) = self.reported.remove(&kind) {
                news.push(format!("no problem any more: {words}"));
            }
        }
        for (kind, words) in &now {
            if self.seen.contains_key(kind) && !self.reported.contains_key(kind) {
                news.push(format!("problem: {words}"));
                self.reported.insert(*kind, words.clone());
            }
        }
        self.seen = now;
        news
    }
}

/// Polls the daemon, until `end` closes or `tell` returns false, which means that its receiver has ended. A daemon that does
/// not answer is not reported here.
pub fn follow(socket: &Path, service: &str, end: &Receiver<()>, tell: impl Fn(String) -> bool) {
    let mut problems = AppProblems::default();
    while end.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let daemon = Client::connect(socket).and_then(|daemon| gateway::daemon(&daemon));
        let Ok(daemon) = daemon else { continue };
        if !problems.news(daemon.problems(), service).into_iter().all(&tell) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let problem = |service: &str, severity| Problem {
            severity,
            kind: ProblemKind::NoHealthyBackend,
            service: Some(service.into()),
            port: None,
            backend: None,
            message: format!("{service} has none\u{1b}"),
        };
        let mut problems = AppProblems::default();
        let mut news = |all: &[Problem]| problems.news(all, "addon-a");
        let all = [
            problem("addon-b", Severity::Error),
            problem("addon-a", Severity::Error),
            problem("addon-a", Severity::Warning),
        ];
        let none = Vec::<String>::new();
        assert_eq!(news(&all), none, "it may be over in a moment");
        assert_eq!(news(&[]), none);
        assert_eq!(news(&all), none);
        assert_eq!(news(&all), ["problem: addon-a has none\\u{1b}"]);
        assert_eq!(news(&all), none);
        assert_eq!(news(&all[..1]), ["no problem any more: addon-a has none\\u{1b}"]);
    }
}
