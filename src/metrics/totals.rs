//! The families of totals: what services and backends have received, in sums that only grow.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::families::counter;
use super::reading::Reading;
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
pub(super) fn services(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    let Some(sample) = &reading.totals else {
        return Ok(());
    };
    let none = ServiceTotals::default();
    let of = |name: &str| sample.totals.service(name).unwrap_or(&none);
    let sums: Vec<_> = reading
        .services
        .iter()
        .map(|service| (&*service.name, of(&service.name).sum()))
        .collect();
    let accounted = [RECEIVED_BYTES, SENT_BYTES, RECEIVED_PACKETS, SENT_PACKETS];
    let accounted = accounted.into_iter().filter(|_| sample.counts_bytes);
    for (name, help, number) in [CONNECTIONS].into_iter().chain(accounted) {
        let name = format!("service_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (service, sum) in &sums {
            let labels = [("service", *service)];
            counter(&mut family.encode_family(&labels)?, number(sum))?;
        }
    }
    let mut family = encoder.encode_descriptor("service_dropped_packets", DROPS, None, MetricType::Counter)?;
    for (service, sum) in &sums {
        let labels = |reason| [("service", *service), ("reason", reason)];
        drops(&mut family, &SERVICE_REASONS, of(service).drops, labels)?;
        drops(&mut family, &BACKEND_REASONS, sum.drops, labels)?;
    }
    Ok(())
}

/// Writes the totals of backends.
pub(super) fn backends(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    let Some(sample) = &reading.totals else {
        return Ok(());
    };
    let rows: Vec<(&str, String, BackendTotals)> = reading
        .services
        .iter()
        .flat_map(|service| {
            let of_service = sample.totals.service(&service.name);
            service.backends.iter().map(move |backend| {
                let totals = of_service.and_then(|service| service.backends.get(&backend.backend));
                (
                    &*service.name,
                    backend.backend.to_string(),
                    totals.copied().unwrap_or_default(),
                )
            })
        })
        .collect();
    let accounted = [RECEIVED_BYTES, SENT_BYTES].into_iter().filter(|_| sample.counts_bytes);
    for (name, help, number) in [CONNECTIONS].into_iter().chain(accounted) {
        let name = format!("backend_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (service, backend, totals) in &rows {
            let labels = [("service", *service), ("backend", backend)];
            counter(&mut family.encode_family(&labels)?, number(totals))?;
        }
    }
    let mut family = encoder.encode_descriptor("backend_dropped_packets", DROPS, None, MetricType::Counter)?;
    for (service, backend, totals) in &rows {
        let labels = |reason| [("service", *service), ("backend", backend.as_str()), ("reason", reason)];
        drops(&mut family, &BACKEND_REASONS, totals.drops, labels)?;
    }
    Ok(())
}

fn drops<L: EncodeLabelSet>(
    family: &mut MetricEncoder<'_>,
    reasons: &[&'static str; REASONS],
    counts: [u64; REASONS],
    labels: impl Fn(&'static str) -> L,
) -> fmt::Result {
    for (reason, count) in reasons.iter().zip(counts).filter(|(_, count)| *count > 0) {
        let labels = labels(reason);
        counter(&mut family.encode_family(&labels)?, count)?;
    }
    Ok(())
}
