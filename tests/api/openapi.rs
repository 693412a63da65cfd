//! The OpenAPI document and the server agree on every route, parameter and response.

mod answers;
mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use tcpgw::api::{OPENAPI, routes};
use tcpgw::control::events::EventContent;
use tcpgw::control::request::Refused;
use tcpgw_core::problem::{Problem, ProblemKind};

use crate::harness::{Answer, Server, serves};
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
    let reported = |server: &Server, agent: &str| {
        let answer = server.send("GET", "/v1/services/gone", &format!("user-agent: {agent}\r\n"), b"");
        answer.json()["error"]["message"].as_str().expect("words").to_owned()
    };
    assert!(reported(&server, "tcpgw/0.1.0").ends_with("`tcpgw service ls` lists them"));
    assert!(reported(&server, "python-httpx/0.28").ends_with("`GET /v1/services` lists them"));
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
