//! Totals of all services at one moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::drop_sets::REASONS;
use super::flow_sums::FlowSums;

/// Answers with totals that were kept before; `None`: none were read yet. Blocks for seconds.
pub type TotalsSource = Arc<dyn Fn(TotalsAge) -> Option<Arc<Totals>> + Send + Sync>;

/// Age that totals may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalsAge {
    /// A second, or more where there are so many that reading them takes long.
    Fresh,
    /// Half a minute where reading them takes long: they are read anew after the answer then.
    Shown,
}

/// Totals of all services, by name. A reader that keeps one sees none of its numbers fall in a later one, as long as
/// the machine is not started anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Totals of each service, also of services that were removed: they may come again. Those that do not change are shared by the
    /// samples that are kept.
    pub services: BTreeMap<Box<str>, Arc<ServiceTotals>>,
    /// Whether packets, bytes and handshakes are counted, and not only connections and drops.
    pub counts_flows: bool,
    /// Number of reports of ended flows that were lost; their last packets are missing.
    pub lost_reports: u64,
    /// Time of the sample; `None`: it is not known, or nothing was sampled yet.
    pub at: Option<Instant>,
}

impl Totals {
    /// Returns the totals of a service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceTotals> {
        self.services.get(name).map(|service| &**service)
    }

    /// Returns the totals of a backend in a service.
    pub fn backend(&self, name: &str, backend: SocketAddr) -> Option<&BackendTotals> {
        self.services.get(name)?.backends.get(&backend)
    }
}

/// Totals of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTotals {
    /// Numbers of packets dropped before a backend was chosen, in the order of
    /// [`sets_of_services`](super::drop_sets::sets_of_services).
    pub drops: [u64; REASONS],
    /// Totals of each backend, also of backends that were removed.
    pub backends: BTreeMap<SocketAddr, BackendTotals>,
    /// Sum over removed backends that are no longer listed.
    pub others: BackendTotals,
}

impl ServiceTotals {
    /// Returns the sum over all backends that the service has, or had.
    pub fn sum(&self) -> BackendTotals {
        self.backends
            .values()
            .fold(self.others, |sum, backend| sum.and(*backend))
    }
}

/// Totals of a backend in a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTotals {
    /// Number of connections that were sent to it, answered or not.
    pub connections: u64,
    /// Packets, bytes and handshakes.
    pub flows: FlowSums,
    /// Numbers of packets dropped, in the order of
    /// [`sets_of_backends`](super::drop_sets::sets_of_backends).
    pub drops: [u64; REASONS],
}

impl BackendTotals {
    /// Returns the sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(other.connections),
            flows: self.flows.and(other.flows),
            drops: std::array::from_fn(|at| self.drops[at].saturating_add(other.drops[at])),
        }
    }
}
