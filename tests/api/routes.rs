//! Correct and wrong requests to every route.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tcpgw::control::events::EventContent;
use tcpgw::control::request::{ApplyOptions, Refused};
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_kernel::fake::{Fail, KernelCall};

use crate::harness::{Answer, Loop, Server, flow, serves, serves_with, times};

const GOOD: &[u8] = br#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

#[test]
fn status_has_what_the_kernel_and_the_daemon_know() {
    let server = serves();
    let answer = server.get("/v1/status");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    let status = answer.json();
    assert_eq!(status["ok"], false);
    assert_eq!(status["flows"]["established"], 2);
    let problems: Vec<_> = status["problems"].as_array().expect("a list").iter().collect();
    let kinds: Vec<_> = problems.iter().map(|problem| &problem["kind"]).collect();
    assert_eq!(
        kinds,
        [
            "no_active_backend",
            "no_healthy_backend",
            "rejected_configuration",
            "backend_unhealthy"
        ]
    );
    let [web, sick, void] = [0, 1, 2].map(|at| &status["services"][at]);
    assert_eq!((&web["provider"], &web["healthy"]), (&json!("api"), &json!(true)));
    assert_eq!((&sick["provider"], &sick["healthy"]), (&json!("file"), &json!(false)));
    assert_eq!((&void["provider"], &void["healthy"]), (&Value::Null, &json!(false)));
    let backend = &web["backends"][1];
    assert_eq!(
        (&backend["health"], &backend["health_reason"]),
        (&json!("failing"), &json!("timed out"))
    );
    assert_eq!(status["drains"][0]["seconds_left"], 12);
    assert_eq!(status["daemon"]["in_sync"], true);
    assert_eq!(status["sample"], Value::Null);

    let one = server.get("/v1/status?service=web&interval=50ms").json();
    assert_eq!(one["services"].as_array().map(Vec::len), Some(1));
    assert!(!one["sample"].is_null());
    assert_eq!(
        server.get("/v1/status?service=:20004").json()["services"][0]["name"],
        "sick"
    );
    assert_eq!(
        server.get("/v1/status?service=nobody").code(),
        (404, "not_found".into())
    );
    for wrong in [
        "service=a%20b",
        "service=",
        "interval=1",
        "interval=2h",
        "interval=soon",
        "intervall=1s",
        "interval=1s&interval=2s",
    ] {
        let (status, code) = server.get(&format!("/v1/status?{wrong}")).code();
        assert_eq!((status, &*code), (400, "bad_request"), "{wrong}");
    }
}

#[test]
fn flows_are_one_document_whatever_their_number() {
    let server = serves();
    let few = server.get("/v1/flows").json();
    assert_eq!(few["count"], 2);
    assert_eq!(few["flows"][0]["service"], "web");
    assert_eq!(server.get("/v1/flows?backend=10.2.0.1:80").json()["count"], 1);
    assert_eq!(server.get("/v1/flows?client=198.51.100.0/24").json()["count"], 2);
    assert_eq!(server.get("/v1/flows?client=192.0.2.0/24").json()["count"], 0);
    assert_eq!(server.get("/v1/flows?service=sick").json()["count"], 0);
    assert_eq!(server.get("/v1/flows?service=gone").status, 404);
    assert_eq!(
        server.get("/v1/flows?service=:9").json()["count"],
        0,
        "of a service that is gone"
    );
    for wrong in ["backend=x", "backend=10.0.0.1:0", "client=10.0.0.1/8", "who=me"] {
        assert_eq!(server.get(&format!("/v1/flows?{wrong}")).code().0, 400, "{wrong}");
    }
    server.shared.lock().expect("whole").flows = (1..20_000).map(flow).collect();
    let many = server.get("/v1/flows");
    assert!(many.whole && many.body.len() > 1 << 20, "{}", many.body.len());
    assert_eq!(many.json()["count"], 19_999);
}

#[test]
fn who_is_asked_by_what_a_backend_sees() {
    let server = serves();
    for target in [
        "/v1/who?seen_as=10.2.0.254:1",
        "/v1/who?seen_as=10.2.0.254:1&backend=10.2.0.1:80",
    ] {
        let who = server.get(target).json();
        assert_eq!(who["flows"][0]["client"], "198.51.100.1:1", "{target}");
    }
    assert_eq!(server.get("/v1/who?seen_as=10.2.0.254:9").json()["flows"], json!([]));
    for wrong in [
        "",
        "seen_as=10.2.0.254",
        "seen_as=10.2.0.254:1&backend=[fd00::1]:1",
        "seen=1",
    ] {
        assert_eq!(server.get(&format!("/v1/who?{wrong}")).code().0, 400, "{wrong}");
    }
}

#[test]
fn a_kernel_that_fails_is_an_error_or_a_document_that_ends() {
    let server = serves();
    server.shared.lock().expect("whole").fail = Some((KernelCall::Flows, Fail::Netlink));
    for target in ["/v1/status", "/v1/flows", "/v1/who?seen_as=10.2.0.254:1"] {
        assert_eq!(server.get(target).code(), (500, "failed".into()), "{target}");
    }
    let mut recorded = server.shared.lock().expect("whole");
    recorded.fail = Some((KernelCall::Flows, Fail::UnknownAfter));
    recorded.flows = (1..20_000).map(flow).collect();
    drop(recorded);
    let cut = server.get("/v1/flows");
    assert_eq!((cut.status, cut.whole), (200, false), "nobody takes it for all of them");
}

#[test]
fn the_daemon_tells_of_itself() {
    let server = serves();
    let daemon = server.get("/v1/daemon").json();
    assert_eq!((&daemon["pid"], &daemon["services"]), (&json!(77), &json!(3)));
    assert_eq!(daemon["health"], json!({"failing": 1, "healthy": 1, "unhealthy": 1}));
    assert_eq!(daemon["drains"][0]["waits_for"], "flows");
    assert_eq!(server.get("/v1/drains").json()["drains"][0]["flows"], 3);
    let healthz = server.get("/v1/healthz");
    assert_eq!((healthz.status, &healthz.json()["ok"]), (200, &json!(true)));
    let also = |kind| {
        let problem = Problem::new(kind, "words");
        server
            .shared
            .lock()
            .expect("whole")
            .snapshot
            .daemon
            .problems
            .push(problem);
    };
    also(ProblemKind::Paused);
    assert_eq!(server.get("/v1/healthz").status, 200, "a warning");
    also(ProblemKind::TornDown);
    let healthz = server.get("/v1/healthz");
    assert_eq!((healthz.status, &healthz.json()["ok"]), (503, &json!(false)));
    let kinds = |answer: serde_json::Value| -> Vec<serde_json::Value> {
        let problems = answer["problems"].as_array().expect("a list").iter();
        problems.map(|problem| problem["kind"].clone()).collect()
    };
    let answer = kinds(healthz.json());
    assert!(
        answer.contains(&json!("paused")) && answer.contains(&json!("torn_down")),
        "{answer:?}"
    );
    for target in [
        "/v1/daemon?x=1",
        "/v1/healthz?x",
        "/v1/drains?y=",
        "/v1/openapi.json?a=b",
    ] {
        assert_eq!(server.get(target).code().0, 400, "{target}");
    }
}

#[test]
fn apply_hands_the_state_over_with_who_sent_it() {
    let server = serves();
    let answer = server.post(
        "/v1/apply?dry_run=true&take_over=true&hold_back=true&drain=5s&origin=/etc/a.json",
        GOOD,
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["report"]["changed"], true);
    assert_eq!(answer.json()["warnings"], json!(["net.ipv4.ip_forward: is 0"]));
    assert_eq!(server.post_as("/v1/apply", "", GOOD).json()["report"]["elements"], 1);
    let recorded = server.shared.lock().expect("whole");
    let [first, second] = &recorded.applies[..] else {
        panic!("{:?}", recorded.applies);
    };
    assert_eq!(
        (&*first.state, &*first.origin, first.by),
        (GOOD, "/etc/a.json", Server::me())
    );
    let options = ApplyOptions {
        dry_run: true,
        take_over: true,
        allow_empty: false,
        prune: false,
        hold_back: true,
        drain: Some(std::time::Duration::from_secs(5)),
    };
    assert_eq!(first.options, options);
    assert_eq!((second.options, &*second.origin), (ApplyOptions::default(), "api"));
}

#[test]
fn what_is_wrong_with_a_state_has_a_place() {
    let server = serves();
    let answer = server.post(
        "/v1/apply",
        br#"{"version":1,"services":[{"name":"a","port":0,"backends":[]}]}"#,
    );
    assert_eq!(answer.code(), (422, "invalid".into()));
    let error = &answer.json()["error"];
    assert_eq!(error["problems"][0]["place"], "services[0].port");
    assert_eq!(error["more"], 0);
    let deep = "[".repeat(100_000);
    for bad in [&b""[..], b"{", b"null", b"\0\0\0", b"\xff\xfe", deep.as_bytes()] {
        let answer = server.post("/v1/apply", bad);
        assert_eq!(answer.code(), (422, "invalid".into()));
        assert!(answer.json()["error"]["problems"][0]["place"].is_string());
    }
    let empty = br#"{"version":1,"services":[]}"#;
    assert_eq!(server.post("/v1/apply", empty).code(), (409, "refused".into()));
    assert_eq!(server.post("/v1/apply?allow_empty=true", empty).status, 200);
    server.shared.lock().expect("whole").answer = Some(Refused::Failed("the kernel said no".into()));
    assert_eq!(server.post("/v1/apply", GOOD).code(), (500, "failed".into()));
}

#[test]
fn an_apply_that_cannot_be_meant_never_gets_to_the_loop() {
    let server = serves();
    for wrong in [
        "dryrun=true",
        "dry_run",
        "dry_run=yes",
        "dry_run=true&dry_run=true",
        "drain=5",
        "drain=25h",
        "origin=%00",
        "origin=a%0ab",
    ] {
        assert_eq!(
            server.post(&format!("/v1/apply?{wrong}"), GOOD).code().0,
            400,
            "{wrong}"
        );
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json5",
        "\u{e4}",
    ] {
        let answer = server.post_as("/v1/apply", &format!("content-type: {kind}\r\n"), GOOD);
        assert_eq!(answer.code(), (415, "unsupported_media_type".into()), "{kind}");
    }
    let charset = "content-type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(server.post_as("/v1/apply?dry_run=true", charset, GOOD).status, 200);
    assert_eq!(server.shared.lock().expect("whole").applies.len(), 1);
}

#[test]
fn teardown_is_a_post() {
    let server = serves();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let request = format!("{method} /v1/teardown HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.code(), (405, "method_not_allowed".into()), "{method}");
        assert!(answer.head.to_lowercase().contains("allow: post"), "{}", answer.head);
    }
    assert_eq!(server.shared.lock().expect("whole").teardowns, 0);
    assert_eq!(server.post("/v1/teardown", b"").json()["flows_flushed"], 2);
    assert_eq!(server.shared.lock().expect("whole").teardowns, 1);
    assert_eq!(server.post("/v1/status", b"").code().0, 405);
}

#[test]
fn events_are_listed_and_followed() {
    let server = serves();
    for n in 0..3 {
        server.note(EventContent::Failed { error: n.to_string() });
    }
    let list = |target: &str| -> Vec<String> {
        let answer = server.get(target).json();
        let events = answer["events"].as_array().expect("a list").clone();
        events
            .iter()
            .map(|event| event["id"].as_str().expect("a name").to_owned())
            .collect()
    };
    let all = ["test-1", "test-2", "test-3"];
    assert_eq!(list("/v1/events?follow=false"), all);
    assert_eq!(list("/v1/events?follow=false&after=test-2"), ["test-3"]);
    assert!(list("/v1/events?follow=false&after=test-3").is_empty());
    assert!(list("/v1/events?follow=false&service=none").is_empty());
    for other in ["before-2", "before-99", "test-99", "2"] {
        let answer = server.get(&format!("/v1/events?follow=false&after={other}")).json();
        assert_eq!(answer["missed"], json!(null), "{other}");
        assert_eq!(answer["events"].as_array().map(Vec::len), Some(3), "{other}");
        let mut stream = server.connect();
        let request = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: {other}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let seen = read_until(&mut stream, "id: test-3");
        assert!(seen.contains(r#"{"event":"lagged","missed":null}"#), "{seen}");
    }
    for wrong in ["follow=maybe", "since=1"] {
        assert_eq!(server.get(&format!("/v1/events?{wrong}")).code().0, 400, "{wrong}");
    }

    let mut stream = server.connect();
    let request = "GET /v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: test-2\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut seen = read_until(&mut stream, "id: test-3");
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(
        seen.contains("event: failed") && seen.contains(r#""error":"2""#),
        "{seen}"
    );
    assert!(!seen.contains("id: test-2"), "{seen}");
    server.note(EventContent::TornDown { flushed: 7, uid: 0 });
    seen += &read_until(&mut stream, "\"flushed\":7");
    assert!(
        seen.contains("id: test-4") && seen.contains("event: torn_down"),
        "{seen}"
    );
    read_until(&mut stream, "\n:");
    // The stream ends with the daemon.
    drop(server);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
}

#[test]
fn who_comes_late_or_is_slow_is_told_how_much_was_missed() {
    let server = serves();
    for n in 0..2000 {
        server.note(EventContent::Failed { error: n.to_string() });
    }
    let answer = server.get("/v1/events?follow=false&after=test-5").json();
    assert_eq!(
        (&answer["missed"], &answer["events"][0]["id"]),
        (&json!(971), &json!("test-977"))
    );
    let mut stream = server.connect();
    let request = "GET /v1/events?after=test-5 HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let seen = read_until(&mut stream, "id: test-977");
    assert!(
        seen.contains("event: lagged") && seen.contains("\"missed\":971"),
        "{seen}"
    );
}

pub(crate) fn read_until(stream: &mut std::os::unix::net::UnixStream, what: &str) -> String {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut piece).expect("something comes");
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&seen);
        if text.contains(what) {
            return text.into_owned();
        }
    }
}

#[test]
fn a_loop_that_does_not_answer_is_an_error() {
    let mute = serves_with(Loop::Mute, times());
    assert_eq!(mute.get("/v1/status").code(), (504, "no_answer".into()));
    assert_eq!(mute.post("/v1/apply", GOOD).code(), (504, "no_answer".into()));
    let stuck = serves_with(Loop::Stuck, times());
    let mut streams: Vec<_> = (0..6).map(|_| stuck.connect()).collect();
    for stream in &mut streams {
        let request = "GET /v1/daemon HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it reads");
    }
    let codes: Vec<_> = streams.iter_mut().map(|stream| Answer::read(stream).code().1).collect();
    assert!(codes.iter().any(|code| code == "busy"), "{codes:?}");
    assert!(
        codes.iter().all(|code| code == "busy" || code == "no_answer"),
        "{codes:?}"
    );
}
