//! Changes of resources that no request ordered: corrections by the record of this boot, other names of plans, and rests of ports
//! from before the clock was set back. They hold at once, and are written when the store takes them. Requests do not wait for that.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::order_queue::StoreKnowledge;
use super::pending_write::{OnWritten, PendingWrite};
use super::store_contents::REFRESH;
use super::{Core, Now};
use crate::addon::id::ResourceId;
use crate::addon::{Registry, Removed, Resource, ResourceChange};
use crate::control::storage::{Opened, Write};
use crate::store::{ChangeAuthor, Expect, StoreEdit, StoreError};

/// Changes of resources that hold and that the store does not have yet.
#[derive(Debug, Default)]
pub(super) struct Amendments {
    /// Changes that are in the record but not in the store. They are made again whenever the store is read.
    pub(super) corrections: Vec<ResourceChange>,
    /// Resources whose plans have other names than in the store, or of which the store has no ids.
    pub(super) named: BTreeSet<ResourceId>,
    /// Removed resources whose ports rest for other times than in the store. They are made so again whenever the store is read.
    rests: BTreeMap<ResourceId, Removed>,
    /// Error by which the store refused them last. It may refuse these although it can be written in a trial.
    pub(super) refused: Option<StoreError>,
    /// Time of the next attempt after a refusal.
    again_at: Option<Instant>,
}

impl Amendments {
    fn is_empty(&self) -> bool {
        self.corrections.is_empty() && self.named.is_empty() && self.rests.is_empty()
    }

    /// Returns all changes, with the resources as they are now.
    fn changes(&self, registry: &Registry) -> Vec<ResourceChange> {
        let now = |id: ResourceId| Some(ResourceChange::Put(registry.get(id)?.clone()));
        let corrected: BTreeSet<ResourceId> = self.corrections.iter().map(ResourceChange::id).collect();
        let corrections = self.corrections.iter().filter_map(|change| match change {
            ResourceChange::Put(resource) => now(resource.id),
            ResourceChange::Remove(_) => Some(change.clone()),
        });
        let named = self.named.difference(&corrected).filter_map(|id| now(*id));
        corrections.chain(named).collect()
    }

    /// Corrects what was read from the store, and forgets the corrections that the store has.
    pub(super) fn correct(&mut self, opened: &mut Opened) {
        self.correct_rests(&mut opened.resources.removed);
        if self.corrections.is_empty() {
            return;
        }
        let resources = std::mem::take(&mut opened.resources.resources).into_iter();
        let mut resources: BTreeMap<ResourceId, Resource> = resources.map(|one| (one.id, one)).collect();
        let mut gone = BTreeSet::new();
        self.corrections.retain(|change| match change {
            ResourceChange::Put(corrected) => {
                let there = resources.get_mut(&corrected.id).filter(|there| **there != **corrected);
                there.map(|there| *there = Resource::clone(corrected)).is_some()
            }
            ResourceChange::Remove(removed) => {
                let is_there = resources.remove(&removed.id).is_some();
                if is_there {
                    gone.insert(removed.id.service());
                    opened.resources.removed.push(removed.clone());
                }
                is_there
            }
        });
        opened.resources.resources = resources.into_values().collect();
        opened
            .loaded
            .services
            .retain(|stored| !gone.contains(&*stored.service.name));
    }

    /// Takes removed resources whose ports rest for other times than is written.
    pub(super) fn rest(&mut self, rests: Vec<Removed>) {
        self.rests
            .extend(rests.into_iter().map(|removed| (removed.id, removed)));
    }

    fn correct_rests(&mut self, removed: &mut [Removed]) {
        if self.rests.is_empty() {
            return;
        }
        let mut differing = BTreeMap::new();
        for there in removed {
            if let Some(rest) = self.rests.remove(&there.id).filter(|rest| rest != there) {
                there.clone_from(&rest);
                differing.insert(rest.id, rest);
            }
        }
        self.rests = differing;
    }

    /// Removes a change that an order of the same resource has overtaken.
    pub(super) fn is_overtaken(&mut self, by: &ResourceChange) {
        self.named.remove(&by.id());
        self.corrections.retain(|change| change.id() != by.id());
    }

    /// Removes changes that were written. A resource that has changed meanwhile stays.
    pub(super) fn are_written(&mut self, written: &[ResourceChange], rests: &[Removed], registry: &Registry) {
        for removed in rests {
            self.rests.remove(&removed.id);
        }
        for change in written {
            let is_current = match change {
                ResourceChange::Put(resource) => registry.get(resource.id) == Some(resource),
                ResourceChange::Remove(_) => true,
            };
            if is_current {
                self.is_overtaken(change);
            }
        }
    }

    /// Returns the error by which the store has refused what is still to be written.
    pub(super) fn still_refused(&mut self) -> Option<StoreError> {
        if self.is_empty() {
            self.refused = None;
        }
        self.refused.clone()
    }

    /// Schedules the next attempt after the store has refused the changes.
    pub(super) fn are_refused(&mut self, error: &StoreError, now: Instant) {
        self.again_at = Some(now + REFRESH);
        self.refused = Some(error.clone()).filter(StoreError::is_trouble);
    }
}

impl Core {
    /// Returns the time of the next attempt to write amendments that were refused.
    pub(super) fn amends_at(&self) -> Option<Instant> {
        let amendments = &self.addon.amendments;
        let waits = self.order_queue.lost || self.order_queue.resources == StoreKnowledge::Unreadable;
        amendments.again_at.filter(|_| !waits && !amendments.is_empty())
    }

    /// Returns the write of what the store lacks, unless it has just refused that. No order is being written.
    pub(super) fn amend(&mut self, now: Now) -> Option<Write> {
        let amendments = &mut self.addon.amendments;
        let is_early = amendments.again_at.is_some_and(|at| at > now.instant);
        if amendments.is_empty() || is_early || self.order_queue.lost {
            return None;
        }
        match self.order_queue.resources {
            StoreKnowledge::Certain => amendments.again_at = None,
            StoreKnowledge::Unreadable => return None,
            StoreKnowledge::Uncertain => {
                self.order_queue.refreshing = true;
                return Some(Write::Refresh);
            }
        }
        let by = ChangeAuthor {
            what: if !amendments.corrections.is_empty() {
                "restore".into()
            } else if !amendments.named.is_empty() {
                "plans".into()
            } else {
                "quarantine".into()
            },
            ..self.own()
        };
        let amendments = &self.addon.amendments;
        let resources = amendments.changes(&self.addon.registry);
        let rests: Vec<Removed> = amendments.rests.values().cloned().collect();
        let gone = resources.iter().filter_map(|change| match change {
            ResourceChange::Remove(removed) => Some(removed.id.service().into()),
            ResourceChange::Put(_) => None,
        });
        let change = crate::store::StoreChange {
            edits: gone.map(|name| StoreEdit::Delete(name, Expect::Anything)).collect(),
            resources: resources.clone(),
            rests: rests.clone(),
            ..crate::store::StoreChange::default()
        };
        self.order_queue.accepted = vec![PendingWrite::of_nobody(OnWritten::Amended(resources, rests))];
        Some(Write::Change(change, by, now.unix))
    }
}
