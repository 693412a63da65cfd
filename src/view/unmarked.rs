//! Flows that the rules of tcpgw created and that have lost their mark.

use std::net::SocketAddr;

use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::{Flow, TcpState};

/// Flows from a service to one of its backends without the mark of tcpgw: another program overwrote it, so that no
/// limit applies to them, and they are not deleted when their backend is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnmarkedFlows {
    /// Number of such flows.
    pub count: u64,
    /// Address of the service and of the backend of one of them.
    pub example: Option<(SocketAddr, SocketAddr)>,
}

impl UnmarkedFlows {
    /// Counts a flow without the mark, if it belongs to a service and its backend and has not ended: conntrack keeps ended
    /// ones for minutes.
    pub fn add(&mut self, services: &Summary, flow: &Flow) {
        if matches!(flow.tcp_state, Some(TcpState::TimeWait | TcpState::Close)) {
            return;
        }
        let service = services
            .position_at(flow.public)
            .and_then(|at| services.services.get(at));
        if service.is_some_and(|service| service.backends().any(|backend| backend == flow.backend)) {
            self.count += 1;
            self.example.get_or_insert((flow.public, flow.backend));
        }
    }
}
