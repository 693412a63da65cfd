//! Whether a condition holds for a packet.

/// Certainty that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    SomeClients,
    Unknown,
    Yes,
}
