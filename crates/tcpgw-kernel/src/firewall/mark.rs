//! Writes of rules to conntrack's mark.

/// A write to the ct mark of a flow. Each bit becomes `(before & keep) ^ flip`, but for those that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkWrite {
    /// Bits that are kept.
    pub keep: u32,
    /// Bits that are inverted afterwards.
    pub flip: u32,
    /// Bits whose value is not known, for example because it comes from the packet's mark.
    pub unknown: u32,
}

impl MarkWrite {
    /// Write that leaves the mark unchanged.
    pub const SAME: Self = Self {
        keep: u32::MAX,
        flip: 0,
        unknown: 0,
    };
    /// Write of unknown values to all bits.
    pub const UNKNOWN: Self = Self {
        keep: 0,
        flip: 0,
        unknown: u32::MAX,
    };

    /// Returns the write of a constant.
    pub const fn constant(value: u32) -> Self {
        Self {
            keep: 0,
            flip: value,
            unknown: 0,
        }
    }

    /// Returns the write with a mask applied and other bits inverted.
    #[must_use]
    pub const fn masked(self, mask: u32, xor: u32) -> Self {
        Self {
            keep: self.keep & mask,
            flip: (self.flip & mask) ^ xor,
            unknown: self.unknown & mask,
        }
    }

    /// Returns the write of `--set-xmark value/mask`: the bits of the mask are cleared, then those of the value
    /// inverted.
    pub const fn set(value: u32, mask: u32) -> Self {
        Self::SAME.masked(!mask, value)
    }

    /// Returns the write of `--save-mark`: these bits of the ct mark are cleared, then those that are set in the
    /// packet's mark inverted.
    pub const fn save(ct_mask: u32, packet_mask: u32) -> Self {
        Self {
            keep: !ct_mask,
            flip: 0,
            unknown: packet_mask,
        }
    }

    /// Returns the write of one of `count` numbers from `offset` on; `None` if these are not all values of some bits.
    pub fn one_of(count: u32, offset: u32) -> Option<Self> {
        let bits = count.checked_sub(1)?;
        (count.is_power_of_two() && offset & bits == 0).then_some(Self {
            keep: 0,
            flip: offset,
            unknown: bits,
        })
    }

    /// Returns the bits of both together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        let ones = self.ones() | other.ones();
        let (none, other_none) = (self.zeros(), other.zeros());
        // Both keep them as they are.
        let same = self.keep & other.keep & !(self.flip | other.flip | self.unknown | other.unknown);
        let known = ones | none | other_none | same;
        Self {
            keep: (none & other.keep | other_none & self.keep | same) & !ones,
            flip: ones | none & other.flip | other_none & self.flip,
            unknown: !known | none & other.unknown | other_none & self.unknown,
        }
    }

    const fn ones(self) -> u32 {
        !self.keep & self.flip & !self.unknown
    }

    const fn zeros(self) -> u32 {
        !self.keep & !self.flip & !self.unknown
    }

    /// Returns what a mark without bits may become; nothing where that may be more than 16 numbers.
    pub fn all_of_zero(self) -> Vec<u32> {
        const MOST_BITS: u32 = 4;
        if self.unknown.count_ones() > MOST_BITS {
            return Vec::new();
        }
        let bits = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| self.unknown & bit != 0);
        bits.fold(vec![self.flip & !self.unknown], |all, bit| {
            all.iter().flat_map(|mark| [*mark, mark | bit]).collect()
        })
    }

    /// Returns what a mark of zero becomes, if that is known.
    pub const fn of_zero(self) -> Option<u32> {
        if self.unknown == 0 { Some(self.flip) } else { None }
    }

    /// Returns whether these bits certainly keep this value.
    pub const fn keeps(self, value: u32, mask: u32) -> bool {
        self.unknown & mask == 0 && ((value & self.keep) ^ self.flip) & mask == value & mask
    }

    /// Returns whether the value of these bits is known afterwards.
    pub const fn is_known(self, mask: u32) -> bool {
        self.unknown & mask == 0
    }
}

/// Decodes a `CONNMARK` target from `struct xt_connmark_tginfo1` and `2`: ct mark, ct mask, packet's mask; in the
/// second the direction and width of a shift; the mode. Returns `None` if it writes no ct mark.
pub(super) fn connmark(revision: u32, info: &[u8]) -> Option<ConnmarkEffect> {
    const SET: u8 = 0;
    const SAVE: u8 = 1;
    const RESTORE: u8 = 2;
    let word = |at: usize| {
        let bytes = info.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let byte = |at: usize| info.get(at).copied();
    let (mode, shifted) = match revision {
        1 => (byte(12), false),
        2 => (byte(14), byte(13) != Some(0)),
        _ => return Some(ConnmarkEffect::Writes(MarkWrite::UNKNOWN)),
    };
    let (Some(value), Some(mask), Some(packet)) = (word(0), word(4), word(8)) else {
        return Some(ConnmarkEffect::Writes(MarkWrite::UNKNOWN));
    };
    match mode {
        Some(RESTORE) => Some(ConnmarkEffect::Restores),
        Some(SET | SAVE) if shifted => Some(ConnmarkEffect::Writes(MarkWrite::UNKNOWN)),
        Some(SET) => Some(ConnmarkEffect::Writes(MarkWrite::set(value, mask))),
        Some(SAVE) => Some(ConnmarkEffect::Writes(MarkWrite::save(mask, packet))),
        _ => None,
    }
}

/// Effect of a `CONNMARK` target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnmarkEffect {
    Writes(MarkWrite),
    /// The packet's mark becomes the ct mark.
    Restores,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_kept_or_not() {
        const OURS: u32 = 0x80_0000;
        for (write, keeps) in [
            (MarkWrite::SAME, true),
            (MarkWrite::UNKNOWN, false),
            (MarkWrite::constant(1), false),
            (MarkWrite::constant(OURS | 1), true),
            (MarkWrite::set(1, 0xff), true),
            (MarkWrite::set(1, u32::MAX), false),
            (MarkWrite::set(OURS, 0), false),
            (MarkWrite::save(u32::MAX, u32::MAX), false),
            (MarkWrite::save(0xff, 0xff), true),
            (MarkWrite::SAME.masked(0xff00_0000, 7), false),
            (MarkWrite::SAME.masked(!0xff, 7), true),
        ] {
            assert_eq!(write.keeps(OURS, OURS), keeps, "{write:?}");
        }
    }

    #[test]
    fn bits_that_a_number_has_not_are_kept_with_it() {
        const OURS: u32 = 0x80_0000;
        let number = MarkWrite::one_of(16, 0x20).unwrap();
        assert!(!number.keeps(OURS, OURS));
        let rest = MarkWrite::SAME.masked(!0xff, 0);
        for write in [rest.or(number), number.or(rest)] {
            assert!(write.keeps(OURS, OURS), "{write:?}");
            assert!(!write.keeps(0, 0xf));
            assert_eq!((write.unknown, write.of_zero()), (0xf, None));
            let marks = write.all_of_zero();
            assert_eq!(
                (marks.len(), marks.contains(&0x20), marks.contains(&0x2f)),
                (16, true, true)
            );
        }
        assert!(!MarkWrite::UNKNOWN.or(rest).keeps(OURS, OURS));
        assert!(MarkWrite::SAME.or(MarkWrite::constant(OURS)).keeps(OURS, OURS));
        assert_eq!(MarkWrite::SAME.or(MarkWrite::constant(5)).of_zero(), Some(5));
        assert!(MarkWrite::UNKNOWN.all_of_zero().is_empty());
        assert_eq!(MarkWrite::one_of(3, 0), None, "one of four numbers is never made");
        assert_eq!(MarkWrite::one_of(4, 2), None);
        assert_eq!(MarkWrite::one_of(0, 0), None);
    }

    #[test]
    fn targets_are_read() {
        let info = |words: [u32; 3], rest: &[u8]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.extend(rest);
            bytes
        };
        let set = info([5, 0xff, 0], &[0, 0, 0, 0]);
        assert_eq!(connmark(1, &set), Some(ConnmarkEffect::Writes(MarkWrite::set(5, 0xff))));
        let save = info([0, u32::MAX, u32::MAX], &[0, 0, 1, 0]);
        assert_eq!(
            connmark(2, &save),
            Some(ConnmarkEffect::Writes(MarkWrite::save(u32::MAX, u32::MAX)))
        );
        assert_eq!(
            connmark(2, &info([0; 3], &[0, 0, 2, 0])),
            Some(ConnmarkEffect::Restores)
        );
        assert_eq!(
            connmark(2, &info([0; 3], &[0, 1, 1, 0])),
            Some(ConnmarkEffect::Writes(MarkWrite::UNKNOWN))
        );
        assert_eq!(connmark(1, &[1, 2]), Some(ConnmarkEffect::Writes(MarkWrite::UNKNOWN)));
    }
}
