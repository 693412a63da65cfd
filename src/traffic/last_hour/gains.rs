//! Gains of one service in each slot.

use std::time::Duration;

use super::compact::CompactNumber;
use super::sample::{GAINS, Gains, HourSample, NUMBERS};
use super::slot::{SLOTS, TimeSpan, place, slot_of};

pub(super) type SlotRing = [[CompactNumber; NUMBERS]; SLOTS];

/// Slots of one service.
#[derive(Debug)]
pub(super) struct ServiceSlots {
    /// Time of the first sample.
    since: Duration,
    /// Totals at the last sample.
    base: Gains,
    /// Gains in the slot of the last sample.
    current: Gains,
    /// Flows at the last sample.
    flows: u64,
    /// The slots before, at the slot's number modulo [`SLOTS`]; `None`: all are zero.
    pub(super) ring: Option<Box<SlotRing>>,
    /// Number of the last slot with traffic.
    busy: u64,
}

impl ServiceSlots {
    /// Begins with the first sample of a service: what was gained before is not known.
    pub(super) fn new(now: Duration, sample: &HourSample) -> Self {
        Self {
            since: now,
            base: sample.gains,
            current: Gains::default(),
            flows: sample.flows,
            ring: None,
            busy: 0,
        }
    }

    pub(super) const fn since(&self) -> Duration {
        self.since
    }

    /// Takes the sample at the end of a span.
    pub(super) fn take(&mut self, span: TimeSpan, sample: &HourSample) {
        // A total that is smaller has begun anew.
        let gained: Gains = std::array::from_fn(|at| {
            let (now, base) = (sample.gains[at], self.base[at]);
            if now < base { now } else { now - base }
        });
        let (first, last) = (slot_of(span.from), slot_of(span.to));
        let whole = span.duration().as_nanos();
        let mut passed = Duration::ZERO;
        let mut given = Gains::default();
        for slot in first..=last {
            passed += span.within(slot);
            for at in 0..GAINS {
                let until = if slot == last {
                    gained[at]
                } else {
                    part(gained[at], passed.as_nanos(), whole)
                };
                self.current[at] = self.current[at].saturating_add(until - given[at]);
                given[at] = until;
            }
            if slot < last {
                self.close(slot, if slot == first { self.flows } else { sample.flows });
            }
        }
        self.base = sample.gains;
        self.flows = sample.flows;
    }

    /// Returns the numbers of a slot. `now`: the slot of the last sample.
    pub(super) fn values(&self, slot: u64, now: u64) -> [u64; NUMBERS] {
        if slot == now {
            return numbers(&self.current, self.flows);
        }
        let ring = self.ring.as_deref();
        ring.map_or([0; NUMBERS], |ring| ring[place(slot)].map(u64::from))
    }

    /// Ends the current slot.
    fn close(&mut self, slot: u64, flows: u64) {
        let values = numbers(&std::mem::take(&mut self.current), flows);
        let is_busy = values != [0; NUMBERS];
        if is_busy {
            self.busy = slot;
        }
        if !is_busy && self.busy + (SLOTS as u64) <= slot {
            self.ring = None;
        }
        if is_busy || self.ring.is_some() {
            let ring = self
                .ring
                .get_or_insert_with(|| Box::new([[CompactNumber::default(); NUMBERS]; SLOTS]));
            ring[place(slot)] = values.map(CompactNumber::from);
        }
    }
}

fn numbers(gains: &Gains, flows: u64) -> [u64; NUMBERS] {
    std::array::from_fn(|at| gains.get(at).copied().unwrap_or(flows))
}

/// Returns that part of a number, rounded down.
fn part(number: u64, of: u128, whole: u128) -> u64 {
    let part = u128::from(number).saturating_mul(of) / whole.max(1);
    u64::try_from(part).unwrap_or(number).min(number)
}
