//! What a change does to a service and to its backends.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a change does to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Whether it is added, changed or removed.
    pub kind: Kind,
    /// Name, where it is known.
    pub name: Option<String>,
    /// Public port.
    pub port: u16,
    /// Addresses that it listens on; empty for every local one.
    pub addresses: Vec<IpAddr>,
    /// Backends that change.
    pub backends: Vec<BackendChange>,
    /// Settings that change, in words.
    pub settings: Vec<String>,
    /// Number of flows that will be flushed (`diff`) or were (`apply`).
    pub flows: u64,
}

/// Whether a service is added, changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is there before and after, and differs.
    Changed,
    /// It is not there afterwards.
    Removed,
}

/// What happens to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChange {
    /// Address and port.
    pub backend: SocketAddr,
    /// What happens to it.
    pub change: What,
    /// Weight after the change, or before it if the backend is removed.
    pub weight: Option<u16>,
    /// Number of its flows that will be flushed or were.
    pub flows: u64,
}

/// What happens to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It gets new connections.
    Added,
    /// It is no longer there; its flows are flushed.
    Removed,
    /// It gets no new connections.
    Draining,
    /// It gets new connections again.
    Active,
    /// It gets another share of new connections.
    Weight,
}

/// Numbers of services or backends that change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Number of added ones.
    pub added: usize,
    /// Number of changed ones.
    pub changed: usize,
    /// Number of removed ones.
    pub removed: usize,
}

impl ServiceChange {
    pub(super) fn count(&self, services: &mut ChangeCounts, backends: &mut ChangeCounts) {
        *match self.kind {
            Kind::Added => &mut services.added,
            Kind::Changed => &mut services.changed,
            Kind::Removed => &mut services.removed,
        } += 1;
        for backend in &self.backends {
            *match backend.change {
                What::Added => &mut backends.added,
                What::Removed => &mut backends.removed,
                _ => &mut backends.changed,
            } += 1;
        }
    }
}
