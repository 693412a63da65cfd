//! Counters of the daemon's own work.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// Upper bounds for handshakes, in microseconds.
const HANDSHAKES: &[u64] = &[
    500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
];
/// Upper bounds for changes of the kernel, in microseconds.
const CHANGES: &[u64] = &[
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];
/// Upper bounds for the time from a cause to its effect, in microseconds.
const LATENCIES: &[u64] = &[
    1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000,
];
/// Ways in which a deploy ends.
const OUTCOMES: [&str; 3] = ["drained", "failed", "undone"];

/// Counters of the daemon's own work. The main loop owns them, so that they need no lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnMetrics {
    /// Times from the SYN of a probe to its answer.
    pub probes: Histogram,
    /// Durations of changes of the kernel's rules.
    pub commits: Histogram,
    /// Number of changes that failed.
    pub commit_failures: u64,
    /// Times from the moment at which a change was known to the moment at which the kernel held it.
    pub change_latencies: Histogram,
    /// Number of deploys that have ended, by outcome.
    pub deploys: BTreeMap<Cow<'static, str>, u64>,
}

impl Default for OwnMetrics {
    fn default() -> Self {
        Self {
            probes: Histogram::new(HANDSHAKES),
            commits: Histogram::new(CHANGES),
            commit_failures: 0,
            change_latencies: Histogram::new(LATENCIES),
            deploys: OUTCOMES.into_iter().map(|outcome| (outcome.into(), 0)).collect(),
        }
    }
}

impl OwnMetrics {
    /// Counts a change that the kernel has made. `commit`: duration of its transactions; `latency`: time since it was known.
    pub fn committed(&mut self, commit: Duration, latency: Duration) {
        self.commits.observe(commit);
        self.change_latencies.observe(latency);
    }

    /// Counts a deploy that has reached this phase, if that is its end.
    pub fn deployed(&mut self, phase: &str) {
        if let Some(count) = self.deploys.get_mut(phase) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns a sum that grows with each counter, so that the smaller of two is the older.
    pub fn sum(&self) -> u64 {
        let times = [&self.probes, &self.commits, &self.change_latencies].map(Histogram::count);
        let counts = times.into_iter().chain([self.commit_failures]);
        counts
            .chain(self.deploys.values().copied())
            .fold(0, u64::saturating_add)
    }

    /// Returns whether the counters have the buckets and outcomes of this version.
    pub fn is_whole(&self) -> bool {
        let new = Self::default();
        let alike = [
            (&self.probes, &new.probes),
            (&self.commits, &new.commits),
            (&self.change_latencies, &new.change_latencies),
        ];
        alike.iter().all(|(one, other)| one.is_like(other)) && self.deploys.keys().eq(new.deploys.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deploy_is_counted_at_its_end() {
        let mut own = OwnMetrics::default();
        for phase in ["probing", "switched", "drained", "probing", "failed"] {
            own.deployed(phase);
        }
        let counts: Vec<_> = own
            .deploys
            .iter()
            .map(|(outcome, count)| (&**outcome, *count))
            .collect();
        assert_eq!(counts, [("drained", 1), ("failed", 1), ("undone", 0)]);
    }
}
