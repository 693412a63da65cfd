//! Durations, counted by size.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of durations by upper bounds. Counts never fall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bounds in microseconds, ascending; the last bucket has none.
    bounds: Cow<'static, [u64]>,
    counts: Vec<u64>,
    /// Sum in microseconds.
    sum: u64,
}

impl Histogram {
    /// Creates an empty one with these upper bounds, in microseconds, ascending.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds: Cow::Borrowed(bounds),
            counts: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    /// Counts a duration.
    pub fn observe(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(micros);
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations, in seconds.
    pub fn sum(&self) -> f64 {
        seconds(self.sum)
    }

    /// Returns the number of durations in each bucket, with its upper bound in seconds.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }

    /// Returns whether it has the same buckets as another one.
    pub fn is_like(&self, other: &Self) -> bool {
        self.bounds == other.bounds && self.counts.len() == other.counts.len()
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bound() {
        let mut histogram = Histogram::new(&[1000, 10_000]);
        for micros in [0, 1000, 1001, 10_000, 20_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        assert_eq!(histogram.buckets(), [(0.001, 2), (0.01, 2), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 0.032_001).abs() < 1e-9, "{}", histogram.sum());
    }
}
