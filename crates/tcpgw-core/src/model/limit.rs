//! Limits in the terms of the kernel.

use super::problem::InputProblem;
use super::{Limit, Service};

/// Largest sum of rate and burst that the kernel can count. It counts in nanoseconds, so `(rate + burst) x 10^9` has to
/// fit in 64 bits (`nft_limit_init`, `net/netfilter/nft_limit.c`; older kernels overflow silently instead of refusing).
const MAX_RATE_AND_BURST: u64 = u64::MAX / 1_000_000_000;

/// Highest rate of a limit, in packets per second.
pub const MAX_PPS: u32 = 1_000_000;

/// Divisor of a limit that gives the part for handshakes. A connection that is opened, used and closed costs each side
/// at least four segments, one of which belongs to the handshake.
const HANDSHAKE_SHARE: u32 = 4;

// A bucket of packets always fits, so only bytes are checked.
const _: () = assert!(MAX_PPS as u64 + u32::MAX as u64 <= MAX_RATE_AND_BURST);

impl Limit {
    /// Returns the rate of the byte bucket, in bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        u64::from(self.pps) * u64::from(self.mtu)
    }

    /// Returns the burst of the byte bucket to pass to the kernel, in bytes. The kernel's bucket holds rate + burst, so
    /// this is the packets' burst less one second's rate. nft accepts 1 to 2^32 - 1.
    pub fn byte_burst(&self) -> u32 {
        u32::try_from(self.wanted_byte_burst()).unwrap_or(u32::MAX).max(1)
    }

    /// Returns the part of the limit that SYN and SYN-ACK segments may use, so that a flood of them leaves the rest to
    /// established connections.
    #[must_use]
    pub fn handshakes(&self) -> Self {
        Self {
            pps: (self.pps / HANDSHAKE_SHARE).max(1),
            burst: (self.burst / HANDSHAKE_SHARE).max(1),
            ..*self
        }
    }

    /// Returns whether the byte burst exceeds 32 bits, so that the kernel gets a smaller one.
    pub fn is_byte_burst_capped(&self) -> bool {
        self.wanted_byte_burst() > u64::from(u32::MAX)
    }

    /// Returns whether the kernel can count the bytes of this limit.
    pub fn fits_kernel(&self) -> bool {
        self.bytes_per_second() + u64::from(self.byte_burst()) <= MAX_RATE_AND_BURST
    }

    fn wanted_byte_burst(&self) -> u64 {
        u64::from(self.burst.saturating_sub(self.pps)) * u64::from(self.mtu)
    }
}

/// Returns a warning about a limit of the service that is valid but that the kernel cannot hold exactly.
pub(super) fn warning(service: &Service) -> Option<InputProblem> {
    let limit = service.limit.filter(Limit::is_byte_burst_capped)?;
    Some(InputProblem {
        place: format!("service \"{}\"", service.name),
        message: format!(
            "a burst of {} packets at {} pps and {} bytes each is {} bytes; the kernel's byte bucket is capped at {}",
            limit.burst,
            limit.pps,
            limit.mtu,
            limit.bytes_per_second() + limit.wanted_byte_burst(),
            limit.bytes_per_second() + u64::from(u32::MAX),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LimitDirection;

    fn limit(pps: u32, burst: u32, mtu: u32) -> Limit {
        Limit {
            pps,
            burst,
            mtu,
            direction: LimitDirection::Each,
        }
    }

    #[test]
    fn the_byte_burst_is_one_second_smaller() {
        assert_eq!(limit(1_000, 10_000, 1_500).byte_burst(), 9_000 * 1_500);
        assert_eq!(limit(1_000, 10_000, 1_500).bytes_per_second(), 1_500_000);
        assert_eq!(limit(1_000, 1_000, 1_500).byte_burst(), 1);
        assert_eq!(limit(1_000, 1, 1_500).byte_burst(), 1);
    }

    #[test]
    fn handshakes_have_a_quarter_and_never_nothing() {
        assert_eq!(limit(1_000, 10_000, 1_500).handshakes(), limit(250, 2_500, 1_500));
        assert_eq!(limit(3, 1, 576).handshakes(), limit(1, 1, 576));
    }

    #[test]
    fn full_bursts_end_at_318_145_pps() {
        assert!(!limit(318_145, 3_181_450, 1_500).is_byte_burst_capped());
        assert!(limit(318_146, 3_181_460, 1_500).is_byte_burst_capped());
        assert_eq!(limit(318_146, 3_181_460, 1_500).byte_burst(), u32::MAX);
    }

    #[test]
    fn the_kernel_counts_to_two_to_the_64() {
        assert!(limit(MAX_PPS, u32::MAX, 1_500).fits_kernel());
        assert!(!limit(MAX_PPS, 10_000_000, 65_535).fits_kernel());
        assert!(limit(215_942, 2_159_420, 65_535).fits_kernel());
        assert!(!limit(215_943, 2_159_430, 65_535).fits_kernel());
    }
}
