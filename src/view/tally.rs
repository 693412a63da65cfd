//! How many flows each backend has, counted while they are listed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::ServicesView;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{Flow, TcpState};

/// Pairs of port and backend that no service has, and that are told apart. More are only counted: there could be as many
/// as there are flows.
const MOST_STRANGERS: usize = 1000;

/// All backends in one row, service after service, so that what is known of them can be kept in plain vectors.
#[derive(Debug)]
pub struct Places {
    /// Where each service's backends begin, and where the last one's end.
    starts: Vec<usize>,
    /// Of each service in order of endpoint.
    backends: Vec<SocketAddr>,
    by_endpoint: Vec<(SocketAddr, usize)>,
}

impl Places {
    /// Of all services.
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

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Where a service's backends are, with their endpoints.
    pub fn of_service(&self, service: usize) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        let range = self.starts[service]..self.starts[service + 1];
        range.clone().zip(self.backends[range].iter().copied())
    }

    /// Where a flow's backend is, if the service that it came through has it.
    pub fn of_flow(&self, summary: &Summary, flow: &Flow) -> Option<usize> {
        let service = summary.position_at(flow.public)?;
        let (begin, end) = (self.starts[service], self.starts[service + 1]);
        let at = self.backends[begin..end].binary_search(&flow.backend).ok()?;
        Some(begin + at)
    }

    /// Where a backend is: a place in each service that has it.
    pub fn of_backend(&self, backend: SocketAddr) -> impl Iterator<Item = usize> + '_ {
        let from = self.by_endpoint.partition_point(|(of, _)| *of < backend);
        let same = self.by_endpoint[from..]
            .iter()
            .take_while(move |(of, _)| *of == backend);
        same.map(|(_, place)| *place)
    }
}

/// Flows by how far their connections are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// The handshake is not over.
    pub handshake: u64,
    /// Both ends talk.
    pub established: u64,
    /// One end has closed it, or both; conntrack keeps such entries for a while.
    pub closing: u64,
}

impl FlowCounts {
    /// Counts one more flow.
    pub fn count(&mut self, state: Option<TcpState>) {
        use TcpState::{Established, None as Fresh, SynRecv, SynSent, SynSent2};
        *match state {
            Some(Fresh | SynSent | SynRecv | SynSent2) => &mut self.handshake,
            // Entries that other programs made may have no state.
            Some(Established) | None => &mut self.established,
            Some(_) => &mut self.closing,
        } += 1;
    }

    /// All of them.
    pub fn total(self) -> u64 {
        self.handshake + self.established + self.closing
    }

    /// These and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            handshake: self.handshake + other.handshake,
            established: self.established + other.established,
            closing: self.closing + other.closing,
        }
    }
}

/// What was counted of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTally {
    /// Its flows.
    pub flows: FlowCounts,
    /// How many source ports of which gateway address lead to it.
    pub source_ports: Vec<(IpAddr, u64)>,
}

/// A port and a backend that no service has together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stranger {
    /// The public port.
    pub port: u16,
    /// The backend.
    pub backend: SocketAddr,
    /// How many flows there are between them.
    pub flows: u64,
}

/// Flows whose backend is not one of the service that they came through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strangers {
    pairs: BTreeMap<(u16, SocketAddr), u64>,
    /// All of them.
    pub total: u64,
}

impl Strangers {
    fn count(&mut self, flow: &Flow) {
        self.total += 1;
        let key = (flow.public.port(), flow.backend);
        if self.pairs.len() < MOST_STRANGERS || self.pairs.contains_key(&key) {
            *self.pairs.entry(key).or_default() += 1;
        }
    }

    /// Who they are; of many not all, but [`Strangers::total`] has them.
    pub fn pairs(&self) -> Vec<Stranger> {
        let pairs = self.pairs.iter();
        pairs
            .map(|((port, backend), flows)| Stranger {
                port: *port,
                backend: *backend,
                flows: *flows,
            })
            .collect()
    }
}

/// What was counted so far.
#[derive(Debug)]
pub struct Tally<'a> {
    services: &'a ServicesView,
    places: &'a Places,
    /// By place.
    pub backends: Vec<BackendTally>,
    /// Flows that should have been flushed.
    pub stale: Strangers,
    /// Flows to backends that are leaving.
    pub leaving: Strangers,
}

impl<'a> Tally<'a> {
    /// Nothing yet.
    pub fn new(services: &'a ServicesView, places: &'a Places) -> Self {
        Self {
            services,
            places,
            backends: vec![BackendTally::default(); places.len()],
            stale: Strangers::default(),
            leaving: Strangers::default(),
        }
    }

    /// One more; where its backend is.
    pub fn count(&mut self, flow: &Flow) -> Option<usize> {
        let Some(at) = self.places.of_flow(&self.services.summary, flow) else {
            match self.services.standing(flow.public, flow.backend) {
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
