//! Names of the services that the kernel's keys stand for, also of services that were removed: their last flows end
//! later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tcpgw_core::summary::Summary;

/// Maximum number of places of removed services that are remembered.
const MOST_FORMER: usize = 10_000;

/// Port, and address; `None` for every local address.
type ListenPlace = (u16, Option<IpAddr>);

#[derive(Debug, Default)]
pub(super) struct ServiceNames {
    current: BTreeMap<ListenPlace, Box<str>>,
    former: BTreeMap<ListenPlace, Box<str>>,
    by_backend: BTreeMap<SocketAddr, Vec<Box<str>>>,
    all: BTreeSet<Box<str>>,
    all_former: BTreeSet<Box<str>>,
}

impl ServiceNames {
    /// Takes the names of the present services. Services without a name are not counted.
    pub(super) fn know(&mut self, summary: &Summary) {
        let mut current = BTreeMap::new();
        self.by_backend.clear();
        self.all.clear();
        for service in &summary.services {
            let Some(name) = &service.name else { continue };
            self.all.insert(name.clone());
            if service.addresses.is_empty() {
                current.insert((service.port, None), name.clone());
            }
            for address in &service.addresses {
                current.insert((service.port, Some(*address)), name.clone());
            }
            for backend in service.backends() {
                self.by_backend.entry(backend).or_default().push(name.clone());
            }
        }
        let before = std::mem::replace(&mut self.current, current);
        self.former.extend(before);
        self.former.retain(|place, _| !self.current.contains_key(place));
        while self.former.len() > MOST_FORMER {
            self.former.pop_first();
        }
        self.all_former = self.former.values().cloned().collect();
    }

    /// Returns the service there, or the last one that was there.
    pub(super) fn at(&self, public: SocketAddr) -> Option<&str> {
        let (exact, any) = ((public.port(), Some(public.ip())), (public.port(), None));
        [&self.current, &self.former]
            .into_iter()
            .find_map(|names| names.get(&exact).or_else(|| names.get(&any)))
            .map(AsRef::as_ref)
    }

    /// Returns the service on that port of every local address, or the last one that was there.
    pub(super) fn at_port(&self, port: u16) -> Option<&str> {
        let names = [&self.current, &self.former];
        let mut found = names.into_iter().filter_map(|names| names.get(&(port, None)));
        found.next().map(AsRef::as_ref)
    }

    /// Returns the services that have this backend.
    pub(super) fn of_backend(&self, backend: SocketAddr) -> &[Box<str>] {
        self.by_backend.get(&backend).map_or(&[], Vec::as_slice)
    }

    /// Returns whether the service has this backend now.
    pub(super) fn has(&self, name: &str, backend: SocketAddr) -> bool {
        self.of_backend(backend).iter().any(|of| **of == *name)
    }

    /// Returns whether nothing is known: the daemon has just begun.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.former.is_empty()
    }

    /// Returns whether the places of that service are known, also if it was removed. After a start there may be totals
    /// of others.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.is_current(name) || self.all_former.contains(name)
    }

    /// Returns the names of the present services.
    pub(super) fn current(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(AsRef::as_ref)
    }

    /// Returns whether there is such a service now.
    pub(super) fn is_current(&self, name: &str) -> bool {
        self.all.contains(name)
    }
}
