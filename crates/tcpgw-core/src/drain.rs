//! How a backend leaves: a state machine for one backend of one service.
//!
//! Pure: takes what happened and the time. Knows neither the kernel nor who counts the flows.

use std::time::{Duration, Instant};

/// Where a backend is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// It gets new connections still: no backend that stays has answered a probe yet.
    Serving,
    /// It gets none; those it has may end by themselves.
    Draining {
        /// When what is left will be flushed.
        deadline: Instant,
        /// Flows at the last count; `None` before the first.
        flows: Option<u64>,
    },
}

/// What happens to a backend that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happens {
    /// Another one takes over. Its flows may go on for so long.
    Replaced(Duration),
    /// There is nobody else any more.
    Needed,
    /// So many flows go on, of a count that began after it left the balance.
    Counted(u64),
    /// It is known to be gone: it can answer nobody.
    Died,
    /// Time has passed.
    Nothing,
}

/// Why a backend has left for good; what is left of its flows is to be flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// No flow was left.
    Ended,
    /// Its time was up.
    Deadline,
    /// It was dead.
    Dead,
}

impl Over {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Deadline => "deadline",
            Self::Dead => "dead",
        }
    }
}

impl Drain {
    /// It gets no new connections, and its flows may go on for so long.
    pub fn draining(time: Duration, now: Instant) -> Self {
        let deadline = after(now, time);
        Self::Draining { deadline, flows: None }
    }

    /// What becomes of it.
    ///
    /// # Errors
    /// [`Over`] when it has left.
    pub fn next(self, happens: Happens, now: Instant) -> Result<Self, Over> {
        match (self, happens) {
            (Self::Serving, Happens::Replaced(time)) => Self::draining(time, now).unless_over(now),
            // Who leaves and is dead is of no use, but nobody better is there, either.
            (Self::Serving, _) | (Self::Draining { .. }, Happens::Needed) => Ok(Self::Serving),
            (Self::Draining { .. }, Happens::Died) => Err(Over::Dead),
            (Self::Draining { .. }, Happens::Counted(0)) => Err(Over::Ended),
            (Self::Draining { deadline, .. }, Happens::Counted(flows)) => Self::Draining {
                deadline,
                flows: Some(flows),
            }
            .unless_over(now),
            (Self::Draining { .. }, Happens::Replaced(_) | Happens::Nothing) => self.unless_over(now),
        }
    }

    /// When time alone changes something.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining { deadline, .. } => Some(deadline),
        }
    }

    /// Flows at the last count.
    pub fn flows(self) -> Option<u64> {
        match self {
            Self::Serving => None,
            Self::Draining { flows, .. } => flows,
        }
    }

    fn unless_over(self, now: Instant) -> Result<Self, Over> {
        match self {
            Self::Draining { deadline, .. } if deadline <= now => Err(Over::Deadline),
            other => Ok(other),
        }
    }
}

/// A time that no clock reaches is as good as none.
fn after(now: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + time.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    /// Every state with everything that can happen, before the deadline, at it and after it.
    #[test]
    fn every_transition() {
        use Drain::{Draining, Serving};
        use Happens::{Counted, Died, Needed, Nothing, Replaced};
        let now = Instant::now();
        let draining = |flows| Draining {
            deadline: now + TIME,
            flows,
        };
        let (early, late) = (now, now + TIME);
        for (state, happens, at, becomes) in [
            (Serving, Replaced(TIME), early, Ok(draining(None))),
            (Serving, Replaced(Duration::ZERO), early, Err(Over::Deadline)),
            (Serving, Needed, early, Ok(Serving)),
            (Serving, Counted(0), early, Ok(Serving)),
            (Serving, Counted(3), early, Ok(Serving)),
            (Serving, Died, early, Ok(Serving)),
            (Serving, Nothing, late, Ok(Serving)),
            (draining(None), Replaced(TIME * 2), early, Ok(draining(None))),
            (draining(Some(3)), Replaced(TIME * 2), early, Ok(draining(Some(3)))),
            (draining(Some(3)), Replaced(TIME * 2), late, Err(Over::Deadline)),
            (draining(Some(3)), Needed, early, Ok(Serving)),
            (draining(Some(3)), Needed, late, Ok(Serving)),
            (draining(None), Counted(0), early, Err(Over::Ended)),
            (draining(Some(3)), Counted(0), late, Err(Over::Ended)),
            (draining(None), Counted(2), early, Ok(draining(Some(2)))),
            (draining(Some(3)), Counted(2), early, Ok(draining(Some(2)))),
            (draining(Some(3)), Counted(2), late, Err(Over::Deadline)),
            (draining(Some(3)), Died, early, Err(Over::Dead)),
            (draining(Some(3)), Died, late, Err(Over::Dead)),
            (draining(Some(3)), Nothing, early, Ok(draining(Some(3)))),
            (draining(Some(3)), Nothing, late, Err(Over::Deadline)),
            (draining(None), Nothing, late + TIME, Err(Over::Deadline)),
        ] {
            assert_eq!(state.next(happens, at), becomes, "{state:?} {happens:?}");
        }
    }

    #[test]
    fn no_time_is_too_long() {
        let now = Instant::now();
        let drain = Drain::Serving.next(Happens::Replaced(Duration::MAX), now).unwrap();
        assert!(drain.deadline().unwrap() > now);
    }
}
