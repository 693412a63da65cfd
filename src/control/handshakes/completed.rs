//! Completed flows, look by look: whether there are new ones.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

/// Completed flows that are remembered. Of more, new ones are found among the first.
pub(super) const MOST_COMPLETED: usize = 4096;

/// Completed flows of one service, or of all.
///
/// The kernel lists flows in the order of their places in its hash table, which a flow keeps as long as it lives, and puts a new one
/// in front of those that share its place. So where only the first ones are remembered, a flow that was not there at the look before
/// is new if one that was there follows it. Behind the last of those come flows that may be old, and were not read.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// Those of the look before.
    known: BTreeSet<u32>,
    /// Whether there were more.
    was_full: bool,
    /// Whether they are not listed: only what is heard is known.
    is_unlisted: bool,
    /// When that was.
    looked_at: Option<Instant>,
    look: Look,
    /// Lower bound of when the last one was completed: the look before the one that found it or heard of it.
    pub(super) last_new: Option<Instant>,
    /// When it was last asked for them.
    pub(super) last_wanted: Option<Instant>,
}

/// The look that is going on.
#[derive(Debug, Default)]
struct Look {
    seen: BTreeSet<u32>,
    /// Clients of new flows, and of those that are new if a known one follows.
    new: BTreeSet<IpAddr>,
    maybe_new: BTreeSet<IpAddr>,
}

impl Completed {
    /// Of which none is remembered.
    pub(super) fn unlisted() -> Self {
        Self {
            is_unlisted: true,
            ..Self::default()
        }
    }

    pub(super) fn is_unlisted(&self) -> bool {
        self.is_unlisted
    }

    /// Whether no further one is remembered.
    pub(super) fn is_full(&self) -> bool {
        self.is_unlisted || self.look.seen.len() >= MOST_COMPLETED
    }

    /// Notes a flow, in the order of the kernel.
    pub(super) fn note(&mut self, id: u32, client: IpAddr) {
        // A flow may be shown twice.
        if self.is_full() || !self.look.seen.insert(id) {
            return;
        }
        if self.known.contains(&id) {
            self.look.new.append(&mut self.look.maybe_new);
        } else {
            self.look.maybe_new.insert(client);
        }
    }

    /// Ends a look; `is_cut`: not all flows were shown. Returns the clients that have new flows.
    pub(super) fn end(&mut self, is_cut: bool, now: Instant) -> BTreeSet<IpAddr> {
        let is_full = is_cut || self.is_full();
        let mut look = std::mem::take(&mut self.look);
        if !self.was_full {
            look.new.append(&mut look.maybe_new);
        }
        self.was_full = is_full;
        self.known = look.seen;
        // Whether those of the first look are new cannot be told.
        let Some(before) = self.looked_at.replace(now) else {
            return BTreeSet::new();
        };
        if !look.new.is_empty() {
            self.last_new = self.last_new.max(Some(before));
        }
        look.new
    }

    /// Notes that handshakes were completed at some time after `since`, as the kernel told at once.
    pub(super) fn heard(&mut self, since: Instant) {
        self.last_new = self.last_new.max(Some(since));
    }

    /// Ends a look that failed.
    pub(super) fn abandon(&mut self) {
        self.look = Look::default();
    }

    /// Whether handshakes were completed since `begin`, as far as is known.
    pub(super) fn any_since(&self, begin: Instant) -> bool {
        self.last_new.is_some_and(|at| at >= begin)
    }

    /// How many flows are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
