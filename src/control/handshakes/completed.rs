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
    /// New flows, and those that are new if a known one follows.
    new: Clients,
    maybe_new: Clients,
}

/// Flows of some clients.
#[derive(Debug, Default)]
struct Clients {
    are_any: bool,
    /// Those clients that it was asked for.
    named: BTreeSet<IpAddr>,
}

impl Clients {
    fn append(&mut self, other: Self) {
        self.are_any |= other.are_any;
        self.named.extend(other.named);
    }
}

impl Completed {
    pub(super) fn is_full(&self) -> bool {
        self.look.seen.len() >= MOST_COMPLETED
    }

    /// Notes a flow, in the order of the kernel; `client`, where it matters whose it is.
    pub(super) fn note(&mut self, id: u32, client: Option<IpAddr>) {
        // A flow may be shown twice.
        if self.is_full() || !self.look.seen.insert(id) {
            return;
        }
        if self.known.contains(&id) {
            self.look.new.append(std::mem::take(&mut self.look.maybe_new));
        } else {
            self.look.maybe_new.are_any = true;
            self.look.maybe_new.named.extend(client);
        }
    }

    /// Ends a look. Returns those clients, of the ones that were named, that have new flows.
    pub(super) fn end(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        let is_full = self.is_full();
        let mut look = std::mem::take(&mut self.look);
        if !self.was_full {
            look.new.append(look.maybe_new);
        }
        self.was_full = is_full;
        self.known = look.seen;
        // Whether those of the first look are new cannot be told.
        let Some(before) = self.looked_at.replace(now) else {
            return BTreeSet::new();
        };
        if look.new.are_any {
            self.last_new = self.last_new.max(Some(before));
        }
        look.new.named
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
