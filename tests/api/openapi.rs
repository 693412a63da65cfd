//! The OpenAPI document and the server agree on every route, parameter and response.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use tcpgw::api::{OPENAPI, routes};
use tcpgw::control::events::EventContent;
use tcpgw::control::request::Refused;
use tcpgw::store::DeployPhase;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::conntrack::{Counters, Traffic};

use crate::harness::{Answer, Loop, Server, flow, serves, serves_with, times};
use crate::json_schema::{resolve, validate};

const GOOD: &[u8] = br#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

pub(crate) fn document() -> Value {
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
        .map(|(method, path, _)| (method.to_owned(), path.to_owned()))
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

/// Returns a path with its parts.
pub(crate) fn filled(path: &str) -> String {
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
    let new = br#"{"name":"fresh","port":1,"backends":[]}"#;
    send("get", "/v1/services", "?label=app=a,b&provider=api", "", b"", 200);
    send("get", "/v1/services", "?provider=nobody", "", b"", 400);
    send("post", "/v1/services", "", "", new, 201);
    send(
        "post",
        "/v1/services",
        "",
        "",
        br#"{"name":"web","port":1,"backends":[]}"#,
        412,
    );
    send("post", "/v1/services", "", "", br#"{"port":1,"backends":[]}"#, 422);
    send("post", "/v1/services", "", "if-match: \"7\"\r\n", new, 400);
    let batch = br#"{"services":[{"name":"web","patch":{"port":3},"revision":7},{"name":"fresh","put":{"port":4,"backends":[]},"revision":0}]}"#;
    send("patch", "/v1/services", "?drain=5s", "if-match: \"9\"\r\n", batch, 200);
    send("patch", "/v1/services", "", "if-match: \"8\"\r\n", batch, 412);
    send(
        "patch",
        "/v1/services",
        "",
        "",
        br#"{"services":[{"name":"web","delete":true,"revision":6}]}"#,
        412,
    );
    send(
        "patch",
        "/v1/services",
        "",
        "",
        br#"{"services":[{"name":"gone","patch":{}}]}"#,
        404,
    );
    for wrong in [
        &br#"{"services":[{"name":"web"}]}"#[..],
        br#"{"services":[{"name":"A","delete":true}]}"#,
        b"[]",
    ] {
        send("patch", "/v1/services", "", "", wrong, 422);
    }
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
    server.shared.lock().expect("whole").single.script = vec![(DeployPhase::Failed, Some("10.2.0.3:80 refused"))];
    let failed = server.post(&format!("{}?until=drained", filled(begin)), order);
    check(begin, "post", 409, &failed);
    server.shared.lock().expect("whole").single.script = vec![(DeployPhase::Drained, None)];
    let drained = server.post(&format!("{}?until=drained", filled(begin)), order);
    check(begin, "post", 200, &drained);
}

#[test]
fn answers_are_as_described() {
    let server = serves();
    server.note(EventContent::Started {
        version: "0.1.0",
        in_kernel: "nothing".into(),
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
    let problem = Problem::new(ProblemKind::KernelRefuses, "no");
    server
        .shared
        .lock()
        .expect("whole")
        .snapshot
        .daemon
        .problems
        .push(problem);
    check("/v1/healthz", "get", 503, &server.get("/v1/healthz"));
    let mute = serves_with(Loop::Mute, times());
    check("/v1/daemon", "get", 504, &mute.get("/v1/daemon"));
}

#[test]
fn a_gateway_without_anything_is_described_too() {
    let server = serves();
    server.shared.lock().expect("whole").snapshot = tcpgw::view::snapshot::Snapshot::default();
    for path in ["/v1/status", "/v1/flows", "/v1/daemon", "/v1/drains"] {
        check(path, "get", 200, &server.get(path));
    }
}

fn paused() -> Problem {
    Problem::new(ProblemKind::Paused, "for 3 s").of_service("web", 20003)
}

#[test]
fn every_kind_of_problem_is_described() {
    let document = document();
    let described = &document["components"]["schemas"]["StatusProblem"]["properties"]["kind"]["enum"];
    assert_eq!(*described, serde_json::to_value(ProblemKind::ALL).expect("words"));
}

#[test]
fn every_kind_of_event_is_described() {
    let server = serves();
    let backend: SocketAddr = "10.2.0.1:80".parse().expect("an endpoint");
    let service = || "web".to_owned();
    for what in [
        EventContent::Started {
            version: "0.1.0",
            in_kernel: "nothing".into(),
        },
        EventContent::Committed {
            cause: "api".into(),
            elements: 1,
            transactions: 1,
            flushed: 0,
            forgotten: 0,
            micros: 9,
        },
        EventContent::Rejected {
            provider: "file".into(),
            problems: vec!["no".into()],
        },
        EventContent::Failed { error: "no".into() },
        EventContent::Problem(paused()),
        EventContent::ProblemEnded(paused().into()),
        EventContent::Health {
            service: service(),
            backend,
            state: "failing",
            reason: None,
        },
        EventContent::NoneHealthy {
            service: service(),
            kept: 1,
        },
        EventContent::Draining {
            service: service(),
            backend,
            seconds: 30,
        },
        EventContent::Retired {
            service: service(),
            backend,
            reason: "ended",
            flows: Some(0),
        },
        EventContent::Drift {
            who: None,
            what: "removed".into(),
        },
        EventContent::Repaired {
            what: "made anew".into(),
        },
        EventContent::TornDown { flushed: 1, uid: 0 },
        EventContent::ServesAgain {
            cause: "resume (uid 0)".into(),
        },
        EventContent::Orphaned {
            count: 1,
            names: vec![service()],
            reason: "the daemon follows no state file any more".into(),
        },
        EventContent::Displaced {
            count: 1,
            names: vec![service()],
            reason: "service put new (uid 0)".into(),
        },
        EventContent::Back {
            service: service(),
            backend,
        },
        EventContent::Deploy {
            id: 41,
            service: service(),
            phase: "switched",
            reason: None,
        },
        EventContent::Paused {
            service: service(),
            seconds: 30,
            uid: 0,
            through: Some("web (192.0.2.7)".into()),
        },
        EventContent::Resumed {
            service: service(),
            reason: "time",
            uid: None,
            through: None,
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
    let wrong = validate(&document, schema, &answer.json());
    assert!(
        wrong.is_empty(),
        "{method} {path} {status}: {wrong:#?}\n{}",
        answer.text()
    );
}

/// The document and the server agree on the fields of request bodies and of the objects in them.
#[test]
fn fields_of_bodies_are_those_that_are_known() {
    let server = serves();
    let document = document();
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Some(kinds) = operation["requestBody"]["content"].as_object() else {
                continue;
            };
            for (kind, content) in kinds {
                let schema = resolve(&document, &content["schema"]);
                assert!(schema["properties"].is_object(), "{method} {path} {kind}: no fields");
                let send = |body: &Value| {
                    let header = format!("content-type: {kind}\r\n");
                    server.send(
                        &method.to_uppercase(),
                        &filled(path),
                        &header,
                        body.to_string().as_bytes(),
                    )
                };
                compare_fields(&document, schema, &[], &send, &mut seen);
            }
        }
    }
    assert!(seen > 25, "{seen} objects");
}

/// Compares the fields of the object at this place with those that the server says it knows, and goes on with objects in it.
fn compare_fields(document: &Value, schema: &Value, place: &[&str], send: &dyn Fn(&Value) -> Answer, seen: &mut usize) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{place:?}: unknown fields are refused"
    );
    let mut body = serde_json::json!({"no-such-field": 1});
    for name in place.iter().rev() {
        body = match *name {
            "[]" => serde_json::json!([body]),
            // These are read once it is known which service they are for.
            name @ ("put" | "patch") => serde_json::json!({"name": "web", name: body}),
            name => serde_json::json!({name: body}),
        };
    }
    let answer = send(&body);
    assert_eq!(answer.status, 422, "{body}: {}", answer.text());
    let known = known_fields(&answer.json());
    let described: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(known, described, "{body}: {}", answer.text());
    *seen += 1;
    for (name, property) in properties {
        let is_list = property["type"] == "array";
        let below = if is_list { &property["items"] } else { property };
        let choices = ["anyOf", "oneOf"]
            .iter()
            .filter_map(|choice| resolve(document, below)[*choice].as_array());
        for choice in choices.flatten().chain(Some(below)) {
            let mut place = place.to_vec();
            place.push(name);
            place.extend(is_list.then_some("[]"));
            compare_fields(document, resolve(document, choice), &place, send, seen);
        }
    }
}

/// Returns the names of a message such as "unknown field `x`, expected `a` or `b`", or "is unknown; known are a, b".
fn known_fields(error: &Value) -> BTreeSet<String> {
    let problems = error["error"]["problems"].as_array().into_iter().flatten();
    let mut messages = problems.filter_map(|problem| problem["message"].as_str());
    let message = messages.find(|message| message.contains("unknown"));
    let message = message.unwrap_or_else(|| panic!("{error:#}"));
    if let Some((_, known)) = message.split_once("known are ") {
        return known.split(", ").map(str::to_owned).collect();
    }
    let (_, expected) = message.split_once("expected ").expect("serde names what it expects");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn services_are_described_as_in_the_schema_of_the_state_file() {
    let (document, schema) = (document(), crate::schema::schema());
    let schemas = &document["components"]["schemas"];
    let moved = |value: &Value| -> Value {
        serde_json::from_str(&value.to_string().replace("#/$defs/", "#/components/schemas/")).expect("JSON")
    };
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        assert_eq!(schemas[name], moved(definition), "{name}");
    }
    assert_eq!(schemas["StateFile"]["properties"], moved(&schema["properties"]));
    // The schemas of changes and replacements have the same fields, with the same ranges.
    for (other, whole) in [
        ("ServiceReplacement", "ServiceSpec"),
        ("ServicePatch", "ServiceSpec"),
        ("LimitPatch", "Limit"),
        ("ClientLimitsPatch", "ClientLimits"),
        ("HealthCheckPatch", "HealthCheck"),
        ("HttpCheckPatch", "HttpCheck"),
        ("ExchangeCheckPatch", "ExchangeCheck"),
    ] {
        let (other, whole) = (&schemas[other]["properties"], &schemas[whole]["properties"]);
        let names =
            |properties: &Value| -> Vec<String> { properties.as_object().expect("fields").keys().cloned().collect() };
        assert_eq!(names(other), names(whole));
        for (name, field) in whole.as_object().expect("fields") {
            for keyword in ["minimum", "maximum", "pattern", "minItems", "items"] {
                assert_eq!(other[name][keyword], field[keyword], "{name}: {keyword}");
            }
        }
    }
}

#[test]
fn every_operation_has_an_id_of_its_own_and_a_tag() {
    let document = document();
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id), "{method} {path}: {id}");
            let of = operation["tags"].as_array().expect("tags");
            assert!(
                of.len() == 1 && of.iter().all(|tag| tag.as_str().is_some_and(|tag| tags.contains(tag))),
                "{id}"
            );
            used.extend(of.iter().filter_map(Value::as_str));
        }
    }
    assert_eq!(used, tags);
}

#[test]
fn every_code_is_described() {
    let document = document();
    let described = &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"];
    let described: BTreeSet<&str> = described
        .as_array()
        .expect("codes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for gone in ["missing", "no_service", "gone"] {
        assert!(!described.contains(gone), "{gone}: what is not there has one code");
    }
    let server = serves();
    for path in [
        "/v1/no-such-path",
        "/v1/services/gone",
        "/v1/status?service=gone",
        "/v1/deploys/9",
        "/v1/addon/resources/gone",
    ] {
        assert_eq!(server.get(path).code(), (404, tcpgw::api::NOT_FOUND.into()), "{path}");
    }
}

/// Hints are commands for clients that are the command line, and requests for all others.
#[test]
fn hints_are_in_the_words_of_whoever_asks() {
    let server = serves();
    let told = |server: &Server, agent: &str| {
        let answer = server.send("GET", "/v1/services/gone", &format!("user-agent: {agent}\r\n"), b"");
        answer.json()["error"]["message"].as_str().expect("words").to_owned()
    };
    assert!(told(&server, "tcpgw/0.1.0").ends_with("`tcpgw service ls` lists them"));
    assert!(told(&server, "python-httpx/0.28").ends_with("`GET /v1/services` lists them"));
    server.shared.lock().expect("whole").answer = Some(Refused::Refused("see `tcpgw deploys 7`".into()));
    let refused = server.send("DELETE", "/v1/services/web", "", b"");
    assert_eq!(refused.json()["error"]["message"], "see `GET /v1/deploys/7`");
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
            assert!(
                used.contains_key(&target) || ["Lagged", "BackendAddress"].contains(&&**name),
                "{target} is not used"
            );
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
