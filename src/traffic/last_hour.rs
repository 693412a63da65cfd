//! Traffic of the last hour: what each service's totals gained, in slots of 30 s.
//!
//! Pure: takes totals and the time, knows neither a clock nor the kernel. Memory is bounded: some 1.9 kB for each service that had
//! traffic in that hour, and 0.2 kB for each other one, so 10,000 services take up to 19 MB.

mod compact;
mod gains;
mod sample;
mod slot;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use self::gains::ServiceSlots;
pub use self::sample::HourSample;
use self::sample::{GAINS, NUMBERS};
pub use self::slot::{SLOT, SLOTS};
use self::slot::{TimeSpan, end_of, place, slot_of};

/// Maximum number of services whose traffic is kept; that of others is not shown.
const MOST_SERVICES: usize = 16_384;
/// Shortest part of a slot from which a rate is taken.
const LEAST: Duration = Duration::from_secs(2);

/// Rates of a service in one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SlotRates {
    /// Packets per second from clients to the backends.
    pub packets_to: f64,
    /// Bytes per second from clients to the backends.
    pub bytes_to: f64,
    /// Packets per second from the backends to clients.
    pub packets_from: f64,
    /// Bytes per second from the backends to clients.
    pub bytes_from: f64,
    /// New connections per second.
    pub connections: f64,
    /// Dropped packets per second, for all reasons.
    pub dropped: f64,
    /// Number of open connections at the last sample in the slot.
    pub flows: f64,
}

/// Traffic of all services in the last hour.
#[derive(Debug)]
pub struct LastHour {
    /// Time of the last sample.
    sampled: Option<Duration>,
    /// Milliseconds of each slot between two samples, at the slot's number modulo [`SLOTS`].
    covered: [u16; SLOTS],
    services: BTreeMap<Box<str>, ServiceSlots>,
}

impl Default for LastHour {
    fn default() -> Self {
        Self {
            sampled: None,
            covered: [0; SLOTS],
            services: BTreeMap::new(),
        }
    }
}

impl LastHour {
    /// Takes a sample of the present services; others are forgotten. `now`: time since any moment that stays the same, which never
    /// goes back. What was gained since the sample before is spread evenly over the time between them.
    pub fn take<'n>(&mut self, now: Duration, samples: impl Iterator<Item = (&'n str, HourSample)>) {
        if self.sampled.is_some_and(|before| now <= before) {
            return;
        }
        let hour = SLOT * u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let before = self.sampled.filter(|before| now.saturating_sub(*before) < hour);
        if before.is_none() {
            *self = Self::default();
        }
        self.sampled = Some(now);
        let span = before.map(|before| TimeSpan { from: before, to: now });
        if let Some(span) = span {
            self.cover(span);
        }
        let mut past = std::mem::take(&mut self.services);
        for (name, sample) in samples {
            if self.services.len() == MOST_SERVICES {
                break;
            }
            match (past.remove_entry(name), span) {
                (Some((name, mut slots)), Some(span)) => {
                    slots.take(span, &sample);
                    self.services.insert(name, slots);
                }
                _ => {
                    self.services.insert(name.into(), ServiceSlots::new(now, &sample));
                }
            }
        }
    }

    /// Returns the rates of a service in each slot of the hour before `now`, the oldest first; `None`: they are not known. The last
    /// slot has not ended. Returns `None` for a service that was not in the last sample.
    pub fn of(&self, name: &str, now: Duration) -> Option<Vec<Option<SlotRates>>> {
        let slots = self.services.get(name)?;
        let sampled = self.sampled?;
        let last = slot_of(now.max(sampled));
        let first = (last + 1).saturating_sub(SLOTS as u64);
        let unknown = SLOTS - usize::try_from(last + 1 - first).unwrap_or(SLOTS);
        let rates = (first..=last).map(|slot| {
            let covered = self.covered(slot, slots.since())?;
            let values = slots.values(slot, slot_of(sampled));
            Some(rates(values, covered))
        });
        Some(std::iter::repeat_n(None, unknown).chain(rates).collect())
    }

    /// Returns the number of services.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Returns whether there is no service.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Records that the time between two samples is known.
    fn cover(&mut self, span: TimeSpan) {
        for slot in slot_of(span.from)..=slot_of(span.to) {
            let at = place(slot);
            if slot > slot_of(span.from) {
                self.covered[at] = 0;
            }
            let part = span.within(slot).as_millis();
            self.covered[at] = self.covered[at].saturating_add(u16::try_from(part).unwrap_or(u16::MAX));
        }
    }

    /// Returns for how long the traffic of a service is known that was first sampled then; `None`: not for long enough.
    fn covered(&self, slot: u64, since: Duration) -> Option<Duration> {
        let sampled = self.sampled?;
        if slot > slot_of(sampled) || slot + (SLOTS as u64) <= slot_of(sampled) {
            return None;
        }
        let known = Duration::from_millis(self.covered[place(slot)].into());
        let known = known.min(end_of(slot).min(sampled).saturating_sub(since));
        (known >= LEAST).then_some(known)
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn rates(values: [u64; NUMBERS], covered: Duration) -> SlotRates {
    let rate = |at: usize| values[at] as f64 / covered.as_secs_f64();
    SlotRates {
        packets_to: rate(0),
        bytes_to: rate(1),
        packets_from: rate(2),
        bytes_from: rate(3),
        connections: rate(4),
        dropped: rate(5),
        flows: values[GAINS] as f64,
    }
}
