//! What the API answers, as the command line reads it.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::control::request::DeployView;

/// A deploy that was asked for alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeployAnswer {
    /// Its id.
    pub id: u64,
    /// The new backends.
    pub targets: Vec<SocketAddr>,
    /// The old backends that the switch took away; none before it is decided. A daemon before this one told them in
    /// `progress` only.
    #[serde(default)]
    pub old: Vec<SocketAddr>,
    /// `probing`, `switching`, `switched`, `drained`, `failed` or `undone`.
    pub phase: String,
    /// While it is not over.
    pub progress: Option<DeployView>,
}

impl DeployAnswer {
    /// The old backends, as far as they are known.
    pub fn old(&self) -> &[SocketAddr] {
        match &self.progress {
            Some(progress) if self.old.is_empty() => &progress.old,
            _ => &self.old,
        }
    }
}
