//! Times of questions for totals, which monitoring asks at regular intervals. A sample that takes long is taken before the next one.

use std::time::{Duration, Instant};

/// Longest interval between two questions of which a third one is expected.
const MOST_INTERVAL: Duration = Duration::from_secs(120);

/// Times of questions.
#[derive(Debug, Default)]
pub(super) struct QuestionTimes {
    last: Option<Instant>,
    /// Time at which a sample is to be taken for the next question.
    ahead: Option<Instant>,
}

impl QuestionTimes {
    /// Notes a question. `fresh`: the age up to which a sample answers one.
    pub(super) fn asked(&mut self, now: Instant, fresh: Duration) {
        let interval = self.last.map(|last| now.saturating_duration_since(last));
        // The questions of several clients at about the same time are one.
        if interval.is_some_and(|interval| interval <= fresh) {
            return;
        }
        let interval = interval.filter(|interval| *interval <= MOST_INTERVAL);
        self.ahead = interval.map(|interval| now + interval.saturating_sub(fresh / 2));
        self.last = Some(now);
    }

    /// Returns the time at which a sample is to be taken for the next question; `None`: none is expected.
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
    fn a_sample_is_taken_shortly_before_the_next_question() {
        let (mut times, begin) = (QuestionTimes::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        times.asked(at(0), FRESH);
        assert_eq!(times.ahead(), None, "one question is no interval");
        times.asked(at(15), FRESH);
        // A second client asks a moment later.
        times.asked(at(16), FRESH);
        assert_eq!(times.ahead(), Some(at(29)));
        assert!(!times.is_due(at(28)));
        assert!(times.is_due(at(29)));
        assert!(!times.is_due(at(29)), "once");
        // Nobody asks any more.
        assert_eq!(times.ahead(), None);
        times.asked(at(400), FRESH);
        assert_eq!(times.ahead(), None, "the interval is too long");
        times.asked(at(460), FRESH);
        assert_eq!(times.ahead(), Some(at(519)));
    }
}
