//! Slots of time.

use std::time::Duration;

/// Duration of a slot.
pub const SLOT: Duration = Duration::from_secs(30);
/// Number of slots that are kept.
pub const SLOTS: usize = 120;

/// Time between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeSpan {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl TimeSpan {
    pub(super) const fn duration(self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Returns the part of the span that is in a slot.
    pub(super) fn within(self, slot: u64) -> Duration {
        let begin = end_of(slot).saturating_sub(SLOT);
        self.to.min(end_of(slot)).saturating_sub(self.from.max(begin))
    }
}

/// Returns the number of the slot that a time is in.
pub(super) const fn slot_of(time: Duration) -> u64 {
    time.as_secs() / SLOT.as_secs()
}

pub(super) const fn end_of(slot: u64) -> Duration {
    Duration::from_secs((slot + 1) * SLOT.as_secs())
}

/// Returns the place of a slot in a ring.
#[expect(clippy::cast_possible_truncation, reason = "it is under the number of slots")]
pub(super) const fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}
