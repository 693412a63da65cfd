//! Changes of one service and of its backends.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Change of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Whether the service is added, changed or removed.
    pub kind: ServiceChangeKind,
    /// Name of the service, if known.
    pub name: Option<String>,
    /// Public port of the service.
    pub port: u16,
    /// Addresses that the service listens on; empty if it listens on all local ones.
    pub addresses: Vec<IpAddr>,
    /// Backends that change.
    pub backends: Vec<BackendChange>,
    /// Settings that change, in words.
    pub settings: Vec<String>,
    /// Number of flows that will be flushed (`diff`) or were (`apply`).
    pub flows: u64,
}

/// Kind of change of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceChangeKind {
    /// The service exists only in the new state.
    Added,
    /// The service exists in both states and differs.
    Changed,
    /// The service exists only in the old state.
    Removed,
}

/// Change of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChange {
    /// Address and port of the backend.
    pub backend: SocketAddr,
    /// Way in which the backend changes.
    pub change: BackendChangeKind,
    /// Weight after the change, or before it if the backend is removed.
    pub weight: Option<u16>,
    /// Number of its flows that will be flushed or were.
    pub flows: u64,
}

/// Kind of change of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChangeKind {
    /// The backend is new and gets new connections.
    Added,
    /// The backend is removed, and its flows are flushed.
    Removed,
    /// The backend gets no new connections any more.
    Draining,
    /// The backend drained, and gets new connections again.
    Active,
    /// The backend's share of new connections changes.
    Weight,
}

/// Numbers of services or backends that change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Number that are added.
    pub added: usize,
    /// Number that are changed.
    pub changed: usize,
    /// Number that are removed.
    pub removed: usize,
}

impl ServiceChange {
    pub(super) fn count(&self, services: &mut ChangeCounts, backends: &mut ChangeCounts) {
        *match self.kind {
            ServiceChangeKind::Added => &mut services.added,
            ServiceChangeKind::Changed => &mut services.changed,
            ServiceChangeKind::Removed => &mut services.removed,
        } += 1;
        for backend in &self.backends {
            *match backend.change {
                BackendChangeKind::Added => &mut backends.added,
                BackendChangeKind::Removed => &mut backends.removed,
                _ => &mut backends.changed,
            } += 1;
        }
    }
}
