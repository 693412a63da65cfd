//! Judgements of answers: a flaw is a failure or a warning.

/// Flaw of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Whether the rule says MUST. Where it says SHOULD, RECOMMENDED or MAY, the flaw is a warning.
    pub(super) is_failure: bool,
    pub(super) why: String,
}

pub(super) type CheckResult = Result<(), Flaw>;

pub(super) fn failure(why: impl Into<String>) -> Flaw {
    Flaw {
        is_failure: true,
        why: why.into(),
    }
}

pub(super) fn warning(why: impl Into<String>) -> Flaw {
    Flaw {
        is_failure: false,
        why: why.into(),
    }
}
