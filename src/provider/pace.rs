//! Timing of the checks of a changing file. It takes `now` and reads no clock.

use std::time::{Duration, Instant};

/// Time without events after which the file is read.
const QUIET: Duration = Duration::from_millis(10);
/// Maximum time by which a burst of events delays that.
const BURST: Duration = Duration::from_millis(100);
/// Time for which an error must stay the same to count: longer than a filesystem takes to truncate a file.
const CONFIRMATION: Duration = Duration::from_millis(500);
/// Time without writes after which the content of a file that is not closed counts as complete.
const STEADY: Duration = Duration::from_secs(1);
/// Interval of checks without events, for filesystems without inotify.
const POLL: Duration = Duration::from_secs(5);

/// Event of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileEvent {
    /// A writer has begun, and will close the file.
    Writing,
    /// A writer has closed the file.
    Written,
    /// The file was replaced as a whole, or is gone.
    Replaced,
    /// A step of the path to the file has changed.
    Moved,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
    is_writing: bool,
    was_written: bool,
}

/// Reason for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The file had events, and is read.
    Hint,
    /// The file had no events, and is read if it looks different.
    Poll,
}

/// Events without a check since.
#[derive(Debug)]
pub(super) struct Pace {
    pending: Option<Pending>,
    poll: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pending: None,
            poll: now + POLL,
        }
    }

    pub(super) fn note(&mut self, event: FileEvent, now: Instant) {
        let was = self.pending;
        self.pending = Some(Pending {
            first: was.map_or(now, |was| was.first.min(now)),
            last: now,
            is_writing: match event {
                FileEvent::Writing => true,
                FileEvent::Written | FileEvent::Replaced => false,
                FileEvent::Moved => was.is_some_and(|was| was.is_writing),
            },
            was_written: matches!(event, FileEvent::Writing | FileEvent::Written)
                || was.is_some_and(|was| was.was_written),
        });
    }

    /// Returns the time of the next check.
    pub(super) fn due(&self) -> Instant {
        match self.pending {
            None => self.poll,
            Some(pending) if pending.is_writing => pending.last + STEADY,
            Some(pending) => (pending.last + QUIET).min(pending.first + BURST),
        }
    }

    /// Begins a check, which covers all events until now.
    pub(super) fn begin(&mut self, now: Instant) -> Reason {
        self.poll = now + POLL;
        match self.pending.take() {
            Some(_) => Reason::Hint,
            None => Reason::Poll,
        }
    }

    /// Returns whether the file was written since the check began: what was read may be incomplete or mixed.
    pub(super) fn was_written(&self) -> bool {
        self.pending.is_some_and(|pending| pending.was_written)
    }

    /// Schedules a check soon, since the file may still change.
    pub(super) fn again(&mut self, now: Instant) {
        self.poll = self.poll.min(now + STEADY);
    }

    /// Schedules a read after the end of a burst.
    pub(super) fn retry(&mut self, now: Instant) {
        self.read_at(now + BURST);
    }

    /// Schedules a read for the time when an error counts.
    pub(super) fn read_later(&mut self, now: Instant) {
        self.read_at(now + CONFIRMATION);
    }

    fn read_at(&mut self, at: Instant) {
        let at = at.checked_sub(QUIET).unwrap_or(at);
        self.pending.get_or_insert(Pending {
            first: at,
            last: at,
            is_writing: false,
            was_written: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_change_is_read_when_it_is_quiet() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        assert_eq!(pace.due(), t + POLL);
        pace.note(FileEvent::Written, t + ms(5));
        assert_eq!(pace.due(), t + ms(15));
        pace.note(FileEvent::Moved, t + ms(14));
        assert_eq!(pace.due(), t + ms(24));
        assert_eq!(pace.begin(t + ms(24)), Reason::Hint);
        assert_eq!(pace.due(), t + ms(24) + POLL);
        assert_eq!(pace.begin(pace.due()), Reason::Poll);
    }

    #[test]
    fn a_burst_does_not_put_it_off_for_ever() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        for n in 0..50 {
            pace.note(FileEvent::Written, t + ms(5 * n));
            assert!(pace.due() <= t + BURST, "{n}");
        }
        assert_eq!(pace.due(), t + BURST);
    }

    #[test]
    fn a_writer_is_waited_for_until_it_rests() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        pace.note(FileEvent::Writing, t);
        pace.note(FileEvent::Writing, t + ms(900));
        assert_eq!(pace.due(), t + ms(900) + STEADY);
        pace.note(FileEvent::Moved, t + ms(950));
        assert_eq!(
            pace.due(),
            t + ms(950) + STEADY,
            "another name says nothing of the writer"
        );
        pace.note(FileEvent::Written, t + ms(1000));
        assert!(pace.due() <= t + ms(1000), "it was put off long enough");
        assert!(pace.was_written());
        pace.begin(t + ms(1000));
        assert!(!pace.was_written());
        pace.note(FileEvent::Replaced, t + ms(1001));
        assert!(!pace.was_written(), "what was read before is whole");
    }

    #[test]
    fn what_may_not_last_is_checked_again() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        pace.again(t);
        assert_eq!(pace.due(), t + STEADY);
        pace.retry(t);
        assert_eq!(pace.due(), t + BURST);
        pace.begin(t + ms(100));
        pace.read_later(t + ms(100));
        assert_eq!(pace.due(), t + ms(100) + CONFIRMATION);
        pace.note(FileEvent::Written, t + ms(101));
        assert_eq!(pace.due(), t + ms(101) + QUIET, "events go before");
    }
}
