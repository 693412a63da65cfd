//! Problems of the app's service, as the daemon reports them. Every app that shares a daemon prints its own problems.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;

use crate::api::client::{Answer, Client};
use tcpgw_core::escape;

/// Interval between questions to the daemon. A problem that is over within that time is not reported.
const LOOK: Duration = Duration::from_secs(2);
/// Maximum number of an app's problems that are reported.
const MOST: usize = 16;

/// Problems of one service: those that were told, and those that were there at the last look.
#[derive(Debug, Default)]
pub struct AppProblems {
    /// Message of each kind of problem at the last look.
    seen: BTreeMap<String, String>,
    told: BTreeMap<String, String>,
}

impl AppProblems {
    /// Takes what the daemon tells of itself (`GET /v1/daemon`), and returns lines about what keeps clients of the service from being served, if that
    /// was there at the look before, too, and about what is over.
    pub fn news(&mut self, daemon: &Value, service: &str) -> Vec<String> {
        let problems = daemon["problems"].as_array().into_iter().flatten();
        let of_service = problems.filter(|problem| problem["service"] == service && problem["severity"] == "error");
        let text = |value: &Value| value.as_str().map(escape::text);
        let now: BTreeMap<String, String> = of_service
            .filter_map(|problem| Some((text(&problem["kind"])?, text(&problem["message"])?)))
            .take(MOST)
            .collect();
        let mut news = Vec::new();
        let over: Vec<String> = self
            .told
            .keys()
            .filter(|kind| !now.contains_key(*kind))
            .cloned()
            .collect();
        for kind in over {
            if let Some(words) = self.told.remove(&kind) {
                news.push(format!("no problem any more: {words}"));
            }
        }
        for (kind, words) in &now {
            if self.seen.contains_key(kind) && !self.told.contains_key(kind) {
                news.push(format!("problem: {words}"));
                self.told.insert(kind.clone(), words.clone());
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
    while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let daemon = Client::connect(socket).and_then(|daemon| daemon.get("/v1/daemon").and_then(Answer::json));
        let Ok(daemon) = daemon else { continue };
        if !problems.news(&daemon, service).into_iter().all(&tell) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let problem = |service: &str, severity: &str| json!({"kind": "no_healthy_backend", "severity": severity, "service": service, "message": format!("{service} has none\u{1b}")});
        let mut problems = AppProblems::default();
        let mut news = |all: &[Value]| problems.news(&json!({"problems": all}), "addon-a");
        let all = [
            problem("addon-b", "error"),
            problem("addon-a", "error"),
            problem("addon-a", "warning"),
        ];
        let none = Vec::<String>::new();
        assert_eq!(news(&all), none, "it may be over in a moment");
        assert_eq!(news(&[]), none);
        assert_eq!(news(&all), none);
        assert_eq!(news(&all), ["problem: addon-a has none\\u{1b}"]);
        assert_eq!(news(&all), none);
        assert_eq!(news(&all[..1]), ["no problem any more: addon-a has none\\u{1b}"]);
        assert_eq!(problems.news(&json!("odd"), "addon-a"), none);
    }
}
