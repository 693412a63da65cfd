//! Data that are not read again at once.

use std::time::{Duration, Instant};

use super::super::facts::Fact;

/// Pause between readings of data that grow with other programs' rules or with flows, as a multiple of the duration of
/// the last reading: they take 2 % of the time at most.
const PAUSE: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Data as they were read last.
#[derive(Debug)]
pub(super) struct CachedFact<T> {
    /// Time before which nothing is read again.
    pub(super) not_before: Instant,
    pub(super) read: Fact<T>,
}

impl<T: Clone> CachedFact<T> {
    /// Reads, and sets the time of the next reading: after `now` and a multiple of the duration of this one.
    pub(super) fn new(now: Instant, read: impl FnOnce() -> Fact<T>) -> Self {
        let begun = Instant::now();
        let read = read();
        let pause = begun.elapsed().saturating_mul(PAUSE).min(LONGEST_PAUSE);
        Self {
            not_before: now.checked_add(pause).unwrap_or(now),
            read,
        }
    }

    /// Reads again if it is time, and returns the last data.
    pub(super) fn refreshed(known: &mut Option<Self>, now: Instant, read: impl FnOnce() -> Fact<T>) -> Fact<T> {
        if let Some(known) = known.as_ref().filter(|known| now < known.not_before) {
            return known.read.clone();
        }
        known.insert(Self::new(now, read)).read.clone()
    }
}
