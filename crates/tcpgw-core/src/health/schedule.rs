//! Whose turn it is. Every turn is in one queue, by time; queues share the probes that may be on their way at a time,
//! so that none of them can keep the others waiting.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Routine is sent at most this often: waking up costs more than a probe.
const GRAIN: Duration = Duration::from_millis(20);

/// Why an endpoint is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It is new, or somebody waits for it.
    First,
    /// It is in the balance: may it stay?
    In,
    /// It is out: may it come back? Mostly, no, and it takes the whole timeout to find out.
    Out,
}

impl Class {
    const ALL: [Self; 3] = [Self::First, Self::In, Self::Out];
}

#[derive(Debug)]
pub(super) struct Schedule {
    max_in_flight: usize,
    turns: [BTreeSet<(Instant, SocketAddr)>; 3],
    flying: [usize; 3],
    /// When routine was last sent.
    last: Option<Instant>,
    routine: bool,
    /// Whether somebody whose turn it was had to wait for others to land.
    crowded: bool,
}

impl Schedule {
    pub(super) fn new(max_in_flight: NonZeroUsize) -> Self {
        Self {
            max_in_flight: max_in_flight.get(),
            turns: Default::default(),
            flying: [0; 3],
            last: None,
            routine: false,
            crowded: false,
        }
    }

    pub(super) fn add(&mut self, class: Class, at: Instant, endpoint: SocketAddr) {
        self.turns[class as usize].insert((at, endpoint));
    }

    pub(super) fn cancel(&mut self, class: Class, at: Instant, endpoint: SocketAddr) {
        self.turns[class as usize].remove(&(at, endpoint));
    }

    /// A probe of that class has ended.
    pub(super) fn land(&mut self, class: Class) {
        let flying = &mut self.flying[class as usize];
        *flying = flying.saturating_sub(1);
    }

    /// Begins to hand out turns.
    pub(super) fn open(&mut self, now: Instant) {
        let waited = self.last.is_none_or(|last| now >= last + GRAIN);
        self.routine = waited || self.crowded;
        if waited {
            self.last = Some(now);
        }
        self.crowded = false;
    }

    /// Whose turn it is, and counts it as on its way.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Class, SocketAddr)> {
        for class in Class::ALL {
            let turns = &self.turns[class as usize];
            let is_due = turns.first().is_some_and(|(at, _)| *at <= now);
            if !is_due || (class != Class::First && !self.routine) {
                continue;
            }
            if !self.has_room(class) {
                self.crowded = true;
                continue;
            }
            let (_, endpoint) = self.turns[class as usize].pop_first()?;
            self.flying[class as usize] += 1;
            return Some((class, endpoint));
        }
        None
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        let routine = self.last.filter(|_| !self.crowded).map(|last| last + GRAIN);
        Class::ALL
            .into_iter()
            .filter(|class| self.has_room(*class))
            .filter_map(|class| {
                let (at, _) = self.turns[class as usize].first()?;
                let earliest = routine.filter(|_| class != Class::First);
                Some(earliest.map_or(*at, |earliest| earliest.max(*at)))
            })
            .min()
    }

    /// Those in the balance always have a quarter, new ones an eighth, and those that are out at most half.
    fn has_room(&self, class: Class) -> bool {
        let [first, inside, out] = self.flying;
        let max = self.max_in_flight;
        let up_to = |share: usize| share.max(1);
        let beside_in = first + out < up_to(max - max / 4);
        let beside_first = inside + out < up_to(max - max / 8);
        first + inside + out < max
            && match class {
                Class::First => beside_in,
                Class::In => beside_first,
                Class::Out => beside_in && beside_first && out < up_to(max / 2),
            }
    }
}
