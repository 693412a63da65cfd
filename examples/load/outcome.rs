//! Counts of clients: actions done, failures, durations.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;

/// Failures by what they were, such as `ECONNREFUSED`, and how many.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Errors(BTreeMap<String, u64>);

impl Errors {
    /// Counts a failure of this kind.
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Counts an error of the system.
    pub(crate) fn count_io(&mut self, error: &std::io::Error) {
        match error.raw_os_error() {
            Some(number) => self.count(format!("{:?}", Errno::from_raw(number))),
            None => self.count(error.kind().to_string()),
        }
    }

    /// Adds the counts of another thread.
    pub(crate) fn add(&mut self, other: Self) {
        for (what, number) in other.0 {
            *self.0.entry(what).or_default() += number;
        }
    }
}

/// Durations of many actions.
#[derive(Debug, Default)]
pub(crate) struct Durations(Vec<u64>);

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
    mean: f64,
    /// Number of durations of 0.9 s or longer: a SYN was lost, and sent again after one second.
    retried: usize,
}

impl Durations {
    /// Adds a duration.
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the durations of another thread.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Returns the percentiles; `None`: no duration was added.
    pub(crate) fn percentiles(mut self) -> Option<Percentiles> {
        self.0.sort_unstable();
        let micros = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e6;
        let at = |thousandths: usize| {
            let index = (self.0.len() * thousandths).div_ceil(1000).saturating_sub(1);
            micros(self.0[index])
        };
        let max = micros(*self.0.last()?);
        let sum: u64 = self.0.iter().sum();
        Some(Percentiles {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max,
            mean: micros(sum / self.0.len() as u64),
            retried: self.0.len() - self.0.partition_point(|nanos| *nanos < 900_000_000),
        })
    }
}
