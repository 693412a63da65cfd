//! Services of the API, as the store holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::name::Name;
use crate::store::{CommittedChange, Expect, LoadedServices, StoreChange, StoreEdit, StoredService};
use tcpgw_core::model::{Edits, Service, State};

/// Services of the API by name, with the revision of each and of the store.
#[derive(Debug, Default)]
pub(super) struct ApiServices {
    revision: u64,
    /// Sum of the checksums of the services in the store.
    contents: i64,
    services: BTreeMap<Name, StoredService>,
    /// Services that conflict with others and are not served, with the reasons.
    refused: BTreeMap<Name, String>,
}

impl ApiServices {
    /// Creates it from the contents of a store; `refused`: services that are not served, with the reasons.
    pub(super) fn new(loaded: LoadedServices, refused: BTreeMap<Name, String>) -> Self {
        let services = loaded.services.into_iter();
        Self {
            revision: loaded.revision,
            contents: loaded.contents,
            services: services.map(|stored| (stored.service.name.clone(), stored)).collect(),
            refused,
        }
    }

    /// Returns the revision of the last change of the store.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the sum of the checksums of the services in the store.
    pub(super) fn contents(&self) -> i64 {
        self.contents
    }

    /// Returns the result of a change without effect.
    pub(super) fn unchanged(&self) -> CommittedChange {
        CommittedChange {
            revision: self.revision,
            contents: self.contents,
            changed: Vec::new(),
        }
    }

    /// Returns the services to serve, by name.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let all = self.services.values().map(|stored| &stored.service);
        all.filter(|service| !self.refused.contains_key(&service.name))
    }

    /// Returns the services that are not served because they conflict with others, in the order of their revisions.
    pub(super) fn refused(&self) -> Vec<Arc<Service>> {
        let mut refused: Vec<&StoredService> = self.refused.keys().filter_map(|name| self.services.get(name)).collect();
        refused.sort_by(|a, b| (a.revision, &a.service.name).cmp(&(b.revision, &b.service.name)));
        refused.into_iter().map(|stored| Arc::clone(&stored.service)).collect()
    }

    /// Returns the reasons why services are refused.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.refused.values().cloned().collect()
    }

    /// Marks a service as refused for a reason, or as accepted (`None`).
    pub(super) fn judged(&mut self, name: &Name, reason: Option<String>) {
        match reason {
            None => drop(self.refused.remove(name)),
            Some(reason) => drop(self.refused.insert(name.clone(), reason)),
        }
    }

    /// Returns all services with their revisions, by name.
    pub(super) fn stored(&self) -> impl Iterator<Item = &StoredService> {
        self.services.values()
    }

    /// Returns the service of this name, also if it is refused.
    pub(super) fn get(&self, name: &str) -> Option<&StoredService> {
        self.services.get(name)
    }

    /// Returns the number of services.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// Replaces the services by presumed ones with revision 0, so that a lost store does not end what is served.
    pub(super) fn presume(&mut self, services: impl Iterator<Item = Service>) {
        let stored = services.map(|service| StoredService {
            service: Arc::new(service),
            revision: 0,
        });
        self.services = stored.map(|stored| (stored.service.name.clone(), stored)).collect();
    }

    /// Returns the edits that turn all services of the API into those of a state.
    pub(super) fn edits_to(&self, want: &State) -> Edits {
        let have = self.services.values().map(|stored| Arc::clone(&stored.service));
        let have = have.collect();
        want.edits_from(&State { services: have })
    }

    /// Returns the edits as a change of the store, which requires the revisions known here.
    pub(super) fn change(&self, edits: &Edits) -> StoreChange {
        let expect = |name: &str| {
            let known = self.services.get(name);
            known.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision))
        };
        let gone = edits.gone.iter();
        let gone = gone.map(|name| StoreEdit::Delete(name.clone(), expect(name)));
        let put = edits.put.iter();
        let put = put.map(|service| StoreEdit::Put(Arc::clone(service), expect(&service.name)));
        StoreChange {
            edits: gone.chain(put).collect(),
            ..StoreChange::default()
        }
    }

    /// Applies a change that the store has made.
    pub(super) fn learn(&mut self, edits: &Edits, committed: &CommittedChange) {
        for name in &edits.gone {
            self.services.remove(name);
            self.refused.remove(name);
        }
        for service in &edits.put {
            self.refused.remove(&service.name);
            if committed.changed.contains(&service.name) {
                let stored = StoredService {
                    service: Arc::clone(service),
                    revision: committed.revision,
                };
                self.services.insert(service.name.clone(), stored);
            }
        }
        (self.revision, self.contents) = (committed.revision, committed.contents);
    }
}
