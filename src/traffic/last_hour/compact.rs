//! Numbers in two bytes, with an error of 1/4096 at most.

/// Number of bits of the mantissa, without its leading one.
const BITS: u32 = 11;
const UNIT: u64 = 1 << BITS;
/// The largest number that has a code; larger ones have the same. A service would have to gain 146 GB/s for 30 s.
pub(super) const MOST: u64 = (2 * UNIT - 1) << 30;

/// A number in two bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CompactNumber(u16);

impl From<u64> for CompactNumber {
    /// Rounds to the nearest number that has a code. Numbers up to 4,095 are exact.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the code of the largest number has 16 bits"
    )]
    fn from(number: u64) -> Self {
        let number = number.min(MOST);
        if number < UNIT {
            return Self(number as u16);
        }
        let shift = number.ilog2() - BITS;
        let half = (1_u64 << shift) >> 1;
        // Rounding up may carry into the next power of two, whose code follows.
        let mantissa = ((number + half) >> shift).min(2 * UNIT);
        let code = u64::from(shift) * UNIT + mantissa;
        Self(code.min(u64::from(u16::MAX)) as u16)
    }
}

impl From<CompactNumber> for u64 {
    fn from(number: CompactNumber) -> Self {
        let code = Self::from(number.0);
        if code < UNIT {
            return code;
        }
        let exponent = code / UNIT - 1;
        (UNIT + code % UNIT) << exponent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(number: u64) -> u64 {
        CompactNumber::from(number).into()
    }

    #[test]
    fn small_numbers_are_exact_and_each_code_is_of_one_number() {
        for number in 0..=4095 {
            assert_eq!(through(number), number);
        }
        for code in 0..=u16::MAX {
            let number = u64::from(CompactNumber(code));
            assert_eq!(CompactNumber::from(number), CompactNumber(code), "{number}");
        }
        assert_eq!((through(MOST), through(u64::MAX)), (MOST, MOST));
    }

    proptest! {
        #[test]
        fn larger_numbers_are_near_and_in_their_order(number in 0..MOST, other in 0..MOST) {
            let (kept, other_kept) = (through(number), through(other));
            prop_assert!(kept.abs_diff(number) <= number / 4096 + 1, "{number}: {kept}");
            prop_assert!((number < other) == (kept < other_kept) || kept == other_kept);
        }
    }
}
