//! The read-only socket: every request that changes something is refused, and those that only read are answered as on the other
//! socket.

use tcpgw::api::settings::SocketScope;
use tcpgw::api::{RouteAccess, routes};

use crate::harness::{Loop, serves, serves_in, times};
use crate::openapi::{document, filled};

/// Operations that a read-only socket answers. All others are refused. A new one is added here after a look at what
/// it shows: no secrets, and nothing by which an order could be given.
const READS: [&str; 18] = [
    "GET /v1/addon/resources",
    "GET /v1/addon/resources/{app}",
    "GET /v1/daemon",
    "GET /v1/denied",
    "GET /v1/deploys",
    "GET /v1/deploys/{id}",
    "GET /v1/drains",
    "GET /v1/events",
    "GET /v1/export",
    "GET /v1/flows",
    "GET /v1/healthz",
    "GET /v1/history",
    "GET /v1/openapi.json",
    "GET /v1/services",
    "GET /v1/services/{name}",
    "GET /v1/services/{name}/wait",
    "GET /v1/status",
    "GET /v1/who",
];

/// Returns the operations of the document.
fn operations() -> Vec<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().expect("paths").clone();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods
                .map(|method| (method.to_uppercase(), path.clone()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The daemon's loop takes no requests here: one that got to it would time out.
#[test]
fn every_operation_that_changes_something_is_refused_and_reaches_nobody() {
    let server = serves_in(SocketScope::ReadOnly, Loop::Stuck, times());
    let mut refused = 0;
    for (method, path) in operations() {
        if READS.contains(&&*format!("{method} {path}")) {
            continue;
        }
        assert_ne!(method, "GET", "{path} is not classified");
        let target = filled(&path);
        for body in [&b""[..], b"{}", br#"{"version":1,"services":[]}"#] {
            let answer = server.send(&method, &target, "content-type: application/json\r\n", body);
            assert_eq!(
                answer.code(),
                (403, "read_only".to_owned()),
                "{method} {path}: {}",
                answer.text()
            );
            assert!(answer.text().contains("daemon.socket_readonly"), "{}", answer.text());
        }
        refused += 1;
    }
    assert_eq!(refused + READS.len(), routes().count());
    let recorded = server.shared.lock().expect("nobody panicked");
    assert_eq!((recorded.applies.len(), recorded.teardowns), (0, 0));
}

#[test]
fn operations_that_only_read_are_answered_as_on_the_other_socket() {
    let (all, read_only) = (serves(), serves_in(SocketScope::ReadOnly, Loop::Answers, times()));
    for operation in READS {
        let path = operation.strip_prefix("GET ").expect("a GET");
        let query = match path {
            "/v1/events" => "?follow=false",
            "/v1/services/{name}/wait" => "?for=healthy",
            "/v1/who" => "?seen_as=10.2.0.254:1",
            _ => "",
        };
        let target = format!("{}{query}", filled(path));
        let (here, there) = (read_only.get(&target), all.get(&target));
        assert_eq!((here.status, here.text()), (there.status, there.text()), "{path}");
        assert!([200, 404, 503].contains(&here.status), "{path}: {}", here.text());
        let head = read_only.raw(format!("HEAD {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        assert_eq!((head.status, head.body.len()), (here.status, 0), "{path}");
    }
}

#[test]
fn the_table_of_routes_classifies_each_as_this_list_does() {
    let answered: Vec<String> = routes()
        .filter(|(_, _, access)| *access == RouteAccess::Monitoring)
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let mut answered: Vec<&str> = answered.iter().map(String::as_str).collect();
    answered.sort_unstable();
    assert_eq!(answered, READS);
}

/// What is no reading is refused before it is looked at, also where it would not be taken on the other socket.
#[test]
fn other_methods_are_refused_on_every_path() {
    let server = serves_in(SocketScope::ReadOnly, Loop::Stuck, times());
    for path in [
        "/v1/no-such-path",
        "/v1/status",
        "/v1/apply",
        "/v1/services/a/drain",
        "/",
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            let answer = server.send(method, path, "", b"");
            assert_eq!(answer.code(), (403, "read_only".to_owned()), "{method} {path}");
        }
    }
    assert_eq!(server.get("/v1/no-such-path").status, 404);
    assert_eq!(server.get("/v1/apply").status, 405);
}
