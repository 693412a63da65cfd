//! What one endpoint's probes come to. No time in it: when to probe is not its business.

use std::fmt;
use std::num::NonZeroU16;

/// An error of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemError {
    /// Number of the error, as in `errno(3)`.
    pub number: i32,
    /// What `strerror(3)` says of it.
    pub text: &'static str,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The handshake was answered.
    Accepted,
    /// A reset: the host lives, and nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The network says that it leads nowhere.
    Unreachable(SystemError),
    /// The gateway itself could not ask: no descriptor, port or memory was left. Says nothing about the backend.
    Local(SystemError),
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable(error) => write!(f, "unreachable ({})", lower(error.text)),
            Self::Local(error) => write!(f, "not probed ({})", lower(error.text)),
        }
    }
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// The name of the state of an endpoint of which nobody knows yet.
pub const UNKNOWN: &str = "unknown";

/// What is thought of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// New: it has never answered. Out of the balance.
    Unknown {
        /// Failures so far, less than `fall`.
        failed: u16,
    },
    /// Found in the kernel by a daemon that just started, and not answered since. In the balance.
    Presumed {
        /// Failures so far, less than `fall`.
        failed: u16,
    },
    /// Its last probe was answered. In the balance.
    Healthy,
    /// Its last probes failed, but not enough of them. In the balance.
    Failing {
        /// Failures in a row, less than `fall`.
        failed: NonZeroU16,
    },
    /// It failed `fall` times in a row. Out of the balance.
    Unhealthy,
    /// Its last probes were answered, but not enough of them. Out of the balance.
    Rising {
        /// Answers in a row, less than `rise`.
        passed: NonZeroU16,
    },
}

impl State {
    /// Whether it gets new connections.
    pub const fn in_balance(self) -> bool {
        matches!(self, Self::Presumed { .. } | Self::Healthy | Self::Failing { .. })
    }

    /// In one word, for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown { .. } => UNKNOWN,
            Self::Presumed { .. } => "presumed",
            Self::Healthy => "healthy",
            Self::Failing { .. } => "failing",
            Self::Unhealthy => "unhealthy",
            Self::Rising { .. } => "rising",
        }
    }

    /// The state after one more probe.
    #[must_use]
    pub(super) fn after(self, outcome: ProbeOutcome, streaks: Streaks) -> Self {
        match outcome {
            ProbeOutcome::Accepted => self.passed(streaks.rise),
            ProbeOutcome::Refused | ProbeOutcome::TimedOut | ProbeOutcome::Unreachable(_) => self.failed(streaks.fall),
            ProbeOutcome::Local(_) => self,
        }
    }

    fn passed(self, rise: NonZeroU16) -> Self {
        let passed = match self {
            Self::Presumed { .. } | Self::Healthy | Self::Failing { .. } => return Self::Healthy,
            Self::Unknown { .. } | Self::Unhealthy => NonZeroU16::MIN,
            Self::Rising { passed } => passed.saturating_add(1),
        };
        if passed >= rise {
            Self::Healthy
        } else {
            Self::Rising { passed }
        }
    }

    fn failed(self, fall: NonZeroU16) -> Self {
        let next = |failed: u16| NonZeroU16::MIN.saturating_add(failed);
        let (failed, state): (_, fn(NonZeroU16) -> Self) = match self {
            Self::Unknown { failed } => (next(failed), |failed| Self::Unknown { failed: failed.get() }),
            Self::Presumed { failed } => (next(failed), |failed| Self::Presumed { failed: failed.get() }),
            Self::Healthy => (NonZeroU16::MIN, |failed| Self::Failing { failed }),
            Self::Failing { failed } => (next(failed.get()), |failed| Self::Failing { failed }),
            Self::Unhealthy | Self::Rising { .. } => return Self::Unhealthy,
        };
        if failed >= fall { Self::Unhealthy } else { state(failed) }
    }
}

/// How many probes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streaks {
    /// Answers in a row until an endpoint is healthy.
    pub(super) rise: NonZeroU16,
    /// Failures in a row until it is not.
    pub(super) fall: NonZeroU16,
}

/// How long there has been no sign of life. A refusal is one: a program that shuts down in good order closes its
/// listener first, and serves on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Silence {
    silent: u16,
    unreachable: u16,
}

impl Silence {
    /// The silence after one more probe.
    #[must_use]
    pub(super) const fn after(self, outcome: ProbeOutcome) -> Self {
        match outcome {
            ProbeOutcome::Accepted | ProbeOutcome::Refused => Self {
                silent: 0,
                unreachable: 0,
            },
            ProbeOutcome::TimedOut => Self {
                silent: self.silent.saturating_add(1),
                unreachable: 0,
            },
            ProbeOutcome::Unreachable(_) => Self {
                silent: self.silent.saturating_add(1),
                unreachable: self.unreachable.saturating_add(1),
            },
            ProbeOutcome::Local(_) => self,
        }
    }

    /// Whether the endpoint is known to be dead: `fall` probes in a row got no answer, or the network said twice in a
    /// row that nothing is there (once, where `fall` is 1).
    pub(super) fn is_death(self, fall: NonZeroU16) -> bool {
        const TOLD: u16 = 2;
        self.silent >= fall.get() || self.unreachable >= fall.get().min(TOLD)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
pub(super) mod tests;
