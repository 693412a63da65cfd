//! The document and the server say the same: every route, every parameter, every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use tcpgw::api::{OPENAPI, routes};
use tcpgw::control::events::What;
use tcpgw::control::request::Refused;
use tcpgw::store::Phase;
use tcpgw_core::problem::{Kind, Problem};
use tcpgw_kernel::conntrack::{Counters, Traffic};

use crate::harness::{Answer, Loop, flow, serves, serves_with, times};

const GOOD: &[u8] = br#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

#[test]
fn it_is_served() {
    let server = serves();
    assert_eq!(server.get("/v1/openapi.json").json(), document());
    assert!(
        document()["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1."))
    );
}

#[test]
fn routes_are_those_of_the_router() {
    let server = serves();
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let routed: BTreeSet<_> = routes()
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(described, routed);
    for (method, path) in &routed {
        let path = filled(path);
        let request = format!("BREW {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.status, 405, "{path} is routed");
        let allow = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("allow: "))
            .unwrap_or_default();
        assert!(allow.split(',').any(|allowed| allowed == method), "{path}: {allow}");
    }
}

#[test]
fn parameters_are_those_that_are_known() {
    let server = serves();
    for (path, methods) in document()["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let target = format!("{}?no-such-parameter=1", filled(path));
            let answer = server.send(&method.to_uppercase(), &target, "", GOOD);
            assert_eq!(answer.status, 400, "{path}");
            let message = answer.json()["error"]["message"].as_str().expect("words").to_owned();
            let known: BTreeSet<&str> = match message.split_once("known are ") {
                Some((_, known)) => known.split(", ").collect(),
                None => BTreeSet::new(),
            };
            let parameters = operation["parameters"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let described: BTreeSet<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(known, described, "{path}");
        }
    }
}

/// A path with its parts.
fn filled(path: &str) -> String {
    path.replace("{name}", "web")
        .replace("{id}", "41")
        .replace("{app}", "my-app")
}

#[test]
fn answers_about_single_services_are_as_described() {
    let server = serves();
    let send = |method: &str, path: &str, query: &str, headers: &str, body: &[u8], status| {
        let answer = server.send(
            &method.to_uppercase(),
            &format!("{}{query}", filled(path)),
            headers,
            body,
        );
        check(path, method, status, &answer);
    };
    let one = "/v1/services/{name}";
    send("get", "/v1/services", "", "", b"", 200);
    send("get", one, "", "", b"", 200);
    send("put", one, "", "", br#"{"port":1,"backends":[]}"#, 200);
    send(
        "put",
        one,
        "",
        "if-none-match: *\r\n",
        br#"{"port":1,"backends":[]}"#,
        412,
    );
    send("put", one, "", "", b"{", 422);
    send("patch", one, "", "", br#"{"port":2}"#, 200);
    send("patch", one, "", "if-match: \"6\"\r\n", b"{}", 412);
    send("patch", one, "", "content-type: text/plain\r\n", b"{}", 415);
    send("delete", one, "", "", b"", 200);
    for below in ["drain", "undrain"] {
        send("post", &format!("{one}/{below}"), "", "", b"", 200);
        send("post", &format!("{one}/{below}"), "", "", b"[]", 422);
    }
    send("post", &format!("{one}/pause"), "", "", br#"{"for":"5s"}"#, 200);
    send("post", &format!("{one}/pause"), "", "", br#"{"for":"2h"}"#, 422);
    send("post", &format!("{one}/resume"), "", "", b"", 200);
    send("get", &format!("{one}/wait"), "?for=healthy", "", b"", 200);
    send("get", &format!("{one}/wait"), "?for=drained&timeout=10ms", "", b"", 504);
    send("get", "/v1/export", "?all=true", "", b"", 200);
    send("get", "/v1/history", "", "", b"", 200);
    let new = server.send("PUT", "/v1/services/new", "", br#"{"port":1,"backends":[]}"#);
    check(one, "put", 201, &new);
    for method in ["get", "patch"] {
        let gone = server.send(&method.to_uppercase(), "/v1/services/gone", "", b"{}");
        check(one, method, 404, &gone);
    }
    server.shared.lock().expect("whole").answer = Some(Refused::Store("it is full".into()));
    send("delete", one, "", "", b"", 507);
    server.shared.lock().expect("whole").single.unreadable = true;
    send("get", "/v1/history", "", "", b"", 500);
    send("get", "/v1/deploys", "", "", b"", 500);
}

#[test]
fn answers_about_resources_are_as_described() {
    let server = serves();
    let send = |method: &str, path: &str, body: &[u8], status| {
        let answer = server.send(&method.to_uppercase(), &filled(path), "", body);
        check(path, method, status, &answer);
    };
    let one = "/v1/addon/resources/{app}";
    let plan = br#"{"plan":"small"}"#;
    send("get", "/v1/addon/resources", b"", 200);
    send("get", one, b"", 200);
    send("put", one, br#"{"plan":"small","port":20000}"#, 201);
    send("put", one, br#"{"plan":"small","port":0}"#, 422);
    send("put", one, br#"{"plan":"Small Plan"}"#, 422);
    send("put", one, b"{}", 422);
    send("post", &format!("{one}/plan"), plan, 200);
    send("post", &format!("{one}/plan"), br#"{"plan":"small","port":1}"#, 422);
    send("post", &format!("{one}/suspend"), b"", 200);
    send("post", &format!("{one}/resume"), b"", 200);
    send("delete", one, b"", 200);
    for gone in ["gone", "a%2fb", "%0a"] {
        let answer = server.get(&format!("/v1/addon/resources/{gone}"));
        check(one, "get", if gone == "gone" { 404 } else { 400 }, &answer);
    }
    // A service may be named by its app; this one has a service that there is not.
    for (app, status) in [("my-app", 404), ("gone", 404), ("a%2fb", 400), ("", 400)] {
        let answer = server.get(&format!("/v1/services/app:{app}"));
        check("/v1/services/{name}", "get", status, &answer);
        let answer = server.get(&format!("/v1/status?service=app:{app}"));
        check("/v1/status", "get", status, &answer);
    }
    let named = server.get("/v1/services/app:my-app");
    let body = named.json().to_string();
    assert!(body.contains("addon-baaaaaaaaaaa"), "{body}");
}

#[test]
fn answers_about_deploys_are_as_described() {
    let server = serves();
    let begin = "/v1/services/{name}/deploys";
    let order = br#"{"targets":["10.2.0.3:80"]}"#;
    check(begin, "post", 422, &server.post(&filled(begin), b"{}"));
    check(begin, "post", 202, &server.post(&filled(begin), order));
    check("/v1/deploys", "get", 200, &server.get("/v1/deploys"));
    check("/v1/deploys/{id}", "get", 200, &server.get("/v1/deploys/41"));
    check("/v1/deploys/{id}", "get", 404, &server.get("/v1/deploys/9"));
    check("/v1/deploys/{id}", "get", 400, &server.get("/v1/deploys/x"));
    let undo = |status| {
        check(
            "/v1/deploys/{id}/undo",
            "post",
            status,
            &server.post("/v1/deploys/41/undo", b""),
        );
    };
    undo(200);
    undo(409);
    check("/v1/deploys/{id}", "get", 200, &server.get("/v1/deploys/41"));
    let rollback = "/v1/services/{name}/rollback";
    server.post(&filled(begin), order);
    check(rollback, "post", 200, &server.post(&filled(rollback), b""));
    server.shared.lock().expect("whole").single.script = vec![(Phase::Failed, Some("10.2.0.3:80 refused"))];
    let failed = server.post(&format!("{}?until=drained", filled(begin)), order);
    check(begin, "post", 409, &failed);
    server.shared.lock().expect("whole").single.script = vec![(Phase::Drained, None)];
    let drained = server.post(&format!("{}?until=drained", filled(begin)), order);
    check(begin, "post", 200, &drained);
}

#[test]
fn answers_are_as_described() {
    let server = serves();
    server.note(What::Started {
        version: "0.1.0",
        adopted: "nothing".into(),
    });
    let counters = Counters {
        to: Traffic { packets: 1, bytes: 60 },
        from: Traffic::default(),
    };
    server.shared.lock().expect("whole").flows[0].counters = Some(counters);
    server.shared.lock().expect("whole").flows[0].started = Some(1);
    let mut stranger = flow(3);
    stranger.backend = "10.2.0.77:80".parse().expect("an endpoint");
    server.shared.lock().expect("whole").flows.push(stranger);
    let gets = [
        ("/v1/status", "", 200),
        ("/v1/status", "?interval=10ms", 200),
        ("/v1/status", "?service=gone", 404),
        ("/v1/status", "?interval=x", 400),
        ("/v1/flows", "", 200),
        ("/v1/flows", "?service=gone", 404),
        ("/v1/who", "?seen_as=10.2.0.254:1", 200),
        ("/v1/who", "?seen_as=10.2.0.254:1&backend=10.2.0.1:80", 200),
        ("/v1/who", "", 400),
        ("/v1/denied", "", 200),
        ("/v1/denied", "?service=web", 200),
        ("/v1/denied", "?service=gone", 404),
        ("/v1/events", "?follow=false", 200),
        ("/v1/daemon", "", 200),
        ("/v1/healthz", "", 200),
        ("/v1/drains", "", 200),
        ("/v1/openapi.json", "", 200),
    ];
    for (path, query, status) in gets {
        check(path, "get", status, &server.get(&format!("{path}{query}")));
    }
    let long = format!("/v1/status?service={}", "x".repeat(16 << 10));
    check("/v1/status", "get", 414, &server.get(&long));
    let post = |query: &str, status, body: &[u8]| {
        check(
            "/v1/apply",
            "post",
            status,
            &server.post(&format!("/v1/apply{query}"), body),
        );
    };
    post("", 200, GOOD);
    post("?dry_run=true", 200, GOOD);
    post("", 422, b"{");
    post("", 409, br#"{"version":1,"services":[]}"#);
    post("?dry_run=2", 400, GOOD);
    check(
        "/v1/apply",
        "post",
        415,
        &server.post_as("/v1/apply", "content-type: text/plain\r\n", GOOD),
    );
    let denying = br#"{"version":1,"services":[{"name":"a","port":20003,"backends":[],"deny":["0.0.0.0/0"]}]}"#;
    let denied = server.post("/v1/denied", denying);
    check("/v1/denied", "post", 200, &denied);
    assert!(denied.json()["flows"].as_u64() > Some(0), "{:#}", denied.json());
    check("/v1/denied", "post", 422, &server.post("/v1/denied", b"{"));
    check("/v1/denied/flush", "post", 200, &server.post("/v1/denied/flush", b""));
    let gone = server.post("/v1/denied/flush?service=gone", b"");
    check("/v1/denied/flush", "post", 404, &gone);
    check("/v1/teardown", "post", 200, &server.post("/v1/teardown", b""));
    server.shared.lock().expect("whole").answer = Some(Refused::Failed("no".into()));
    post("", 500, GOOD);
    let problem = Problem::new(Kind::KernelRefuses, "no");
    server.shared.lock().expect("whole").look.daemon.problems.push(problem);
    check("/v1/healthz", "get", 503, &server.get("/v1/healthz"));
    let mute = serves_with(Loop::Mute, times());
    check("/v1/daemon", "get", 504, &mute.get("/v1/daemon"));
}

#[test]
fn a_gateway_without_anything_is_described_too() {
    let server = serves();
    server.shared.lock().expect("whole").look = tcpgw::view::snapshot::Snapshot::default();
    for path in ["/v1/status", "/v1/flows", "/v1/daemon", "/v1/drains"] {
        check(path, "get", 200, &server.get(path));
    }
}

fn paused() -> Problem {
    Problem::new(Kind::Paused, "for 3 s").of_service("web", 20003)
}

#[test]
fn every_kind_of_problem_is_described() {
    let document = document();
    let described = &document["components"]["schemas"]["StatusProblem"]["properties"]["kind"]["enum"];
    assert_eq!(*described, serde_json::to_value(Kind::ALL).expect("words"));
}

#[test]
fn every_kind_of_event_is_described() {
    let server = serves();
    let backend: SocketAddr = "10.2.0.1:80".parse().expect("an endpoint");
    let service = || "web".to_owned();
    for what in [
        What::Started {
            version: "0.1.0",
            adopted: "nothing".into(),
        },
        What::Committed {
            cause: "api".into(),
            elements: 1,
            transactions: 1,
            flushed: 0,
            forgotten: 0,
            micros: 9,
        },
        What::Rejected {
            provider: "file".into(),
            problems: vec!["no".into()],
        },
        What::Failed { error: "no".into() },
        What::Problem(paused()),
        What::ProblemEnded(paused().into()),
        What::Health {
            service: service(),
            backend,
            state: "failing",
            reason: None,
        },
        What::NoneHealthy {
            service: service(),
            kept: 1,
        },
        What::Draining {
            service: service(),
            backend,
            seconds: 30,
        },
        What::Retired {
            service: service(),
            backend,
            reason: "ended",
            flows: Some(0),
        },
        What::Drift {
            who: None,
            what: "removed".into(),
        },
        What::Repaired {
            what: "made anew".into(),
        },
        What::TornDown { flushed: 1, uid: 0 },
        What::ServesAgain {
            cause: "resume (uid 0)".into(),
        },
        What::Orphaned {
            count: 1,
            names: vec![service()],
            reason: "the daemon follows no state file any more".into(),
        },
        What::Displaced {
            count: 1,
            names: vec![service()],
            reason: "service put new (uid 0)".into(),
        },
        What::Back {
            service: service(),
            backend,
        },
        What::Deploy {
            id: 41,
            service: service(),
            phase: "switched",
            reason: None,
        },
        What::Paused {
            service: service(),
            seconds: 30,
            uid: 0,
        },
        What::Resumed {
            service: service(),
            reason: "time",
            uid: None,
        },
    ] {
        server.note(what);
    }
    let answer = server.get("/v1/events?follow=false");
    let ids = answer.json()["events"].as_array().expect("a list").clone();
    assert!(
        (1..).zip(&ids).all(|(n, event)| event["id"] == format!("test-{n}")),
        "{ids:?}"
    );
    check("/v1/events", "get", 200, &answer);
    let document = document();
    let described = &document["components"]["schemas"]["Event"]["oneOf"];
    assert_eq!(described.as_array().map(Vec::len), Some(ids.len()));
}

fn check(path: &str, method: &str, status: u16, answer: &Answer) {
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    let document = document();
    let described = &document["paths"][path][method]["responses"][status.to_string()];
    let described = resolve(&document, described);
    let schema = &described["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} {status} is not described");
    let mut wrong = Vec::new();
    validate(&document, schema, &answer.json(), "$", &mut wrong);
    assert!(
        wrong.is_empty(),
        "{method} {path} {status}: {wrong:#?}\n{}",
        answer.text()
    );
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(target) => document
            .pointer(&target[1..])
            .unwrap_or_else(|| panic!("{target} is not there")),
        None => schema,
    }
}

/// The part of JSON Schema that the document uses; anything else in it fails.
fn validate(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolve(document, schema);
    members(document, schema, value, at, wrong);
    for (keyword, argument) in schema.as_object().expect("a schema is an object") {
        let list = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        let holds = match keyword.as_str() {
            "description" | "pattern" | "required" | "properties" | "additionalProperties" | "default" => true,
            "type" => list
                .iter()
                .chain(Some(argument))
                .any(|kind| kind.as_str().is_some_and(|kind| is_a(value, kind))),
            "enum" => list.contains(value),
            "const" => argument == value,
            "minimum" => value.as_f64() >= argument.as_f64() || !value.is_number(),
            "maximum" => value.as_f64() <= argument.as_f64() || !value.is_number(),
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(document, argument, item, &format!("{at}[{n}]"), wrong);
                }
                true
            }
            "anyOf" => list.iter().any(|schema| fits(document, schema, value)),
            "oneOf" => list.iter().filter(|schema| fits(document, schema, value)).count() == 1,
            other => panic!("{at}: this test does not know the keyword {other}"),
        };
        if !holds {
            wrong.push(format!("{at}: {value} breaks {keyword} {argument}"));
        }
    }
}

fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let mut wrong = Vec::new();
    validate(document, schema, value, "$", &mut wrong);
    wrong.is_empty()
}

fn members(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().expect("a name")) {
            wrong.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, member) in object {
        let at = format!("{at}.{name}");
        match properties.get(name).unwrap_or(&schema["additionalProperties"]) {
            Value::Bool(false) => wrong.push(format!("{at} is not described")),
            schema @ Value::Object(_) => validate(document, schema, member, &at, wrong),
            _ => {}
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_used() {
    let document = document();
    let mut used = BTreeMap::new();
    references(&document, &mut used);
    for target in used.keys() {
        assert!(document.pointer(&target[1..]).is_some(), "{target}");
    }
    for part in ["schemas", "responses"] {
        for name in document["components"][part].as_object().expect("there are some").keys() {
            let target = format!("#/components/{part}/{name}");
            assert!(used.contains_key(&target) || name == "Lagged", "{target} is not used");
        }
    }
}

fn references(value: &Value, used: &mut BTreeMap<String, usize>) {
    match value {
        Value::Object(object) => {
            if let Some(target) = object.get("$ref").and_then(Value::as_str) {
                *used.entry(target.to_owned()).or_default() += 1;
            }
            object.values().for_each(|value| references(value, used));
        }
        Value::Array(array) => array.iter().for_each(|value| references(value, used)),
        _ => {}
    }
}
