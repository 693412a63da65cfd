//! Decisions about requests: what is written, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use super::id::ResourceId;
use super::plan::Plans;
use super::ports::BusyPorts;
use super::removed::Removed;
use super::resource::Resource;

/// Facts besides the resources that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct RegistryFacts<'f> {
    /// Plans that a resource may have.
    pub plans: &'f Plans,
    /// Ports that other services or local programs have.
    pub busy: &'f dyn BusyPorts,
    /// Random bits for a new id.
    pub random: u64,
    /// Time since 1970.
    pub now: Duration,
}

/// Change that has to be durable before a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceChange {
    /// A resource is new or other than before.
    Put(Arc<Resource>),
    /// A resource is removed.
    Remove(Removed),
}

impl ResourceChange {
    /// Returns the id of the resource.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Put(resource) => resource.id,
            Self::Remove(removed) => removed.id,
        }
    }
}

/// Outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonOutcome {
    /// The resource or the binding is new.
    Created(Arc<Resource>),
    /// The resource was changed.
    Changed(Arc<Resource>),
    /// The resource was already as requested.
    Unchanged(Arc<Resource>),
    /// The resource was removed; the value is its last state.
    Removed(Arc<Resource>),
}

impl AddonOutcome {
    /// Returns the resource.
    pub fn resource(&self) -> &Arc<Resource> {
        match self {
            Self::Created(resource) | Self::Changed(resource) | Self::Unchanged(resource) | Self::Removed(resource) => {
                resource
            }
        }
    }
}

/// Decision about a request: the change to write, and the answer that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Change that has to be durable and committed before the answer.
    pub change: Option<ResourceChange>,
    /// Outcome to answer with.
    pub outcome: AddonOutcome,
}

pub(super) fn edited(before: &Arc<Resource>, edit: impl FnOnce(&mut Resource)) -> Decision {
    let mut after = Resource::clone(before);
    edit(&mut after);
    if after == **before {
        return unchanged(before);
    }
    let after = Arc::new(after);
    Decision {
        change: Some(ResourceChange::Put(Arc::clone(&after))),
        outcome: AddonOutcome::Changed(after),
    }
}

pub(super) fn unchanged(resource: &Arc<Resource>) -> Decision {
    Decision {
        change: None,
        outcome: AddonOutcome::Unchanged(Arc::clone(resource)),
    }
}
