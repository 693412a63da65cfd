//! Time in the world of a law: it passes only when no other event is due.

use std::time::{Duration, Instant};

/// Returns when something may happen next, which is after `now`; `None`: nothing before `end`.
pub(crate) fn next_step(
    wakes: impl IntoIterator<Item = Option<Instant>>,
    now: Instant,
    end: Instant,
) -> Option<Instant> {
    let next = wakes.into_iter().flatten().min().unwrap_or(end).min(end).max(now);
    // A time that is not yet over must not be waited for again.
    (next != end).then(|| next.max(now + Duration::from_millis(1)).min(end))
}
