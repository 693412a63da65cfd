//! Changes of a membership, for the kernel and for events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::name::Name;
use tcpgw_core::drain::DrainEnd;
use tcpgw_core::model::{Endpoint, Service};
use tcpgw_kernel::conntrack::Pair;

/// Result of the probes of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendVerdict {
    /// Whether it may get new connections.
    pub good: bool,
    /// Whether it cannot answer any client any more, so that its flows need not drain.
    pub dead: bool,
    /// Whether the result is not known yet.
    pub open: bool,
    /// Time at which it last stopped getting new connections because its probes failed.
    pub failed: Option<Instant>,
    /// Time at which the last answered probe was sent.
    pub answered: Option<Instant>,
}

/// A change of a backend or service, for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A backend gets no new connections any more, and drains for this time at most.
    Draining(Name, Endpoint, Duration),
    /// A draining backend gets new connections again.
    Back(Name, Endpoint),
    /// A backend has drained and was removed; its number of flows at the last count.
    Retired(Name, Endpoint, DrainEnd, Option<u64>),
    /// The backends of a service are all unhealthy, and this number of them stay in use.
    NoneGood(Name, usize),
}

/// Change of the kernel's services.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MembershipChange {
    /// Services as they were; services of `new` that are not here are added.
    pub old: Vec<Arc<Service>>,
    /// Services as they will be; services of `old` that are not here are removed.
    pub new: Vec<Arc<Service>>,
    /// Unchanged services that share endpoints with changed ones: entries for these endpoints stay.
    pub beside: Vec<Arc<Service>>,
    /// Events for the change.
    pub notes: Vec<Note>,
    /// Backends that get no new connections any more: handshakes that they have not answered are to be deleted.
    pub unbalanced: BTreeSet<Pair>,
}

impl MembershipChange {
    /// Returns whether the kernel need not change.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }
}
