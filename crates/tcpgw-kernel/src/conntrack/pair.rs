//! Backends of services, as flows name them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::flow::Flow;
use super::wire::{Filter, Ip, TupleEnd, TupleEnds, dump_filtered};
use crate::netlink::tlv::Writer;
use tcpgw_core::model::FlowMark;

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The public address, `None` for any.
    pub public: Option<IpAddr>,
    /// Public port of the service.
    pub public_port: u16,
    /// Address and port of the backend.
    pub backend: SocketAddr,
}

impl Pair {
    /// Returns whether a flow belongs to this pair.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.backend == flow.backend
            && self.public_port == flow.public.port()
            && self.public.is_none_or(|public| public == flow.public.ip())
    }

    /// Returns the value of the pair that a flow belongs to.
    pub fn of_flow<'p, T>(pairs: &'p BTreeMap<Self, T>, flow: &Flow) -> Option<&'p T> {
        let there = pairs.get(&Self::of(flow, Some(flow.public.ip())));
        there.or_else(|| pairs.get(&Self::of(flow, None)))
    }

    /// Returns whether a flow belongs to one of the pairs.
    pub fn any_of(pairs: &BTreeSet<Self>, flow: &Flow) -> bool {
        let there = Self::of(flow, Some(flow.public.ip()));
        pairs.contains(&there) || pairs.contains(&Self::of(flow, None))
    }

    pub(super) const fn of(flow: &Flow, public: Option<IpAddr>) -> Self {
        Self {
            public,
            public_port: flow.public.port(),
            backend: flow.backend,
        }
    }
}

/// Requests the flows of one pair, or more (see [`dump_filtered`]).
pub(super) fn dump_pair(writer: &mut Writer, seq: u32, mark: FlowMark, pair: &Pair) {
    let backend = TupleEnd {
        ip: Some(pair.backend.ip()),
        port: Some(pair.backend.port()),
    };
    let public = TupleEnd {
        ip: pair.public,
        port: Some(pair.public_port),
    };
    let filter = Filter {
        family: Ip::of(pair.backend.ip()),
        original: TupleEnds {
            source: TupleEnd::default(),
            destination: public,
        },
        reply: TupleEnds {
            source: backend,
            destination: TupleEnd::default(),
        },
    };
    dump_filtered(writer, seq, mark, &filter);
}
