//! Sums over flows, and one list of the live ones.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use tcpgw_kernel::conntrack::{Flow, Traffic};

/// Number of numbers in a sum.
const NUMBERS: usize = 6;

/// Sum over flows of one service to one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSums([u64; NUMBERS]);

impl FlowSums {
    /// Returns the part of a flow that is still tracked. Its handshake may be answered yet.
    pub fn live(flow: &Flow) -> Self {
        let counters = flow.counters.unwrap_or_default();
        let (to, from) = (counters.to, counters.from);
        let answered = u64::from(flow.status.seen_reply());
        Self([to.packets, to.bytes, from.packets, from.bytes, answered, 0])
    }

    /// Returns the part of a flow that has ended.
    pub fn ended(flow: &Flow) -> Self {
        let mut sums = Self::live(flow);
        sums.0[5] = u64::from(!flow.status.seen_reply());
        sums
    }

    /// Returns the traffic to the backends.
    pub const fn to_backend(self) -> Traffic {
        Traffic {
            packets: self.0[0],
            bytes: self.0[1],
        }
    }

    /// Returns the traffic from the backends.
    pub const fn from_backend(self) -> Traffic {
        Traffic {
            packets: self.0[2],
            bytes: self.0[3],
        }
    }

    /// Returns the number of handshakes that a backend answered: it accepted or refused the connection.
    pub const fn answered(self) -> u64 {
        self.0[4]
    }

    /// Returns the number of handshakes that no backend answered.
    pub const fn unanswered(self) -> u64 {
        self.0[5]
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// Returns the larger of both numbers, each for itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// Returns the excess of this over the other, number by number; zero where it has less.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|at| of(self.0[at], other.0[at])))
    }

    #[cfg(test)]
    pub(super) const fn of(numbers: [u64; NUMBERS]) -> Self {
        Self(numbers)
    }
}

/// Number that identifies a flow, but for a chance of one in 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowNumber(u64);

impl FlowNumber {
    pub(super) fn of(flow: &Flow) -> Self {
        let mut hasher = DefaultHasher::new();
        (flow.id, flow.client, flow.public).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// A flow that conntrack has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedFlow {
    /// Number of the flow.
    pub number: FlowNumber,
    /// Address that the client connected to.
    pub public: SocketAddr,
    /// Backend of the flow.
    pub backend: SocketAddr,
    /// All of its packets, bytes, and its handshake.
    pub sums: FlowSums,
}

impl From<&Flow> for EndedFlow {
    fn from(flow: &Flow) -> Self {
        Self {
            number: FlowNumber::of(flow),
            public: flow.public,
            backend: flow.backend,
            sums: FlowSums::ended(flow),
        }
    }
}

/// One list of the live flows.
#[derive(Debug, Default)]
pub struct LiveFlows {
    pub(super) sums: BTreeMap<(SocketAddr, SocketAddr), FlowSums>,
    /// Sums over flows of places and backends that belong to another service now, by name.
    pub(super) carried: BTreeMap<(Box<str>, SocketAddr), FlowSums>,
    numbers: Vec<FlowNumber>,
    is_sorted: bool,
}

impl LiveFlows {
    /// Adds a flow. One that is being deleted is left out: its end was reported, or will be. `carried`: the service that it began with,
    /// if its place and backend belong to another one now.
    pub fn add(&mut self, flow: &Flow, carried: Option<&str>) {
        if flow.status.dying() {
            return;
        }
        let sums = match carried {
            Some(name) => self.carried.entry((name.into(), flow.backend)).or_default(),
            None => self.sums.entry((flow.public, flow.backend)).or_default(),
        };
        *sums = sums.and(FlowSums::live(flow));
        self.numbers.push(FlowNumber::of(flow));
        self.is_sorted = false;
    }

    /// Returns whether the list has that flow.
    pub(super) fn contains(&mut self, number: FlowNumber) -> bool {
        if !self.is_sorted {
            self.numbers.sort_unstable();
            self.is_sorted = true;
        }
        self.numbers.binary_search(&number).is_ok()
    }
}
