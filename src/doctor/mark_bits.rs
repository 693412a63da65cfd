//! The mark of a packet (`meta mark`), as far as it is known.

use tcpgw_kernel::firewall::MarkWrite;

/// The mark of a packet, bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkBits {
    /// Bits whose value is known.
    known: u32,
    /// Value of the known bits; the others are 0.
    value: u32,
}

impl MarkBits {
    /// Mark of a packet that no rule has marked.
    pub(super) const ZERO: Self = Self {
        known: u32::MAX,
        value: 0,
    };
    /// Mark of a packet that a rule may have marked.
    pub(super) const UNKNOWN: Self = Self { known: 0, value: 0 };

    /// Returns the mark, if the bits that are asked for are known; without a mask, all are.
    pub(super) fn of(self, mask: Option<u32>) -> Option<u32> {
        (mask.unwrap_or(u32::MAX) & !self.known == 0).then_some(self.value)
    }

    /// Returns the mark after a write.
    pub(super) const fn written(self, write: MarkWrite) -> Self {
        let known = !write.unknown & (self.known | !write.keep);
        Self {
            known,
            value: ((self.value & write.keep) ^ write.flip) & known,
        }
    }

    /// Returns the mark after a write that may have been made or not.
    pub(super) const fn perhaps_written(self, write: MarkWrite) -> Self {
        let after = self.written(write);
        let known = self.known & after.known & !(self.value ^ after.value);
        Self {
            known,
            value: self.value & known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_known_that_a_rule_surely_writes() {
        const BIT: u32 = 0x80_0000;
        let set = MarkWrite::set(BIT, BIT);
        let marked = MarkBits::UNKNOWN.written(set);
        assert_eq!(
            (marked.of(Some(BIT)), marked.of(Some(BIT | 1)), marked.of(None)),
            (Some(BIT), None, None)
        );
        assert_eq!(MarkBits::ZERO.written(set).of(None), Some(BIT));
        assert_eq!(MarkBits::UNKNOWN.written(MarkWrite::constant(5)).of(None), Some(5));
        assert_eq!(MarkBits::ZERO.perhaps_written(set).of(Some(BIT)), None);
        assert_eq!(MarkBits::ZERO.perhaps_written(set).of(Some(!BIT)), Some(0));
        assert_eq!(marked.perhaps_written(set).of(Some(BIT)), Some(BIT));
        assert_eq!(marked.written(MarkWrite::UNKNOWN), MarkBits::UNKNOWN);
        assert_eq!(marked.written(MarkWrite::SAME), marked);
    }
}
