//! Sizes of the largest sets.
//!
//! A hash of fixed size takes an element in half the time of one that grows by itself (80,000 elements: 0.07 s of
//! kernel time instead of 0.12 s, Linux 6.18), so the largest sets are created with a size; each bucket costs 8 bytes
//! of kernel memory. When they are full, the table is created again with twice the size, in one transaction.

use std::fmt;
use std::str::FromStr;

use super::Ruleset;
use super::name::SetName;
use super::scope::{Family, ListenScope, Scope};

/// Number of times that the size of the largest sets was doubled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room(u8);

/// Initial size of the sets, in elements.
const FIRST: u32 = 1 << 16;
/// Largest number of doublings: a set then holds 256 slots of every port.
const MOST: u8 = 8;
/// Size of sets of services that listen on all addresses: one for each port.
const PORTS: u32 = 1 << 16;

impl Room {
    /// Returns the smallest size that holds a ruleset.
    pub fn of(ruleset: &Ruleset) -> Self {
        let holds = |room: &Self| ruleset.sets().iter().all(|(name, rows)| room.holds(*name, rows.len()));
        (0..MOST).map(Self).find(holds).unwrap_or(Self(MOST))
    }

    /// Returns the number of elements that a set is created for; `None` if it grows by itself.
    pub fn size(self, name: SetName) -> Option<u32> {
        match name {
            SetName::Slots(ListenScope::Any(_)) | SetName::Limited(_) | SetName::Unlimited(_) => Some(FIRST << self.0),
            SetName::Services(Scope::Any) | SetName::EmptyReset(ListenScope::Any(_)) => Some(PORTS),
            _ => None,
        }
    }

    /// Returns whether a set can hold this number of elements.
    pub fn holds(self, name: SetName, elements: usize) -> bool {
        self.size(name)
            .is_none_or(|size| u32::try_from(elements).is_ok_and(|elements| elements <= size))
    }

    /// Returns the sets whose size depends on the number of doublings.
    pub fn decides() -> [SetName; 6] {
        let [v4, v6] = Family::BOTH;
        [
            SetName::Slots(ListenScope::Any(v4)),
            SetName::Slots(ListenScope::Any(v6)),
            SetName::Limited(v4),
            SetName::Limited(v6),
            SetName::Unlimited(v4),
            SetName::Unlimited(v6),
        ]
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Room {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|room| *room <= MOST).map(Self).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::rows::Rows;
    use crate::ruleset::spec::SetSpec;

    #[test]
    fn it_is_doubled_until_it_holds() {
        let name = SetName::Unlimited(Family::V4);
        let with = |elements: u32| {
            let mut rows = Rows::new(&SetSpec::of(name));
            for number in 0..elements {
                rows.push(&[&number.to_be_bytes(), &[0, 1, 0, 0]]);
            }
            Ruleset::new([(name, rows)].into(), [].into())
        };
        for (elements, room) in [
            (0, Room(0)),
            (FIRST, Room(0)),
            (FIRST + 1, Room(1)),
            (4 * FIRST, Room(2)),
        ] {
            assert_eq!(Room::of(&with(elements)), room);
        }
        assert_eq!("3".parse(), Ok(Room(3)));
        assert_eq!("9".parse::<Room>(), Err(()));
        for name in SetName::fixed() {
            let grows = Room(0).size(name) != Room(1).size(name);
            assert_eq!(grows, Room::decides().contains(&name), "{name}");
        }
    }
}
