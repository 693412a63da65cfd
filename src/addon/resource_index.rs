//! Resources by an id that a platform chose.

use std::collections::{BTreeMap, BTreeSet};

use super::compared_id::ComparedId;
use super::id::{PlatformId, ResourceId};
use super::resource::Dialect;

/// Index of resources by one of the platform's ids.
#[derive(Debug, Clone, Default)]
pub(super) struct ResourceIndex {
    /// Resources by the letters of the id.
    by_text: BTreeMap<PlatformId, ResourceId>,
    /// Resources whose id is a UUID. The store of an earlier version may have several with the same UUID in different letters.
    by_uuid: BTreeMap<(Dialect, ComparedId), BTreeSet<ResourceId>>,
}

impl ResourceIndex {
    pub(super) fn insert(&mut self, dialect: Dialect, id: &PlatformId, resource: ResourceId) {
        self.by_text.insert(id.clone(), resource);
        if let Some(uuid) = ComparedId::of_uuid(dialect, id) {
            self.by_uuid.entry((dialect, uuid)).or_default().insert(resource);
        }
    }

    pub(super) fn remove(&mut self, dialect: Dialect, id: &PlatformId, resource: ResourceId) {
        self.by_text.remove(id);
        let Some(key) = ComparedId::of_uuid(dialect, id).map(|uuid| (dialect, uuid)) else {
            return;
        };
        if let Some(same) = self.by_uuid.get_mut(&key) {
            same.remove(&resource);
            if same.is_empty() {
                self.by_uuid.remove(&key);
            }
        }
    }

    /// Returns the resource of any dialect whose id has these letters.
    pub(super) fn exact(&self, id: &PlatformId) -> Option<ResourceId> {
        self.by_text.get(id).copied()
    }

    /// Returns the resource of that dialect whose id is this UUID, in upper or lower case. Several resources whose
    /// ids differ in case only are found by their exact ids.
    pub(super) fn of_uuid(&self, dialect: Dialect, id: &PlatformId) -> Option<ResourceId> {
        let same = self.by_uuid.get(&(dialect, ComparedId::of_uuid(dialect, id)?))?;
        same.first().copied().filter(|_| same.len() == 1)
    }
}
