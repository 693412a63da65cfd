//! Flows that our rules made and that have lost our mark.

use std::net::SocketAddr;

use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::Flow;

/// Flows from a service to one of its backends that do not bear our mark: somebody overwrote it, so that they are held to no
/// limit, and are not flushed when their backend leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnmarkedFlows {
    /// How many there are.
    pub count: u64,
    /// The service's address and the backend of one of them.
    pub example: Option<(SocketAddr, SocketAddr)>,
}

impl UnmarkedFlows {
    /// Counts a flow without our mark, if it is one of them.
    pub fn add(&mut self, services: &Summary, flow: &Flow) {
        let service = services
            .position_at(flow.public)
            .and_then(|at| services.services.get(at));
        if service.is_some_and(|service| service.backends().any(|backend| backend == flow.backend)) {
            self.count += 1;
            self.example.get_or_insert((flow.public, flow.backend));
        }
    }
}
