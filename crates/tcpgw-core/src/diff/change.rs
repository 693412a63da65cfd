//! What a change does to a service and to its backends.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// What a change does to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceChange {
    /// Added, changed or removed.
    pub kind: Kind,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its public port.
    pub port: u16,
    /// The addresses it listens on; empty for every local one.
    pub addresses: Vec<IpAddr>,
    /// What happens to its backends.
    pub backends: Vec<BackendChange>,
    /// Settings that change, in words.
    pub settings: Vec<String>,
    /// Flows that will be flushed (`diff`) or were (`apply`).
    pub flows: u64,
}

/// Whether a service is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is.
    Added,
    /// It was there and will be, in another way.
    Changed,
    /// It goes.
    Removed,
}

/// What happens to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendChange {
    /// Which.
    pub backend: SocketAddr,
    /// What.
    pub change: What,
    /// Its weight after the change, before it for one that goes.
    pub weight: Option<u16>,
    /// Flows of it that will be flushed or were.
    pub flows: u64,
}

/// What happens to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChangeCounts {
    /// New ones.
    pub added: usize,
    /// Others.
    pub changed: usize,
    /// Gone ones.
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
