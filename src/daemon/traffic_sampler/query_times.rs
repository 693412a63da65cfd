//! Times of queries for totals, which monitoring sends at regular intervals. A sample that takes long is taken before the next one.

use std::time::{Duration, Instant};

/// Longest interval between two queries of which a third one is expected.
const MOST_INTERVAL: Duration = Duration::from_secs(120);

/// Times of queries.
#[derive(Debug, Default)]
pub(super) struct QueryTimes {
    last: Option<Instant>,
    /// Time at which a sample is to be taken for the next query.
    ahead: Option<Instant>,
}

impl QueryTimes {
    /// Notes a query. `fresh`: the age up to which a sample answers one.
    pub(super) fn note_query(&mut self, now: Instant, fresh: Duration) {
        let interval = self.last.map(|last| now.saturating_duration_since(last));
        // The queries of several clients at about the same time are one.
        if interval.is_some_and(|interval| interval <= fresh) {
            return;
        }
        let interval = interval.filter(|interval| *interval <= MOST_INTERVAL);
        self.ahead = interval.map(|interval| now + interval.saturating_sub(fresh / 2));
        self.last = Some(now);
    }

    /// Returns the time at which a sample is to be taken for the next query; `None`: none is expected.
    pub(super) const fn ahead(&self) -> Option<Instant> {
        self.ahead
    }

    /// Returns whether that time has come, once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.ahead.take_if(|at| now >= *at).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(2);

    #[test]
    fn a_sample_is_taken_shortly_before_the_next_query() {
        let (mut times, begin) = (QueryTimes::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        times.note_query(at(0), FRESH);
        assert_eq!(times.ahead(), None, "one query is no interval");
        times.note_query(at(15), FRESH);
        // A second client asks a moment later.
        times.note_query(at(16), FRESH);
        assert_eq!(times.ahead(), Some(at(29)));
        assert!(!times.is_due(at(28)));
        assert!(times.is_due(at(29)));
        assert!(!times.is_due(at(29)), "once");
        // Nobody asks any more.
        assert_eq!(times.ahead(), None);
        times.note_query(at(400), FRESH);
        assert_eq!(times.ahead(), None, "the interval is too long");
        times.note_query(at(460), FRESH);
        assert_eq!(times.ahead(), Some(at(519)));
    }
}
