//! The traffic of the last hour, shared by the thread that samples and those who show it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::last_hour::{HourSample, LastHour, SlotRates};
use crate::locked::locked;

/// Traffic of the last hour, kept while somebody can look at it.
#[derive(Debug, Clone)]
pub struct SharedHour {
    /// Moment from which times are counted.
    begun: Instant,
    hour: Arc<Mutex<Option<LastHour>>>,
}

impl SharedHour {
    /// Creates one that keeps nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            hour: Arc::default(),
        }
    }

    /// Begins to keep traffic, or forgets it.
    pub fn keep(&self, keeps: bool) {
        let mut hour = self.lock();
        if keeps {
            hour.get_or_insert_default();
        } else {
            *hour = None;
        }
    }

    /// Takes a sample of the present services, if traffic is kept. They are counted up before the lock is taken.
    pub fn take<'n>(&self, now: Instant, samples: impl Iterator<Item = (&'n str, HourSample)>) {
        if self.lock().is_none() {
            return;
        }
        let samples: Vec<_> = samples.collect();
        if let Some(hour) = &mut *self.lock() {
            hour.take(now.saturating_duration_since(self.begun), samples.into_iter());
        }
    }

    /// Returns the rates of a service, as [`LastHour::of`] does. Blocks for milliseconds while there are many services.
    pub fn of(&self, name: &str, now: Instant) -> Option<Vec<Option<SlotRates>>> {
        let now = now.saturating_duration_since(self.begun);
        self.lock().as_ref()?.of(name, now)
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastHour>> {
        locked(&self.hour)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::traffic::ServiceTotals;

    #[test]
    fn traffic_is_kept_only_while_it_can_be_looked_at() {
        let begun = Instant::now();
        let shared = SharedHour::new(begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        let samples = || std::iter::once(("a", HourSample::new(&ServiceTotals::default(), 3)));
        shared.take(at(5), samples());
        assert_eq!(shared.of("a", at(5)), None, "nobody looks");
        shared.keep(true);
        for seconds in [5, 10, 15] {
            shared.take(at(seconds), samples());
        }
        shared.keep(true);
        let rates = shared.of("a", at(15)).expect("it is kept");
        assert_eq!(rates.last().unwrap().map(|rates| rates.flows), Some(3.0));
        shared.keep(false);
        assert_eq!(shared.of("a", at(15)), None);
    }
}
