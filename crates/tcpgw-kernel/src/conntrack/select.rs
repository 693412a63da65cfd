//! Selections of flows, filtered by the kernel if it can.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use ipnet::IpNet;
use nix::errno::Errno;

use super::{Conntrack, Flow, PairFilter, owns, wire};
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange as _;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::{Message, Writer};
use tcpgw_core::model::FlowMark;

/// Conditions for flows of tcpgw; `None` is no condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Network of the client.
    pub client: Option<IpNet>,
    /// Gateway address that the client connected to.
    pub public: Option<IpAddr>,
    /// Gateway port that the client connected to.
    pub public_port: Option<u16>,
    /// Backend of the flow.
    pub backend: Option<SocketAddr>,
    /// Client's address as the backend sees it.
    pub seen_as: Option<SocketAddr>,
}

impl Selection {
    /// Returns whether a flow meets all conditions.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.client.is_none_or(|net| net.contains(&flow.client.ip()))
            && self.public.is_none_or(|ip| ip == flow.public.ip())
            && self.public_port.is_none_or(|port| port == flow.public.port())
            && self.backend.is_none_or(|backend| backend == flow.backend)
            && self.seen_as.is_none_or(|seen_as| seen_as == flow.seen_as)
    }

    /// Returns the only address of the client network, if it has just one.
    fn lone_client(&self) -> Option<IpAddr> {
        self.client
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(|net| net.addr())
    }

    /// Returns the address family of all addresses, if any. Fails if there are two, which no flow has.
    fn family(&self) -> Result<Option<wire::Ip>, Contradiction> {
        let addresses = [
            self.client.map(|net| net.addr()),
            self.public,
            self.backend.map(|backend| backend.ip()),
            self.seen_as.map(|seen_as| seen_as.ip()),
        ];
        let mut family = None;
        for of in addresses.into_iter().flatten().map(wire::Ip::of) {
            if *family.get_or_insert(of) != of {
                return Err(Contradiction);
            }
        }
        Ok(family)
    }

    fn filter(&self, family: wire::Ip) -> wire::Filter {
        let end = |ip: Option<IpAddr>, port| wire::TupleEnd { ip, port };
        wire::Filter {
            family,
            original: wire::TupleEnds {
                source: end(self.lone_client(), None),
                destination: end(self.public, self.public_port),
            },
            reply: wire::TupleEnds {
                source: end(self.backend.map(|at| at.ip()), self.backend.map(|at| at.port())),
                destination: end(self.seen_as.map(|at| at.ip()), self.seen_as.map(|at| at.port())),
            },
        }
    }
}

/// Error of a selection with addresses of both families, which no flow has.
struct Contradiction;

/// Number of entries up to which all are listed in one walk. The kernel walks its whole table, which takes
/// milliseconds, once for each family that it filters.
const FEW: u32 = 2_000;

impl Conntrack {
    /// Calls `each` with the selected flows of tcpgw, until it breaks off. A flow that moves in the table meanwhile may
    /// be listed twice.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read: see
    /// [`NetlinkExchange::dump`](crate::netlink::exchange::NetlinkExchange::dump).
    pub fn select(
        &mut self,
        mark: FlowMark,
        selection: &Selection,
        mut each: impl FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        let Ok(family) = selection.family() else {
            return Ok(());
        };
        let entries = self.entries()?;
        if entries == Some(0) {
            return Ok(());
        }
        let over = Cell::new(false);
        let mut show = |message: &Message<'_>| match Flow::decode(message)? {
            Some(flow) if owns(mark, &flow) && selection.matches(&flow) => {
                let next = each(&flow);
                over.set(next.is_break());
                Ok(next)
            }
            _ => Ok(ControlFlow::Continue(())),
        };
        let families = family.map_or(wire::Ip::BOTH.to_vec(), |family| vec![family]);
        let filters: Vec<_> = families.into_iter().map(|family| selection.filter(family)).collect();
        let is_cheap = filters.len() > 1 && entries.is_some_and(|entries| entries <= FEW);
        if is_cheap || self.filter == PairFilter::UserSpace || filters.iter().any(wire::Filter::is_empty) {
            return dump(&mut show, |w, seq| wire::dump(w, seq, mark));
        }
        for filter in &filters {
            match dump(&mut show, |w, seq| wire::dump_filtered(w, seq, mark, filter)) {
                // It is refused before the first answer.
                Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                    self.filter = PairFilter::UserSpace;
                    return dump(&mut show, |w, seq| wire::dump(w, seq, mark));
                }
                Ok(()) if !over.get() => {}
                other => return other,
            }
        }
        Ok(())
    }
}

/// Lists flows through a socket of its own: only closing it ends a dump of a million flows early.
pub(super) fn dump(
    show: &mut impl FnMut(&Message<'_>) -> Result<ControlFlow<()>, NetlinkError>,
    build: impl FnOnce(&mut Writer, u32),
) -> Result<(), NetlinkError> {
    Netlink::netfilter()?.dump_until("list flows", build, show)
}
