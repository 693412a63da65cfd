//! Examinations of the gateway, as a thread of the daemon makes them: a caller asks again when one has ended.

use std::time::{Duration, Instant};

use tcpgw::control::core::{GatewayCheckError, GatewayFindings};
use tcpgw_core::model::Service;

/// Function that tells which services exist already.
pub(crate) type IsKnown<'a> = dyn Fn(&Service) -> bool + 'a;

/// Time after which an examination that does not end is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The present examination, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Examinations {
    since: Option<Instant>,
    has_ended: bool,
    stuck_until: Option<Instant>,
}

impl Examinations {
    /// Starts an examination at the first call, and returns its result at a later one.
    pub(crate) fn vet(
        &mut self,
        now: Instant,
        found: impl FnOnce() -> GatewayFindings,
    ) -> Result<GatewayFindings, GatewayCheckError> {
        match self.since {
            Some(since) if self.is_stuck(now) && now - since >= PATIENCE => {
                Err(GatewayCheckError::Failed("late".into()))
            }
            Some(_) if self.is_stuck(now) => Err(GatewayCheckError::Pending),
            Some(_) => {
                self.since = None;
                Ok(found())
            }
            None => {
                self.since = Some(now);
                self.has_ended = true;
                Err(GatewayCheckError::Pending)
            }
        }
    }

    /// Forgets the examination, as another daemon begins.
    pub(crate) fn restart(&mut self) {
        self.since = None;
        self.has_ended = false;
    }

    /// Lets examinations get no answer of the kernel for the time `time`.
    pub(crate) fn stick(&mut self, now: Instant, time: Duration) {
        self.stuck_until = Some(now + time);
    }

    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_until.is_some_and(|until| until > now)
    }

    /// Returns true once when an examination has ended or was given up.
    pub(crate) fn take_ended(&mut self, now: Instant) -> bool {
        let is_over = self
            .since
            .is_none_or(|since| !self.is_stuck(now) || now - since >= PATIENCE);
        is_over && std::mem::take(&mut self.has_ended)
    }

    /// Returns the time at which [`Self::take_ended`] may return true.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let gives_up = self.since? + PATIENCE;
        let until = self.stuck_until.map_or(gives_up, |until| until.min(gives_up));
        Some(until).filter(|_| self.has_ended)
    }
}
