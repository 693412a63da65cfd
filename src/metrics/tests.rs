//! The text of a reading.

mod families;
mod formats;
mod kept_counters;
mod labels;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::traffic::{BackendTotals, ServiceTotals, Totals};
use crate::view::condition::ServiceCondition;
use crate::view::status::LimitView;
use crate::view::tally::FlowCounts;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{ProblemKind, Severity};

fn service(name: &str) -> ServiceSample {
    ServiceSample {
        name: name.into(),
        port: 2001,
        addresses: Vec::new(),
        provider: "file".into(),
        plan: "".into(),
        limit: Some(LimitView {
            packets_per_second: 1000,
            bytes_per_second: 1_500_000,
            burst: 1000,
            shared: false,
        }),
        condition: ServiceCondition::Up,
        unanswered: 2,
        flows: FlowCounts {
            handshake: 1,
            established: 2,
            closing: 3,
        },
        backends: vec![
            BackendValues {
                backend: "10.0.0.1:3000".parse().unwrap(),
                state: "healthy",
                flows: 6,
            },
            BackendValues {
                backend: "[fd00::1]:3000".parse().unwrap(),
                state: "draining",
                flows: 0,
            },
        ],
    }
}

/// Returns totals of the service `a` with a former backend.
fn totals() -> Totals {
    let backend = |connections, over_limit| BackendTotals {
        connections,
        drops: [over_limit, 0, 0, 0, 0, 0],
        ..BackendTotals::default()
    };
    let service = ServiceTotals {
        drops: [0, 5, 0, 0, 0, 0],
        backends: BTreeMap::from([
            ("10.0.0.1:3000".parse().unwrap(), backend(7, 11)),
            ("10.0.0.9:3000".parse().unwrap(), backend(2, 0)),
        ]),
        others: backend(1, 0),
    };
    Totals {
        services: BTreeMap::from([("a".into(), Arc::new(service))]),
        counts_flows: true,
        lost_reports: 0,
        at: None,
    }
}

fn reading(services: Vec<ServiceSample>) -> Arc<Reading> {
    let mut own = OwnMetrics::default();
    own.probes.observe(Duration::from_millis(2));
    own.deployed("drained");
    own.committed(Duration::from_millis(3), Duration::from_millis(4));
    Arc::new(Reading {
        version: "1.2.3",
        in_sync: true,
        listed_problems: Vec::new(),
        node: NodeValues {
            started: 1_699_999_000,
            ..NodeValues::default()
        },
        mark: FlowMark::default(),
        draining: 1,
        last_commit: Some(1_700_000_000),
        problems: BTreeMap::from([((Severity::Error, ProblemKind::NoActiveBackend), 3)]),
        own,
        kernel: Some(KernelSample {
            read: KernelRead {
                ended: Instant::now(),
                at: Duration::from_millis(1_700_000_001_500),
                conntrack: Some((7, 262_144)),
            },
            age: None,
            source_ports_used: 0.25,
        }),
        totals: Some(TotalsSample {
            at: Some(Duration::from_millis(1_700_000_001_250)),
            ..TotalsSample::new(Arc::new(totals()), true)
        }),
        reads: KernelReads {
            begun: 5,
            failed: 1,
            took: Duration::from_millis(20),
        },
        backends: services.iter().map(|service| service.backends.len()).sum(),
        services,
    })
}

fn text(reading: &Arc<Reading>, format: MetricsFormat, scope: MetricsScope) -> String {
    let mut text = String::new();
    encode(&mut text, reading, format, scope).unwrap();
    text
}

#[test]
fn a_text_has_the_values_of_the_reading() {
    let text = text(
        &reading(vec![service("a")]),
        MetricsFormat::Prometheus,
        MetricsScope::Default,
    );
    for line in [
        "tcpgw_build_info{version=\"1.2.3\"} 1",
        "tcpgw_start_timestamp_seconds 1699999000",
        "tcpgw_in_sync 1",
        "tcpgw_problems{kind=\"no_active_backend\",severity=\"error\"} 3",
        "tcpgw_draining_backends 1",
        "tcpgw_probe_duration_seconds_bucket{le=\"0.001\"} 0",
        "tcpgw_probe_duration_seconds_bucket{le=\"0.0025\"} 1",
        "tcpgw_probe_duration_seconds_count 1",
        "tcpgw_deploys_total{outcome=\"drained\"} 1",
        "tcpgw_deploys_total{outcome=\"failed\"} 0",
        "tcpgw_commit_duration_seconds_sum 0.003",
        "tcpgw_commit_failures_total 0",
        "tcpgw_change_latency_seconds_count 1",
        "tcpgw_last_commit_timestamp_seconds 1700000000",
        "tcpgw_kernel_read_failures_total 1",
        "tcpgw_source_ports_used_ratio 0.25",
        "tcpgw_conntrack_entries 7",
        "tcpgw_conntrack_entries_limit 262144",
        "tcpgw_service_info{service=\"a\",port=\"2001\",provider=\"file\",plan=\"\"} 1",
        "tcpgw_service_backends{service=\"a\",state=\"healthy\"} 1",
        "tcpgw_service_backends{service=\"a\",state=\"unhealthy\"} 0",
        "tcpgw_service_backends{service=\"a\",state=\"draining\"} 1",
        "tcpgw_service_unanswered_handshakes{service=\"a\"} 2",
        "tcpgw_service_limit_packets_per_second{service=\"a\"} 1000",
        "tcpgw_service_flows{service=\"a\",state=\"closing\"} 3",
        "tcpgw_backend_flows{service=\"a\",backend=\"[fd00::1]:3000\"} 0",
        "tcpgw_service_connections_total{service=\"a\"} 10",
        "tcpgw_service_sent_bytes_total{service=\"a\"} 0",
        "tcpgw_service_dropped_packets_total{service=\"a\",reason=\"no_backend\"} 5",
        "tcpgw_service_dropped_packets_total{service=\"a\",reason=\"over_limit_to\"} 11",
        "tcpgw_backend_connections_total{service=\"a\",backend=\"10.0.0.1:3000\"} 7",
        "tcpgw_backend_connections_total{service=\"a\",backend=\"[fd00::1]:3000\"} 0",
        "tcpgw_backend_dropped_packets_total{service=\"a\",backend=\"10.0.0.1:3000\",reason=\"over_limit_to\"} 11",
    ] {
        assert!(text.lines().any(|of| of == line), "{line}\n{text}");
    }
}

#[test]
fn what_is_not_counted_is_left_out() {
    let mut reading = Arc::unwrap_or_clone(reading(vec![service("a")]));
    let families = |reading: &Reading| {
        let text = text(
            &Arc::new(reading.clone()),
            MetricsFormat::Prometheus,
            MetricsScope::Backend,
        );
        [
            "tcpgw_service_connections_total",
            "tcpgw_backend_sent_bytes_total",
            "tcpgw_service_dropped_packets_total",
            "tcpgw_service_received_packets_total",
        ]
        .map(|family| text.contains(family))
    };
    assert_eq!(families(&reading), [true, true, true, true]);
    reading.totals = Some(TotalsSample::new(Arc::new(totals()), false));
    assert_eq!(families(&reading), [true, false, true, false]);
    reading.totals = None;
    assert_eq!(families(&reading), [false, false, false, false]);
}
