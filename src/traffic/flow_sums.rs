//! Sums over flows, and one list of the live ones.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use tcpgw_kernel::conntrack::{Flow, FlowPhase, Traffic};

/// Number of numbers in a sum.
const NUMBERS: usize = 6;
/// Maximum number of flows of a list whose own numbers are kept: 5 MB of them. Of further ones there are sums only.
pub(super) const MOST_LISTED: usize = 1 << 16;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowNumber(u64);

impl FlowNumber {
    pub(super) fn of(flow: &Flow) -> Self {
        let mut hasher = DefaultHasher::new();
        (flow.id, flow.client, flow.public).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Returns a number that is another one where flows are numbered in another way: the library's hash may change.
    pub(super) fn numbering() -> u64 {
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let mut hasher = DefaultHasher::new();
        (1_u32, address, address).hash(&mut hasher);
        hasher.finish()
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

/// Whether a list has a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowPresence {
    /// Among the live flows.
    Live,
    /// Being deleted: its end was reported, or will be.
    Dying,
    /// Not in the list.
    Absent,
}

/// Live flows of one place and backend.
#[derive(Debug, Default)]
pub(super) struct FlowGroup {
    pub(super) sums: FlowSums,
    /// Number of established flows.
    pub(super) open: u64,
    /// Flows with their own numbers, as far as the list has room for them.
    pub(super) flows: Vec<(FlowNumber, FlowSums)>,
}

/// One list of the live flows.
#[derive(Debug, Default)]
pub struct LiveFlows {
    pub(super) groups: BTreeMap<(SocketAddr, SocketAddr), FlowGroup>,
    /// Flows of places and backends that belong to another service now, by name.
    pub(super) carried: BTreeMap<(Box<str>, SocketAddr), FlowGroup>,
    numbers: Vec<FlowNumber>,
    dying: Vec<FlowNumber>,
    is_sorted: bool,
}

impl LiveFlows {
    /// Adds a flow. One that is being deleted is left out: its end was reported, or will be. `carried`: the service that it began with,
    /// if its place and backend belong to another one now.
    pub fn add(&mut self, flow: &Flow, carried: Option<&str>) {
        let number = FlowNumber::of(flow);
        if flow.status.dying() {
            self.dying.push(number);
            return;
        }
        let group = match carried {
            Some(name) => self.carried.entry((name.into(), flow.backend)).or_default(),
            None => self.groups.entry((flow.public, flow.backend)).or_default(),
        };
        let sums = FlowSums::live(flow);
        group.sums = group.sums.and(sums);
        group.open += u64::from(FlowPhase::of(flow.tcp_state) == FlowPhase::Established);
        if self.numbers.len() < MOST_LISTED {
            group.flows.push((number, sums));
        }
        self.numbers.push(number);
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

    /// Returns how the list has that flow.
    pub(super) fn presence(&mut self, number: FlowNumber) -> FlowPresence {
        if self.contains(number) {
            FlowPresence::Live
        } else if self.dying.contains(&number) {
            FlowPresence::Dying
        } else {
            FlowPresence::Absent
        }
    }
}
