//! Kinds of rules in `spread` chains: numbers of slots, caps and idle timeouts.

use std::fmt;
use std::num::NonZeroU32;

use super::cap::Cap;

/// Function that chooses among the slots of a service, for balances that have a rule for each number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotChoice {
    /// A hash of the client's address and port.
    ClientHash,
    /// A random number.
    Random,
}

impl SlotChoice {
    /// Both functions, in the order of the ruleset.
    pub const BOTH: [Self; 2] = [Self::ClientHash, Self::Random];

    /// Returns the beginning of the names of the sets.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::ClientHash => "width",
            Self::Random => "random",
        }
    }
}

/// A number of slots, and the function that chooses among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width {
    /// Function that chooses among the slots.
    pub choice: SlotChoice,
    /// Number of slots, 1 to 256.
    pub slots: u16,
    /// Idle timeout of the service in seconds; `None`: that of the kernel.
    pub idle: Option<NonZeroU32>,
}

impl Width {
    /// Returns a number of slots, one of which is chosen by a hash of the client's address and port.
    pub const fn client_hash(slots: u16) -> Self {
        Self {
            choice: SlotChoice::ClientHash,
            slots,
            idle: None,
        }
    }

    /// Returns a number of slots, one of which is chosen at random.
    pub const fn random(slots: u16) -> Self {
        Self {
            choice: SlotChoice::Random,
            slots,
            idle: None,
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.choice.prefix(), self.slots)?;
        match self.idle {
            None => Ok(()),
            Some(seconds) => write!(f, "_idle_{seconds}"),
        }
    }
}

/// Kind of a rule of a `spread` chain, in the order of the rules. Caps are checked before a backend is chosen. Idle
/// timeouts come last: while a service changes its balance, the rule for its slots finds it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpreadRule {
    /// Cap of clients or flows.
    Cap(Cap),
    /// A number of slots.
    Slots(Width),
    /// Idle timeout in seconds of services whose slot is chosen elsewhere.
    Idle(NonZeroU32),
}

impl SpreadRule {
    /// Returns a number of slots, one of which is chosen by a hash of the client's address and port.
    pub const fn client_hash(slots: u16) -> Self {
        Self::Slots(Width::client_hash(slots))
    }

    /// Returns a number of slots, one of which is chosen at random.
    pub const fn random(slots: u16) -> Self {
        Self::Slots(Width::random(slots))
    }

    /// Returns the idle timeout of the service in seconds; `None`: that of the kernel.
    pub const fn idle(self) -> Option<NonZeroU32> {
        match self {
            Self::Cap(_) => None,
            Self::Slots(width) => width.idle,
            Self::Idle(seconds) => Some(seconds),
        }
    }
}

impl fmt::Display for SpreadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cap(cap) => write!(f, "capped_{cap}"),
            Self::Slots(width) => width.fmt(f),
            Self::Idle(seconds) => write!(f, "idle_{seconds}"),
        }
    }
}
