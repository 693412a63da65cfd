//! Flows selected by status: handshakes that are not complete, and flows that were answered.

use std::ops::ControlFlow;

use super::select::dump;
use super::{Conntrack, Flow, TcpState, owns, wire};
use crate::netlink::error::NetlinkError;
use tcpgw_core::model::FlowMark;

/// `IPS_ASSURED`, `IPS_DST_NAT` of `nf_conntrack_common.h`.
const ASSURED: u32 = 4;
const DST_NAT: u32 = 32;

impl Conntrack {
    /// Calls `each` with the flows of tcpgw whose handshake is not complete, until it breaks off.
    ///
    /// The kernel filters by status (`ctnetlink_filter_match`, Linux 5.16 and newer; an older one lists all flows of
    /// tcpgw, which are filtered here), so of a million established flows none is sent.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read: see
    /// [`NetlinkExchange::dump`](crate::netlink::exchange::NetlinkExchange::dump).
    pub fn handshakes(
        &mut self,
        mark: FlowMark,
        mut each: impl FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        let status = wire::StatusFilter {
            value: DST_NAT,
            mask: DST_NAT | ASSURED,
        };
        self.by_status(mark, status, |flow| {
            let is_begun = matches!(
                flow.tcp_state,
                Some(TcpState::SynSent | TcpState::SynSent2 | TcpState::SynRecv)
            );
            if is_begun && !flow.status.assured() {
                each(flow)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// Calls `each` with the flows of tcpgw whose handshake was completed, until it breaks off.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read: see
    /// [`NetlinkExchange::dump`](crate::netlink::exchange::NetlinkExchange::dump).
    pub fn completed(
        &mut self,
        mark: FlowMark,
        mut each: impl FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        let status = wire::StatusFilter {
            value: DST_NAT | ASSURED,
            mask: DST_NAT | ASSURED,
        };
        self.by_status(mark, status, |flow| {
            if flow.status.assured() {
                each(flow)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    fn by_status(
        &mut self,
        mark: FlowMark,
        status: wire::StatusFilter,
        mut each: impl FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        if self.has_none()? {
            return Ok(());
        }
        dump(
            &mut |message| match Flow::decode(message)? {
                Some(flow) if owns(mark, &flow) => Ok(each(&flow)),
                _ => Ok(ControlFlow::Continue(())),
            },
            |writer, seq| wire::dump_status(writer, seq, mark, status),
        )
    }
}
