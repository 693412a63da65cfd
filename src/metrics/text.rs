//! Text of a reading.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::format::MetricsFormat;
use super::reading::Reading;
use super::series::{SeriesLabels, SeriesWriter};
use super::{families, totals};

/// Number of backends up to which each is shown without being asked for.
pub const MOST_BACKENDS: usize = 1000;

/// Extent of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricsScope {
    /// Backends too, if there are at most [`MOST_BACKENDS`].
    #[default]
    Default,
    /// Services only.
    Service,
    /// Backends too.
    Backend,
}

impl MetricsScope {
    fn shows_backends(self, backends: usize) -> bool {
        match self {
            Self::Default => backends <= MOST_BACKENDS,
            Self::Service => false,
            Self::Backend => true,
        }
    }
}

/// Writes a reading.
///
/// # Errors
/// Fails when writing to `out` fails.
pub fn encode(out: &mut String, reading: &Arc<Reading>, format: MetricsFormat, scope: MetricsScope) -> fmt::Result {
    let mut registry = Registry::with_prefix("tcpgw");
    registry.register_collector(Box::new(DaemonExposition(Arc::clone(reading))));
    match format {
        MetricsFormat::Prometheus => prometheus_text::encode(out, &registry)?,
        MetricsFormat::OpenMetrics => text::encode_registry(out, &registry)?,
    }
    let shows_backends = scope.shows_backends(reading.backends);
    let labels = SeriesLabels::new(reading, shows_backends);
    out.reserve(labels.expected_bytes(reading.totals.as_ref().is_some_and(|totals| totals.counts_bytes)));
    let mut writer = SeriesWriter { out, format };
    families::services(&mut writer, reading, &labels);
    totals::services(&mut writer, reading, &labels);
    if shows_backends {
        families::backends(&mut writer, reading, &labels);
        totals::backends(&mut writer, reading, &labels);
    }
    match format {
        MetricsFormat::Prometheus => Ok(()),
        MetricsFormat::OpenMetrics => text::encode_eof(out),
    }
}

/// Writes the series of the daemon and of the whole gateway.
#[derive(Debug)]
struct DaemonExposition(Arc<Reading>);

impl Collector for DaemonExposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::daemon(&mut encoder, &self.0)
    }
}
