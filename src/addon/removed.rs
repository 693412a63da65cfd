//! Resources that were deprovisioned.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compared_id::ComparedId;
use super::id::{PlatformId, ResourceId};
use super::ports::Quarantined;
use super::request::ResourceTarget;
use super::resource::Dialect;
use tcpgw_core::model::Word as _;

/// Maximum number of resources that are remembered after they were deprovisioned; the oldest are forgotten first.
pub const MAX_REMOVED: usize = 50_000;

/// A resource that was deprovisioned. Its JSON is what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The id that the resource had.
    pub id: ResourceId,
    /// Provider API that the resource was made by.
    pub dialect: Dialect,
    /// The platform's id of the app.
    pub app: PlatformId,
    /// Port of the resource, and the end of its quarantine.
    pub port: Quarantined,
    /// Time at which it was deprovisioned, since 1970.
    pub at: Duration,
}

impl Removed {
    fn key(&self) -> (Dialect, ComparedId) {
        (self.dialect, ComparedId::new(self.dialect, &self.app))
    }
}

/// The last [`MAX_REMOVED`] resources that were deprovisioned.
#[derive(Debug, Clone, Default)]
pub(super) struct RemovedResources {
    pub(super) order: VecDeque<Removed>,
    pub(super) ids: BTreeMap<ResourceId, Dialect>,
    /// Number of entries in `order` for each app.
    apps: BTreeMap<(Dialect, ComparedId), usize>,
}

impl RemovedResources {
    pub(super) fn has_id(&self, id: ResourceId) -> bool {
        self.ids.contains_key(&id)
    }

    pub(super) fn has(&self, target: &ResourceTarget) -> bool {
        let has_app = |dialect, app| self.apps.contains_key(&(dialect, ComparedId::new(dialect, app)));
        match target {
            ResourceTarget::Id(dialect, id) => self.ids.get(id) == Some(dialect),
            ResourceTarget::App(dialect, app) => has_app(*dialect, app),
            ResourceTarget::Any(app) => Dialect::WORDS.iter().any(|(_, dialect)| has_app(*dialect, app)),
        }
    }

    pub(super) fn add(&mut self, removed: Removed) {
        self.ids.insert(removed.id, removed.dialect);
        *self.apps.entry(removed.key()).or_default() += 1;
        self.order.push_back(removed);
        while self.order.len() > MAX_REMOVED {
            if let Some(oldest) = self.order.pop_front() {
                self.forget(&oldest);
            }
        }
    }

    fn forget(&mut self, removed: &Removed) {
        self.ids.remove(&removed.id);
        if let Entry::Occupied(mut count) = self.apps.entry(removed.key()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
