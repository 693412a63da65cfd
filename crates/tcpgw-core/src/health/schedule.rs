//! Schedule of probes: one queue by time for each class of endpoints. The queues share the number of probes in flight
//! in such a way that no class keeps the others waiting.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Shortest time between two batches of routine probes, because waking up costs more than a probe.
const GRAIN: Duration = Duration::from_millis(20);

/// Class of a probe, which decides its priority, by the state of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The endpoint is new, or its outcome was requested.
    First,
    /// The endpoint is in the balance, and may have to leave it.
    In,
    /// The endpoint is out of the balance. Most such probes take the whole timeout.
    Out,
}

impl Class {
    const ALL: [Self; 3] = [Self::First, Self::In, Self::Out];
}

#[derive(Debug)]
pub(super) struct Schedule {
    max_in_flight: usize,
    due: [BTreeSet<(Instant, SocketAddr)>; 3],
    in_flight: [usize; 3],
    /// Time of the last batch of routine probes.
    last: Option<Instant>,
    routine: bool,
    /// Whether a probe that was due had to wait for others to end.
    crowded: bool,
}

impl Schedule {
    pub(super) fn new(max_in_flight: NonZeroUsize) -> Self {
        Self {
            max_in_flight: max_in_flight.get(),
            due: Default::default(),
            in_flight: [0; 3],
            last: None,
            routine: false,
            crowded: false,
        }
    }

    pub(super) fn add(&mut self, class: Class, at: Instant, endpoint: SocketAddr) {
        self.due[class as usize].insert((at, endpoint));
    }

    pub(super) fn cancel(&mut self, class: Class, at: Instant, endpoint: SocketAddr) {
        self.due[class as usize].remove(&(at, endpoint));
    }

    /// Records that a probe of this class has ended.
    pub(super) fn end(&mut self, class: Class) {
        let in_flight = &mut self.in_flight[class as usize];
        *in_flight = in_flight.saturating_sub(1);
    }

    /// Begins a batch: decides whether routine probes may be sent now.
    pub(super) fn open(&mut self, now: Instant) {
        let waited = self.last.is_none_or(|last| now >= last + GRAIN);
        self.routine = waited || self.crowded;
        if waited {
            self.last = Some(now);
        }
        self.crowded = false;
    }

    /// Returns the next endpoint that is due and counts its probe as in flight.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Class, SocketAddr)> {
        for class in Class::ALL {
            let due = &self.due[class as usize];
            let is_due = due.first().is_some_and(|(at, _)| *at <= now);
            if !is_due || (class != Class::First && !self.routine) {
                continue;
            }
            if !self.has_room(class) {
                self.crowded = true;
                continue;
            }
            let (_, endpoint) = self.due[class as usize].pop_first()?;
            self.in_flight[class as usize] += 1;
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
                let (at, _) = self.due[class as usize].first()?;
                let earliest = routine.filter(|_| class != Class::First);
                Some(earliest.map_or(*at, |earliest| earliest.max(*at)))
            })
            .min()
    }

    /// Returns whether another probe of this class may be sent. Endpoints in the balance always have a quarter of the
    /// probes in flight, new ones an eighth, and those out of the balance at most half.
    fn has_room(&self, class: Class) -> bool {
        let [first, inside, out] = self.in_flight;
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
