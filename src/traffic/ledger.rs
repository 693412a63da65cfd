//! The ledger: what was gained between samples, by service and backend.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::drop_sets::{self, CounterOwner};
use super::flow_sums::{EndedFlow, FlowSums, LiveFlows};
use super::last_hour::HourSample;
use super::names::ServiceNames;
use super::totals::{BackendTotals, ServiceTotals, Totals};
use tcpgw_core::ruleset::key::split_pair;
use tcpgw_core::ruleset::name::{Scope, SetName};
use tcpgw_core::ruleset::rows::{read_address, read_endpoint, read_port};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Counted;

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

/// Adds up connections, packets, bytes, handshakes and drops. What it returns never falls.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Handle of the table whose counters `bases` are.
    pub(super) table: Option<u64>,
    pub(super) bases: Bases,
    pub(super) services: BTreeMap<Box<str>, ServiceTotals>,
    /// Sums over ended flows. Those that are not known to have ended, but are not listed any more, are among them.
    pub(super) ended: BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>>,
    /// Ended flows of services whose names are not known yet.
    unnamed: Vec<EndedFlow>,
    names: ServiceNames,
    /// Numbers of answered flows in the last list.
    open: BTreeMap<Box<str>, u64>,
    counts_flows: bool,
    lost_reports: u64,
}

impl Ledger {
    /// Creates a ledger without totals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the present services. Removed ones, and their backends, keep their totals up to a bound.
    pub fn know(&mut self, summary: &Summary) {
        self.names.know(summary);
        self.forget_former();
        if !self.names.is_empty() {
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
        for (set, counted) in sets {
            let before = self.bases.remove(&set).unwrap_or_default();
            let mut bases = BTreeMap::new();
            for Counted { key, packets, .. } in counted {
                // A counter that is smaller was removed and has begun anew.
                let base = before.get(&key).filter(|base| **base <= packets);
                let base = base.copied().unwrap_or(0);
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

    /// Adds to the totals of the service or backend of a key. Returns whether they are known.
    fn gain(&mut self, set: SetName, key: &[u8], more: u64) -> bool {
        if more == 0 {
            return true;
        }
        if let SetName::Connections(listen_scope) = set {
            let (service, backend) = split_pair(listen_scope, key);
            let name = name_of(&self.names, listen_scope.scope(), &service).map(Box::from);
            let backend = read_endpoint(listen_scope.family(), backend).map(SocketAddr::from);
            let Some((name, backend)) = name.zip(backend) else {
                return false;
            };
            self.backend(name, backend).connections += more;
            return true;
        }
        match drop_sets::counter_of(set) {
            Some((reason, CounterOwner::Service(scope))) => {
                let Some(name) = name_of(&self.names, scope, key).map(Box::from) else {
                    return false;
                };
                self.services.entry(name).or_default().drops[reason] += more;
                true
            }
            Some((reason, CounterOwner::Backend(family))) => {
                let Some(backend) = read_endpoint(family, key).map(SocketAddr::from) else {
                    return false;
                };
                let names = self.names.of_backend(backend).to_vec();
                for name in &names {
                    self.backend(name.clone(), backend).drops[reason] += more;
                }
                !names.is_empty()
            }
            None => false,
        }
    }

    fn backend(&mut self, name: Box<str>, backend: SocketAddr) -> &mut BackendTotals {
        let service = self.services.entry(name).or_default();
        service.backends.entry(backend).or_default()
    }

    /// Returns the name of the service there, or of the last one that was there.
    pub fn service_at(&self, public: SocketAddr) -> Option<&str> {
        self.names.at(public)
    }

    /// Takes the report of a flow that has ended while no list was being made.
    pub fn ended(&mut self, flow: &EndedFlow) {
        if !self.add_ended(flow) {
            if self.unnamed.len() < MOST_UNNAMED {
                self.unnamed.push(*flow);
            } else {
                self.lost(1);
            }
        }
    }

    fn add_ended(&mut self, flow: &EndedFlow) -> bool {
        let Some(name) = self.names.at(flow.public) else {
            return false;
        };
        let ended = self.ended.entry(name.into()).or_default();
        let sums = ended.entry(flow.backend).or_default();
        *sums = sums.and(flow.sums);
        true
    }

    /// Takes a list of the live flows, and the reports that arrived from its begin until after its end. A flow that is
    /// in both counts once.
    pub fn flows(&mut self, mut live: LiveFlows, reports: Vec<EndedFlow>) {
        self.counts_flows = true;
        self.open.clear();
        let (listed, unlisted): (Vec<_>, Vec<_>) = reports.into_iter().partition(|flow| live.contains(flow.number));
        for flow in &unlisted {
            self.ended(flow);
        }
        let mut sums: BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>> = self.ended.clone();
        for ((public, backend), live) in &live.sums {
            if let Some(name) = self.names.at(*public) {
                *self.open.entry(name.into()).or_default() += live.answered();
                let of_service = sums.entry(name.into()).or_default();
                let sum = of_service.entry(*backend).or_default();
                *sum = sum.and(*live);
            }
        }
        // Without its places, a service's live flows are not known.
        sums.retain(|name, _| self.names.knows(name));
        for (name, backends) in sums {
            for (backend, sum) in backends {
                let before = self.backend(name.clone(), backend).flows;
                // A flow whose end was not reported has left the list.
                let missing = before.beyond(sum);
                if missing != FlowSums::default() {
                    let ended = self.ended.entry(name.clone()).or_default();
                    let ended = ended.entry(backend).or_default();
                    *ended = ended.and(missing);
                }
                self.backend(name.clone(), backend).flows = before.max(sum);
            }
        }
        for flow in &listed {
            self.ended(flow);
        }
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

    /// Returns the totals at the last samples.
    pub fn totals(&self) -> Totals {
        Totals {
            services: self.services.clone(),
            counts_flows: self.counts_flows,
            lost_reports: self.lost_reports,
            at: None,
        }
    }

    /// Sums up removed backends, and forgets removed services, as far as there are too many.
    fn forget_former(&mut self) {
        let names = &self.names;
        let known = self.services.keys();
        let gone: Vec<Box<str>> = known.filter(|name| !names.is_current(name)).cloned().collect();
        for name in gone.iter().skip(MOST_FORMER_SERVICES) {
            self.services.remove(name);
            self.ended.remove(name);
        }
        let mut kept = 0;
        for (name, service) in &mut self.services {
            let ServiceTotals { backends, others, .. } = service;
            let ended = &mut self.ended;
            backends.retain(|backend, totals| {
                let stays = names.has(name, *backend) || kept < MOST_FORMER_BACKENDS;
                kept += usize::from(!names.has(name, *backend));
                if !stays {
                    *others = others.and(*totals);
                    if let Some(ended) = ended.get_mut(name) {
                        ended.remove(backend);
                    }
                }
                stays
            });
        }
    }
}

fn name_of<'n>(names: &'n ServiceNames, scope: Scope, key: &[u8]) -> Option<&'n str> {
    match scope {
        Scope::Any => names.at_port(read_port(key.get(4..)?)?.get()),
        Scope::At(family) => {
            let port = read_port(key.get(family.address_len()..)?)?.get();
            names.at(SocketAddr::new(read_address(family, key)?, port))
        }
    }
}
