use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::{BackendState, Balance, LimitDirection, Listen, MAX_PROBLEMS, Refusal, SourceMode, warnings};

/// The problems of a text, one per line as shown.
fn problems(text: &str) -> Vec<String> {
    parse(text.as_bytes())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A state with one service that has these members besides a name, a port and one backend.
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
    good(text).services.pop().unwrap()
}

fn assert_one_problem(text: &str, expected: &str) {
    let found = problems(text);
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{text}\nexpected {expected}\nfound {found:#?}"
    );
}

/// Each of these members of a service is the one thing wrong with it.
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
    let shown: Vec<String> = service
        .backends
        .iter()
        .map(|backend| backend.endpoint.to_string())
        .collect();
    assert_eq!(shown, ["10.2.0.11:3000", "10.2.0.12:3000"]);
    assert!(
        service
            .backends
            .iter()
            .all(|b| b.weight.get() == 1 && b.state == BackendState::Active)
    );
    assert_eq!(service.balance, Balance::Random);
    let limit = service.limit.unwrap();
    assert_eq!(
        (limit.pps, limit.burst, limit.direction, limit.mtu),
        (1000, 10_000, LimitDirection::Each, 1500)
    );
    assert_eq!((service.on_retire, service.on_empty), (Refusal::Drop, Refusal::Reset));
    assert_eq!(service.source, SourceMode::Masquerade);
    assert_eq!((&service.access.allow, service.access.deny.len()), (&None, 0));
    assert_eq!(service.drain_timeout, Duration::from_secs(30));
    let health = service.health;
    assert_eq!((health.interval, health.timeout), (None, Duration::from_secs(2)));
    assert_eq!((health.rise.get(), health.fall.get()), (1, 3));
    assert!(service.labels.is_empty());
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
    let shown: Vec<String> = service
        .backends
        .iter()
        .map(|backend| backend.endpoint.to_string())
        .collect();
    assert_eq!(shown, ["10.0.0.1:65535", "[2001:db8::8]:80", "[2001:db8::9]:80"]);
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
    assert_eq!((service.on_retire, service.on_empty), (Refusal::Reset, Refusal::Drop));
    assert_eq!(service.source, SourceMode::Preserve);
    let shown = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(service.access.allow.as_deref().unwrap()), ["10.0.0.0/15"]);
    assert_eq!(shown(&service.access.deny), ["192.0.2.6/31"]);
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
        let shown = found.to_string();
        assert!(
            found.total() == 1 && shown.starts_with(expected),
            "{:?}: {shown}",
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
            "[\"x y\"]: is unknown; a state has version and services",
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

#[test]
fn wrong_names_and_ports_are_refused() {
    let long = format!("\"{}\"", "a".repeat(64));
    for name in [
        "\"\"",
        "\"A\"",
        "\"a b\"",
        "\"-a\"",
        "\".a\"",
        "\"_a\"",
        "\"ä\"",
        "\"a/b\"",
        "\"a\\u0000\"",
        &long,
    ] {
        let text = with_services(&format!(r#"{{"name":{name},"port":1,"backends":[]}}"#));
        assert_one_problem(
            &text,
            "services[0].name: must be 1 to 63 of a-z 0-9 - _ . and start with",
        );
    }
    let text = with_services(r#"{"name":7,"port":1,"backends":[]}"#);
    assert_one_problem(&text, "services[0].name: must be a string, not 7");
    let cases = [
        ("\"3000\"", "must be a number from 1 to 65535, not the string \"3000\""),
        ("3000.0", "must be a whole number from 1 to 65535, not 3000.0"),
        ("0", "must be a number from 1 to 65535, not 0"),
        ("65536", "must be a number from 1 to 65535, not 65536"),
        ("-1", "must be a number from 1 to 65535, not -1"),
        (
            "18446744073709551616",
            "must be a whole number from 1 to 65535, not 1.8446744073709552e19",
        ),
        ("4295032832", "must be a number from 1 to 65535, not 4295032832"),
        ("null", "must be a number from 1 to 65535, not null"),
        ("true", "must be a number from 1 to 65535, not true"),
        ("[1]", "must be a number from 1 to 65535, not a list"),
    ];
    for (port, message) in cases {
        let text = with_services(&format!(r#"{{"name":"a","port":{port},"backends":[]}}"#));
        assert_one_problem(&text, &format!("services[0].port: {message}"));
    }
}

#[test]
fn required_fields_are_missed() {
    let found = problems(&with_services("{}"));
    assert_eq!(
        found,
        ["name", "port", "backends"].map(|field| format!("services[0].{field}: is missing"))
    );
    assert_one_problem(&with(r#""limit": {}"#), "services[0].limit.pps: is missing");
    let found = problems(&with_services(r#"{"name":"a","port":1,"backends":[{}]}"#));
    assert_eq!(
        found,
        ["address", "port"].map(|field| format!("services[0].backends[0].{field}: is missing"))
    );
}

#[test]
fn words_and_unknown_fields_are_checked() {
    assert_refused(&[
        (
            r#""nam": 1"#,
            "nam: is unknown; known are name, port, addresses, backends, ",
        ),
        (r#""a.b": 1"#, "[\"a.b\"]"),
        (r#""port": 7"#, "port: is given twice"),
        (
            r#""balance": "rr""#,
            "balance: must be random or source-hash or round-robin, not the string \"rr\"",
        ),
        (
            r#""balance": null"#,
            "balance: must be random or source-hash or round-robin, not null",
        ),
        (
            r#""on_retire": "reject""#,
            "on_retire: must be drop or reset, not the string \"reject\"",
        ),
        (r#""on_empty": true"#, "on_empty: must be drop or reset, not true"),
        (
            r#""source": "Preserve""#,
            "source: must be masquerade or preserve, not the string",
        ),
    ]);
}

#[test]
fn wrong_limits_are_refused() {
    assert_refused(&[
        (
            r#""limit": 1000"#,
            "limit: must be an object with pps, burst, direction, mtu, not 1000",
        ),
        (
            r#""limit": null"#,
            "limit: must be an object with pps, burst, direction, mtu, not null",
        ),
        (
            r#""limit": {"pps": 0}"#,
            "limit.pps: must be a number from 1 to 1000000, not 0",
        ),
        (
            r#""limit": {"pps": 1000001}"#,
            "limit.pps: must be a number from 1 to 1000000, not 1000001",
        ),
        (r#""limit": {"pps": 1, "pps": 1}"#, "limit.pps: is given twice"),
        (
            r#""limit": {"pps": 1, "bps": 1}"#,
            "limit.bps: is unknown; known are pps, burst, direction, mtu",
        ),
        (
            r#""limit": {"pps": 1, "burst": 0}"#,
            "limit.burst: must be a number from 1 to 4294967295, not 0",
        ),
        (
            r#""limit": {"pps": 1, "burst": 4294967296}"#,
            "limit.burst: must be a number from 1 to 4294967295",
        ),
        (
            r#""limit": {"pps": 1, "direction": "both"}"#,
            "limit.direction: must be each or shared",
        ),
        (
            r#""limit": {"pps": 1, "mtu": 67}"#,
            "limit.mtu: must be a number from 68 to 65535, not 67",
        ),
        (
            r#""limit": {"pps": 1, "mtu": 65536}"#,
            "limit.mtu: must be a number from 68 to 65535, not 65536",
        ),
        (
            r#""limit": {"pps": 1000000, "mtu": 65535}"#,
            "limit: 1000000 pps of 65535 bytes are more bytes per second",
        ),
    ]);
}

#[test]
fn wrong_times_are_refused() {
    assert_refused(&[
        (r#""drain_timeout": 30"#, "drain_timeout: must be a duration like"),
        (
            r#""drain_timeout": "30""#,
            "drain_timeout: has no unit; must be a duration like 500ms, 30s, 5m or 1h, not the string \"30\"",
        ),
        (
            r#""drain_timeout": "1d""#,
            "drain_timeout: must be a duration like 500ms, 30s, 5m or 1h, not the string \"1d\"",
        ),
        (
            r#""drain_timeout": "25h""#,
            "drain_timeout: must be a duration from 0s to 24h, not the string \"25h\"",
        ),
        (
            r#""health": "1s""#,
            "health: must be an object with interval, timeout, rise, fall, not the string",
        ),
        (
            r#""health": {"interval": "0s"}"#,
            "health.interval: must be a duration from 1ms to 1h",
        ),
        (
            r#""health": {"timeout": "0ms"}"#,
            "health.timeout: must be a duration from 1ms to 1h",
        ),
        (
            r#""health": {"timeout": "61m"}"#,
            "health.timeout: must be a duration from 1ms to 1h",
        ),
        (
            r#""health": {"rise": 0}"#,
            "health.rise: must be a number from 1 to 1000, not 0",
        ),
        (
            r#""health": {"fall": 1001}"#,
            "health.fall: must be a number from 1 to 1000, not 1001",
        ),
        (r#""health": {"path": "/"}"#, "health.path: is unknown"),
    ]);
}

#[test]
fn wrong_labels_are_refused() {
    assert_refused(&[
        (r#""labels": []"#, "labels: must be an object of strings, not a list"),
        (r#""labels": {"a": 1}"#, "labels.a: must be a string, not 1"),
        (r#""labels": {"a": "x", "a": "y"}"#, "labels.a: is given twice"),
        (
            r#""labels": {"": "x"}"#,
            "labels[\"\"]: a label's key must be 1 to 63 bytes, not 0",
        ),
    ]);
    let members: Vec<String> = (0..65).map(|i| format!(r#""k{i}": """#)).collect();
    let labels = format!(r#""labels": {{{}}}"#, members.join(","));
    assert_one_problem(
        &with(&labels),
        "services[0].labels: has 65 labels; at most 64 are accepted",
    );
    let value = format!(r#""labels": {{"a": "{}"}}"#, "v".repeat(1025));
    assert_one_problem(
        &with(&value),
        "services[0].labels.a: must be at most 1024 bytes, not 1025",
    );
    let key = format!(r#""labels": {{"{}": ""}}"#, "k".repeat(64));
    assert_one_problem(
        &with(&key),
        &format!("services[0].labels.{}: a label's key must be", "k".repeat(64)),
    );
}

#[test]
fn wrong_networks_are_refused() {
    assert_refused(&[
        (
            r#""allow": []"#,
            "allow: is empty, which would refuse everyone; leave it out",
        ),
        (
            r#""allow": "10.0.0.0/8""#,
            "allow: must be a list of networks, not the string",
        ),
        (
            r#""allow": [7]"#,
            "allow[0]: must be a network like \"10.0.0.0/8\", not 7",
        ),
        (
            r#""allow": ["10.0.0.0/8", "10.0.0.5/24"]"#,
            "allow[1]: \"10.0.0.5/24\" is an address inside a network",
        ),
        (
            r#""deny": ["::ffff:10.0.0.0/104"]"#,
            "deny[0]: \"::ffff:10.0.0.0\" is an IPv4-mapped IPv6 address",
        ),
        (r#""deny": null"#, "deny: must be a list of networks, not null"),
    ]);
}

#[test]
fn wrong_addresses_are_refused() {
    assert_refused(&[
        (
            r#""addresses": []"#,
            "addresses: is empty; leave it out to listen on every local address",
        ),
        (
            r#""addresses": "192.0.2.1""#,
            "addresses: must be a list of IP addresses, not the string",
        ),
        (
            r#""addresses": [4]"#,
            "addresses[0]: must be an IP address like \"192.0.2.1\", not 4",
        ),
        (
            r#""addresses": ["192.0.2.1", "192.0.2.1"]"#,
            "addresses[1]: 192.0.2.1 is given twice",
        ),
        (
            r#""addresses": ["2001:db8::1", "2001:DB8:0::1"]"#,
            "addresses[1]: 2001:db8::1 is given twice",
        ),
        (
            r#""addresses": ["127.0.0.1"]"#,
            "addresses[0]: 127.0.0.1 is a loopback address",
        ),
        (
            r#""addresses": ["0.0.0.0"]"#,
            "addresses[0]: 0.0.0.0 is the unspecified address",
        ),
        (r#""addresses": ["::"]"#, "addresses[0]: :: is the unspecified address"),
        (
            r#""addresses": ["224.0.0.1"]"#,
            "addresses[0]: 224.0.0.1 is a multicast address",
        ),
        (
            r#""addresses": ["fe80::1"]"#,
            "addresses[0]: fe80::1 is a link-local address",
        ),
        (r#""addresses": ["eth0"]"#, "addresses[0]: \"eth0\" is a host name"),
        (
            r#""addresses": ["192.0.2.0/24"]"#,
            "addresses[0]: \"192.0.2.0/24\" is a network",
        ),
    ]);
}

#[test]
fn wrong_backends_are_refused() {
    let cases = [
        (r#""web:80""#, ": \"web\" is a host name"),
        (r#""10.0.0.1""#, ": \"10.0.0.1\" has no port; write 10.0.0.1:port"),
        (r#""10.0.0.1:0""#, ": \"0\" is not a port"),
        (r#""10.0.0.1:65536""#, ": \"65536\" is not a port"),
        (
            r#""2001:db8::1:80""#,
            ": \"2001:db8::1:80\" has an IPv6 address without brackets",
        ),
        (r#""[fe80::1%eth0]:80""#, ": \"fe80::1%eth0\" has a zone id"),
        (
            r#""[::ffff:10.0.0.1]:80""#,
            ": \"::ffff:10.0.0.1\" is an IPv4-mapped IPv6 address; write 10.0.0.1",
        ),
        (r#""010.0.0.1:80""#, ": \"010.0.0.1\" has leading zeros"),
        (r#""127.0.0.1:80""#, ": 127.0.0.1 is a loopback address"),
        (r#""[::1]:80""#, ": ::1 is a loopback address"),
        (
            r#""169.254.169.254:80""#,
            ": 169.254.169.254 is a link-local address, where clouds",
        ),
        (r#""[fe80::1]:80""#, ": fe80::1 is a link-local address"),
        (r#""224.0.0.1:80""#, ": 224.0.0.1 is a multicast address"),
        (r#""[ff02::1]:80""#, ": ff02::1 is a multicast address"),
        (r#""0.0.0.0:80""#, ": 0.0.0.0 is the unspecified address"),
        (r#""[::]:80""#, ": :: is the unspecified address"),
        (r#""255.255.255.255:80""#, ": 255.255.255.255 is the broadcast address"),
        (r#""0.0.0.1:80""#, ": 0.0.0.1 is an address of \"this network\""),
        (r#""240.0.0.1:80""#, ": 240.0.0.1 is a reserved address"),
        ("3000", ": must be \"IP:port\", \"[IP6]:port\" or an object, not 3000"),
        ("null", ": must be \"IP:port\", \"[IP6]:port\" or an object, not null"),
        (
            r#"{"address": "10.0.0.1:80", "port": 80}"#,
            ".address: \"10.0.0.1:80\" has a port in it",
        ),
        (
            r#"{"address": "[2001:db8::1]", "port": 80}"#,
            ".address: \"[2001:db8::1]\" is in brackets",
        ),
        (
            r#"{"address": "127.0.0.1", "port": 80}"#,
            ".address: 127.0.0.1 is a loopback address",
        ),
        (
            r#"{"address": 7, "port": 80}"#,
            ".address: must be an IP address like \"10.2.0.11\", not 7",
        ),
        (
            r#"{"address": "10.0.0.1", "port": "80"}"#,
            ".port: must be a number from 1 to 65535, not the string \"80\"",
        ),
        (
            r#"{"address": "10.0.0.1", "port": 80, "weight": 0}"#,
            ".weight: must be a number from 1 to 256, not 0",
        ),
        (
            r#"{"address": "10.0.0.1", "port": 80, "weight": 257}"#,
            ".weight: must be a number from 1 to 256, not 257",
        ),
        (
            r#"{"address": "10.0.0.1", "port": 80, "state": "up"}"#,
            ".state: must be active or draining",
        ),
        (
            r#"{"address": "10.0.0.1", "port": 80, "host": "x"}"#,
            ".host: is unknown; known are address, port, ",
        ),
        (
            r#"{"address": "10.0.0.1", "port": 80, "port": 80}"#,
            ".port: is given twice",
        ),
    ];
    for (backend, expected) in cases {
        let text = with_services(&format!(
            r#"{{"name":"a","port":1,"backends":["10.9.9.9:1",{backend}]}}"#
        ));
        assert_one_problem(&text, &format!("services[0].backends[1]{expected}"));
    }
    let text = with_services(r#"{"name":"a","port":1,"backends":"10.0.0.1:80"}"#);
    assert_one_problem(
        &text,
        "services[0].backends: must be a list of backends, not the string",
    );
}

#[test]
fn at_most_256_backends_are_active() {
    let backends = |active: usize| {
        let active = (0..active).map(|i| format!(r#""10.0.{}.{}:1""#, i / 250, i % 250 + 1));
        let draining = (1..9).map(|i| format!(r#"{{"address":"10.9.0.{i}","port":1,"state":"draining"}}"#));
        let list: Vec<String> = active.chain(draining).collect();
        with_services(&format!(r#"{{"name":"a","port":1,"backends":[{}]}}"#, list.join(",")))
    };
    assert_eq!(only(&backends(256)).backends.len(), 264);
    assert_one_problem(
        &backends(257),
        "services[0].backends: has 257 active backends; at most 256 are accepted",
    );
}

#[test]
fn names_are_unique() {
    let text = with_services(
        r#"{"name":"a","port":1,"backends":[]},{"name":"b","port":2,"backends":[]},
           {"name":"a","port":3,"backends":[]},{"name":"a","port":4,"backends":[]}"#,
    );
    assert_eq!(
        problems(&text),
        [2, 3].map(|i| format!("services[{i}].name: \"a\" is already the name of services[0]"))
    );
}

#[test]
fn a_port_is_taken_once_on_overlapping_addresses() {
    let two = |first: &str, second: &str| {
        let service = |name: &str, addresses: &str| {
            let addresses = if addresses.is_empty() {
                String::new()
            } else {
                format!(r#","addresses":[{addresses}]"#)
            };
            format!(r#"{{"name":"{name}","port":80,"backends":[]{addresses}}}"#)
        };
        with_services(&format!("{},{}", service("a", first), service("b", second)))
    };
    let (one, other, six) = (r#""192.0.2.1""#, r#""192.0.2.2""#, r#""2001:db8::1""#);
    good(&two(one, other));
    good(&two(one, six));
    let taken = "services[1].port: 80 is already taken by services[0] (\"a\")";
    assert_one_problem(&two("", ""), taken);
    assert_one_problem(&two("", one), taken);
    assert_one_problem(&two(one, ""), taken);
    let taken = "services[1].port: 80 on 192.0.2.1 is already taken by services[0] (\"a\")";
    assert_one_problem(&two(&format!("{one},{six}"), &format!("{other},{one}")), taken);
    assert_one_problem(&two(&format!("{one},{other}"), &format!("{other},{one}")), taken);
}

#[test]
fn an_endpoint_is_in_one_place() {
    let text = with_services(
        r#"{"name":"a","port":1,"backends":["10.0.0.1:80","10.0.0.2:80","10.0.0.1:81"]},
           {"name":"b","port":2,"backends":["10.0.0.3:80",{"address":"10.0.0.1","port":80,"state":"draining"}]},
           {"name":"c","port":3,"backends":["10.0.0.4:80","10.0.0.4:80","[2001:db8::1]:80","[2001:db8:0::1]:80"]}"#,
    );
    assert_eq!(
        problems(&text),
        [
            "services[1].backends[1]: 10.0.0.1:80 is already backends[0] of services[0] (\"a\")",
            "services[2].backends[1]: 10.0.0.4:80 is already backends[0] of services[2] (\"c\")",
            "services[2].backends[3]: [2001:db8::1]:80 is already backends[2] of services[2] (\"c\")",
        ]
    );
}

#[test]
fn at_most_256_services_are_round_robin() {
    let services = |count: usize| {
        let one = |i| {
            format!(
                r#"{{"name":"s{i}","port":{},"backends":[],"balance":"round-robin"}}"#,
                i + 1
            )
        };
        with_services(&(0..count).map(one).collect::<Vec<_>>().join(","))
    };
    good(&services(256));
    assert_one_problem(
        &services(258),
        "services[256].balance: 258 services are round-robin; at most 256",
    );
}

#[test]
fn all_problems_are_listed_at_once() {
    let text = r#"{"version": 3, "extra": 1, "services": [
        {"name": "A", "port": 80, "backends": ["127.0.0.1:1", "10.0.0.1:1"]},
        {"name": "b", "port": 80, "backends": ["10.0.0.1:1"], "limit": {"pps": "x", "mtu": 1}},
        7]}"#;
    let places: Vec<String> = problems(text)
        .iter()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "version",
            "extra",
            "services[0].name",
            "services[0].backends[0]",
            "services[1].limit.pps",
            "services[1].limit.mtu",
            "services[2]",
            "services[1].port",
            "services[1].backends[0]",
        ]
    );
}

#[test]
fn a_syntax_error_comes_first() {
    let many = format!("{{\"version\": 1, \"services\": [{}", "7,".repeat(MAX_PROBLEMS + 50));
    let found = parse(many.as_bytes()).unwrap_err();
    assert!(
        found.iter().next().unwrap().message.starts_with("is not JSON"),
        "{found}"
    );
    assert_eq!(found.total(), MAX_PROBLEMS + 51);
    assert!(found.to_string().ends_with("and 51 more"), "{found}");
}

#[test]
fn services_are_sorted_by_name() {
    let state = good(&with_services(
        r#"{"name":"b","port":1,"backends":[]},{"name":"a","port":2,"backends":[]},{"name":"a.b","port":3,"backends":[]}"#,
    ));
    let names: Vec<&str> = state.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["a", "a.b", "b"]);
}

#[test]
fn a_capped_byte_burst_is_a_warning() {
    assert_eq!(warnings(&good(&with(r#""limit": {"pps": 318145}"#))), []);
    let found = warnings(&good(&with(r#""limit": {"pps": 318146}"#)));
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .to_string()
            .starts_with("service \"a\": a burst of 3181460 packets at 318146 pps"),
        "{}",
        found[0]
    );
}

#[test]
fn services_from_elsewhere_meet_the_same_rules() {
    let service = |name: &str, port: u16, backend: &str| {
        only(&with_services(&format!(
            r#"{{"name":"{name}","port":{port},"backends":["{backend}"]}}"#
        )))
    };
    let (a, b) = (service("a", 1, "10.0.0.1:1"), service("b", 2, "10.0.0.2:1"));
    let state = State::new(vec![b.clone(), a.clone()]).unwrap();
    assert_eq!(state.services, [a.clone(), b.clone()]);
    let shown = |services| State::new(services).unwrap_err().to_string();
    assert_eq!(
        shown(vec![a.clone(), service("a", 3, "10.0.0.3:1")]),
        "service \"a\", name: is the name of another service too"
    );
    assert_eq!(
        shown(vec![a.clone(), service("c", 1, "10.0.0.3:1")]),
        "service \"c\", port: 1 is already taken by service \"a\""
    );
    assert_eq!(
        shown(vec![a, service("c", 3, "10.0.0.1:1")]),
        "service \"c\", backends: 10.0.0.1:1 is already a backend of service \"a\""
    );
}
