//! The families of totals: what services and backends have received, in sums that only grow.

use super::reading::Reading;
use super::series::{FamilyKind, SeriesFamily, SeriesLabels, SeriesWriter, label};
use crate::traffic::drop_sets::REASONS;
use crate::traffic::{BackendTotals, ServiceTotals};

/// Reasons for which packets to a service are dropped, in the order of [`ServiceTotals::drops`].
const SERVICE_REASONS: [&str; REASONS] = ["refused", "no_backend", "stale", "invalid", "over_client", "over_flows"];
/// Reasons for which packets to and from a backend are dropped, in the order of [`BackendTotals::drops`].
const BACKEND_REASONS: [&str; REASONS] = [
    "over_limit_to",
    "over_limit_from",
    "invalid_from",
    "stale_from",
    "port_reused",
    "direct",
];

/// Returns one number of the totals.
type Number = fn(&BackendTotals) -> u64;

const CONNECTIONS: (&str, &str, Number) = (
    "connections",
    "Number of connections that were sent to a backend, answered or not",
    |of| of.connections,
);
const RECEIVED_BYTES: (&str, &str, Number) = (
    "received_bytes",
    "Number of bytes from clients, including IP headers, before the limit",
    |of| of.flows.to_backend().bytes,
);
const SENT_BYTES: (&str, &str, Number) = (
    "sent_bytes",
    "Number of bytes to clients, including IP headers, before the limit",
    |of| of.flows.from_backend().bytes,
);
const RECEIVED_PACKETS: (&str, &str, Number) = (
    "received_packets",
    "Number of packets from clients, before the limit; merged ones count once",
    |of| of.flows.to_backend().packets,
);
const SENT_PACKETS: (&str, &str, Number) = (
    "sent_packets",
    "Number of packets to clients, before the limit; merged ones count once",
    |of| of.flows.from_backend().packets,
);
const DROPS: &str =
    "Number of packets that were dropped or reset, by reason; a reason is shown from its first packet on";

/// Writes the totals of services.
pub(super) fn services(writer: &mut SeriesWriter<'_>, reading: &Reading, labels: &SeriesLabels) {
    let Some(sample) = &reading.totals else {
        return;
    };
    let none = ServiceTotals::default();
    let rows = reading.services.iter().zip(&labels.services).map(|(service, label)| {
        let totals = sample.totals.service(&service.name).unwrap_or(&none);
        (label, totals.drops, totals.sum())
    });
    let rows: Vec<(&String, [u64; REASONS], BackendTotals)> = rows.collect();
    let accounted = [RECEIVED_BYTES, SENT_BYTES, RECEIVED_PACKETS, SENT_PACKETS];
    let accounted = accounted.into_iter().filter(|_| sample.counts_bytes);
    for (name, help, number) in [CONNECTIONS].into_iter().chain(accounted) {
        let mut family = writer.family(&format!("service_{name}"), help, FamilyKind::Counter);
        for (label, _, sum) in &rows {
            family.add(&[label], number(sum));
        }
    }
    let mut family = writer.family("service_dropped_packets", DROPS, FamilyKind::Counter);
    for (label, before, sum) in &rows {
        drops(&mut family, label, &SERVICE_REASONS, *before);
        drops(&mut family, label, &BACKEND_REASONS, sum.drops);
    }
}

/// Writes the totals of backends.
pub(super) fn backends(writer: &mut SeriesWriter<'_>, reading: &Reading, labels: &SeriesLabels) {
    let Some(sample) = &reading.totals else {
        return;
    };
    let all = reading.services.iter().flat_map(|service| {
        let of_service = sample.totals.service(&service.name);
        let backends = service.backends.iter();
        backends.map(move |backend| of_service.and_then(|service| service.backends.get(&backend.backend)))
    });
    let none = BackendTotals::default();
    let rows: Vec<(&String, &BackendTotals)> = labels
        .backends
        .iter()
        .zip(all.map(|totals| totals.unwrap_or(&none)))
        .collect();
    let accounted = [RECEIVED_BYTES, SENT_BYTES].into_iter().filter(|_| sample.counts_bytes);
    for (name, help, number) in [CONNECTIONS].into_iter().chain(accounted) {
        let mut family = writer.family(&format!("backend_{name}"), help, FamilyKind::Counter);
        for (label, totals) in &rows {
            family.add(&[label], number(totals));
        }
    }
    let mut family = writer.family("backend_dropped_packets", DROPS, FamilyKind::Counter);
    for (label, totals) in &rows {
        drops(&mut family, label, &BACKEND_REASONS, totals.drops);
    }
}

fn drops(family: &mut SeriesFamily<'_>, of: &str, reasons: &[&'static str; REASONS], counts: [u64; REASONS]) {
    for (reason, count) in reasons.iter().zip(counts).filter(|(_, count)| *count > 0) {
        family.add(&[of, &label("reason", reason)], count);
    }
}
