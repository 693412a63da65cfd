//! Events for the log, for followers of the API, and for clients that ask for past events.

mod content;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

pub use self::content::EventContent;
use super::event_tap::EventTap;
use crate::addon::id::PlatformId;

/// Number of past events that are kept.
const KEPT: usize = 1024;
/// Number of events that a slow follower may be behind before it misses some.
const BEHIND: usize = 256;

/// Id of an event among those of all daemons: each daemon has an epoch of its own. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    epoch: Arc<str>,
    /// Number of the event, from 1 since the daemon started.
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Position from which a client follows events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// The events that are kept, from the first one on.
    Start,
    /// Events after the one with this id, which an earlier daemon may have given.
    Event(Box<str>),
    /// Future events only.
    Now,
}

/// Past events, and a receiver of future ones.
#[derive(Debug)]
pub struct Followed {
    /// Number of events between the given one and the first of `kept` that are not kept any more. `None`: unknown,
    /// since the given one is of another daemon.
    pub missed: Option<u64>,
    /// Past events that are still kept.
    pub kept: Vec<Arc<Event>>,
    /// Receiver of future events.
    pub coming: broadcast::Receiver<Arc<Event>>,
}

/// An event of the gateway with its id and time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Id of the event.
    pub id: EventId,
    /// Time in seconds since the Unix epoch, to the millisecond.
    pub at: f64,
    /// Content of the event.
    #[serde(flatten)]
    pub what: EventContent,
    /// App of the event's service, if the service belongs or belonged to the add-on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<PlatformId>,
}

/// The last events, and the channel to followers.
#[derive(Debug)]
pub struct Events {
    kept: VecDeque<Arc<Event>>,
    epoch: Arc<str>,
    next: u64,
    followers: broadcast::Sender<Arc<Event>>,
    tap: Option<EventTap<Event>>,
}

impl Events {
    /// Creates an empty list of events. No other daemon may have, or have had, the same epoch.
    pub fn new(epoch: &str) -> Self {
        Self {
            kept: VecDeque::with_capacity(KEPT),
            epoch: epoch.into(),
            next: 1,
            followers: broadcast::Sender::new(BEHIND),
            tap: None,
        }
    }
}

impl Events {
    /// Sends all further events to this channel, too.
    pub fn tap(&mut self, tap: EventTap<Event>) {
        self.tap = Some(tap);
    }

    /// Adds an event with the app of its service, and sends it to followers; `now`: time since the Unix epoch.
    pub fn note(&mut self, what: EventContent, app: Option<PlatformId>, now: Duration) -> Arc<Event> {
        let event = Arc::new(Event {
            id: EventId {
                epoch: Arc::clone(&self.epoch),
                number: self.next,
            },
            at: (now.as_secs_f64() * 1000.0).round() / 1000.0,
            what,
            app,
        });
        self.next += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&event));
        if let Some(tap) = &self.tap {
            tap.add(&event);
        }
        // There may be no follower.
        let _ = self.followers.send(Arc::clone(&event));
        event
    }

    /// Returns the number of an event of this daemon from its id.
    fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&*self.epoch)?.strip_prefix('-')?.parse().ok()?;
        (1..self.next).contains(&number).then_some(number)
    }

    /// Returns the events after the given position that are still kept, and a receiver of future ones.
    pub fn follow(&self, after: &After) -> Followed {
        let coming = self.followers.subscribe();
        let (known, all) = match after {
            After::Start => (Some(0), true),
            After::Now => (Some(self.next - 1), false),
            After::Event(id) => (self.number(id), false),
        };
        let after = known.unwrap_or(0);
        let first = self.kept.front().map_or(self.next, |event| event.id.number);
        let missed = known.map(|known| if all { 0 } else { (first - 1).saturating_sub(known) });
        let kept = self.kept.iter().filter(|event| event.id.number > after);
        Followed {
            missed,
            kept: kept.cloned().collect(),
            coming,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noting(epoch: &str, count: usize) -> Events {
        let mut events = Events::new(epoch);
        for _ in 0..count {
            events.note(EventContent::TornDown { flushed: 0, uid: 0 }, None, Duration::ZERO);
        }
        events
    }

    fn follow(events: &Events, after: &After) -> (Option<u64>, Vec<u64>) {
        let followed = events.follow(after);
        (
            followed.missed,
            followed.kept.iter().map(|event| event.id.number).collect(),
        )
    }

    #[test]
    fn whoever_goes_on_misses_nothing_or_is_told() {
        let events = noting("a", 3);
        let of = |id: &str| After::Event(id.into());
        assert_eq!(follow(&events, &After::Start), (Some(0), vec![1, 2, 3]));
        assert_eq!(follow(&events, &After::Now), (Some(0), vec![]));
        assert_eq!(follow(&events, &of("a-2")), (Some(0), vec![3]));
        assert_eq!(follow(&events, &of("a-3")), (Some(0), vec![]));
        // The id is of an earlier daemon with more or fewer events, or of none.
        for other in ["b-2", "b-3", "b-99", "a-99", "a-0", "2", "", "a", "a-", "a-x", "a-2-2"] {
            assert_eq!(follow(&events, &of(other)), (None, vec![1, 2, 3]), "{other:?}");
        }
        assert_eq!(follow(&noting("b", 0), &of("a-3")), (None, vec![]));
    }

    #[test]
    fn what_is_not_kept_any_more_is_counted() {
        let events = noting("a", KEPT + 10);
        let (missed, kept) = follow(&events, &After::Event("a-4".into()));
        assert_eq!((missed, kept[0], kept.len()), (Some(6), 11, KEPT));
        assert_eq!(follow(&events, &After::Event("a-10".into())).0, Some(0));
        assert_eq!(follow(&events, &After::Start).0, Some(0));
    }
}
