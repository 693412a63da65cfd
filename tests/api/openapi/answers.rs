//! The answers of each route are as the document describes them.

use tcpgw::control::events::EventContent;
use tcpgw::control::request::Refused;
use tcpgw::store::DeployPhase;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::conntrack::{Counters, Traffic};

use super::{GOOD, check, filled};
use crate::harness::{Loop, flow, serves, serves_with, times};

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
    server.shared.lock().expect("whole").snapshot = tcpgw::view::snapshot_parts::SnapshotParts::default();
    for path in ["/v1/status", "/v1/flows", "/v1/daemon", "/v1/drains"] {
        check(path, "get", 200, &server.get(path));
    }
}
