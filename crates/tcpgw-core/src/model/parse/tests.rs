use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::{BackendState, Balance, LimitDirection, Listen, MAX_PROBLEMS, PacketRefusal, SourceMode, warnings};

mod across;
mod fields;

/// Returns the problems of a text, one per line as shown.
fn problems(text: &str) -> Vec<String> {
    parse(text.as_bytes())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Returns a state with one service that has these members besides a name, a port and one backend.
fn with(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"version":1,"services":[{{"name":"a","port":20003,"backends":["10.2.0.11:3000"]{comma}{members}}}]}}"#)
}

fn with_services(services: &str) -> String {
    format!(r#"{{"version":1,"services":[{services}]}}"#)
}

fn good(text: &str) -> State {
    parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn only(text: &str) -> Service {
    Service::clone(&good(text).services.pop().unwrap())
}

fn assert_one_problem(text: &str, expected: &str) {
    let found = problems(text);
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{text}\nexpected {expected}\nfound {found:#?}"
    );
}

/// Asserts that each of these members of a service is refused with exactly this problem.
fn assert_refused(cases: &[(&str, &str)]) {
    for (members, expected) in cases {
        let dot = if expected.starts_with('[') { "" } else { "." };
        assert_one_problem(&with(members), &format!("services[0]{dot}{expected}"));
    }
}

#[test]
fn the_smallest_useful_state_has_the_documented_defaults() {
    let state = good(
        r#"{"version": 1, "services": [{"name": "my-app", "port": 20003, "limit": {"pps": 1000},
            "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]}]}"#,
    );
    let service = &state.services[0];
    assert_eq!(&*service.name, "my-app");
    assert_eq!(service.port.get(), 20003);
    assert_eq!(service.listen, Listen::Everywhere);
    let text: Vec<String> = service
        .backends
        .iter()
        .map(|backend| backend.endpoint.to_string())
        .collect();
    assert_eq!(text, ["10.2.0.11:3000", "10.2.0.12:3000"]);
    assert!(
        service
            .backends
            .iter()
            .all(|b| b.weight.get() == 1 && b.state == BackendState::Active)
    );
    assert_eq!(service.balance, Balance::ClientHash);
    let limit = service.limit.unwrap();
    assert_eq!(
        (limit.pps, limit.burst, limit.direction, limit.mtu),
        (1000, 10_000, LimitDirection::Each, 1500)
    );
    assert_eq!(
        (service.on_retire, service.on_empty),
        (PacketRefusal::Drop, PacketRefusal::Reset)
    );
    assert_eq!(service.source, SourceMode::Masquerade);
    assert_eq!((&service.access.allow, service.access.deny.len()), (&None, 0));
    assert_eq!(service.drain_timeout, Duration::from_secs(30));
    assert_eq!(service.idle_timeout, None);
    let health = &service.health;
    assert_eq!((health.interval, health.timeout), (None, Duration::from_secs(2)));
    assert_eq!((health.rise.get(), health.fall.get()), (1, 3));
    assert!(service.labels.is_empty());
}

#[test]
fn source_addresses_are_read_up_to_sixteen_of_a_family() {
    let with = |addresses: &[String]| {
        let text = format!(
            r#"{{"version":1,"services":[{{"name":"a","port":1,"backends":[],"source_addresses":{addresses:?}}}]}}"#
        );
        parse(text.as_bytes())
    };
    let mut addresses: Vec<String> = (1..=16).map(|last| format!("10.2.0.{last}")).collect();
    addresses.push("fd00:2::1".into());
    let state = with(&addresses).expect("a valid state");
    let read: Vec<String> = state.services[0]
        .source_addresses
        .iter()
        .map(IpAddr::to_string)
        .collect();
    assert_eq!((read.len(), &*read[0], &*read[16]), (17, "10.2.0.1", "fd00:2::1"));
    addresses.push("10.2.0.17".into());
    let problems = with(&addresses).expect_err("too many").to_string();
    assert!(
        problems.contains("17 addresses of one family; at most 16"),
        "{problems}"
    );
}

#[test]
fn every_field_is_read() {
    let service = only(
        r#"{"services": [{
            "labels": {"app.example/tier": "web"}, "health": {"interval": "1s", "timeout": "500ms", "rise": 2, "fall": 5},
            "drain_timeout": "1h", "deny": ["192.0.2.7", "192.0.2.6/32"], "allow": ["10.1.0.0/16", "10.0.0.0/16"],
            "source": "preserve", "on_empty": "drop", "on_retire": "reset",
            "limit": {"mtu": 9000, "direction": "shared", "burst": 7, "pps": 5}, "balance": "source-hash",
            "addresses": ["2001:db8::5", "192.0.2.1"], "port": 1, "name": "0.a_b-c",
            "backends": [{"address": "2001:db8::9", "port": 80, "weight": 256, "state": "draining"}, "[2001:db8::8]:80",
                {"port": 65535, "address": "10.0.0.1"}]
        }], "version": 1}"#,
    );
    let addresses: Vec<String> = match &service.listen {
        Listen::At(addresses) => addresses.iter().map(IpAddr::to_string).collect(),
        Listen::Everywhere => Vec::new(),
    };
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::5"]);
    let text: Vec<String> = service
        .backends
        .iter()
        .map(|backend| backend.endpoint.to_string())
        .collect();
    assert_eq!(text, ["10.0.0.1:65535", "[2001:db8::8]:80", "[2001:db8::9]:80"]);
    assert_eq!(
        (service.backends[2].weight.get(), service.backends[2].state),
        (256, BackendState::Draining)
    );
    assert_eq!(service.balance, Balance::SourceHash);
    let limit = service.limit.unwrap();
    assert_eq!(
        (limit.pps, limit.burst, limit.direction, limit.mtu),
        (5, 7, LimitDirection::Shared, 9000)
    );
    assert_eq!(
        (service.on_retire, service.on_empty),
        (PacketRefusal::Reset, PacketRefusal::Drop)
    );
    assert_eq!(service.source, SourceMode::Preserve);
    let rendered = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(rendered(service.access.allow.as_deref().unwrap()), ["10.0.0.0/15"]);
    assert_eq!(rendered(&service.access.deny), ["192.0.2.6/31"]);
    assert_eq!(service.drain_timeout, Duration::from_secs(3600));
    assert_eq!(service.health.interval, Some(Duration::from_secs(1)));
    assert_eq!(service.health.timeout, Duration::from_millis(500));
    assert_eq!((service.health.rise.get(), service.health.fall.get()), (2, 5));
    assert_eq!(service.labels["app.example/tier"], "web");
}

#[test]
fn the_edges_of_every_range_are_accepted() {
    for members in [
        r#""deny": []"#,
        r#""deny": ["0.0.0.0/0", "::/0"]"#,
        r#""drain_timeout": "0s""#,
        r#""drain_timeout": "24h""#,
        r#""idle_timeout": "1s""#,
        r#""idle_timeout": "2000ms""#,
        r#""idle_timeout": "480h""#,
        r#""health": {}"#,
        r#""health": {"interval": "1ms", "timeout": "1h", "rise": 1000, "fall": 1}"#,
        r#""limit": {"pps": 1}"#,
        r#""limit": {"pps": 1000000, "burst": 4294967295}"#,
        r#""limit": {"pps": 1000, "burst": 1, "mtu": 68}"#,
        r#""limit": {"pps": 1000, "mtu": 65535}"#,
        r#""addresses": ["169.254.10.1"]"#,
        r#""labels": {}"#,
        r#""balance": "round-robin""#,
    ] {
        good(&with(members));
    }
    let name = "a".repeat(63);
    good(&with_services(&format!(
        r#"{{"name":"{name}","port":65535,"backends":[]}}"#
    )));
    good(r#"{"version": 1, "services": []}"#);
    good("\n {\"services\": [], \"version\": 1} \r\n\t");
    let label = format!(r#""labels": {{"{}": "{}"}}"#, "k".repeat(63), "v".repeat(1024));
    good(&with(&label));
}

#[test]
fn a_document_that_is_not_a_state_says_why() {
    let cases: [(&[u8], &str); 19] = [
        (b"", "document: is empty; the smallest state is"),
        (b" \r\n\t", "document: is empty"),
        (b"{\"a\":\n \0}", "line 2 column 2: there is a NUL byte"),
        (
            b"{\n\"\xff\": 1}",
            "line 2 column 2: there are bytes that are not UTF-8",
        ),
        (b"\xef\xbb\xbf{}", "document: starts with a byte order mark"),
        (b"\xff\xfe{\0}\0", "document: starts with a byte order mark"),
        (b"nonsense", "line 1 column 2: is not JSON: expected ident"),
        (
            b"{\"version\": 1,\n \"services\": [}",
            "line 2 column 15: is not JSON: expected value",
        ),
        (
            b"{\"version\": 1, \"services\": []",
            "line 1 column 29: is not JSON: EOF while parsing",
        ),
        (
            b"{\"version\": 1, \"services\": []} {}",
            "line 1 column 32: is not JSON: trailing characters",
        ),
        (
            b"{\"version\": 1, \"services\": [],}",
            "line 1 column 31: is not JSON: trailing comma",
        ),
        (b"{\"version\": 1, \"services\": [\"\\ud800\"]}", "line 1 column"),
        (
            b"{\"version\": 1, \"services\": [1e999]}",
            "line 1 column 33: is not JSON: number out of range",
        ),
        (b"[]", "document: must be an object, not a list"),
        (b"\"x\"", "document: must be an object, not the string \"x\""),
        (b"null", "document: must be an object, not null"),
        (b"-1", "document: must be an object, not -1"),
        (b"1.5", "document: must be an object, not 1.5"),
        (b"true", "document: must be an object, not true"),
    ];
    for (text, expected) in cases {
        let found = parse(text).unwrap_err();
        let words = found.to_string();
        assert!(
            found.total() == 1 && words.starts_with(expected),
            "{:?}: {words}",
            String::from_utf8_lossy(text)
        );
    }
    let deep = format!("{{\"version\": 1, \"services\": {}", "[".repeat(100_000));
    assert!(problems(&deep)[0].contains("recursion limit exceeded"));
}

#[test]
fn the_top_level_is_checked() {
    let cases = [
        (r#"{"services": []}"#, "version: is missing; the smallest state is"),
        (r#"{"version": 1}"#, "services: is missing; the smallest state is"),
        (r#"{"version": 2, "services": []}"#, "version: is 2; understood is 1"),
        (
            r#"{"version": "1", "services": []}"#,
            "version: must be the number 1, not the string \"1\"",
        ),
        (
            r#"{"version": 1.0, "services": []}"#,
            "version: must be the number 1, not 1.0",
        ),
        (
            r#"{"version": null, "services": []}"#,
            "version: must be the number 1, not null",
        ),
        (
            r#"{"version": 1, "version": 1, "services": []}"#,
            "version: is given twice",
        ),
        (
            r#"{"version": 1, "services": [], "services": [7]}"#,
            "services: is given twice",
        ),
        (
            r#"{"version": 1, "services": [], "x y": {}}"#,
            "[\"x y\"]: is unknown; known are version, services, $schema",
        ),
        (
            r#"{"version": 1, "services": {"a": 1}}"#,
            "services: must be a list, not an object",
        ),
        (
            r#"{"version": 1, "services": null}"#,
            "services: must be a list, not null",
        ),
        (
            r#"{"version": 1, "services": "x"}"#,
            "services: must be a list, not the string \"x\"",
        ),
        (r#"{"version": 1, "services": 0}"#, "services: must be a list, not 0"),
        (
            r#"{"version": 1, "services": ["a"]}"#,
            "services[0]: must be an object with name, port, ",
        ),
    ];
    for (text, expected) in cases {
        assert_one_problem(text, expected);
    }
}
