//! State machine of one draining backend of one service.
//!
//! Pure: takes events and the time. Knows neither the kernel nor how flows are counted.

use std::time::{Duration, Instant};

/// State of a backend that is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// The backend still gets new connections, because no backend that stays has answered a probe yet.
    Serving,
    /// The backend gets no new connections; its flows may end by themselves.
    Draining {
        /// Time at which the remaining flows are flushed.
        deadline: Instant,
        /// Number of flows at the last count; `None` before the first count.
        flows: Option<u64>,
    },
}

/// Event that concerns a draining backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEvent {
    /// Another backend takes over; the flows may continue for this time.
    Replaced(Duration),
    /// No other backend is left, so the service needs this one.
    Needed,
    /// Number of flows, from a count that began after the backend got its last new connection.
    Counted(u64),
    /// The backend is dead: it does not answer probes any more.
    Died,
    /// Only time has passed.
    Nothing,
}

/// Reason why draining is over and the remaining flows are to be flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEnd {
    /// No flow was left.
    Ended,
    /// The drain timeout has passed.
    Deadline,
    /// The backend was dead.
    Dead,
}

impl DrainEnd {
    /// Returns the name of the reason in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Deadline => "deadline",
            Self::Dead => "dead",
        }
    }
}

impl Drain {
    /// Returns the state of a backend that stops getting new connections at `now` and drains for at most `time`.
    pub fn draining(time: Duration, now: Instant) -> Self {
        let deadline = after(now, time);
        Self::Draining { deadline, flows: None }
    }

    /// Returns the state after `event`.
    ///
    /// # Errors
    ///
    /// Fails with the reason when draining is over.
    pub fn next(self, event: DrainEvent, now: Instant) -> Result<Self, DrainEnd> {
        match (self, event) {
            (Self::Serving, DrainEvent::Replaced(time)) => Self::draining(time, now).unless_over(now),
            // A dead backend is of no use, but no better one is available, either.
            (Self::Serving, _) | (Self::Draining { .. }, DrainEvent::Needed) => Ok(Self::Serving),
            (Self::Draining { .. }, DrainEvent::Died) => Err(DrainEnd::Dead),
            (Self::Draining { .. }, DrainEvent::Counted(0)) => Err(DrainEnd::Ended),
            (Self::Draining { deadline, .. }, DrainEvent::Counted(flows)) => Self::Draining {
                deadline,
                flows: Some(flows),
            }
            .unless_over(now),
            (Self::Draining { .. }, DrainEvent::Replaced(_) | DrainEvent::Nothing) => self.unless_over(now),
        }
    }

    /// Returns the time at which draining ends if no event ends it earlier; `None` in [`Drain::Serving`].
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining { deadline, .. } => Some(deadline),
        }
    }

    /// Returns the number of flows at the last count; `None` before the first one.
    pub fn flows(self) -> Option<u64> {
        match self {
            Self::Serving => None,
            Self::Draining { flows, .. } => flows,
        }
    }

    fn unless_over(self, now: Instant) -> Result<Self, DrainEnd> {
        match self {
            Self::Draining { deadline, .. } if deadline <= now => Err(DrainEnd::Deadline),
            other => Ok(other),
        }
    }
}

/// Returns `now + time`, with `time` limited to a year so that the sum cannot overflow.
fn after(now: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + time.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    /// Tries every state with every event, before the deadline, at it and after it.
    #[test]
    fn every_transition() {
        use Drain::{Draining, Serving};
        use DrainEvent::{Counted, Died, Needed, Nothing, Replaced};
        let now = Instant::now();
        let draining = |flows| Draining {
            deadline: now + TIME,
            flows,
        };
        let (early, late) = (now, now + TIME);
        for (state, event, at, becomes) in [
            (Serving, Replaced(TIME), early, Ok(draining(None))),
            (Serving, Replaced(Duration::ZERO), early, Err(DrainEnd::Deadline)),
            (Serving, Needed, early, Ok(Serving)),
            (Serving, Counted(0), early, Ok(Serving)),
            (Serving, Counted(3), early, Ok(Serving)),
            (Serving, Died, early, Ok(Serving)),
            (Serving, Nothing, late, Ok(Serving)),
            (draining(None), Replaced(TIME * 2), early, Ok(draining(None))),
            (draining(Some(3)), Replaced(TIME * 2), early, Ok(draining(Some(3)))),
            (draining(Some(3)), Replaced(TIME * 2), late, Err(DrainEnd::Deadline)),
            (draining(Some(3)), Needed, early, Ok(Serving)),
            (draining(Some(3)), Needed, late, Ok(Serving)),
            (draining(None), Counted(0), early, Err(DrainEnd::Ended)),
            (draining(Some(3)), Counted(0), late, Err(DrainEnd::Ended)),
            (draining(None), Counted(2), early, Ok(draining(Some(2)))),
            (draining(Some(3)), Counted(2), early, Ok(draining(Some(2)))),
            (draining(Some(3)), Counted(2), late, Err(DrainEnd::Deadline)),
            (draining(Some(3)), Died, early, Err(DrainEnd::Dead)),
            (draining(Some(3)), Died, late, Err(DrainEnd::Dead)),
            (draining(Some(3)), Nothing, early, Ok(draining(Some(3)))),
            (draining(Some(3)), Nothing, late, Err(DrainEnd::Deadline)),
            (draining(None), Nothing, late + TIME, Err(DrainEnd::Deadline)),
        ] {
            assert_eq!(state.next(event, at), becomes, "{state:?} {event:?}");
        }
    }

    #[test]
    fn no_time_is_too_long() {
        let now = Instant::now();
        let drain = Drain::Serving.next(DrainEvent::Replaced(Duration::MAX), now).unwrap();
        assert!(drain.deadline().unwrap() > now);
    }
}
