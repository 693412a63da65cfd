//! Rules across services, and the form of lists of problems.

use super::*;

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
fn idle_timeouts_have_few_different_values() {
    let services = |values: usize| {
        let service = |at: usize| {
            let (port, seconds) = (at + 1, 60 + at % values);
            format!(r#"{{"name":"a{at}","port":{port},"backends":[],"idle_timeout":"{seconds}s"}}"#)
        };
        with_services(&(0..40).map(service).collect::<Vec<_>>().join(","))
    };
    good(&services(16));
    assert_one_problem(
        &services(17),
        "services[16].idle_timeout: services have 17 different values; at most 16 are accepted",
    );
}

#[test]
fn an_endpoint_is_in_a_service_once() {
    let text = with_services(
        r#"{"name":"a","port":1,"backends":["10.0.0.1:80","10.0.0.2:80","10.0.0.1:81"]},
           {"name":"b","port":2,"backends":["10.0.0.3:80",{"address":"10.0.0.1","port":80,"state":"draining"}]},
           {"name":"c","port":3,"backends":["10.0.0.4:80","10.0.0.4:80","[2001:db8::1]:80","[2001:db8:0::1]:80"]}"#,
    );
    assert_eq!(
        problems(&text),
        [
            "services[2].backends[1]: 10.0.0.4:80 is already backends[0] of services[2] (\"c\")",
            "services[2].backends[3]: [2001:db8::1]:80 is already backends[2] of services[2] (\"c\")",
        ]
    );
}

#[test]
fn services_share_endpoints_on_whose_terms_they_agree() {
    let service = |name: &str, port: u16, rest: &str| {
        format!(r#"{{"name":"{name}","port":{port},"backends":["10.0.0.1:80"]{rest}}}"#)
    };
    let two =
        |first: &str, second: &str| with_services(&format!("{},{}", service("a", 1, first), service("b", 2, second)));
    for (first, second, differing) in [
        ("", "", None),
        (
            r#","balance":"source-hash""#,
            r#","on_retire":"reset","drain_timeout":"5s""#,
            None,
        ),
        (r#","limit":{"pps":5}"#, r#","limit":{"pps":5,"burst":50}"#, None),
        (r#","limit":{"pps":5}"#, "", Some("limit")),
        (r#","limit":{"pps":5}"#, r#","limit":{"pps":6}"#, Some("limit")),
        ("", r#","source":"preserve""#, Some("source")),
        (r#","source_addresses":["10.0.0.9"]"#, "", Some("source_addresses")),
        (r#","source_addresses":["2001:db8::9"]"#, "", None),
        ("", r#","health":{"fall":5}"#, Some("health")),
        (
            r#","limit":{"pps":5}"#,
            r#","source":"preserve","health":{"rise":2}"#,
            Some("limit, source, health"),
        ),
    ] {
        let text = two(first, second);
        match differing {
            None => drop(good(&text)),
            Some(differing) => assert_one_problem(
                &text,
                &format!(
                    "services[1].backends[0]: 10.0.0.1:80 is also backends[0] of services[0] (\"a\"), with another {differing}: "
                ),
            ),
        }
    }
    // A service in which the endpoint drains does not count; all others are compared with the first service in which it
    // is active.
    let drains =
        r#"{"name":"c","port":3,"backends":[{"address":"10.0.0.1","port":80,"state":"draining"}],"limit":{"pps":9}}"#;
    let (first, last) = (service("a", 1, ""), service("b", 2, ""));
    good(&with_services(&format!("{drains},{first},{last}")));
    let other = service("d", 4, r#","limit":{"pps":1}"#);
    assert_one_problem(
        &with_services(&format!("{drains},{first},{last},{other}")),
        "services[3].backends[0]: 10.0.0.1:80 is also backends[0] of services[1] (\"a\"), with another limit: ",
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
fn a_service_that_no_client_can_use_is_a_warning() {
    let backend = |address: &str| format!(r#""backends": ["{address}:1"]"#);
    let (v4, v6) = (backend("10.0.0.1"), backend("[fd00::1]"));
    for (backends, access, is_told) in [
        (&v4, r#""deny": ["0.0.0.0/0"]"#, true),
        (&v4, r#""deny": ["0.0.0.0/1", "128.0.0.0/1"]"#, true),
        (&v4, r#""deny": ["::/0"]"#, false),
        (&v6, r#""deny": ["0.0.0.0/0"]"#, false),
        (&v6, r#""deny": ["::/0"]"#, true),
        (
            &v4,
            r#""allow": ["192.0.2.0/24"], "deny": ["192.0.2.0/25", "192.0.2.128/25"]"#,
            true,
        ),
        (&v4, r#""allow": ["192.0.2.0/24"], "deny": ["192.0.2.0/25"]"#, false),
        (&v4, r#""allow": ["2001:db8::/32"]"#, true),
        (&v4, r#""allow": ["2001:db8::/32", "192.0.2.1"]"#, false),
        (&v4, r#""deny": []"#, false),
        (
            &r#""backends": []"#.to_owned(),
            r#""deny": ["0.0.0.0/0", "::/0"]"#,
            false,
        ),
    ] {
        let state = good(&with_services(&format!(
            r#"{{"name":"a","port":1,{backends},{access}}}"#
        )));
        let found = warnings(&state);
        assert_eq!(found.len(), usize::from(is_told), "{backends} {access}: {found:?}");
        assert!(
            found
                .iter()
                .all(|of| of.to_string().starts_with("service \"a\": no client can connect"))
        );
    }
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
    let limited = |name: &str, port: u16, backend: &str, limit: &str| {
        only(&with_services(&format!(
            r#"{{"name":"{name}","port":{port},"backends":["{backend}"]{limit}}}"#
        )))
    };
    let service = |name: &str, port: u16, backend: &str| limited(name, port, backend, "");
    let (a, b) = (service("a", 1, "10.0.0.1:1"), service("b", 2, "10.0.0.2:1"));
    let state = State::new(vec![b.clone(), a.clone()]).unwrap();
    let services: Vec<&Service> = state.services.iter().map(AsRef::as_ref).collect();
    assert_eq!(services, [&a, &b]);
    let rendered = |services: Vec<Service>| State::new(services).unwrap_err().to_string();
    assert_eq!(
        rendered(vec![a.clone(), service("a", 3, "10.0.0.3:1")]),
        "service \"a\", name: is the name of another service too"
    );
    assert_eq!(
        rendered(vec![a.clone(), service("c", 1, "10.0.0.3:1")]),
        "service \"c\", port: 1 is already taken by service \"a\""
    );
    assert_eq!(
        rendered(vec![a.clone(), limited("c", 3, "10.0.0.1:1", r#","limit":{"pps":5}"#)])
            .split(": limit")
            .next(),
        Some("service \"c\", backends: 10.0.0.1:1 is also a backend of service \"a\", with another limit")
    );
    assert!(State::new(vec![a, service("c", 3, "10.0.0.1:1")]).is_ok());
}
