//! The containers, as far as probes and clients meet them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tcpgw_core::health::ProbeOutcome;

/// The backends behind the gateway: all answer except those that are down.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    pub(crate) down: BTreeSet<SocketAddr>,
    /// True when no backend answers probes.
    pub(crate) are_silent: bool,
    /// Backends that have answered a probe, or were in the balance when a daemon started.
    pub(crate) met: BTreeSet<SocketAddr>,
}

impl Containers {
    /// Lets a backend die, or come back.
    pub(crate) fn flip(&mut self, endpoint: SocketAddr) {
        if !self.down.remove(&endpoint) {
            self.down.insert(endpoint);
        }
    }

    pub(crate) fn answers(&self, endpoint: SocketAddr) -> bool {
        !self.down.contains(&endpoint)
    }

    pub(crate) fn probe(&mut self, endpoint: SocketAddr) -> ProbeOutcome {
        if self.answers(endpoint) && !self.are_silent {
            self.met.insert(endpoint);
            ProbeOutcome::Accepted
        } else {
            ProbeOutcome::TimedOut
        }
    }
}
