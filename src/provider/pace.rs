//! When a file that changes is looked at. Takes `now`, has no clock.

use std::time::{Duration, Instant};

/// So long nothing may happen until the file is read.
const QUIET: Duration = Duration::from_millis(10);
/// So long a burst may put that off.
const BURST: Duration = Duration::from_millis(100);
/// So long what is bad must stay the same to count: longer than a filesystem takes to cut a file off.
const DOUBT: Duration = Duration::from_millis(500);
/// So long a writer that has not closed the file may rest until what there is counts as all.
const STEADY: Duration = Duration::from_secs(1);
/// How often is looked without any hint, for filesystems that give none.
const POLL: Duration = Duration::from_secs(5);

/// What is heard of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileEvent {
    /// Somebody is writing and will close it.
    Writing,
    /// A writer has closed it.
    Written,
    /// It was replaced whole, or is gone.
    Replaced,
    /// Something on the way to it has changed.
    Moved,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
    is_writing: bool,
    was_written: bool,
}

/// Why the file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Something was heard: read it.
    Hint,
    /// Nothing was heard: read it if it does not look the same.
    Poll,
}

/// What was heard and not looked at yet.
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

    pub(super) fn hear(&mut self, heard: FileEvent, now: Instant) {
        let was = self.pending;
        self.pending = Some(Pending {
            first: was.map_or(now, |was| was.first.min(now)),
            last: now,
            is_writing: match heard {
                FileEvent::Writing => true,
                FileEvent::Written | FileEvent::Replaced => false,
                FileEvent::Moved => was.is_some_and(|was| was.is_writing),
            },
            was_written: matches!(heard, FileEvent::Writing | FileEvent::Written)
                || was.is_some_and(|was| was.was_written),
        });
    }

    /// When to look next.
    pub(super) fn due(&self) -> Instant {
        match self.pending {
            None => self.poll,
            Some(pending) if pending.is_writing => pending.last + STEADY,
            Some(pending) => (pending.last + QUIET).min(pending.first + BURST),
        }
    }

    /// Looking begins: what was heard until now is done with.
    pub(super) fn begin(&mut self, now: Instant) -> Reason {
        self.poll = now + POLL;
        match self.pending.take() {
            Some(_) => Reason::Hint,
            None => Reason::Poll,
        }
    }

    /// Whether somebody wrote since looking began: what was read may be a part of it, or a mixture.
    pub(super) fn was_written(&self) -> bool {
        self.pending.is_some_and(|pending| pending.was_written)
    }

    /// Looks again soon: what was seen may not last.
    pub(super) fn again(&mut self, now: Instant) {
        self.poll = self.poll.min(now + STEADY);
    }

    /// Reads again once a burst would be over.
    pub(super) fn retry(&mut self, now: Instant) {
        self.read_at(now + BURST);
    }

    /// Reads again when what is bad counts.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.read_at(now + DOUBT);
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
        pace.hear(FileEvent::Written, t + ms(5));
        assert_eq!(pace.due(), t + ms(15));
        pace.hear(FileEvent::Moved, t + ms(14));
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
            pace.hear(FileEvent::Written, t + ms(5 * n));
            assert!(pace.due() <= t + BURST, "{n}");
        }
        assert_eq!(pace.due(), t + BURST);
    }

    #[test]
    fn a_writer_is_waited_for_until_it_rests() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        pace.hear(FileEvent::Writing, t);
        pace.hear(FileEvent::Writing, t + ms(900));
        assert_eq!(pace.due(), t + ms(900) + STEADY);
        pace.hear(FileEvent::Moved, t + ms(950));
        assert_eq!(
            pace.due(),
            t + ms(950) + STEADY,
            "another name says nothing of the writer"
        );
        pace.hear(FileEvent::Written, t + ms(1000));
        assert!(pace.due() <= t + ms(1000), "it was put off long enough");
        assert!(pace.was_written());
        pace.begin(t + ms(1000));
        assert!(!pace.was_written());
        pace.hear(FileEvent::Replaced, t + ms(1001));
        assert!(!pace.was_written(), "what was read before is whole");
    }

    #[test]
    fn what_may_not_last_is_looked_at_again() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        pace.again(t);
        assert_eq!(pace.due(), t + STEADY);
        pace.retry(t);
        assert_eq!(pace.due(), t + BURST);
        pace.begin(t + ms(100));
        pace.doubt(t + ms(100));
        assert_eq!(pace.due(), t + ms(100) + DOUBT);
        pace.hear(FileEvent::Written, t + ms(101));
        assert_eq!(pace.due(), t + ms(101) + QUIET, "what is heard goes before");
    }
}
