//! What came in through the API, as the store has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::membership::Name;
use crate::store::{Change, Committed, Edit, Expect, Loaded, StoredService};
use tcpgw_core::model::{Edits, Service, State};

/// Services by name, with the revision of each and that of all.
#[derive(Debug, Default)]
pub(super) struct Held {
    revision: u64,
    services: BTreeMap<Name, StoredService>,
    /// Those that do not go together with the others and are not served, with what speaks against each.
    refused: BTreeMap<Name, String>,
}

impl Held {
    /// What a store holds, with the services that are not to be served, and why.
    pub(super) fn new(loaded: Loaded, refused: BTreeMap<Name, String>) -> Self {
        let services = loaded.services.into_iter();
        Self {
            revision: loaded.revision,
            services: services.map(|stored| (stored.service.name.clone(), stored)).collect(),
            refused,
        }
    }

    /// Of the last change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Each that is to be served, by name.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let all = self.services.values().map(|stored| &stored.service);
        all.filter(|service| !self.refused.contains_key(&service.name))
    }

    /// Returns the services that are not served since they do not go together with others, those that were there first first.
    pub(super) fn refused(&self) -> Vec<Arc<Service>> {
        let mut refused: Vec<&StoredService> = self.refused.keys().filter_map(|name| self.services.get(name)).collect();
        refused.sort_by(|a, b| (a.revision, &a.service.name).cmp(&(b.revision, &b.service.name)));
        refused.into_iter().map(|stored| Arc::clone(&stored.service)).collect()
    }

    /// What speaks against each of them.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.refused.values().cloned().collect()
    }

    /// Serves a service that was refused; or gives another reason why it is not.
    pub(super) fn judged(&mut self, name: &Name, reason: Option<String>) {
        match reason {
            None => drop(self.refused.remove(name)),
            Some(reason) => drop(self.refused.insert(name.clone(), reason)),
        }
    }

    /// Each, with its revision.
    pub(super) fn stored(&self) -> impl Iterator<Item = &StoredService> {
        self.services.values()
    }

    /// One.
    pub(super) fn get(&self, name: &str) -> Option<&StoredService> {
        self.services.get(name)
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// Services that nobody has stored: a store that is lost must not end what is served.
    pub(super) fn presume(&mut self, services: impl Iterator<Item = Service>) {
        let stored = services.map(|service| StoredService {
            service: Arc::new(service),
            revision: 0,
        });
        self.services = stored.map(|stored| (stored.service.name.clone(), stored)).collect();
    }

    /// What makes all of it equal to a state.
    pub(super) fn edits_to(&self, want: &State) -> Edits {
        let have = self.services.values().map(|stored| Arc::clone(&stored.service));
        let have = have.collect();
        want.edits_from(&State { services: have })
    }

    /// That as a change of the store: what is to be changed has to be as it is known here.
    pub(super) fn change(&self, edits: &Edits) -> Change {
        let expect = |name: &str| {
            let known = self.services.get(name);
            known.map_or(Expect::Absent, |stored| Expect::Revision(stored.revision))
        };
        let gone = edits.gone.iter();
        let gone = gone.map(|name| Edit::Delete(name.clone(), expect(name)));
        let put = edits.put.iter();
        let put = put.map(|service| Edit::Put(Arc::clone(service), expect(&service.name)));
        Change {
            edits: gone.chain(put).collect(),
            ..Change::default()
        }
    }

    /// The store has made a change.
    pub(super) fn learn(&mut self, edits: &Edits, committed: &Committed) {
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
        self.revision = committed.revision;
    }
}
