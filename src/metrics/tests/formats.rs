//! The formats of the text.

use super::*;

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
