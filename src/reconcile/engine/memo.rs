//! Data for the next process that the record keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::record::{ApplyNote, Deadline, JournalEntry, RecordedPause, ServiceEntry};
use tcpgw_core::model::Service;
use tcpgw_core::owner::{AllDetails, Details, Owner};

/// Data for the next process that the record keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    /// Origin and time of the last apply.
    pub applied: ApplyNote,
    /// Ends of drains.
    pub drains: Vec<Deadline>,
    /// Services whose new connections are held back.
    pub pauses: Vec<RecordedPause>,
    /// The services as those who define them want them; one that is served and not here was removed.
    pub wanted: ServicesByName,
    /// Owners of services that do not belong to a file.
    pub owners: BTreeMap<Box<str>, Owner>,
    /// Services whose resource of the add-on is suspended.
    pub suspended: BTreeSet<Box<str>>,
}

impl Memo {
    /// Returns the details in the record for the services in effect.
    pub(super) fn details(&self, serving: &ServicesByName) -> AllDetails {
        let of = |serving: &Arc<Service>| {
            let name = &serving.name;
            let details = match self.wanted.get(name) {
                Some(wanted) => {
                    let owner = self.owners.get(name).copied().unwrap_or_default();
                    Details::new(owner, wanted, serving).suspended(self.suspended.contains(name))
                }
                None => Details::new(Owner::Removed, serving, serving),
            };
            (!details.is_default()).then(|| (name.clone(), details))
        };
        serving.values().filter_map(of).collect()
    }
}

/// Data that a change writes to the record, about the services that it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMemo {
    /// Origin and time of the change.
    pub applied: ApplyNote,
    /// Services of the change.
    pub services: Vec<ServiceEntry>,
}

impl ChangeMemo {
    /// Returns the journal's entry, which is written before the change is made.
    pub(super) fn entry(self, awaits: Option<u32>) -> JournalEntry {
        JournalEntry {
            awaits,
            applied: Some(self.applied),
            services: self.services,
        }
    }
}

/// Services by name.
pub type ServicesByName = BTreeMap<Box<str>, Arc<Service>>;
