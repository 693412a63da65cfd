//! A service at one moment.

use crate::traffic::totals::ServiceTotals;

/// Number of totals of which gains are kept.
pub(super) const GAINS: usize = 6;
/// Number of numbers of a slot: the gains, and the number of flows.
pub(super) const NUMBERS: usize = GAINS + 1;

/// Packets and bytes to the backends, those from them, connections, and dropped packets.
pub(super) type Gains = [u64; GAINS];

/// A service at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HourSample {
    pub(super) gains: Gains,
    pub(super) flows: u64,
}

impl HourSample {
    /// Returns the sample of these totals. `flows`: number of open connections.
    pub fn new(totals: &ServiceTotals, flows: u64) -> Self {
        let sum = totals.sum();
        let (to, from) = (sum.flows.to_backend(), sum.flows.from_backend());
        let drops = [totals.drops, sum.drops].into_iter().flatten();
        let dropped = drops.fold(0, u64::saturating_add);
        Self {
            gains: [to.packets, to.bytes, from.packets, from.bytes, sum.connections, dropped],
            flows,
        }
    }
}
