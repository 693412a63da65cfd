//! What a change comes to, in words for people and as data for scripts.

mod change;
mod compare;
mod services;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

pub use self::change::{BackendChange, ChangeCounts, Kind, ServiceChange, What};
use self::compare::for_each;
pub use self::words::count;
use crate::summary::Summary;

/// Every service that a change touches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// In order of port and addresses.
    pub services: Vec<ServiceChange>,
}

impl Changes {
    /// What leads from one to the other. `flows` are those that will be flushed, by service port and backend.
    pub fn between(old: &Summary, new: &Summary, flows: &BTreeMap<(u16, SocketAddr), u64>) -> Self {
        let mut services = Vec::new();
        for_each(old, new, flows, |change| services.push(change));
        Self { services }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

impl ChangeCounts {
    /// Of services and of backends, what leads from one to the other comes to.
    pub fn between(old: &Summary, new: &Summary) -> (Self, Self) {
        let (mut services, mut backends) = (Self::default(), Self::default());
        for_each(old, new, &BTreeMap::new(), |change| {
            change.count(&mut services, &mut backends);
        });
        (services, backends)
    }
}
