//! Answers about the daemon itself.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use tcpgw_core::problem::{Problem, ProblemKind};

/// The answer to `GET /v1/daemon`, as far as commands read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DaemonAnswer {
    /// Process id; `None`: the daemon does not know it.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Whether the kernel holds the desired state.
    #[serde(default)]
    pub in_sync: bool,
    /// Whether the table is owned by the daemon, so that other programs cannot change it.
    #[serde(default)]
    pub owns_table: bool,
    /// Problems of the gateway, as the daemon reports them.
    #[serde(default, rename = "problems")]
    pub reported: ReportedProblems,
}

impl DaemonAnswer {
    /// Returns the problems that this program knows.
    pub fn problems(&self) -> &[Problem] {
        &self.reported.known
    }

    /// Returns whether the daemon has not read its store and state file yet.
    pub fn is_starting(&self) -> bool {
        self.problems()
            .iter()
            .any(|problem| problem.kind == ProblemKind::Starting)
    }
}

/// Problems that a daemon reports, which may be newer than this program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedProblems {
    /// Problems of kinds that this program knows.
    pub known: Vec<Problem>,
    /// Number of problems of other kinds.
    pub unknown: usize,
}

impl<'de> Deserialize<'de> for ReportedProblems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<Value>::deserialize(deserializer)?;
        let total = all.len();
        let known: Vec<Problem> = all
            .into_iter()
            .filter_map(|one| serde_json::from_value(one).ok())
            .collect();
        Ok(Self {
            unknown: total - known.len(),
            known,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_of_an_unknown_kind_hides_no_other() {
        let problem = |kind: &str| json!({"severity": "error", "kind": kind, "service": null, "port": null, "backend": null, "message": "m"});
        let problems =
            json!({"pid": 7, "in_sync": true, "new": 1, "problems": [problem("made_later"), problem("starting")]});
        let daemon: DaemonAnswer = serde_json::from_value(problems).unwrap();
        assert!(daemon.in_sync && daemon.is_starting(), "{daemon:?}");
        assert_eq!(
            (daemon.pid, daemon.reported.known.len(), daemon.reported.unknown),
            (Some(7), 1, 1)
        );
        serde_json::from_value::<DaemonAnswer>(json!({"problems": 5})).unwrap_err();
        assert_eq!(
            serde_json::from_value::<DaemonAnswer>(json!({})).unwrap(),
            DaemonAnswer::default()
        );
    }
}
