//! What is left in the record for the next process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::reconcile::engine::ServicesByName;
use crate::record::{Applied, Deadline, Entry, Pause, ServiceEntry};
use tcpgw_core::model::Service;
use tcpgw_core::owner::{AllDetails, Details, Owner};

/// What is left in the record for the next process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    /// Who applied what there is, and when.
    pub applied: Applied,
    /// Until when backends drain.
    pub drains: Vec<Deadline>,
    /// Services whose new connections are held back.
    pub pauses: Vec<Pause>,
    /// The services as those who define them want them; one that is served and not here was removed.
    pub wanted: ServicesByName,
    /// Whose they are, where it is no file's.
    pub owners: BTreeMap<Box<str>, Owner>,
    /// Services whose resource of the add-on is suspended.
    pub suspended: BTreeSet<Box<str>>,
}

impl Memo {
    /// What the record keeps of services that are served like this.
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

/// What a change leaves in the record, of the services that it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMemo {
    /// Who made it, and when.
    pub applied: Applied,
    /// The services.
    pub services: Vec<ServiceEntry>,
}

impl ChangeMemo {
    /// What is written down before it is made.
    pub(super) fn entry(self, awaits: Option<u32>) -> Entry {
        Entry {
            awaits,
            applied: Some(self.applied),
            services: self.services,
        }
    }
}
