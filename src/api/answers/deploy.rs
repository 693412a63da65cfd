//! Answers about deploys.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::seconds;
use crate::control::request::DeployView;
use crate::control::storage::DeployRecord;
use crate::store::StoredDeploy;
use tcpgw_core::model::Word as _;

/// The answer to `GET /v1/deploys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeployList {
    /// The deploys, the newest first.
    pub deploys: Vec<DeployAnswer>,
}

/// A deploy, from the record and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeployAnswer {
    /// Id of the deploy.
    pub id: u64,
    /// Name of the service.
    pub service: String,
    /// The new backends.
    pub targets: Vec<SocketAddr>,
    /// The order, as it was given.
    #[serde(default)]
    pub details: Value,
    /// User id of the peer that ordered it.
    pub uid: u32,
    /// Process id of the peer that ordered it; 0: unknown.
    #[serde(default)]
    pub pid: u32,
    /// Command that began the deploy.
    pub what: String,
    /// `probing`, `switching`, `switched`, `drained`, `failed` or `undone`.
    pub phase: Cow<'static, str>,
    /// Reason why the deploy is over, or has switched, for people.
    pub reason: Option<String>,
    /// Time at which it began, in seconds since 1970.
    pub began: f64,
    /// Time of its last step, in seconds since 1970.
    pub updated: f64,
    /// Revision of the store that its last change of the service made.
    #[serde(default)]
    pub revision: Option<u64>,
    /// The old backends that the switch removed, in the answer about a single deploy; none before they are decided. An
    /// older daemon reports them in `progress` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Vec<SocketAddr>>,
    /// Progress of the deploy, until it is over and the store knows that.
    pub progress: Option<DeployView>,
}

impl DeployAnswer {
    /// Creates the answer about a deploy of a list. `views` are the deploys that are not over.
    pub fn new(record: StoredDeploy, views: &[DeployView]) -> Self {
        let of_it = views.iter().find(|view| view.id == record.id);
        let progress = of_it.filter(|_| !record.phase.is_over()).cloned();
        let (phase, reason) = match &progress {
            Some(progress) => (progress.phase.clone(), progress.reason.clone()),
            None => (record.phase.word().into(), None),
        };
        Self {
            id: record.id,
            service: record.service,
            targets: record.targets.into_iter().map(SocketAddr::from).collect(),
            details: record.details,
            uid: record.uid,
            pid: record.pid,
            what: record.what,
            phase,
            reason: reason.or(record.reason),
            began: seconds(record.began),
            updated: seconds(record.updated),
            revision: record.revision,
            old: None,
            progress,
        }
    }

    /// Creates the answer about a single deploy, with its old backends.
    pub fn alone(DeployRecord { deploy, old }: DeployRecord, views: &[DeployView]) -> Self {
        let answer = Self::new(deploy, views);
        let old = match &answer.progress {
            Some(progress) if !progress.old.is_empty() => progress.old.clone(),
            _ => old.into_iter().map(SocketAddr::from).collect(),
        };
        Self {
            old: Some(old),
            ..answer
        }
    }

    /// Returns whether nothing comes after its phase.
    pub fn is_over(&self) -> bool {
        self.phase == "drained" || self.has_failed()
    }

    /// Returns whether new connections go to its targets.
    pub fn has_switched(&self) -> bool {
        matches!(&*self.phase, "switched" | "drained")
    }

    /// Returns whether the deploy ended without having replaced the backends for good.
    pub fn has_failed(&self) -> bool {
        matches!(&*self.phase, "failed" | "undone")
    }

    /// Returns the old backends, as far as they are known.
    pub fn old(&self) -> &[SocketAddr] {
        match (&self.old, &self.progress) {
            (Some(old), _) if !old.is_empty() => old,
            (_, Some(progress)) => &progress.old,
            (old, None) => old.as_deref().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_an_older_and_of_a_newer_daemon_are_understood() {
        let mut answer = json!({
            "id": 7, "service": "web", "targets": ["10.2.0.3:80"], "uid": 0, "what": "deploy", "phase": "bleaching",
            "reason": null, "began": 1, "updated": 2.5, "colour": "blue",
            "progress": {
                "id": 7, "service": "web", "phase": "bleaching", "reason": null, "targets": [], "old": ["10.2.0.1:80"],
                "left": 0, "flows": null, "seconds_left": 9, "shade": 3,
            },
        });
        let older: DeployAnswer = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(
            (&*older.phase, older.old()),
            ("bleaching", &["10.2.0.1:80".parse().unwrap()][..])
        );
        answer["old"] = json!(["10.2.0.2:80"]);
        let newer: DeployAnswer = serde_json::from_value(answer).unwrap();
        assert_eq!(newer.old(), ["10.2.0.2:80".parse().unwrap()]);
    }
}
