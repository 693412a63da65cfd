//! The status at the widths of terminals.

use serde_json::{Value, json};

use super::*;

fn drops(packets: u64, rate: f64) -> Value {
    json!({"packets": packets, "bytes": packets * 100, "packets_per_second": rate})
}

fn flows(established: u64) -> Value {
    json!({"handshake": 0, "established": established, "closing": 1})
}

fn backend(endpoint: &str, state: &str, health: &Value, over: u64) -> Value {
    let nothing = drops(0, 0.0);
    json!({
        "backend": endpoint, "state": state, "weight": (state == "active").then_some(1), "health": health,
        "health_reason": (health == "unhealthy").then_some("timed out"), "flows": flows(7),
        "rates": {"to": {"packets_per_second": 2203.0, "bytes_per_second": 1_198_000.0},
                  "from": {"packets_per_second": 999.0, "bytes_per_second": 602_000.0}},
        "of_limit": {"to": 2.203, "from": 0.999, "shared": null},
        "totals": {"connections": 7, "answered": null, "unanswered": null, "to_backend": null, "from_backend": null},
        "drops": {"over_limit_to": drops(over, 1203.0), "over_limit_from": nothing, "invalid_from": nothing,
                  "stale_from": nothing, "port_reused": nothing, "direct": nothing},
        "source_ports": [{"address": "10.2.0.1", "used": 7, "of": 64_512}],
    })
}

fn service(name: &str, port: u16, healthy: bool, backends: &[Value]) -> Value {
    let nothing = drops(0, 0.0);
    json!({
        "name": name, "port": port, "addresses": [], "provider": "file",
        "state": if healthy { "degraded" } else { "down" }, "healthy": healthy, "leaving": false, "addon": null,
        "balance": "client-hash",
        "limit": {"packets_per_second": 1000, "bytes_per_second": 1_500_000, "burst": 10_000, "shared": false},
        "flows": flows(12), "unanswered": 0,
        "totals": {"connections": 12, "answered": 11, "unanswered": 1, "to_backend": null, "from_backend": null},
        "drops": {"refused": nothing, "no_backend": drops(3, 0.0), "over_flows": nothing, "over_client": nothing,
                  "stale": nothing, "invalid": nothing},
        "backends": backends,
    })
}

fn sample() -> Value {
    let web = [
        backend("10.2.0.11:3000", "active", &"healthy".into(), 1310),
        backend("10.2.0.12:3000", "active", &"unhealthy".into(), 0),
        backend("10.2.0.13:3000", "draining", &Value::Null, 0),
    ];
    json!({
        "ok": true, "problems": [], "flows": flows(24), "stale": {"flows": 0, "pairs": []}, "leaving": {"flows": 0, "pairs": []},
        "services": [service("web", 8000, true, &web)],
        "other_drops": 0, "sample": {"seconds": 1.0, "flows_not_counted": 0},
        "table": {"handle": 7, "generation": 2, "comment": "tcpgw skeleton 8, flow mark 0x00800000/0x00800000, room 0",
                  "flags": ["persist"], "owner": null, "room": 65_536},
        "applied": null, "hints": [{"missing": ["packets"], "sysctl": "a.b=1"}], "drains": null,
    })
}

fn shown(status: &Value, extent: Extent) -> String {
    let status: Status<'_> = serde_json::from_value(status.clone()).expect("a status");
    let format = StatusFormat {
        now: 100,
        colors: false,
        extent,
        with_hints: true,
    };
    let mut out = Vec::new();
    write(&mut out, &status, format).expect("memory");
    String::from_utf8(out).expect("text")
}

/// Returns the lines of the table.
fn table(status: &Value, extent: Extent) -> Vec<String> {
    let text = shown(status, extent);
    let lines = text.lines().skip_while(|line| !line.starts_with("SERVICE"));
    lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

const USUAL: [&str; 5] = [
    "SERVICE           STATE       UP  FLOWS  PKT/S   LIMIT        DROPPED",
    "web :8000         degraded   1/2     13   9606  1000/s              3",
    "  10.2.0.11:3000  healthy             8   3202   220 %  1310 (1203/s)",
    "  10.2.0.12:3000  unhealthy           8   3202   220 %              -",
    "  10.2.0.13:3000  draining            8   3202   220 %              -",
];

#[test]
fn it_fits_into_80_columns_by_default() {
    assert_eq!(table(&sample(), Extent::Width(80)), USUAL);
    assert_eq!(table(&sample(), Extent::Usual), USUAL);
}

#[test]
fn columns_are_chosen_by_the_width_of_the_terminal() {
    assert_eq!(
        table(&sample(), Extent::Width(40)),
        [
            "SERVICE           STATE       UP  FLOWS",
            "web :8000         degraded   1/2     13",
            "  10.2.0.11:3000  healthy             8",
            "  10.2.0.12:3000  unhealthy           8",
            "  10.2.0.13:3000  draining            8",
        ]
    );
    let lines = table(&sample(), Extent::Width(120));
    assert_eq!(lines[0], format!("{}  LAST PROBE  UNANSWERED", USUAL[0]));
    assert_eq!(lines[3], format!("{}  timed out            -", USUAL[3]));
    let all = table(&sample(), Extent::All);
    assert_eq!(table(&sample(), Extent::Width(230)), all);
    assert!(all[0].ends_with("  WEIGHT  PORTS  DROPPED BECAUSE"), "{}", all[0]);
    assert!(all[2].ends_with("  1310 over the limit to it (1203/s)"), "{}", all[2]);
}

#[test]
fn names_are_shortened_and_what_is_copied_is_not() {
    let mut status = sample();
    let long = "[2001:db8:1111:2222:3333:4444:5:6666]:65535";
    let backends = [backend(long, "active", &"presumed".into(), 0)];
    let name = "a-service-with-a-name-of-fifty-characters-and-more-1";
    status["services"] = json!([service(name, 65_535, true, &backends)]);
    let lines = table(&status, Extent::Width(80));
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert!(lines[1].contains("… :65535 "), "{}", lines[1]);
    assert!(lines[2].contains(long), "{}", lines[2]);
    for extent in [Extent::Usual, Extent::All] {
        let lines = table(&status, extent);
        assert!(lines[1].starts_with(&format!("{name} :65535 ")), "{}", lines[1]);
    }
}

#[test]
fn the_table_of_nftables_is_described_where_all_is_asked_for() {
    let text = shown(&sample(), Extent::All);
    let described = "table: inet tcpgw, version 8 of its rules, flow mark 0x00800000/0x00800000, room for 65536 backends; flags persist; nftables \
                     generation 2\n";
    assert!(text.contains(described), "{text}");
    assert!(!shown(&sample(), Extent::Width(80)).contains("table: "));
    let mut other = sample();
    other["table"]["comment"] = "of\u{1b} others".into();
    let text = shown(&other, Extent::All);
    assert!(
        text.contains(r#"table: inet tcpgw, not made by this program: comment "of\u{1b} others""#),
        "{text}"
    );
}

#[test]
fn a_note_comes_once_and_last() {
    let text = shown(&sample(), Extent::Width(80));
    let note = text.find("note: conntrack does not record packets").expect("a note");
    let lines: Vec<&str> = text[note..].lines().collect();
    assert!(
        lines.len() > 1 && lines[1..].iter().all(|line| line.starts_with("    ")),
        "{text}"
    );
    assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
    assert_eq!(text.matches("note: ").count(), 1);
}
