//! The families of metrics: names, meanings and values.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::histogram::Histogram;
use super::reading::{BackendValues, Reading};
use super::series::{FamilyKind, SeriesLabels, SeriesWriter, label};
use tcpgw_core::problem::Severity;

/// Writes what belongs to the daemon and to the whole gateway.
pub(super) fn daemon(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    let help = "Version of the daemon; always 1";
    let mut build = encoder.encode_descriptor("build", help, None, MetricType::Info)?;
    build.encode_info(&[("version", reading.version)])?;
    let help = "Time of the daemon's start, in seconds since the Unix epoch";
    gauge(encoder, "start_timestamp_seconds", help, reading.node.started)?;
    let help = "1 if the kernel holds the desired state, else 0";
    gauge(encoder, "in_sync", help, u64::from(reading.in_sync))?;
    let help = "Number of problems, as `tcpgw status` lists them; kinds without a problem are left out";
    let mut problems = encoder.encode_descriptor("problems", help, None, MetricType::Gauge)?;
    for ((severity, kind), count) in &reading.problems {
        let labels = [("kind", kind.word()), ("severity", severity_word(*severity).to_owned())];
        problems.encode_family(&labels)?.encode_gauge(count)?;
    }
    let help = "Number of backends that drain, over all services";
    gauge(encoder, "draining_backends", help, reading.draining as u64)?;
    own(encoder, reading)?;
    kernel(encoder, reading)
}

pub(super) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn own(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    let own = &reading.own;
    let help = "Time from the SYN of a probe to the backend's answer, be it accepted or refused; probes that time out are left out";
    histogram(encoder, "probe_duration_seconds", help, &own.probes)?;
    let help = "Number of deploys that have ended, by outcome";
    let mut deploys = encoder.encode_descriptor("deploys", help, None, MetricType::Counter)?;
    for (outcome, count) in &own.deploys {
        let labels = [("outcome", &**outcome)];
        counter(&mut deploys.encode_family(&labels)?, *count)?;
    }
    let help = "Duration of changes of the kernel's rules";
    histogram(encoder, "commit_duration_seconds", help, &own.commits)?;
    let help = "Number of changes of the kernel's rules that failed";
    let mut failures = encoder.encode_descriptor("commit_failures", help, None, MetricType::Counter)?;
    counter(&mut failures, own.commit_failures)?;
    let help = "Time from the moment at which the daemon knew of a change to the moment at which the kernel held it";
    histogram(encoder, "change_latency_seconds", help, &own.change_latencies)?;
    let Some(last) = reading.last_commit else {
        return Ok(());
    };
    let help = "Time of the last change of the kernel's rules, in seconds since the Unix epoch";
    gauge(encoder, "last_commit_timestamp_seconds", help, last)
}

fn kernel(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    let reads = reading.reads;
    let help = "Number of reads of the kernel for metrics; values of one read are shown for a second or longer";
    let mut begun = encoder.encode_descriptor("kernel_reads", help, None, MetricType::Counter)?;
    counter(&mut begun, reads.begun)?;
    let help = "Number of reads of the kernel for metrics that failed: flows of the last one that did not are shown for two minutes";
    let mut failed = encoder.encode_descriptor("kernel_read_failures", help, None, MetricType::Counter)?;
    counter(&mut failed, reads.failed)?;
    let help = "Duration of the last read of the kernel for metrics";
    let mut took = encoder.encode_descriptor("kernel_read_duration_seconds", help, None, MetricType::Gauge)?;
    took.encode_gauge(&reads.took.as_secs_f64())?;
    if let Some(at) = reading.totals.as_ref().and_then(|totals| totals.at) {
        let help = "Time of the connections, packets, bytes and drops that are shown, in seconds since the Unix epoch";
        let mut read = encoder.encode_descriptor("totals_timestamp_seconds", help, None, MetricType::Gauge)?;
        read.encode_gauge(&at.as_secs_f64())?;
    }
    let Some(kernel) = reading.kernel else {
        return Ok(());
    };
    let help = "Time of the last read of the kernel for metrics that succeeded, in seconds since the Unix epoch: flows are of then";
    let mut read = encoder.encode_descriptor("kernel_read_timestamp_seconds", help, None, MetricType::Gauge)?;
    read.encode_gauge(&kernel.read.at.as_secs_f64())?;
    let help = "Largest fraction of its source ports that an address of the gateway uses towards one backend";
    let mut ports = encoder.encode_descriptor("source_ports_used_ratio", help, None, MetricType::Gauge)?;
    ports.encode_gauge(&kernel.source_ports_used)?;
    let Some((entries, limit)) = kernel.read.conntrack else {
        return Ok(());
    };
    let help = "Number of entries in conntrack, those of other programs included";
    gauge(encoder, "conntrack_entries", help, entries)?;
    let help = "Maximum number of entries in conntrack";
    gauge(encoder, "conntrack_entries_limit", help, limit)
}

/// Writes what belongs to services.
pub(super) fn services(writer: &mut SeriesWriter<'_>, reading: &Reading, labels: &SeriesLabels) {
    let services = || reading.services.iter().zip(&labels.services);
    let help = "Port, provider and plan of a service; always 1";
    let mut infos = writer.family("service", help, FamilyKind::Info);
    for (service, of) in services() {
        let (port, provider) = (
            format!("port=\"{}\"", service.port),
            label("provider", &service.provider),
        );
        infos.add(&[of, &port, &provider, &label("plan", &service.plan)], 1);
    }
    let help = "Number of backends by state: healthy (gets new connections), unhealthy, unknown (no probe was answered yet), draining, waiting (ordered to leave, and in use until another one answers)";
    let mut backends = writer.family("service_backends", help, FamilyKind::Gauge);
    let states = BackendValues::STATES.map(|state| (state, label("state", state)));
    for (service, of) in services() {
        for (state, label) in &states {
            let count = service.backends.iter().filter(|of| of.state == *state).count();
            backends.add(&[of, label], count as u64);
        }
    }
    let help = "Number of handshakes that backends in use left unanswered for more than 3 s, at the last observation";
    let mut unanswered = writer.family("service_unanswered_handshakes", help, FamilyKind::Gauge);
    for (service, of) in services() {
        unanswered.add(&[of], service.unanswered);
    }
    let help = "Limit of each backend of a service, in packets per second; services without a limit are left out";
    let mut limits = writer.family("service_limit_packets_per_second", help, FamilyKind::Gauge);
    for (service, of) in services() {
        if let Some(limit) = service.limit {
            limits.add(&[of], limit.packets_per_second.into());
        }
    }
    if reading.kernel.is_none() {
        return;
    }
    let help = "Number of flows in conntrack by state of the connection";
    let mut flows = writer.family("service_flows", help, FamilyKind::Gauge);
    let states = ["handshake", "established", "closing"].map(|state| label("state", state));
    for (service, of) in services() {
        let counts = service.flows;
        let counts = [counts.handshake, counts.established, counts.closing];
        for (state, count) in states.iter().zip(counts) {
            flows.add(&[of, state], count);
        }
    }
}

/// Writes what belongs to backends of services.
pub(super) fn backends(writer: &mut SeriesWriter<'_>, reading: &Reading, labels: &SeriesLabels) {
    if reading.kernel.is_none() {
        return;
    }
    let help = "Number of flows in conntrack through a service to a backend";
    let mut flows = writer.family("backend_flows", help, FamilyKind::Gauge);
    let backends = reading.services.iter().flat_map(|service| &service.backends);
    for (backend, of) in backends.zip(&labels.backends) {
        flows.add(&[of], backend.flows);
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    family.encode_gauge(&value)
}

fn counter(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn histogram(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, of: &Histogram) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    family.encode_histogram::<NoLabelSet>(of.sum(), of.count(), &of.buckets(), None)
}
