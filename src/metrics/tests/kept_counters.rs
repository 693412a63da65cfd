//! Counters that are kept for the next daemon.

use super::families::families;
use super::*;
use crate::traffic::file::TotalsFile;
use crate::traffic::{Ledger, PersistedLedger};

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
fn counted_everywhere() -> BTreeMap<Box<str>, Arc<ServiceTotals>> {
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
    BTreeMap::from([("a".into(), Arc::new(service))])
}
