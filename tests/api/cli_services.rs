//! `tcpgw service` and other orders to single services, and their history, through the API's socket.

use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::ServiceEdit;
use tcpgw::store::Expect;

use crate::cli::{err, json as told, out, run, state};
use crate::harness::serves;

#[test]
fn services_are_added_set_and_removed() {
    let server = serves();
    let added = run(
        &server,
        &[
            "service",
            "add",
            "new",
            "--port",
            "20010",
            "--backend",
            "10.2.0.8:80",
            "--backend",
            "10.2.0.9:81=5",
            "--pps",
            "7",
            "--burst",
            "9",
            "--balance",
            "source-hash",
            "--on-retire",
            "reset",
            "--on-empty",
            "drop",
            "--source",
            "preserve",
            "--allow",
            "192.0.2.0/24",
            "--deny",
            "192.0.2.1/32",
            "--drain-timeout",
            "5s",
            "--label",
            "a=b",
            "--label",
            "c=d=e",
            "--address",
            "198.51.100.9",
            "--take-over",
        ],
    );
    assert_eq!(
        (added.status.code(), &*out(&added)),
        (Some(0), "new: added (revision 10)\n"),
        "{}",
        err(&added)
    );
    assert_eq!(err(&added), "warning: it is odd\n");
    let file = state(&server, r#"{"limit":{"pps":5},"labels":{"a":"b"}}"#);
    let set = run(
        &server,
        &[
            "service",
            "set",
            "web",
            "--file",
            &file,
            "--reset",
            "limit.burst",
            "--port",
            "5",
            "--if-revision",
            "7",
        ],
    );
    assert_eq!(
        (set.status.code(), &*out(&set)),
        (Some(0), "web: changed (revision 10)\n"),
        "{}",
        err(&set)
    );
    let removed = run(&server, &["service", "rm", "web", "--drain", "3s"]);
    assert_eq!(
        (removed.status.code(), &*out(&removed)),
        (Some(0), "web: removed (revision 10)\n")
    );
    let shared = server.shared.lock().expect("whole");
    let [add, set, remove] = &shared.single.edits[..] else {
        panic!("{:?}", shared.single.edits)
    };
    assert_eq!(
        (add.expect, set.expect, remove.expect),
        (Expect::Absent, Expect::Revision(7), Expect::Present)
    );
    assert!(add.take_over && !set.take_over);
    assert_eq!(remove.drain, Some(Duration::from_secs(3)));
    let ServiceEdit::Patch(patch) = &set.edit else {
        panic!("{set:?}")
    };
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(patch).expect("JSON"),
        json!({"limit": {"pps": 5, "burst": null}, "labels": {"a": "b"}, "port": 5})
    );
    let ServiceEdit::Put(put) = &add.edit else {
        panic!("{add:?}")
    };
    let service = tcpgw_core::model::parse_service_named(&add.name, put).expect("a service");
    assert_eq!(
        (&*service.name, service.backends[1].weight.get(), service.labels.len()),
        ("new", 5, 2)
    );
}

#[test]
fn what_is_wrong_with_a_service_is_wrong_input() {
    let server = serves();
    let wrong = run(&server, &["service", "add", "new", "--port", "20010"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("error: new: backends:"), "{}", err(&wrong));
    let wrong = run(&server, &["service", "set", "web", "--pps", "0", "-o", "json"]);
    assert_eq!((wrong.status.code(), &told(&wrong)["file"]), (Some(2), &json!("web")));
    for wrong in [
        &["set", "web"][..],
        &["add", "A"],
        &["set", "web", "--balance", "fair"],
        &["add", "x", "--file", "/nowhere"],
    ] {
        let output = run(&server, &[&["service"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", err(&output));
    }
    let there = run(
        &server,
        &[
            "service",
            "add",
            "web",
            "--port",
            "5",
            "--file",
            &state(&server, r#"{"backends":[]}"#),
        ],
    );
    assert_eq!(
        (there.status.code(), err(&there).contains("not as expected")),
        (Some(1), true),
        "{}",
        err(&there)
    );
    assert_eq!(run(&server, &["service", "rm", "gone"]).status.code(), Some(1));
}

#[test]
fn services_are_shown() {
    let server = serves();
    let table = out(&run(&server, &["service", "ls"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "NAME   PORT  PROVIDER  REVISION  PPS  BACKENDS");
    assert_eq!(
        lines[2],
        "web   20003  api              7  100  10.2.0.1:80 10.2.0.2:80"
    );
    let ran = out(&run(&server, &["service", "show", "web"]));
    assert!(ran.starts_with("web :20003 of api, revision 7\n"), "{ran}");
    assert!(ran.contains("  limit          pps 100\n"), "{ran}");
    assert!(ran.contains("10.2.0.9:80 gone, leaving: 3 flows, 12 s left"), "{ran}");
    let document = run(&server, &["service", "show", "sick", "-o", "json"]);
    assert_eq!(told(&document), server.get("/v1/services/sick").json());
    assert_eq!(
        told(&run(&server, &["service", "ls", "-o", "json"])),
        server.get("/v1/services").json()
    );
    assert_eq!(run(&server, &["service", "show", "gone"]).status.code(), Some(1));
}

#[test]
fn backends_are_held_back_and_waited_for() {
    let server = serves();
    let drained = run(&server, &["drain", "web", "10.2.0.1:80", "--drain-timeout", "9s"]);
    assert_eq!(
        (drained.status.code(), &*out(&drained)),
        (Some(0), "web: 1 backend draining (revision 10)\n"),
        "{}",
        err(&drained)
    );
    let back = run(&server, &["undrain", "web", "-q"]);
    assert_eq!((back.status.code(), out(&back)), (Some(0), String::new()));
    let late = run(&server, &["drain", "web", "--wait", "--timeout", "50ms"]);
    assert_eq!(
        (late.status.code(), &*err(&late)),
        (
            Some(1),
            "error: web is not drained after 50ms: 10.2.0.9:80 has 3 flows\n"
        )
    );
    let well = run(&server, &["wait", "web", "--for", "healthy"]);
    assert_eq!((well.status.code(), &*out(&well)), (Some(0), "web: healthy\n"));
    let ill = run(
        &server,
        &["wait", "sick", "--for", "healthy", "--timeout", "50ms", "-o", "json"],
    );
    assert_eq!((ill.status.code(), &told(&ill)["healthy"]), (Some(1), &json!(false)));
    assert!(
        err(&ill).contains("10.2.0.3:80 is unhealthy (refused)"),
        "{}",
        err(&ill)
    );
    assert_eq!(
        run(&server, &["wait", "gone", "--for", "drained"]).status.code(),
        Some(1)
    );
    let paused = run(&server, &["pause", "web", "--for", "5s"]);
    assert!(
        out(&paused).starts_with("web: new connections are dropped for 5s"),
        "{}",
        out(&paused)
    );
    assert_eq!(run(&server, &["pause", "web", "--for", "2h"]).status.code(), Some(2));
    assert_eq!(
        told(&run(&server, &["resume", "web", "-o", "json"]))["paused_for"],
        json!(null)
    );
}

#[test]
fn history_and_export() {
    let server = serves();
    let table = out(&run(&server, &["history", "web", "--since", "1h", "--limit", "7"]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("1970-01-01 00:16:40  root  service set 41  web      port "),
        "{table}"
    );
    assert!(lines[2].ends_with("added"), "{table}");
    assert_eq!(
        told(&run(&server, &["history", "-o", "json"])),
        server.get("/v1/history").json()
    );
    let shared = server.shared.lock().expect("whole");
    assert!(
        shared.single.filters[0]
            .since
            .is_some_and(|since| since > Duration::from_secs(1 << 30))
    );
    assert_eq!(shared.single.filters[0].limit, 7);
    drop(shared);
    assert_eq!(
        out(&run(&server, &["export"])).into_bytes(),
        server.get("/v1/export").body
    );
    assert_eq!(told(&run(&server, &["export", "--all"]))["services"][0]["name"], "sick");
    let of = |provider: &str| told(&run(&server, &["export", "--provider", provider]));
    assert_eq!(of("file"), server.get("/v1/export?provider=file").json());
    assert_eq!(of("api"), server.get("/v1/export").json());
    assert_eq!(run(&server, &["export", "--provider", "etcd"]).status.code(), Some(2));
    assert_eq!(
        run(&server, &["export", "--all", "--provider", "api"]).status.code(),
        Some(2)
    );
}
