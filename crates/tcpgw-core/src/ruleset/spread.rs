//! What the rules of the `spread` chains tell apart: numbers of slots, caps and idle timeouts.

use std::fmt;
use std::num::NonZeroU32;

use super::cap::Cap;

/// What chooses among the slots of a service, where each number of slots needs a rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotChoice {
    /// A hash of the client's address and port.
    ClientHash,
    /// Chance.
    Random,
}

impl SlotChoice {
    /// Both, in the order of the ruleset.
    pub const BOTH: [Self; 2] = [Self::ClientHash, Self::Random];

    /// What the names of its sets begin with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::ClientHash => "width",
            Self::Random => "random",
        }
    }
}

/// A number of slots, and what chooses among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width {
    /// What chooses.
    pub choice: SlotChoice,
    /// Number of slots, 1 to 256.
    pub slots: u16,
    /// Seconds that a silent flow lives, if they are its service's own.
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

/// What a `spread` chain has a rule for, and those services that it is about. Caps are asked before a backend is chosen, and times
/// last: while a service changes its balance, it is found by its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpreadRule {
    /// A cap.
    Cap(Cap),
    /// A number of slots.
    Slots(Width),
    /// How many seconds a silent flow lives, of services whose slot is chosen elsewhere.
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

    /// Seconds that a silent flow lives, if they are its service's own.
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
