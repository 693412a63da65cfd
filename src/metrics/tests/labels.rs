//! The labels of series, and which series are there.

use super::*;

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
