//! Place in the stream of events: what a new connection asks for, and which of its events were taken before.
//!
//! Engines publish events that happen at once in any order of their times, and their clocks are set back. Therefore an event is known
//! again by what it is, and never by its time alone.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Time before the first connection whose events are read, too: a container may have been told to stop just before.
const EARLIER: Duration = Duration::from_secs(120);
/// Time by which events of a new connection overlap those of the last one.
const OVERLAP: Duration = Duration::from_secs(1);
/// Largest number of events that are known again. An engine keeps 256.
const MAX_KNOWN: usize = 1024;
/// Longest text that is kept of an event, in bytes.
const MAX_TEXT: usize = 256;

/// Identity of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EngineEventId {
    /// Action and id of the object.
    pub(super) text: Box<str>,
    /// Time, in nanoseconds since the Unix epoch; 0: the engine has told none.
    pub(super) nanoseconds: u64,
}

/// Events that were taken.
#[derive(Debug, Default)]
pub(super) struct EventPosition {
    /// Time of the last event that arrived.
    last: Option<u64>,
    known: BTreeSet<EngineEventId>,
    /// Known events, the oldest first.
    order: VecDeque<EngineEventId>,
}

impl EventPosition {
    /// Takes an event. Returns whether it is new.
    pub(super) fn take(&mut self, id: EngineEventId) -> bool {
        if id.nanoseconds == 0 {
            return true;
        }
        self.last = Some(id.nanoseconds);
        if id.text.len() > MAX_TEXT {
            return true;
        }
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Returns the time from which a new connection reads events. `now`: the time of the clock that the engine shares with the
    /// gateway. All times are in nanoseconds since the Unix epoch.
    pub(super) fn since(&self, now: u64) -> u64 {
        match self.last {
            Some(last) if last <= now => last.saturating_sub(nanoseconds(OVERLAP)),
            // The clock was set back since then, and what has happened has earlier times.
            Some(_) | None => now.saturating_sub(nanoseconds(EARLIER)),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn id(text: &str, nanoseconds: u64) -> EngineEventId {
        let text = text.into();
        EngineEventId { text, nanoseconds }
    }

    #[test]
    fn an_event_is_known_again_by_what_it_is() {
        let mut position = EventPosition::default();
        for (event, is_new) in [
            (id("kill a", 7), true),
            (id("kill b", 6), true),
            (id("kill a", 7), false),
            (id("kill b", 6), false),
            (id("kill b", 7), true),
            (id("die a", 7), true),
            (id("die a", 0), true),
            (id("die a", 0), true),
        ] {
            assert_eq!(position.take(event.clone()), is_new, "{event:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_has_all_that_an_engine_keeps() {
        let mut position = EventPosition::default();
        for number in 0..5000 {
            assert!(position.take(id("start a", 1 + number)));
            assert!(position.take(id(&"x".repeat(5000), 1 + number)));
        }
        assert_eq!((position.known.len(), position.order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert!((5000 - 256..5000).all(|number| !position.take(id("start a", 1 + number))));
    }

    #[test]
    fn a_connection_overlaps_the_last_one_also_when_the_clock_was_set_back() {
        let mut position = EventPosition::default();
        assert_eq!(position.since(500 * SECOND), 380 * SECOND);
        position.take(id("start a", 499 * SECOND));
        assert_eq!(position.since(500 * SECOND), 498 * SECOND);
        assert_eq!(position.since(450 * SECOND), 330 * SECOND);
        position.take(id("start b", 440 * SECOND));
        assert_eq!(position.since(450 * SECOND), 439 * SECOND);
        assert_eq!(EventPosition::default().since(5), 0);
    }
}
