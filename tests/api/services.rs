//! Routes for single services: read, change, wait.

use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::{Refused, ServiceEdit};
use tcpgw::store::Expect;

use crate::harness::{Loop, Server, serves, serves_with, times};

const WEB: &str = "/v1/services/web";

fn expectations(server: &Server) -> Vec<Expect> {
    let recorded = server.shared.lock().expect("whole");
    recorded.single.edits.iter().map(|edit| edit.expect).collect()
}

fn etag(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("etag: "))
}

#[test]
fn services_are_listed_and_shown() {
    let server = serves();
    let list = server.get("/v1/services").json();
    assert_eq!(list["revision"], 9);
    let [sick, web] = &list["services"].as_array().expect("a list")[..] else {
        panic!("{list}");
    };
    assert_eq!((&sick["provider"], &sick["revision"]), (&json!("file"), &json!(null)));
    assert_eq!((&web["provider"], &web["revision"]), (&json!("api"), &json!(7)));
    assert_eq!(web["service"]["limit"]["pps"], 100);

    let answer = server.get(WEB);
    assert_eq!(etag(&answer.head), Some("\"7\""));
    let view = answer.json();
    assert_eq!((&view["healthy"], &view["drained"]), (&json!(true), &json!(false)));
    assert_eq!(view["backends"][2]["flows"], 3);
    let sick = server.get("/v1/services/sick");
    assert_eq!((etag(&sick.head), &sick.json()["healthy"]), (None, &json!(false)));
    assert_eq!(server.get("/v1/services/gone").code(), (404, "not_found".into()));
    for wrong in ["A", "-a", "%00", "%ff", "a%2Fb", &"a".repeat(64)] {
        let target = format!("/v1/services/{wrong}");
        assert_eq!(server.get(&target).code(), (400, "bad_request".into()), "{wrong}");
    }
}

#[test]
fn a_list_is_of_a_provider_or_of_labels() {
    let server = serves();
    let labels = br#"{"labels":{"app":"shop","stage":"test"}}"#;
    let view = server.send("PATCH", WEB, "", labels).json();
    assert_eq!(view["service"]["labels"]["app"], "shop");
    {
        let mut recorded = server.shared.lock().expect("whole");
        let view = recorded.single.services.get_mut("web").expect("it is there");
        let patched = tcpgw_core::model::patch_service(&view.listed.service, labels).expect("good");
        view.listed.service = std::sync::Arc::new(patched);
    }
    let names = |query: &str| -> Vec<String> {
        let list = server.get(&format!("/v1/services?{query}")).json();
        let services = list["services"].as_array().expect("a list");
        services
            .iter()
            .map(|listed| listed["service"]["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names("provider=api"), ["web"]);
    assert_eq!(names("provider=file"), ["sick"]);
    assert_eq!(names("provider=orphan"), [""; 0]);
    assert_eq!(names("provider=docker"), [""; 0]);
    assert_eq!(names("label=app"), ["web"]);
    assert_eq!(names("label=app%3Dshop,stage=test"), ["web"]);
    assert_eq!(names("label=app%3Dshop,stage=live"), [""; 0]);
    assert_eq!(names("label=app%3Dshop&provider=file"), [""; 0]);
    for wrong in ["label=", "label=%3Dx", "label=a,,b", "provider=", "provider=etcd"] {
        let target = format!("/v1/services?{wrong}");
        assert_eq!(server.get(&target).code(), (400, "bad_request".into()), "{wrong}");
    }
    assert_eq!(etag(&server.get("/v1/services").head), Some("\"9\""));
}

#[test]
fn a_service_is_created_once() {
    let server = serves();
    let new = br#"{"name":"new","port":20010,"backends":[]}"#;
    let made = server.post("/v1/services?take_over=true", new);
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.head.contains("location: /v1/services/new"), "{}", made.head);
    let web = br#"{"name":"web","port":20010,"backends":[]}"#;
    let there = server.post("/v1/services", web);
    assert_eq!(there.code(), (412, "conflict".into()));
    assert_eq!(there.json()["error"]["current"]["revision"], 7);
    assert_eq!(expectations(&server), [Expect::Absent, Expect::Absent]);
    let recorded = server.shared.lock().expect("whole");
    assert!(recorded.single.edits[0].take_over && !recorded.single.edits[1].take_over);
}

#[test]
fn a_service_is_put() {
    let server = serves();
    let body = br#" {"port":20010,"backends":["10.2.0.8:80"]}"#;
    let made = server.send(
        "PUT",
        "/v1/services/new?take_over=true&drain=5s",
        "if-none-match: *\r\n",
        body,
    );
    assert_eq!(
        (made.status, etag(&made.head)),
        (201, Some("\"10\"")),
        "{}",
        made.text()
    );
    assert_eq!(
        made.json(),
        json!({"service": {"name": "new", "port": 20010, "backends": ["10.2.0.8:80"]}, "revision": 10, "created": true,
               "changed": true, "warnings": ["it is odd"]})
    );
    let put = server.send(
        "PUT",
        WEB,
        "if-match: \"7\"\r\n",
        br#"{"name":"web","port":1,"backends":[]}"#,
    );
    assert_eq!(put.status, 200);
    assert_eq!(
        server
            .send("PUT", WEB, "if-match: *\r\n", br#"{"port":1,"backends":[]}"#)
            .status,
        200
    );
    assert_eq!(server.send("PUT", WEB, "", br#"{"port":1,"backends":[]}"#).status, 200);
    let empty = server.send("PUT", WEB, "", b"{ }");
    assert_eq!(
        empty.json()["error"]["problems"][0]["place"],
        "port",
        "{}",
        empty.text()
    );
    assert_eq!(
        expectations(&server)[..4],
        [Expect::Absent, Expect::Revision(7), Expect::Present, Expect::Anything]
    );
    let recorded = server.shared.lock().expect("whole");
    let first = &recorded.single.edits[0];
    assert_eq!((first.take_over, first.drain), (true, Some(Duration::from_secs(5))));
    assert_eq!(first.by, Server::me());
}

#[test]
fn a_service_that_is_not_as_expected_is_told_as_it_is() {
    let server = serves();
    for (method, header) in [
        ("PUT", "if-match: \"6\"\r\n"),
        ("PUT", "if-none-match: *\r\n"),
        ("DELETE", "if-match: \"8\"\r\n"),
    ] {
        let answer = server.send(method, WEB, header, br#"{"port":1,"backends":[]}"#);
        assert_eq!(answer.code(), (412, "conflict".into()), "{method} {header}");
        let current = &answer.json()["error"]["current"];
        assert_eq!(
            (&current["revision"], &current["service"]["port"]),
            (&json!(7), &json!(20003))
        );
    }
    for wrong in [
        "if-match: 7\r\n",
        "if-match: W/\"7\"\r\n",
        "if-match: \"7\", \"8\"\r\n",
        "if-match: \"+7\"\r\n",
        "if-match: \"99999999999999999999\"\r\n",
        "if-match: \"7\"\r\nif-match: \"7\"\r\n",
        "if-match: *\r\nif-none-match: *\r\n",
        "if-none-match: \"7\"\r\n",
    ] {
        let answer = server.send("PUT", WEB, wrong, b"{}");
        assert_eq!(answer.code(), (400, "bad_request".into()), "{wrong}");
    }
    assert_eq!(server.send("PATCH", WEB, "if-none-match: *\r\n", b"{}").code().0, 400);
    assert_eq!(expectations(&server).len(), 3);
}

#[test]
fn a_service_is_patched_and_deleted() {
    let server = serves();
    let merge = "content-type: application/merge-patch+json\r\n";
    let patched = server.send("PATCH", WEB, merge, br#"{"limit":null}"#);
    assert_eq!(patched.status, 200, "{}", patched.text());
    assert_eq!(patched.json()["service"]["limit"], json!(null));
    let patched = server.send("PATCH", WEB, "if-match: \"7\"\r\n", br#"{"port":0}"#);
    assert_eq!(
        (patched.code().0, &patched.json()["error"]["problems"][0]["place"]),
        (422, &json!("port"))
    );
    assert_eq!(server.send("PUT", WEB, merge, b"{}").code().0, 415);
    assert_eq!(
        server.send("PATCH", "/v1/services/gone", "", b"{}").code(),
        (404, "not_found".into())
    );
    let removed = server.send("DELETE", WEB, "", b"");
    assert_eq!((removed.status, etag(&removed.head)), (200, None));
    assert_eq!(removed.json()["service"], json!(null));
    assert_eq!(
        expectations(&server),
        [Expect::Present, Expect::Revision(7), Expect::Present, Expect::Anything]
    );
}

#[test]
fn backends_drain_and_come_back() {
    let server = serves();
    let body = br#"{"backends":["10.2.0.1:80","[fd00::1]:80"]}"#;
    assert_eq!(server.post(&format!("{WEB}/drain?drain=9s"), body).status, 200);
    assert_eq!(server.post_as(&format!("{WEB}/undrain"), "", b"").status, 200);
    for (wrong, place) in [
        (&br#"{"backends":["10.2.0.1:80","x"]}"#[..], "backends[1]"),
        (br#"{"backend":[]}"#, "body"),
        (b"[", "body"),
    ] {
        let answer = server.post(&format!("{WEB}/drain"), wrong);
        assert_eq!(answer.code(), (422, "invalid".into()));
        assert_eq!(answer.json()["error"]["problems"][0]["place"], place);
    }
    assert_eq!(server.post("/v1/services/gone/drain", b"").code().0, 404);
    let recorded = server.shared.lock().expect("whole");
    let ServiceEdit::Drain(some) = &recorded.single.edits[0].edit else {
        panic!("{:?}", recorded.single.edits)
    };
    assert_eq!(
        (some.len(), recorded.single.edits[0].drain),
        (2, Some(Duration::from_secs(9)))
    );
    assert_eq!(recorded.single.edits[1].edit, ServiceEdit::Undrain(Vec::new()));
}

#[test]
fn a_pause_ends() {
    let server = serves();
    assert_eq!(
        server.post(&format!("{WEB}/pause"), br#"{"for":"5m"}"#).json()["paused_for"],
        300
    );
    assert_eq!(server.post(&format!("{WEB}/pause"), b"").json()["paused_for"], 30);
    assert_eq!(
        server.post(&format!("{WEB}/resume"), b"").json()["paused_for"],
        json!(null)
    );
    for wrong in [
        &br#"{"for":"61m"}"#[..],
        br#"{"for":"0s"}"#,
        br#"{"for":5}"#,
        br#"{"time":"5s"}"#,
    ] {
        assert_eq!(
            server.post(&format!("{WEB}/pause"), wrong).code(),
            (422, "invalid".into())
        );
    }
    assert_eq!(server.post("/v1/services/gone/resume", b"").code().0, 404);
    assert_eq!(server.post(&format!("{WEB}/pause?for=5s"), b"").code().0, 400);
    assert_eq!(server.shared.lock().expect("whole").single.pauses.len(), 4);
}

#[test]
fn a_service_is_waited_for() {
    let server = serves();
    assert_eq!(server.get(&format!("{WEB}/wait?for=healthy")).json()["healthy"], true);
    let late = server.get(&format!("{WEB}/wait?for=drained&timeout=50ms"));
    assert_eq!(late.code(), (504, "not_yet".into()));
    assert_eq!(late.json()["error"]["service"]["backends"][2]["flows"], 3);
    for wrong in [
        "",
        "?for=ready",
        "?for=healthy&timeout=11m",
        "?for=healthy&timeout=5",
        "?until=healthy",
    ] {
        assert_eq!(server.get(&format!("{WEB}/wait{wrong}")).code().0, 400, "{wrong}");
    }
    assert_eq!(server.get("/v1/services/gone/wait?for=healthy").code().0, 404);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get(&format!("{WEB}/wait?for=drained&timeout=30s")));
        std::thread::sleep(Duration::from_millis(50));
        let mut recorded = server.shared.lock().expect("whole");
        let web = recorded.single.services.get_mut("web").expect("it is there");
        web.backends.retain(|backend| !backend.leaving);
        drop(recorded);
        assert_eq!(waiting.join().expect("an answer").json()["drained"], true);
    });
}

#[test]
fn no_more_than_some_wait() {
    let server = serves();
    let streams: Vec<_> = (0..=tcpgw::api::limits::WAITERS)
        .map(|_| {
            let mut stream = server.connect();
            let request =
                format!("GET {WEB}/wait?for=drained&timeout=5m HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
            stream
        })
        .collect();
    // One of them has no place; the others are let go when the daemon ends.
    let answer = server.get(&format!("{WEB}/wait?for=drained&timeout=1m"));
    assert_eq!(answer.code(), (503, "busy".into()));
    assert_eq!(server.get(WEB).status, 200, "nobody else is held up");
    drop(server);
    drop(streams);
}

#[test]
fn an_encoded_body_is_refused() {
    let server = serves();
    for encoding in ["gzip", "br", "identity, gzip", "gzip\r\ncontent-encoding: identity"] {
        let header = format!("content-encoding: {encoding}\r\n");
        let answer = server.send("PATCH", WEB, &header, br#"{"port":5}"#);
        assert_eq!(answer.code(), (415, "unsupported_media_type".into()), "{encoding}");
    }
    let plain = server.send("PATCH", WEB, "content-encoding: identity\r\n", br#"{"port":5}"#);
    assert_eq!(plain.status, 200, "{}", plain.text());
}

#[test]
fn refusals_have_their_codes() {
    let server = serves();
    // The request had no condition: a concurrent change was faster.
    server.shared.lock().expect("whole").answer = Some(Refused::Conflict("no".into(), None));
    assert_eq!(
        server.send("PATCH", WEB, "", br#"{"port":5}"#).code(),
        (409, "conflict".into())
    );
    for (refused, status, code) in [
        (Refused::Store("it is full".into()), 507, "store"),
        (Refused::Refused("it is the file's".into()), 409, "refused"),
        (Refused::Failed("no".into()), 500, "failed"),
        (Refused::Missing("no".into()), 404, "not_found"),
    ] {
        server.shared.lock().expect("whole").answer = Some(refused);
        let answer = server.send("PATCH", WEB, "", br#"{"port":5}"#);
        assert_eq!(answer.code(), (status, code.into()));
    }
    let head = format!("PUT {WEB} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n");
    assert_eq!(server.raw(head.as_bytes()).code(), (413, "too_large".into()));
    let mute = serves_with(Loop::Mute, times());
    assert_eq!(mute.send("DELETE", WEB, "", b"").code(), (504, "no_answer".into()));
}

#[test]
fn history_and_export() {
    let server = serves();
    let history = server
        .get("/v1/history?service=web&since=5&deploy=41&before=9&limit=2")
        .json();
    assert_eq!(history["entries"][0]["new"]["port"], 2);
    assert_eq!(
        (&history["entries"][1]["old"], &history["entries"][1]["at"]),
        (&json!(null), &json!(1000.5))
    );
    let recorded = server.shared.lock().expect("whole");
    let filter = &recorded.single.filters[0];
    assert_eq!(
        (&filter.services, filter.since),
        (&vec!["web".to_owned()], Some(Duration::from_secs(5)))
    );
    assert_eq!((filter.deploy, filter.before, filter.limit), (Some(41), Some(9), 2));
    drop(recorded);
    for wrong in ["limit=0", "limit=1001", "since=1h", "service=A", "deploy=x", "uid=0"] {
        assert_eq!(server.get(&format!("/v1/history?{wrong}")).code().0, 400, "{wrong}");
    }
    let export = server.get("/v1/export");
    let state = tcpgw_core::model::parse(&export.body).expect("a state file");
    assert_eq!((state.services.len(), &*state.services[0].name), (1, "web"));
    assert_eq!(server.get("/v1/export?all=true").json()["services"][0]["name"], "sick");
}
