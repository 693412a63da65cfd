//! Differences between two states of the services. Does not know how they are printed.

mod change;
mod compare;
mod services;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

pub use self::change::{BackendChange, BackendChangeKind, ChangeCounts, ServiceChange, ServiceChangeKind};
use self::compare::for_each;
use crate::summary::Summary;

/// All services that differ between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Sorted by port and addresses.
    pub services: Vec<ServiceChange>,
}

impl Changes {
    /// Returns what changes from `old` to `new`. `flows` are the numbers of flows that will be flushed, by service port and
    /// backend.
    pub fn between(old: &Summary, new: &Summary, flows: &BTreeMap<(u16, SocketAddr), u64>) -> Self {
        let mut services = Vec::new();
        for_each(old, new, flows, |change| services.push(change));
        Self { services }
    }

    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

impl ChangeCounts {
    /// Returns how many services, and how many backends, change from `old` to `new`.
    pub fn between(old: &Summary, new: &Summary) -> (Self, Self) {
        let (mut services, mut backends) = (Self::default(), Self::default());
        for_each(old, new, &BTreeMap::new(), |change| {
            change.count(&mut services, &mut backends);
        });
        (services, backends)
    }
}
