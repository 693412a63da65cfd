//! Series of services and backends. There may be hundreds of thousands, for which the encoder of prometheus-client takes too long.
//! Therefore this module writes their lines itself.

use std::fmt::Write as _;

use super::format::MetricsFormat;
use super::reading::Reading;

/// Kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Info,
}

/// Writer of families, to the end of a text.
pub(super) struct SeriesWriter<'o> {
    pub(super) out: &'o mut String,
    pub(super) format: MetricsFormat,
}

/// Family that is being written. Without a series it leaves nothing in the text.
pub(super) struct SeriesFamily<'o> {
    out: &'o mut String,
    /// Lines before the first series.
    head: String,
    /// Name of the series.
    name: String,
}

impl SeriesWriter<'_> {
    /// Begins a family. `name` is without prefix and suffix.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: FamilyKind) -> SeriesFamily<'_> {
        let (suffix, word) = match kind {
            FamilyKind::Counter => ("_total", "counter"),
            FamilyKind::Gauge => ("", "gauge"),
            FamilyKind::Info => ("_info", "info"),
        };
        let series = format!("tcpgw_{name}{suffix}");
        let (family, word) = match self.format {
            // The format has no type for it.
            MetricsFormat::Prometheus if kind == FamilyKind::Info => (series.clone(), "gauge"),
            MetricsFormat::Prometheus => (series.clone(), word),
            MetricsFormat::OpenMetrics => (format!("tcpgw_{name}"), word),
        };
        SeriesFamily {
            out: self.out,
            head: format!("# HELP {family} {help}\n# TYPE {family} {word}\n"),
            name: series,
        }
    }
}

impl SeriesFamily<'_> {
    /// Writes a series. `labels` are as [`label`] returns them.
    pub(super) fn add(&mut self, labels: &[&str], value: u64) {
        if !self.head.is_empty() {
            self.out.push_str(&self.head);
            self.head.clear();
        }
        self.out.push_str(&self.name);
        for (at, label) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.out.push_str(label);
        }
        self.out.push_str("} ");
        // Writing to a text cannot fail.
        let _ = writeln!(self.out, "{value}");
    }
}

/// Returns a label with its value.
pub(super) fn label(name: &str, value: &str) -> String {
    let mut label = format!("{name}=\"");
    for character in value.chars() {
        match character {
            '\\' => label.push_str("\\\\"),
            '"' => label.push_str("\\\""),
            '\n' => label.push_str("\\n"),
            other => label.push(other),
        }
    }
    label.push('"');
    label
}

/// Labels of services and backends, in the order of a reading.
pub(super) struct SeriesLabels {
    pub(super) services: Vec<String>,
    /// Labels of the backends of all services: the service, and the backend.
    pub(super) backends: Vec<String>,
}

impl SeriesLabels {
    /// Returns the labels of all services, and of their backends if those are shown.
    pub(super) fn new(reading: &Reading, shows_backends: bool) -> Self {
        let services: Vec<String> = reading.services.iter().map(|of| label("service", &of.name)).collect();
        let with_labels = reading.services.iter().zip(&services).filter(|_| shows_backends);
        let backends = with_labels.flat_map(|(service, label)| {
            let backends = service.backends.iter();
            backends.map(move |of| format!("{label},backend=\"{}\"", of.backend))
        });
        Self {
            backends: backends.collect(),
            services,
        }
    }

    /// Returns about how long the text will be, so that memory for it is reserved once: a text that grows is copied, and is there twice meanwhile.
    pub(super) fn expected_bytes(&self, counts_bytes: bool) -> usize {
        /// Bytes of a line apart from these labels: the name, a state, the value.
        const REST: usize = 52;
        let lines = |with_bytes: usize, without: usize| if counts_bytes { with_bytes } else { without };
        let of =
            |labels: &[String], lines: usize| labels.iter().map(|label| (label.len() + REST) * lines).sum::<usize>();
        of(&self.services, lines(16, 12)) + of(&self.backends, lines(4, 2))
    }
}
