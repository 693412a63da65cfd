//! Completed flows, look by look: whether there are new ones.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A handshake that was completed longer ago does not count as completed meanwhile.
const STALLED: Duration = Duration::from_secs(10);
/// Completed flows that are told apart; where there are more, some are taken to be new.
pub(super) const MOST_COMPLETED: usize = 4096;

/// Completed flows of one service, or of all.
#[derive(Debug, Default)]
pub(super) struct Completed {
    known: BTreeSet<u32>,
    now: BTreeSet<u32>,
    /// When it was first looked.
    first_look: Option<Instant>,
    /// Whether there were too many at the last look to tell them apart.
    was_full: bool,
    /// When one was seen that had not been there at the look before.
    pub(super) last_new: Option<Instant>,
    /// When it was last asked for them.
    pub(super) last_wanted: Option<Instant>,
}

impl Completed {
    pub(super) fn is_full(&self) -> bool {
        self.now.len() >= MOST_COMPLETED
    }

    pub(super) fn note(&mut self, id: u32) {
        if !self.is_full() {
            self.now.insert(id);
        }
    }

    /// Ends a look.
    pub(super) fn end(&mut self, now: Instant) {
        self.was_full = self.is_full();
        let seen = std::mem::take(&mut self.now);
        let is_new = !seen.is_subset(&self.known);
        self.known = seen;
        // Whether those of the first look are new cannot be told.
        if self.first_look.is_none() {
            self.first_look = Some(now);
        } else if is_new {
            self.last_new = Some(now);
        }
    }

    /// Whether handshakes were completed since `begin`, as far as is known.
    pub(super) fn any_since(&self, begin: Instant, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < STALLED;
        if self.was_full {
            // Those that were not told of may be new.
            return self.last_new.or(self.first_look).is_some_and(is_recent);
        }
        self.last_new.is_some_and(|at| at >= begin && is_recent(at))
    }

    /// How many flows are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
