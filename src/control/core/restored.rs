//! Corrections of resources that come from the file of last services, because the store is lost. The record of this
//! boot, which is written before each change of the kernel, may be newer.
use super::{Core, Now};
use crate::addon::{Registry, ResourceChange, ResourceStatus};
use crate::reconcile::RecordedContents;
use tcpgw_core::model::Edits;
use tcpgw_core::owner::Owner;
use tcpgw_core::words::count;

impl Core {
    /// Suspends, resumes and removes resources according to a record that is newer than the file of last services.
    pub(super) fn correct_resources(&mut self, recorded: &RecordedContents, now: Now) {
        if !self.addon.is_copy && !self.addon.is_restored {
            return;
        }
        let changes = self.corrections(recorded, now);
        if changes.is_empty() {
            return;
        }
        tracing::warn!(
            "the record has corrected {} of the add-on, suspended, resumed or deprovisioned just before the store was lost",
            count(changes.len(), "resource")
        );
        for change in &changes {
            self.addon.registry.commit(change, now.unix);
        }
        let removed = changes.iter().filter_map(|change| match change {
            ResourceChange::Remove(removed) => Some(removed.id.service().into()),
            ResourceChange::Put(_) => None,
        });
        let gone = Edits {
            gone: removed.collect(),
            ..Edits::default()
        };
        let unchanged = self.api.unchanged();
        self.api.learn(&gone, &unchanged);
        self.addon.forget(&gone.gone);
        self.addon.learn(self.api.services());
        if !self.is_store_lost() {
            self.addon.amendments.corrections = changes;
        }
    }

    fn corrections(&self, recorded: &RecordedContents, now: Now) -> Vec<ResourceChange> {
        let Some(details) = &recorded.details else {
            return Vec::new();
        };
        let registry = &self.addon.registry;
        let corrected = registry.iter().filter_map(|resource| {
            let details = details.get(resource.id.service().as_str())?;
            let status = if details.is_suspended {
                ResourceStatus::Suspended
            } else {
                ResourceStatus::Active
            };
            match details.owner {
                Owner::Removed => registry.deprovisioned(resource, now.unix),
                Owner::Api if status != resource.status => Registry::with_status(resource, status),
                _ => None,
            }
        });
        corrected.collect()
    }
}
