//! A channel by which all events leave the daemon's loop for a thread that passes them on. It knows nothing of what they contain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// Number of events that may wait for the thread. The loop can produce many in one step.
const ROOM: usize = 16_384;

/// The loop's end of the channel. Adding an event never waits: one for which there is no room is counted.
#[derive(Debug)]
pub struct EventTap<E> {
    events: mpsc::Sender<Arc<E>>,
    missed: Arc<AtomicU64>,
}

/// The thread's end of the channel.
#[derive(Debug)]
pub struct TappedEvents<E> {
    /// Receiver of the events.
    pub events: mpsc::Receiver<Arc<E>>,
    missed: Arc<AtomicU64>,
}

/// Returns both ends of a channel.
pub fn event_tap<E>() -> (EventTap<E>, TappedEvents<E>) {
    let (sender, events) = mpsc::channel(ROOM);
    let missed = Arc::new(AtomicU64::new(0));
    let tap = EventTap {
        events: sender,
        missed: Arc::clone(&missed),
    };
    (tap, TappedEvents { events, missed })
}

impl<E> EventTap<E> {
    /// Adds an event, or counts it.
    pub(super) fn add(&self, event: &Arc<E>) {
        if self.events.try_send(Arc::clone(event)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<E> TappedEvents<E> {
    /// Returns the number of events for which there was no room since the last call.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_and_nothing_waits() {
        let (tap, mut tapped) = event_tap();
        for event in 0..ROOM + 3 {
            tap.add(&Arc::new(event));
        }
        assert_eq!((tapped.take_missed(), tapped.take_missed()), (3, 0));
        let received: Vec<usize> = std::iter::from_fn(|| tapped.events.try_recv().ok().map(|event| *event)).collect();
        assert_eq!(received, (0..ROOM).collect::<Vec<_>>());
    }
}
