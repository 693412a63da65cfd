//! Sums of what services and backends have received, which only grow.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::drops;

use super::tally::BackendIndex;
use crate::traffic::{BackendTotals, FlowSums, TrafficView};
use tcpgw_core::ruleset::key::split_pair;
use tcpgw_core::ruleset::name::{ListenScope, SetName};
use tcpgw_core::ruleset::rows::read_endpoint;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Counted;

/// Sums of a service, or of one of its backends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsView {
    /// Number of connections that were sent to a backend, answered or not.
    pub connections: u64,
    /// Number of handshakes that a backend answered; `None`: they are not counted.
    pub answered: Option<u64>,
    /// Number of handshakes that no backend answered until conntrack forgot them.
    pub unanswered: Option<u64>,
    /// Traffic to the backends; `None`: it is not counted.
    pub to_backend: Option<TrafficView>,
    /// Traffic from the backends.
    pub from_backend: Option<TrafficView>,
}

impl TotalsView {
    /// Returns the view of totals that a daemon keeps. `traffic`: whether handshakes are counted, and packets and bytes
    /// with them.
    pub fn new(totals: BackendTotals, traffic: Option<bool>) -> Self {
        let flows = traffic.map(|_| totals.flows);
        let traffic = flows.filter(|_| traffic == Some(true));
        Self {
            connections: totals.connections,
            answered: flows.map(FlowSums::answered),
            unanswered: flows.map(FlowSums::unanswered),
            to_backend: traffic.map(|flows| flows.to_backend().into()),
            from_backend: traffic.map(|flows| flows.from_backend().into()),
        }
    }

    /// Returns the sum of connections.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            ..Self::default()
        }
    }
}

/// Numbers of connections by the kernel's counters, which begin anew with the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Numbers of connections by place.
    backends: Vec<u64>,
}

impl ConnectionCounts {
    /// Returns the sets to read.
    pub fn sets() -> [SetName; 4] {
        ListenScope::ALL.map(SetName::Connections)
    }

    /// Adds the counters of a set. Those of removed services and backends are left out.
    pub fn add(&mut self, set: SetName, counted: &[Counted], summary: &Summary, places: &BackendIndex) {
        let SetName::Connections(listen_scope) = set else {
            return;
        };
        self.backends.resize(places.len(), 0);
        for Counted { key, packets, .. } in counted {
            let (service, backend) = split_pair(listen_scope, key);
            let service = drops::service(listen_scope.scope(), &service, summary);
            let backend = read_endpoint(listen_scope.family(), backend).map(SocketAddr::from);
            let pair = service.zip(backend);
            if let Some(place) = pair.and_then(|(service, backend)| places.of_pair(service, backend)) {
                self.backends[place] += packets;
            }
        }
    }

    /// Returns the number of connections of a backend by its place.
    pub fn of_backend(&self, place: usize) -> u64 {
        self.backends.get(place).copied().unwrap_or(0)
    }
}
