//! Number of flows of each backend, counted while they are listed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::ServicesView;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{Flow, FlowPhase, TcpState};

/// Maximum number of pairs of port and backend without a service that are listed. More are only counted, since there
/// could be as many as flows.
const MOST_STRANGERS: usize = 1000;

/// Places of all backends in one list, service after service, so that data about them can be kept in plain vectors.
#[derive(Debug)]
pub struct BackendIndex {
    /// Place of the first backend of each service, and the end of the last service.
    starts: Vec<usize>,
    /// Backends of each service in order of endpoint.
    backends: Vec<SocketAddr>,
    by_endpoint: Vec<(SocketAddr, usize)>,
}

impl BackendIndex {
    /// Creates the places of the backends of all services.
    pub fn new(summary: &Summary) -> Self {
        let (mut starts, mut backends) = (vec![0], Vec::new());
        for service in &summary.services {
            let begin = backends.len();
            backends.extend(service.backends());
            backends[begin..].sort_unstable();
            starts.push(backends.len());
        }
        let mut by_endpoint: Vec<_> = (0..).zip(&backends).map(|(at, backend)| (*backend, at)).collect();
        by_endpoint.sort_unstable();
        Self {
            starts,
            backends,
            by_endpoint,
        }
    }

    /// Returns the number of backends.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Returns whether there are no backends.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Returns the places and endpoints of a service's backends.
    pub fn of_service(&self, service: usize) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        let range = self.starts[service]..self.starts[service + 1];
        range.clone().zip(self.backends[range].iter().copied())
    }

    /// Returns the place of a flow's backend, if the service that it came through has it.
    pub fn of_flow(&self, summary: &Summary, flow: &Flow) -> Option<usize> {
        self.of_pair(summary.position_at(flow.public)?, flow.backend)
    }

    /// Returns the place of a backend in a service, if the service has it.
    pub fn of_pair(&self, service: usize, backend: SocketAddr) -> Option<usize> {
        let (begin, end) = (self.starts[service], self.starts[service + 1]);
        let at = self.backends[begin..end].binary_search(&backend).ok()?;
        Some(begin + at)
    }

    /// Returns the places of a backend: one in each service that has it.
    pub fn of_backend(&self, backend: SocketAddr) -> impl Iterator<Item = usize> + '_ {
        let from = self.by_endpoint.partition_point(|(of, _)| *of < backend);
        let same = self.by_endpoint[from..]
            .iter()
            .take_while(move |(of, _)| *of == backend);
        same.map(|(_, place)| *place)
    }
}

/// Number of flows by the state of their connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Number of flows whose handshake is not complete.
    pub handshake: u64,
    /// Number of established flows.
    pub established: u64,
    /// Number of flows that one end or both have closed; conntrack keeps such entries for a while.
    pub closing: u64,
}

impl FlowCounts {
    /// Counts a flow.
    pub fn count(&mut self, state: Option<TcpState>) {
        *match FlowPhase::of(state) {
            FlowPhase::Handshake => &mut self.handshake,
            FlowPhase::Established => &mut self.established,
            FlowPhase::Closing => &mut self.closing,
        } += 1;
    }

    /// Returns the number of all flows.
    pub fn total(self) -> u64 {
        self.handshake + self.established + self.closing
    }

    /// Returns the sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            handshake: self.handshake + other.handshake,
            established: self.established + other.established,
            closing: self.closing + other.closing,
        }
    }
}

/// Counts of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTally {
    /// Flows of the backend.
    pub flows: FlowCounts,
    /// Number of source ports in use, by gateway address.
    pub source_ports: Vec<(IpAddr, u64)>,
}

/// A port and a backend that no service combines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StrayPair {
    /// Public port through which the flows came.
    pub port: u16,
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Number of flows between them.
    pub flows: u64,
}

/// Flows whose backend does not belong to the service that they came through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StrayFlows {
    pairs: BTreeMap<(u16, SocketAddr), u64>,
    /// Number of all these flows.
    pub total: u64,
}

impl StrayFlows {
    fn count(&mut self, flow: &Flow) {
        self.total += 1;
        let key = (flow.public.port(), flow.backend);
        if self.pairs.len() < MOST_STRANGERS || self.pairs.contains_key(&key) {
            *self.pairs.entry(key).or_default() += 1;
        }
    }

    /// Returns the pairs, up to a maximum number; [`StrayFlows::total`] counts all flows.
    pub fn pairs(&self) -> Vec<StrayPair> {
        let pairs = self.pairs.iter();
        pairs
            .map(|((port, backend), flows)| StrayPair {
                port: *port,
                backend: *backend,
                flows: *flows,
            })
            .collect()
    }
}

/// Counts of flows.
#[derive(Debug)]
pub struct Tally<'a> {
    services: &'a ServicesView,
    places: &'a BackendIndex,
    /// Counts of backends by place.
    pub backends: Vec<BackendTally>,
    /// Flows that should have been deleted.
    pub stale: StrayFlows,
    /// Flows to backends that drain.
    pub leaving: StrayFlows,
}

impl<'a> Tally<'a> {
    /// Creates an empty tally for these services.
    pub fn new(services: &'a ServicesView, places: &'a BackendIndex) -> Self {
        Self {
            services,
            places,
            backends: vec![BackendTally::default(); places.len()],
            stale: StrayFlows::default(),
            leaving: StrayFlows::default(),
        }
    }

    /// Counts a flow. Returns the place of its backend.
    pub fn count(&mut self, flow: &Flow) -> Option<usize> {
        let Some(at) = self.places.of_flow(&self.services.summary, flow) else {
            match self.services.verdict(flow.public, flow.backend) {
                FlowVerdict::Stale => self.stale.count(flow),
                FlowVerdict::Active | FlowVerdict::Draining => self.leaving.count(flow),
            }
            return None;
        };
        let backend = &mut self.backends[at];
        backend.flows.count(flow.tcp_state);
        if flow.status.snat() {
            let address = flow.seen_as.ip();
            match backend.source_ports.iter_mut().find(|(of, _)| *of == address) {
                Some((_, used)) => *used += 1,
                None => backend.source_ports.push((address, 1)),
            }
        }
        Some(at)
    }
}
