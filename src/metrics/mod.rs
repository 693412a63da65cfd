//! Metrics in the formats of Prometheus and `OpenMetrics`.
//!
//! Takes what the daemon and the kernel told, as a [`Reading`], and returns text. Knows neither how that is read nor who asks.
//! Pure, but for the file of the daemon's own counters.

mod families;
mod format;
mod histogram;
mod limits_reached;
mod own;
mod own_file;
mod reading;
mod series;
mod text;
mod totals;

pub use self::format::MetricsFormat;
pub use self::histogram::Histogram;
pub use self::own::OwnMetrics;
pub use self::own_file::{KeptCounters, OwnFile};
pub use self::reading::{
    BackendValues, KernelRead, KernelReads, KernelSample, NodeValues, Reading, ServiceSample, TotalsSample,
};
pub use self::text::{MOST_BACKENDS, MetricsScope, encode};

#[cfg(test)]
mod alert_tests;
#[cfg(test)]
mod tests;
