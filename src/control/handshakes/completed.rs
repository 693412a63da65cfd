//! Detection of new completed flows from observation to observation.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum number of completed flows that are remembered. Of more, new ones are found among the first.
pub(super) const MOST_COMPLETED: usize = 4096;

/// Time for which flows are observed before it counts that none is new.
const WATCHED: Duration = Duration::from_millis(1800);

/// Completed flows of one service, or of all.
///
/// The kernel lists flows in the order of their hash table buckets, which a flow keeps as long as it lives, and puts a
/// new one in front of the others of its bucket. So if only the first flows are remembered, a flow that was not there
/// at the last observation is new if a known one follows it. Flows after the last known one may be old ones that were
/// not read before.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// Flows of the last observation.
    known: BTreeSet<u32>,
    /// Whether there were more.
    was_full: bool,
    /// Whether the flows are not listed, so that only reported handshakes are known.
    is_unlisted: bool,
    /// Time of the first and the last observation.
    observed_since: Option<Instant>,
    observed_at: Option<Instant>,
    scan: CurrentScan,
    /// Lower bound for the time of the last completed handshake: the observation before the one that found it or
    /// received it.
    pub(super) last_new: Option<Instant>,
    /// Time at which completed flows were last asked for.
    pub(super) last_wanted: Option<Instant>,
}

/// The observation under way.
#[derive(Debug, Default)]
struct CurrentScan {
    seen: BTreeSet<u32>,
    /// Clients of new flows, and of those that are new if a known one follows.
    new: BTreeSet<IpAddr>,
    maybe_new: BTreeSet<IpAddr>,
}

impl Completed {
    /// Creates a memory without flows.
    pub(super) fn unlisted() -> Self {
        Self {
            is_unlisted: true,
            ..Self::default()
        }
    }

    pub(super) fn is_unlisted(&self) -> bool {
        self.is_unlisted
    }

    /// Returns whether no further flow is remembered.
    pub(super) fn is_full(&self) -> bool {
        self.is_unlisted || self.scan.seen.len() >= MOST_COMPLETED
    }

    /// Adds a flow, in the order of the kernel.
    pub(super) fn note(&mut self, id: u32, client: IpAddr) {
        // A flow may be listed twice.
        if self.is_full() || !self.scan.seen.insert(id) {
            return;
        }
        if self.known.contains(&id) {
            self.scan.new.append(&mut self.scan.maybe_new);
        } else {
            self.scan.maybe_new.insert(client);
        }
    }

    /// Ends an observation; `is_cut`: not all flows were listed. Returns the clients that have new flows.
    pub(super) fn end(&mut self, is_cut: bool, now: Instant) -> BTreeSet<IpAddr> {
        let is_full = is_cut || self.is_full();
        let mut scan = std::mem::take(&mut self.scan);
        if !self.was_full {
            scan.new.append(&mut scan.maybe_new);
        }
        self.was_full = is_full;
        self.known = scan.seen;
        self.observed_since.get_or_insert(now);
        // It is unknown whether flows of the first observation are new.
        let Some(before) = self.observed_at.replace(now) else {
            return BTreeSet::new();
        };
        if !scan.new.is_empty() {
            self.last_new = self.last_new.max(Some(before));
        }
        scan.new
    }

    /// Notes that handshakes were completed at some time after `since`, as the kernel reported.
    pub(super) fn heard(&mut self, since: Instant) {
        self.last_new = self.last_new.max(Some(since));
    }

    /// Ends an observation that failed.
    pub(super) fn abandon(&mut self) {
        self.scan = CurrentScan::default();
    }

    /// Returns whether handshakes were completed since `begin`, as far as is known.
    pub(super) fn any_since(&self, begin: Instant) -> bool {
        self.last_new.is_some_and(|at| at >= begin)
    }

    /// Returns whether new flows would have been found for some time.
    pub(super) fn is_watched(&self, now: Instant) -> bool {
        let since = self.observed_since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= WATCHED)
    }

    /// Returns the number of remembered flows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
