//! The ledger: what was gained between samples, by service and backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::drop_sets::{self, CounterOwner};
use super::flow_sums::{EndedFlow, FlowNumber, FlowSums, LiveFlows};
use super::known_flows::KnownFlows;
use super::last_hour::HourSample;
use super::names::{NamesChange, ServiceNames};
use super::totals::{BackendTotals, ServiceTotals, Totals};
use tcpgw_core::ruleset::key::split_pair;
use tcpgw_core::ruleset::name::{Scope, SetName};
use tcpgw_core::ruleset::rows::{read_address, read_endpoint, read_port};
use tcpgw_kernel::Counted;
use tcpgw_kernel::conntrack::Flow;

/// Maximum number of backends, of all services together, of which totals are kept after they were removed. The totals
/// of others go on as one sum for each service.
const MOST_FORMER_BACKENDS: usize = 10_000;
/// Maximum number of services of which totals are kept after they were removed. One that comes again later begins at
/// zero.
const MOST_FORMER_SERVICES: usize = 10_000;

/// Maximum number of reports that wait for the name of their service.
const MOST_UNNAMED: usize = 10_000;

/// Values of the kernel's counters at the last sample, by set and key.
pub(super) type Bases = BTreeMap<SetName, BTreeMap<Box<[u8]>, u64>>;

/// Counters of services that have lost a place, read right after the change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastCounts {
    /// Handle of the table that has them.
    pub table: Option<u64>,
    /// Each counter with its set.
    pub counted: Vec<(SetName, Counted)>,
}

/// Adds up connections, packets, bytes, handshakes and drops. What it returns never falls.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Handle of the table whose counters `bases` are.
    pub(super) table: Option<u64>,
    pub(super) bases: Bases,
    /// Keys whose values are newer than those of a sample under way.
    newer: BTreeSet<(SetName, Box<[u8]>)>,
    pub(super) services: BTreeMap<Box<str>, Arc<ServiceTotals>>,
    /// Sums over ended flows. Those that are not known to have ended, but are not listed any more, are among them.
    pub(super) ended: BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>>,
    /// Flows of the last list that have not ended since, as far as is known.
    pub(super) known: KnownFlows,
    /// Ended flows of services whose names are not known yet.
    unnamed: Vec<EndedFlow>,
    names: ServiceNames,
    /// Numbers of established flows in the last list.
    open: BTreeMap<Box<str>, u64>,
    counts_flows: bool,
    lost_reports: u64,
}

impl Ledger {
    /// Creates a ledger without totals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a ledger with totals.
    #[cfg(test)]
    pub(crate) fn of(services: BTreeMap<Box<str>, Arc<ServiceTotals>>) -> Self {
        Self {
            services,
            ..Self::default()
        }
    }

    /// Takes the present services. Removed ones, and their backends, keep their totals up to a bound.
    pub fn know(&mut self, services: impl Into<NamesChange>) {
        self.names.know(services.into());
        self.renamed();
        self.forget_former();
    }

    /// Returns whether no service is known: the daemon has just begun.
    pub fn knows_nobody(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes a change of the services that the kernel is about to make.
    pub fn change_begins(&mut self, change: NamesChange) {
        self.names.begins(change);
    }

    /// Returns whether flows go on with another service by the change under way: they are to be carried.
    pub fn hands_over(&self) -> bool {
        self.names.hands_over()
    }

    /// Takes a live flow before a change under way ends: it stays with the service that it began with.
    pub fn carry(&mut self, flow: &Flow) {
        self.names.carry(FlowNumber::of(flow), flow.public, flow.backend);
    }

    /// Takes the end of a change: whether the kernel has made it.
    pub fn change_ends(&mut self, is_made: bool) {
        self.names.ends(is_made);
        self.renamed();
    }

    fn renamed(&mut self) {
        if !self.unnamed.is_empty() && !self.names.is_empty() {
            for flow in std::mem::take(&mut self.unnamed) {
                self.add_ended(&flow);
            }
        }
    }

    /// Takes a sample of the kernel's counters. `table` is the handle of the table that has them; counters of another
    /// table begin at zero. Sets that could not be read are left out.
    pub fn counters(&mut self, table: Option<u64>, sets: Vec<(SetName, Vec<Counted>)>) {
        if self.table != table {
            self.table = table;
            self.bases.clear();
        }
        let newer = std::mem::take(&mut self.newer);
        for (set, counted) in sets {
            let before = self.bases.remove(&set).unwrap_or_default();
            let mut bases = BTreeMap::new();
            for Counted { key, packets, .. } in counted {
                let base = before.get(&key).copied().unwrap_or(0);
                if packets < base && newer.contains(&(set, key.clone())) {
                    bases.insert(key, base);
                    continue;
                }
                // A counter that is smaller was removed and has begun anew.
                let base = if packets < base { 0 } else { base };
                if self.gain(set, &key, packets - base) {
                    bases.insert(key, packets);
                } else if base > 0 {
                    // It is gained when the name of its service is known.
                    bases.insert(key, base);
                }
            }
            self.bases.insert(set, bases);
        }
    }

    /// Takes counters of services that lose a place by the change under way, before it ends. A sample may have later values already, or
    /// be under way and have earlier ones.
    pub fn last_counters(&mut self, last: LastCounts) {
        match self.table {
            // No sample was taken yet.
            None => self.table = last.table,
            known if known != last.table => return,
            Some(_) => {}
        }
        for (set, Counted { key, packets, .. }) in last.counted {
            let base = self
                .bases
                .get(&set)
                .and_then(|bases| bases.get(&key))
                .copied()
                .unwrap_or(0);
            if packets > base && self.gain(set, &key, packets - base) {
                self.bases.entry(set).or_default().insert(key.clone(), packets);
            }
            self.newer.insert((set, key));
        }
    }

    /// Begins a sample of the kernel's counters: what is taken by [`Self::counters`] next is newer than all that was taken before.
    pub fn sample_begins(&mut self) {
        self.newer.clear();
    }

    /// Adds to the totals of the service or backend of a key. Returns whether they are known.
    fn gain(&mut self, set: SetName, key: &[u8], more: u64) -> bool {
        if more == 0 {
            return true;
        }
        if let SetName::Connections(listen_scope) = set {
            let (service, backend) = split_pair(listen_scope, key);
            let backend = read_endpoint(listen_scope.family(), backend).map(SocketAddr::from);
            let name = name_of(&self.names, listen_scope.scope(), &service, backend).map(Box::from);
            let Some((name, backend)) = name.zip(backend) else {
                return false;
            };
            self.backend(name, backend).connections += more;
            return true;
        }
        match drop_sets::counter_of(set) {
            Some((reason, CounterOwner::Service(scope))) => {
                let Some(name) = name_of(&self.names, scope, key, None).map(Box::from) else {
                    return false;
                };
                Arc::make_mut(self.services.entry(name).or_default()).drops[reason] += more;
                true
            }
            Some((reason, CounterOwner::Backend(family))) => {
                let Some(backend) = read_endpoint(family, key).map(SocketAddr::from) else {
                    return false;
                };
                let names: Vec<Box<str>> = self.names.of_backend(backend).cloned().collect();
                for name in &names {
                    self.backend(name.clone(), backend).drops[reason] += more;
                }
                !names.is_empty()
            }
            None => false,
        }
    }

    fn backend(&mut self, name: Box<str>, backend: SocketAddr) -> &mut BackendTotals {
        let service = Arc::make_mut(self.services.entry(name).or_default());
        service.backends.entry(backend).or_default()
    }

    /// Returns the name of the service that a flow began with.
    pub fn service_of(&self, flow: &Flow) -> Option<&str> {
        self.carried(flow)
            .or_else(|| self.names.of_pair(flow.public, flow.backend))
    }

    /// Forgets a flow that has ended.
    pub fn forget(&mut self, flow: &Flow) {
        if self.names.carries() {
            self.names.take_carried(FlowNumber::of(flow));
        }
    }

    /// Returns the name of the service that a live flow began with, if its place and backend belong to another one now.
    pub fn carried(&self, flow: &Flow) -> Option<&str> {
        let carried = self.names.carries().then(|| FlowNumber::of(flow));
        carried.and_then(|number| self.names.carried(number))
    }

    /// Takes the report of a flow that has ended while no list was being made.
    pub fn ended(&mut self, flow: &EndedFlow) {
        self.known.forget(flow.number);
        if !self.add_ended(flow) {
            if self.unnamed.len() < MOST_UNNAMED {
                self.unnamed.push(*flow);
            } else {
                self.lost(1);
            }
        }
    }

    fn add_ended(&mut self, flow: &EndedFlow) -> bool {
        let carried = self.names.take_carried(flow.number);
        let name = carried.or_else(|| self.names.of_pair(flow.public, flow.backend).map(Box::from));
        let Some(name) = name else {
            return false;
        };
        let ended = self.ended.entry(name).or_default();
        let sums = ended.entry(flow.backend).or_default();
        *sums = sums.and(flow.sums);
        true
    }

    /// Takes a list of the live flows, and the reports that arrived from its start until after its end. A flow that is
    /// in both counts once.
    pub fn flows(&mut self, mut live: LiveFlows, reports: Vec<EndedFlow>) {
        self.counts_flows = true;
        self.open.clear();
        let (listed, unlisted): (Vec<_>, Vec<_>) = reports.into_iter().partition(|flow| live.contains(flow.number));
        for flow in &unlisted {
            self.ended(flow);
        }
        let [unreported, dying] = self.known.take_absent(&mut live);
        for ((name, backend), flows) in unreported {
            let of = self.ended.entry(name).or_default().entry(backend).or_default();
            *of = flows.iter().fold(*of, |sum, (_, sums)| sum.and(*sums));
        }
        let mut sums: BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>> = self.ended.clone();
        for ((name, backend), flows) in dying {
            let of = sums.entry(name.clone()).or_default().entry(backend).or_default();
            *of = flows.iter().fold(*of, |sum, (_, sums)| sum.and(*sums));
            self.known.add(&name, backend, &flows);
        }
        let by_pair = live.groups.iter().filter_map(|((public, backend), group)| {
            let name = self.names.of_pair(*public, *backend)?;
            Some((name, backend, group))
        });
        let carried = live
            .carried
            .iter()
            .map(|((name, backend), group)| (&**name, backend, group));
        for (name, backend, group) in by_pair.chain(carried) {
            *self.open.entry(name.into()).or_default() += group.open;
            let of_service = sums.entry(name.into()).or_default();
            let sum = of_service.entry(*backend).or_default();
            *sum = sum.and(group.sums);
            self.known.add(name, *backend, &group.flows);
        }
        // Without its places, a service's live flows are not known.
        sums.retain(|name, _| self.names.knows(name));
        for (name, backends) in sums {
            for (backend, sum) in backends {
                let known = self.services.get(&name).and_then(|of| of.backends.get(&backend));
                let known = known.map(|totals| totals.flows);
                let before = known.unwrap_or_default();
                // A flow whose end was not reported, and whose own numbers were not kept, has left the list.
                let missing = before.beyond(sum);
                if missing != FlowSums::default() {
                    let ended = self.ended.entry(name.clone()).or_default();
                    let ended = ended.entry(backend).or_default();
                    *ended = ended.and(missing);
                }
                let flows = before.max(sum);
                // What does not change goes on being shared with the samples before.
                if known != Some(flows) {
                    self.backend(name.clone(), backend).flows = flows;
                }
            }
        }
        for flow in &listed {
            self.ended(flow);
        }
        // Reports of the others were lost.
        self.names.carry_on(|number| live.contains(number));
    }

    /// Takes the number of reports of ended flows that were lost since the last call. The kernel does not tell how many
    /// they were, so each loss counts as one at least.
    pub const fn lost(&mut self, reports: u64) {
        self.lost_reports = self.lost_reports.saturating_add(reports);
    }

    /// Ends counting packets, bytes and handshakes.
    pub fn stop_flows(&mut self) {
        self.counts_flows = false;
        self.open.clear();
        self.known.clear();
    }

    /// Returns a sample of each present service.
    pub fn samples(&self) -> impl Iterator<Item = (&str, HourSample)> {
        self.names.current().map(|name| {
            let flows = self.open.get(name).copied().unwrap_or(0);
            let totals = self.services.get(name);
            let sample = totals.map_or_else(
                || HourSample::new(&ServiceTotals::default(), flows),
                |totals| HourSample::new(totals, flows),
            );
            (name, sample)
        })
    }

    /// Returns the totals at the last samples. A [`PersistedLedger`](super::PersistedLedger) writes them before it shows them.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            services: self.services.clone(),
            counts_flows: self.counts_flows,
            lost_reports: self.lost_reports,
            at: None,
        }
    }

    /// Sums up removed backends, and forgets removed services, as far as there are too many. It takes milliseconds where there are many.
    pub fn forget_former(&mut self) {
        if !self.names.take_changed() {
            return;
        }
        let names = &self.names;
        let known = self.services.keys();
        let gone: Vec<Box<str>> = known.filter(|name| !names.is_current(name)).cloned().collect();
        for name in gone.iter().skip(MOST_FORMER_SERVICES) {
            self.services.remove(name);
            self.ended.remove(name);
        }
        let mut kept = 0;
        for (name, service) in &mut self.services {
            let mut leave = Vec::new();
            for backend in service.backends.keys().filter(|backend| !names.has(name, **backend)) {
                if kept >= MOST_FORMER_BACKENDS {
                    leave.push(*backend);
                }
                kept += 1;
            }
            if leave.is_empty() {
                continue;
            }
            let ServiceTotals { backends, others, .. } = Arc::make_mut(service);
            for backend in leave {
                if let Some(totals) = backends.remove(&backend) {
                    *others = others.and(totals);
                }
                if let Some(ended) = self.ended.get_mut(name) {
                    ended.remove(&backend);
                }
            }
        }
        let services = &self.services;
        self.names.retain(|name| services.contains_key(name));
    }
}

fn name_of<'n>(names: &'n ServiceNames, scope: Scope, key: &[u8], backend: Option<SocketAddr>) -> Option<&'n str> {
    match scope {
        Scope::Any => names.of_port(read_port(key.get(4..)?)?.get(), backend),
        Scope::At(family) => {
            let port = read_port(key.get(family.address_len()..)?)?.get();
            let public = SocketAddr::new(read_address(family, key)?, port);
            match backend {
                Some(backend) => names.of_pair(public, backend),
                None => names.at(public),
            }
        }
    }
}
