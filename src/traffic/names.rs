//! Names of the services that flows and the kernel's keys belong to.
//!
//! A place (a port on an address) may change hands. A flow belongs to the service that had its place and its backend when it began. The
//! kernel's changes are told before they are made and afterwards, so that no flow that begins with a new service meets only the old
//! name. Pure: knows neither the kernel nor a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tcpgw_core::summary::{ServiceSummary, Summary};

use super::flow_sums::FlowNumber;

/// Maximum number of places whose last service is remembered after it left.
const MOST_FORMER: usize = 10_000;
/// Maximum number of flows that are told apart by themselves, because their place and backend belong to another service now.
const MOST_CARRIED: usize = 200_000;

/// Port, and address; `None` for every local address.
pub(super) type ListenPlace = (u16, Option<IpAddr>);

/// A service, as far as its name depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// Name.
    pub name: Box<str>,
    /// Public port.
    pub port: u16,
    /// Addresses that it listens on; empty for every local one.
    pub addresses: BTreeSet<IpAddr>,
    /// Backends, those that drain included.
    pub backends: BTreeSet<SocketAddr>,
}

impl NamedService {
    /// Returns the service; `None`: it has no name.
    pub fn of(service: &ServiceSummary) -> Option<Self> {
        Some(Self {
            name: service.name.clone()?,
            port: service.port,
            addresses: service.addresses.clone(),
            backends: service.backends().collect(),
        })
    }

    fn listen_addresses(&self) -> impl Iterator<Item = ListenPlace> + '_ {
        let anywhere = self.addresses.is_empty().then_some((self.port, None));
        let somewhere = self.addresses.iter().map(|address| (self.port, Some(*address)));
        anywhere.into_iter().chain(somewhere)
    }
}

/// Change of the kernel's services. Whoever makes it tells it before and afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamesChange {
    /// Whether all services that are not in `come` leave.
    pub is_all: bool,
    /// Services that leave.
    pub gone: Vec<Box<str>>,
    /// Services that come, or are other than before.
    pub come: Vec<NamedService>,
}

impl NamesChange {
    /// Returns the change to exactly these services.
    pub fn all(services: impl IntoIterator<Item = NamedService>) -> Self {
        Self {
            is_all: true,
            gone: Vec::new(),
            come: services.into_iter().collect(),
        }
    }
}

impl From<&Summary> for NamesChange {
    fn from(summary: &Summary) -> Self {
        Self::all(summary.services.iter().filter_map(NamedService::of))
    }
}

/// Service that has, had or will have a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tenant {
    name: Box<str>,
    backends: BTreeSet<SocketAddr>,
}

#[derive(Debug, Default)]
pub(super) struct ServiceNames {
    services: BTreeMap<Box<str>, NamedService>,
    current: BTreeMap<ListenPlace, Box<str>>,
    former: BTreeMap<ListenPlace, Tenant>,
    /// Services that the kernel may have already.
    coming: BTreeMap<ListenPlace, Tenant>,
    change: Option<NamesChange>,
    by_backend: BTreeMap<SocketAddr, BTreeSet<Box<str>>>,
    /// Flows that began with the service that had their place and backend before.
    carried: BTreeMap<FlowNumber, Box<str>>,
    /// Names that were told, and not forgotten.
    known: BTreeSet<Box<str>>,
    is_changed: bool,
}

impl ServiceNames {
    /// Takes the names of the present services. Services without a name are not counted.
    pub(super) fn know(&mut self, change: NamesChange) {
        self.begins(change);
        self.ends(true);
    }

    /// Takes a change that the kernel is about to make.
    pub(super) fn begins(&mut self, change: NamesChange) {
        self.coming.clear();
        for service in &change.come {
            for place in service.listen_addresses() {
                let tenant = Tenant {
                    name: service.name.clone(),
                    backends: service.backends.clone(),
                };
                self.coming.insert(place, tenant);
            }
        }
        self.change = Some(change);
    }

    /// Takes the end of that change: whether the kernel has made it.
    pub(super) fn ends(&mut self, is_made: bool) {
        self.coming.clear();
        let Some(change) = self.change.take().filter(|_| is_made) else {
            return;
        };
        let come: BTreeMap<&str, &NamedService> = change.come.iter().map(|of| (&*of.name, of)).collect();
        let gone: Vec<Box<str>> = if change.is_all {
            let all = self.services.keys();
            all.filter(|name| !come.contains_key(&***name)).cloned().collect()
        } else {
            change.gone
        };
        let changed = come.iter().filter(|(name, of)| self.services.get(**name) != Some(**of));
        let changed: Vec<NamedService> = changed.map(|(_, of)| (*of).clone()).collect();
        for name in &gone {
            self.remove(name, None);
        }
        for service in &changed {
            self.remove(&service.name, Some(service));
        }
        for service in changed {
            self.put(service);
        }
    }

    /// Removes a service, which is to be `next`. It becomes the former one of the places that it loses.
    fn remove(&mut self, name: &str, next: Option<&NamedService>) {
        let Some(service) = self.services.remove(name) else {
            return;
        };
        self.is_changed = true;
        let stays: BTreeSet<ListenPlace> = next.into_iter().flat_map(NamedService::listen_addresses).collect();
        for place in service.listen_addresses() {
            self.current.remove(&place);
            if stays.contains(&place) {
                continue;
            }
            let tenant = Tenant {
                name: service.name.clone(),
                backends: service.backends.clone(),
            };
            self.former.insert(place, tenant);
            if self.former.len() > MOST_FORMER {
                self.former.pop_first();
            }
        }
        for backend in &service.backends {
            if let Some(names) = self.by_backend.get_mut(backend) {
                names.remove(name);
                if names.is_empty() {
                    self.by_backend.remove(backend);
                }
            }
        }
    }

    fn put(&mut self, service: NamedService) {
        self.is_changed = true;
        for place in service.listen_addresses() {
            self.current.insert(place, service.name.clone());
            // Its own flows end with these backends from now on, also after it has lost one of them.
            if let Some(former) = self.former.get_mut(&place) {
                former.backends.retain(|backend| !service.backends.contains(backend));
            }
        }
        for backend in &service.backends {
            self.by_backend
                .entry(*backend)
                .or_default()
                .insert(service.name.clone());
        }
        self.known.insert(service.name.clone());
        self.services.insert(service.name.clone(), service);
    }

    /// Returns whether flows go on by the change under way whose place changes hands: both services have their backend.
    pub(super) fn hands_over(&self) -> bool {
        let of = |(place, next): (&ListenPlace, &Tenant)| {
            let now = self.current.get(place).and_then(|name| self.services.get(name));
            now.is_some_and(|now| now.name != next.name && !now.backends.is_disjoint(&next.backends))
        };
        self.coming.iter().any(of)
    }

    /// Notes that a flow goes on with the service that it began with, after the change under way.
    pub(super) fn carry(&mut self, number: FlowNumber, public: SocketAddr, backend: SocketAddr) {
        let place = (public.port(), Some(public.ip()));
        let next = self
            .coming
            .get(&place)
            .or_else(|| self.coming.get(&(public.port(), None)));
        let next = next.filter(|next| next.backends.contains(&backend));
        let now = self.of_pair(public, backend);
        if let Some((now, next)) = now.zip(next)
            && *now != *next.name
            && self.carried.len() < MOST_CARRIED
        {
            let name = now.into();
            self.carried.entry(number).or_insert(name);
        }
    }

    /// Returns whether there are flows that belong to another service than their port and backend say.
    pub(super) fn carries(&self) -> bool {
        !self.carried.is_empty()
    }

    /// Returns the service that a flow began with, if its place and backend belong to another one now.
    pub(super) fn carried(&self, number: FlowNumber) -> Option<&str> {
        self.carried.get(&number).map(AsRef::as_ref)
    }

    /// Returns that service, and forgets the flow, which has ended.
    pub(super) fn take_carried(&mut self, number: FlowNumber) -> Option<Box<str>> {
        self.carried.remove(&number)
    }

    /// Forgets all flows but these.
    pub(super) fn carry_on(&mut self, mut lives: impl FnMut(FlowNumber) -> bool) {
        self.carried.retain(|number, _| lives(*number));
    }

    /// Returns the service whose flows go from that address to that backend, also if it was removed: its last flows end later.
    pub(super) fn of_pair(&self, public: SocketAddr, backend: SocketAddr) -> Option<&str> {
        self.of_place((public.port(), Some(public.ip())), Some(backend))
    }

    /// Returns the service on that port of every local address, as [`Self::of_pair`] does.
    pub(super) fn of_port(&self, port: u16, backend: Option<SocketAddr>) -> Option<&str> {
        self.of_place((port, None), backend)
    }

    /// Returns the service at that address, or the last one that was there.
    pub(super) fn at(&self, public: SocketAddr) -> Option<&str> {
        self.of_place((public.port(), Some(public.ip())), None)
    }

    fn of_place(&self, place: ListenPlace, backend: Option<SocketAddr>) -> Option<&str> {
        let (port, _) = place;
        let current = self.current.get(&place).or_else(|| self.current.get(&(port, None)));
        let current = current.and_then(|name| self.services.get(name));
        let coming = self.coming.get(&place).or_else(|| self.coming.get(&(port, None)));
        let former = self.former.get(&place).or_else(|| self.former.get(&(port, None)));
        let candidates = [
            current.map(|of| (&*of.name, &of.backends)),
            coming.map(|of| (&*of.name, &of.backends)),
            former.map(|of| (&*of.name, &of.backends)),
        ];
        let has = |(_, backends): &&(&str, &BTreeSet<SocketAddr>)| backend.is_some_and(|of| backends.contains(&of));
        let [current, coming, former] = &candidates;
        let found = candidates.iter().flatten().find(has);
        // Else it is one of a backend that has left meanwhile.
        let found = found.or(current.as_ref()).or(former.as_ref()).or(coming.as_ref());
        found.map(|(name, _)| *name)
    }

    /// Returns the services that have this backend.
    pub(super) fn of_backend(&self, backend: SocketAddr) -> impl Iterator<Item = &Box<str>> {
        self.by_backend.get(&backend).into_iter().flatten()
    }

    /// Returns whether the service has this backend now.
    pub(super) fn has(&self, name: &str, backend: SocketAddr) -> bool {
        self.services
            .get(name)
            .is_some_and(|service| service.backends.contains(&backend))
    }

    /// Returns whether nothing is known: the daemon has just begun.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.former.is_empty()
    }

    /// Returns whether any service changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns whether there is such a service now.
    pub(super) fn is_current(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    /// Returns whether the places of that service are known, also if it was removed. After a start there may be totals of others.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// Forgets the names of removed services but these.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&str) -> bool) {
        let services = &self.services;
        self.known.retain(|name| services.contains_key(name) || stays(name));
    }

    /// Returns the names of the present services.
    pub(super) fn current(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(AsRef::as_ref)
    }
}
