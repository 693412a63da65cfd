//! Accepted and refused values of each field.

use super::*;

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
            "balance: must be client-hash or random or source-hash or round-robin, not the string \"rr\"",
        ),
        (
            r#""balance": null"#,
            "balance: must be client-hash or random or source-hash or round-robin, not null",
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
            r#""idle_timeout": "999ms""#,
            "idle_timeout: must be a duration from 1s to 480h, not the string \"999ms\"",
        ),
        (
            r#""idle_timeout": "481h""#,
            "idle_timeout: must be a duration from 1s to 480h, not the string \"481h\"",
        ),
        (
            r#""idle_timeout": "1500ms""#,
            "idle_timeout: must be a number of whole seconds, not the string \"1500ms\"",
        ),
        (r#""idle_timeout": 60"#, "idle_timeout: must be a duration like"),
        (
            r#""health": "1s""#,
            "health: must be an object with interval, timeout, rise, fall, http, expect, not the string",
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
        (r#""health": {"http": {}}"#, "health.http.path: is missing"),
        (
            r#""health": {"http": {"path": "healthz"}}"#,
            "health.http.path: must be a path that begins with /",
        ),
        (
            r#""health": {"http": {"path": "/a\r\nHost: b"}}"#,
            "health.http.path: must be a path that begins with /",
        ),
        (
            r#""health": {"http": {"path": "/", "host": "a\r\nb"}}"#,
            "health.http.host: must be a host name",
        ),
        (
            r#""health": {"http": {"path": "/", "status": "399-200"}}"#,
            "health.http.status: must be a status code from 100 to 599, or a range",
        ),
        (
            r#""health": {"http": {"path": "/", "status": 600}}"#,
            "health.http.status: must be a status code from 100 to 599, or a range",
        ),
        (
            r#""health": {"http": {"path": "/", "status": "200"}}"#,
            "health.http.status: must be a status code from 100 to 599, or a range like \"200-299\": a single code is a number, without quotes: 200",
        ),
        (
            r#""health": {"http": {"path": "/", "status": "600"}}"#,
            "health.http.status: must be a status code from 100 to 599, or a range like \"200-299\", not the string \"600\"",
        ),
        (
            r#""health": {"expect": {"send": "PING"}}"#,
            "health.expect.expect: is missing",
        ),
        (
            r#""health": {"expect": {"expect": ""}}"#,
            "health.expect.expect: must not be empty",
        ),
        (
            r#""health": {"expect": {"expect": "2", "encoding": "hex"}}"#,
            "health.expect.expect: must be pairs of hexadecimal digits",
        ),
        (
            r#""health": {"http": {"path": "/"}, "expect": {"expect": "x"}}"#,
            "health: has http and expect: a probe asks one question; remove one of them",
        ),
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
