//! State machine of the probes of one endpoint. Has no notion of time: when to probe is decided elsewhere.

use std::fmt;
use std::num::NonZeroU16;

/// An error of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemError {
    /// Number of the error, as in `errno(3)`.
    pub number: i32,
    /// Text of the error, as in `strerror(3)`.
    pub text: &'static str,
}

/// Outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The handshake was answered, and the question, if the probe asks one.
    Accepted,
    /// The backend sent a reset: the host lives, and no program listens on the port.
    Refused,
    /// No answer came within the timeout.
    TimedOut,
    /// The handshake was answered, and the question was not, or wrongly.
    Unfit(AnswerFault),
    /// The network reported that the address cannot be reached.
    Unreachable(SystemError),
    /// The gateway could not send the probe, because it lacked a descriptor, a port or memory. Says nothing about the
    /// backend.
    Local(SystemError),
}

/// Reason why the answer to a probe's question is not right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFault {
    /// Too little, or no answer, came within the timeout.
    Silent,
    /// The backend closed or reset the connection without an answer.
    Closed,
    /// The answer is not one of HTTP/1.
    NotHttp,
    /// The status of the answer is another one than expected.
    Status(u16),
    /// The answer does not contain what is expected.
    Other,
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no answer after the handshake"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Other => f.write_str("another answer than expected"),
        }
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unfit(fault) => fault.fmt(f),
            Self::Unreachable(error) => write!(f, "unreachable ({})", lower(error.text)),
            Self::Local(error) => write!(f, "not probed ({})", lower(error.text)),
        }
    }
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// Name of the state of an endpoint that was not probed yet.
pub const UNKNOWN: &str = "unknown";

/// State of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// New, and no probe was answered yet. Not in the balance.
    Unknown {
        /// Number of failures so far, less than `fall`.
        failed: u16,
    },
    /// Found in the kernel by a daemon that just started, and not answered since. In the balance.
    Presumed {
        /// Number of failures so far, less than `fall`.
        failed: u16,
    },
    /// The last probe was answered. In the balance.
    Healthy,
    /// The last probes failed, but fewer than `fall`. In the balance.
    Failing {
        /// Number of failures in a row, less than `fall`.
        failed: NonZeroU16,
    },
    /// At least `fall` probes in a row failed. Not in the balance.
    Unhealthy,
    /// The last probes were answered, but fewer than `rise`. Not in the balance.
    Rising {
        /// Number of answers in a row, less than `rise`.
        passed: NonZeroU16,
    },
}

impl EndpointState {
    /// Returns whether the endpoint gets new connections.
    pub const fn in_balance(self) -> bool {
        matches!(self, Self::Presumed { .. } | Self::Healthy | Self::Failing { .. })
    }

    /// Returns the name of the state as one word, for people and JSON.
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

    /// Returns the state after one more probe.
    #[must_use]
    pub(super) fn after(self, outcome: ProbeOutcome, streaks: Streaks) -> Self {
        match outcome {
            ProbeOutcome::Accepted => self.passed(streaks.rise),
            ProbeOutcome::Refused | ProbeOutcome::TimedOut | ProbeOutcome::Unfit(_) | ProbeOutcome::Unreachable(_) => {
                self.failed(streaks.fall)
            }
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

/// Numbers of equal outcomes in a row that change the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streaks {
    /// Number of answers in a row until an endpoint is healthy.
    pub(super) rise: NonZeroU16,
    /// Number of failures in a row until an endpoint is unhealthy.
    pub(super) fall: NonZeroU16,
}

/// Number of probes in a row without any answer. A refusal is an answer: a program that shuts down in good order closes
/// its listener first and continues to serve its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Silence {
    silent: u16,
    unreachable: u16,
}

impl Silence {
    /// Returns the number after one more probe.
    #[must_use]
    pub(super) const fn after(self, outcome: ProbeOutcome) -> Self {
        match outcome {
            ProbeOutcome::Accepted | ProbeOutcome::Refused | ProbeOutcome::Unfit(_) => Self {
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

    /// Returns whether the endpoint is dead: `fall` probes in a row got no answer, or the network reported it
    /// unreachable twice in a row (once, where `fall` is 1).
    pub(super) fn is_death(self, fall: NonZeroU16) -> bool {
        const TOLD: u16 = 2;
        self.silent >= fall.get() || self.unreachable >= fall.get().min(TOLD)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
pub(super) mod tests;
