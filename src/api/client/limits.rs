//! Limits of the size of answers, and of the time to wait for them.

use std::time::Duration;

/// Largest number of objects and largest number of values of an answer that is read as JSON: an empty object takes a
/// hundred times as much memory as its text.
pub(super) const MOST_OBJECTS: usize = 1 << 20;

pub(super) const MOST_VALUES: usize = 16 << 20;

/// Size of the largest answer of a daemon about itself, to an order without a state, or that refuses something, in
/// bytes.
pub(super) const SMALL: usize = 4 << 20;

/// Size of the largest answer about all services, in bytes. 10,000 services with 20 backends each take about 50 MB in
/// `GET /v1/status`.
pub(super) const LARGE: usize = 128 << 20;

/// Size of the largest export, in bytes: an export contains defaults that its source may leave out.
pub(super) const EXPORT: usize = 256 << 20;

/// Returns the size of the largest answer to a request, in bytes.
pub(super) fn largest(target: &str) -> usize {
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "/v1/export" => EXPORT,
        "/v1/daemon" | "/v1/healthz" | "/v1/teardown" | "/v1/resume" => SMALL,
        _ if path.ends_with("/pause") || path.ends_with("/resume") => SMALL,
        _ => LARGE,
    }
}

/// Longest time from a request to the end of its answer, and until the next line of an answer that has no end. The server has
/// given an answer to everything by then: orders take up to 125 s, a look at the kernel up to 65 s and its interval.
pub const PATIENCE: Duration = Duration::from_secs(180);
