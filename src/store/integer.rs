//! Numbers and times as the integers of SQLite.

use std::time::Duration;

/// Returns the number for SQLite, which counts in 64 bits with a sign.
pub(super) fn number(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

pub(super) fn counter(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Returns a time in microseconds for SQLite.
pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn time(micros: i64) -> Duration {
    Duration::from_micros(counter(micros))
}
