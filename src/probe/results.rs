//! Results of probes.

use std::time::Duration;

use tcpgw_core::health::ProbeOutcome;

/// Result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeReport {
    /// Id of the probe, see [`Probe::id`](tcpgw_core::health::Probe::id).
    pub id: u64,
    /// Outcome of the probe.
    pub outcome: ProbeOutcome,
    /// Time from its SYN to the outcome.
    pub took: Duration,
}
