//! Phases of a deploy.

use tcpgw_core::model::word::Word;

/// Phase of a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeployPhase {
    /// The new backends are probed; the service is as it was.
    Probing,
    /// New connections go to the new backends; the old ones drain.
    Switched,
    /// Over: the old backends have left.
    Drained,
    /// Over: the new backends did not answer, and nothing was switched.
    Failed,
    /// Over: undone by an operator or by a crash; the service is as it was.
    Undone,
}

impl Word for DeployPhase {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("probing", Self::Probing),
        ("switched", Self::Switched),
        ("drained", Self::Drained),
        ("failed", Self::Failed),
        ("undone", Self::Undone),
    ];
}

impl DeployPhase {
    /// Returns whether the phase is final.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Probing | Self::Switched)
    }

    /// Returns whether `next` may follow; the same phase may follow with another reason until it is final.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Probing => next != Self::Drained,
            Self::Switched => matches!(next, Self::Switched | Self::Drained | Self::Undone),
            Self::Drained | Self::Failed | Self::Undone => false,
        }
    }
}
