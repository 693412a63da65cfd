//! Times of the messages that tell a page of changes, and the notices in them.

use std::time::{Duration, Instant};

use tcpgw_core::words::count;

/// Shortest time between two messages.
const LEAST: Duration = Duration::from_secs(1);
/// Longest time between two messages: figures change without an event, and a message shows that the connection lives.
const MOST: Duration = Duration::from_secs(3);
/// Number of notices that one message has.
const NOTICES: usize = 3;

/// Times of the messages to one page.
#[derive(Debug)]
pub(super) struct LivePace {
    last: Instant,
    due: Instant,
}

impl LivePace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            due: now + MOST,
        }
    }

    /// Returns the time of the next message.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Notes that something has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.last + LEAST));
    }

    /// Records that a message was sent to the page.
    pub(super) fn sent(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}

/// Notices of the next message; of many only the first ones.
#[derive(Debug, Default)]
pub(super) struct SaidNotices {
    texts: Vec<String>,
    others: usize,
}

impl SaidNotices {
    pub(super) fn add(&mut self, text: String) {
        if self.texts.contains(&text) {
            return;
        }
        if self.texts.len() < NOTICES {
            self.texts.push(text);
        } else {
            self.others += 1;
        }
    }

    /// Returns the notices, and begins anew.
    pub(super) fn take(&mut self) -> Vec<String> {
        let Self { mut texts, others } = std::mem::take(self);
        if others > 0 {
            texts.push(format!("{}.", count(others, "more event")));
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_many_notices_the_first_are_said_and_the_rest_is_counted() {
        let mut said = SaidNotices::default();
        for text in ["a", "a", "b", "c", "d", "e"] {
            said.add(text.into());
        }
        assert_eq!(said.take(), ["a", "b", "c", "2 more events."]);
        assert!(said.take().is_empty());
    }

    proptest! {
        #[test]
        fn a_page_is_told_soon_and_not_too_often(pauses in prop::collection::vec(0_u64..5000, 0..60)) {
            let begun = Instant::now();
            let mut pace = LivePace::new(begun);
            let (mut now, mut last, mut since) = (begun, begun, None);
            for pause in pauses {
                now += Duration::from_millis(pause);
                // All messages until then.
                while pace.due() <= now {
                    let due = pace.due();
                    prop_assert!(due - last >= LEAST && due - last <= MOST);
                    prop_assert!(since.is_none_or(|since| due - since <= LEAST));
                    pace.sent(due);
                    (last, since) = (due, None);
                }
                pace.changed(now);
                since = since.or(Some(now));
            }
        }
    }
}
