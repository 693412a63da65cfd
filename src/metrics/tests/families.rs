//! The families of metrics, and the documents that name them.

use std::collections::BTreeSet;

use super::*;

const PAGE: &str = include_str!("../../../docs/reference/metrics.md");
const GUIDE: &str = include_str!("../../../docs/operating/metrics.md");
const RULES: &str = include_str!("../../../dist/prometheus/tcpgw.rules.yml");
const RULES_TEST: &str = include_str!("../../../tests/prometheus/tcpgw.rules.test.yml");
const DASHBOARD: &str = include_str!("../../../dist/grafana/tcpgw-dashboard.json");

/// Returns the families of a text in Prometheus' format: name, type and the names of labels.
pub(super) fn families(text: &str) -> BTreeMap<&str, (&str, Vec<String>)> {
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
