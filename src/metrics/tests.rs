//! The text of a reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::traffic::file::TotalsFile;
use crate::traffic::{BackendTotals, Ledger, PersistedLedger, ServiceTotals, Totals};
use crate::view::condition::ServiceCondition;
use crate::view::status::LimitView;
use crate::view::tally::FlowCounts;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{ProblemKind, Severity};

const PAGE: &str = include_str!("../../docs/reference/metrics.md");
const GUIDE: &str = include_str!("../../docs/operating/metrics.md");
const RULES: &str = include_str!("../../dist/prometheus/tcpgw.rules.yml");
const RULES_TEST: &str = include_str!("../../tests/prometheus/tcpgw.rules.test.yml");
const DASHBOARD: &str = include_str!("../../dist/grafana/tcpgw-dashboard.json");

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
        condition: ServiceCondition::Healthy,
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
        services: BTreeMap::from([("a".into(), service)]),
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

/// Returns the families of a text in Prometheus' format: name, type and the names of labels.
fn families(text: &str) -> BTreeMap<&str, (&str, Vec<String>)> {
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let with_labels = types.map(|(name, kind)| {
        let is_of = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        };
        let line = text.lines().find(is_of).unwrap_or_default();
        let labels = line.split_once('{').map_or("", |(_, labels)| labels);
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name.to_owned());
        (name, (kind, labels.collect()))
    });
    with_labels.collect()
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

#[test]
fn labels_cannot_end_their_line() {
    let hostile = "a\"} 1\nevil{x=\"\\";
    let text = text(
        &reading(vec![service(hostile)]),
        MetricsFormat::Prometheus,
        MetricsScope::Backend,
    );
    assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
    let escaped = "tcpgw_service_unanswered_handshakes{service=\"a\\\"} 1\\nevil{x=\\\"\\\\\"} 2";
    assert!(text.lines().any(|line| line == escaped), "{text}");
}

#[test]
fn backends_are_shown_if_they_are_few_or_asked_for() {
    let many: Vec<ServiceSample> = (0..=MOST_BACKENDS / 2).map(|at| service(&format!("s{at}"))).collect();
    let (few, many) = (reading(vec![service("a")]), reading(many));
    for (reading, scope, is_shown) in [
        (&few, MetricsScope::Default, true),
        (&few, MetricsScope::Service, false),
        (&many, MetricsScope::Default, false),
        (&many, MetricsScope::Backend, true),
    ] {
        let text = text(reading, MetricsFormat::Prometheus, scope);
        assert_eq!(text.contains("tcpgw_backend_flows"), is_shown, "{scope:?}");
    }
}

#[test]
fn openmetrics_is_what_is_asked_for() {
    let text = text(
        &reading(vec![service("a")]),
        MetricsFormat::OpenMetrics,
        MetricsScope::Default,
    );
    assert!(
        text.contains("# TYPE tcpgw_deploys counter\n") && text.ends_with("\n# EOF\n"),
        "{text}"
    );
    for line in [
        "# TYPE tcpgw_service info\n",
        "\ntcpgw_service_info{service=\"a\",",
        "# TYPE tcpgw_service_connections counter\n",
        "\ntcpgw_service_connections_total{service=\"a\"} ",
        "# TYPE tcpgw_service_backends gauge\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: std::collections::BTreeSet<&str> = families.iter().copied().collect();
    assert_eq!(families.len(), distinct.len(), "{text}");
    for (accept, expected) in [
        ("", MetricsFormat::Prometheus),
        ("*/*", MetricsFormat::Prometheus),
        ("text/html,application/xhtml+xml,*/*;q=0.8", MetricsFormat::Prometheus),
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            MetricsFormat::OpenMetrics,
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            MetricsFormat::OpenMetrics,
        ),
        (
            "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1",
            MetricsFormat::Prometheus,
        ),
        ("application/openmetrics-text;q=0", MetricsFormat::Prometheus),
    ] {
        assert_eq!(MetricsFormat::accepted(accept), expected, "{accept}");
    }
}

/// The page lists all metrics, with types and labels, and no others.
#[test]
fn the_reference_lists_the_metrics() {
    let text = text(
        &reading(vec![service("a")]),
        MetricsFormat::Prometheus,
        MetricsScope::Backend,
    );
    let shown = families(&text);
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `tcpgw_")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        let (kind, labels) = (cells.next()?, cells.next()?);
        Some((format!("tcpgw_{name}"), kind.to_owned(), labels.to_owned()))
    });
    let rows: Vec<_> = rows.collect();
    let expected: Vec<_> = shown
        .iter()
        .map(|(name, (kind, labels))| {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() {
                "none".to_owned()
            } else {
                labels.join(", ")
            };
            ((*name).to_owned(), (*kind).to_owned(), labels)
        })
        .collect();
    let mut sorted = rows;
    sorted.sort();
    assert_eq!(sorted, expected);
}

/// File that keeps a counter for the next daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptIn {
    /// [`OwnFile`]: the work of the daemon itself.
    Own,
    /// [`TotalsFile`]: what services and backends have received.
    Totals,
}

/// All metrics that never fall, and what keeps them. A new one needs a place here, and the test shows that it is kept there.
const COUNTERS: &[(&str, KeptIn)] = &[
    ("tcpgw_backend_connections_total", KeptIn::Totals),
    ("tcpgw_backend_dropped_packets_total", KeptIn::Totals),
    ("tcpgw_backend_received_bytes_total", KeptIn::Totals),
    ("tcpgw_backend_sent_bytes_total", KeptIn::Totals),
    ("tcpgw_change_latency_seconds", KeptIn::Own),
    ("tcpgw_commit_duration_seconds", KeptIn::Own),
    ("tcpgw_commit_failures_total", KeptIn::Own),
    ("tcpgw_deploys_total", KeptIn::Own),
    ("tcpgw_kernel_read_failures_total", KeptIn::Own),
    ("tcpgw_kernel_reads_total", KeptIn::Own),
    ("tcpgw_probe_duration_seconds", KeptIn::Own),
    ("tcpgw_service_connections_total", KeptIn::Totals),
    ("tcpgw_service_dropped_packets_total", KeptIn::Totals),
    ("tcpgw_service_received_bytes_total", KeptIn::Totals),
    ("tcpgw_service_received_packets_total", KeptIn::Totals),
    ("tcpgw_service_sent_bytes_total", KeptIn::Totals),
    ("tcpgw_service_sent_packets_total", KeptIn::Totals),
];

#[test]
fn each_counter_is_kept_for_the_next_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let write = |reading: &Reading| {
        text(
            &Arc::new(reading.clone()),
            MetricsFormat::Prometheus,
            MetricsScope::Backend,
        )
    };
    let of_family = |text: &str, family: &str| -> Vec<String> {
        let is_of = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name.strip_prefix(family)
                .is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
        };
        text.lines().filter(is_of).map(str::to_owned).collect()
    };
    // The daemon shows what it has written, and is killed; the next one reads it.
    let own = || OwnFile::new(directory.path(), 1, "a boot".into());
    let mut before = Arc::unwrap_or_clone(reading(vec![service("a")]));
    before.own.commit_failures = 3;
    let file = own();
    for is_failure in [false, true] {
        file.read_begins();
        file.read_ended(Duration::from_millis(1), is_failure);
    }
    let (kept, saved) = file.keep(&before.own);
    saved.unwrap();
    before = Reading {
        own: kept.own,
        reads: kept.reads,
        ..before
    };
    let totals_file = || TotalsFile::new(directory.path(), 1);
    let (mut persisted, _) = PersistedLedger::open(totals_file(), "a boot".into());
    *persisted.ledger_mut() = Ledger::of(counted_everywhere());
    persisted.save(None).unwrap();
    before.totals = Some(TotalsSample {
        counts_bytes: true,
        ..TotalsSample::new(persisted.saved_totals(), true)
    });
    let next = own();
    let loaded = next.load().expect("it was written");
    let (kept, _) = next.keep(&loaded);
    let (persisted, error) = PersistedLedger::open(totals_file(), "a boot".into());
    assert!(error.is_none(), "{error:?}");
    let after = Reading {
        own: kept.own,
        reads: kept.reads,
        totals: Some(TotalsSample {
            counts_bytes: true,
            ..TotalsSample::new(persisted.saved_totals(), true)
        }),
        ..before.clone()
    };
    // Neither file keeps what the other one does.
    let without_own = Reading {
        own: OwnMetrics::default(),
        reads: KernelReads::default(),
        ..before.clone()
    };
    let without_totals = Reading {
        totals: Some(TotalsSample::new(Arc::default(), true)),
        ..before.clone()
    };
    let (before, after) = (write(&before), write(&after));
    let falling = families(&before);
    let falling = falling.iter().filter(|(_, (kind, _))| *kind != "gauge");
    let names: Vec<&str> = falling.map(|(name, _)| *name).collect();
    let listed: Vec<&str> = COUNTERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "a metric that never falls needs a place that keeps it");
    for (name, kept_in) in COUNTERS {
        let lines = of_family(&before, name);
        assert!(
            !lines.is_empty() && lines.iter().any(|line| !line.ends_with(" 0")),
            "{name}"
        );
        assert_eq!(of_family(&after, name), lines, "{name}");
        let without = write(match kept_in {
            KeptIn::Own => &without_own,
            KeptIn::Totals => &without_totals,
        });
        assert_ne!(of_family(&without, name), lines, "{name} is not kept in {kept_in:?}");
    }
}

/// Returns totals of the service `a` in which no number is zero.
fn counted_everywhere() -> BTreeMap<Box<str>, ServiceTotals> {
    let flows = serde_json::from_str("[1,2,3,4,5,6]").unwrap();
    let backend = BackendTotals {
        connections: 7,
        flows,
        drops: [1, 2, 3, 4, 5, 6],
    };
    let service = ServiceTotals {
        drops: [1, 2, 3, 4, 5, 6],
        backends: BTreeMap::from([("10.0.0.1:3000".parse().unwrap(), backend)]),
        others: backend,
    };
    BTreeMap::from([("a".into(), service)])
}

/// Returns the names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tcpgw_")).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let text = text(
        &reading(vec![service("a")]),
        MetricsFormat::Prometheus,
        MetricsScope::Backend,
    );
    let families = families(&text);
    let is_there = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| name.strip_suffix(end));
        let mut of_histogram = of_histogram.filter_map(|name| families.get(name));
        families.contains_key(name) || of_histogram.any(|(kind, _)| *kind == "histogram")
    };
    for (file, least) in [(RULES, 8), (RULES_TEST, 8), (DASHBOARD, 15)] {
        let names = named(file);
        assert!(names.len() >= least, "{names:?}");
        let missing: Vec<_> = names.into_iter().filter(|name| !is_there(name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
    serde_json::from_str::<serde_json::Value>(DASHBOARD).expect("JSON");
}

#[test]
fn each_alert_is_tested_and_described() {
    let alerts: Vec<&str> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        assert!(
            RULES_TEST.contains(&format!("alertname=\"{alert}\"")),
            "{alert} is not tested"
        );
        assert!(GUIDE.contains(&format!("| `{alert}` |")), "{alert} is not described");
    }
}
