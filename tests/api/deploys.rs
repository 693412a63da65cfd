//! Routes for deploys: begin, follow, undo.

use std::time::Duration;

use serde_json::json;
use tcpgw::control::events::EventContent;
use tcpgw::control::request::{DeploySelector, Refused};
use tcpgw::store::DeployPhase;

use crate::harness::{Server, serves};

const DEPLOYS: &str = "/v1/services/web/deploys";
const ORDER: &[u8] = br#"{"targets":["10.2.0.3:80",{"address":"10.2.0.4","port":80,"weight":2}],"min":1,"timeout":"9s",
    "drain_timeout":"8s"}"#;

pub(crate) fn script(server: &Server, phases: &[(DeployPhase, Option<&'static str>)]) {
    server.shared.lock().expect("whole").single.script = phases.to_vec();
}

#[test]
fn a_deploy_begins() {
    let server = serves();
    let begun = server.post(DEPLOYS, ORDER);
    assert_eq!(begun.status, 202, "{}", begun.text());
    let deploy = begun.json();
    assert_eq!((&deploy["id"], &deploy["phase"]), (&json!(41), &json!("probing")));
    assert_eq!(deploy["targets"], json!(["10.2.0.3:80", "10.2.0.4:80"]));
    assert_eq!(deploy["progress"]["old"], json!(["10.2.0.1:80"]));
    assert_eq!(server.post(DEPLOYS, br#"{"targets":["10.2.0.3:80"]}"#).status, 202);
    let recorded = server.shared.lock().expect("whole");
    let [first, second] = &recorded.single.orders[..] else {
        panic!("{:?}", recorded.single.orders)
    };
    assert_eq!(
        (first.min, first.timeout, first.drain),
        (Some(1), Duration::from_secs(9), Some(Duration::from_secs(8)))
    );
    assert_eq!(
        (second.min, second.timeout, second.drain),
        (None, Duration::from_secs(30), None)
    );
    assert_eq!(
        (&*first.service, first.targets.len(), first.by),
        ("web", 2, Server::me())
    );
}

#[test]
fn an_order_that_cannot_be_meant_begins_nothing() {
    let server = serves();
    for (wrong, place) in [
        (&br#"{"targets":[]}"#[..], "targets"),
        (br#"{"targets":["10.2.0.3:80"],"min":2}"#, "min"),
        (br#"{"targets":["10.2.0.3:80"],"min":0}"#, "min"),
        (br#"{"targets":["10.2.0.3:80"],"timeout":"2h"}"#, "timeout"),
        (br#"{"targets":["10.2.0.3:80"],"drain_timeout":"5"}"#, "drain_timeout"),
        (br#"{"target":["10.2.0.3:80"]}"#, "body"),
        (b"", "body"),
    ] {
        let answer = server.post(DEPLOYS, wrong);
        assert_eq!(answer.code(), (422, "invalid".into()));
        assert_eq!(
            answer.json()["error"]["problems"][0]["place"],
            place,
            "{}",
            answer.text()
        );
    }
    for wrong in ["until=done", "wait=5s", "until=begun&until=begun"] {
        assert_eq!(
            server.post(&format!("{DEPLOYS}?{wrong}"), ORDER).code().0,
            400,
            "{wrong}"
        );
    }
    assert!(server.shared.lock().expect("whole").single.orders.is_empty());
    server.shared.lock().expect("whole").answer = Some(Refused::Refused("deploy 40 is not over".into()));
    assert_eq!(server.post(DEPLOYS, ORDER).code(), (409, "refused".into()));
}

#[test]
fn a_deploy_is_waited_for() {
    let server = serves();
    let (probing, switched) = ((DeployPhase::Probing, None), (DeployPhase::Switched, None));
    // The second request finds it decided, and only the third one in the kernel.
    script(&server, &[probing, switched, switched, probing]);
    let answer = server.post(&format!("{DEPLOYS}?until=switched"), ORDER);
    assert_eq!(
        (answer.status, &answer.json()["phase"]),
        (200, &json!("switched")),
        "{}",
        answer.text()
    );
    assert_eq!(server.shared.lock().expect("whole").single.script.len(), 1);
    script(&server, &[switched, (DeployPhase::Drained, None)]);
    let answer = server.get("/v1/deploys/41?until=drained&wait=30s");
    assert_eq!((answer.status, &answer.json()["phase"]), (200, &json!("drained")));
    assert_eq!(answer.json()["progress"], json!(null));
}

#[test]
fn switching_is_shown_and_is_not_switched() {
    let server = serves();
    server.post(DEPLOYS, ORDER);
    script(&server, &[(DeployPhase::Switched, None)]);
    let answer = server.get("/v1/deploys/41?until=switched&wait=1ms").json();
    assert_eq!(
        (&answer["phase"], &answer["progress"]["phase"]),
        (&json!("switching"), &json!("switching"))
    );
}

#[test]
fn an_event_ends_a_wait() {
    let server = serves();
    server.post(DEPLOYS, ORDER);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get("/v1/deploys/41?until=drained&wait=10m"));
        std::thread::sleep(Duration::from_millis(50));
        script(&server, &[(DeployPhase::Drained, None)]);
        server.note(EventContent::Deploy {
            id: 41,
            service: "web".into(),
            phase: "drained",
            reason: None,
        });
        assert_eq!(waiting.join().expect("an answer").json()["phase"], "drained");
    });
}

#[test]
fn a_deploy_that_fails_while_it_is_waited_for_is_an_error() {
    let server = serves();
    for (phase, code) in [(DeployPhase::Failed, "failed"), (DeployPhase::Undone, "undone")] {
        script(
            &server,
            &[(DeployPhase::Probing, None), (phase, Some("10.2.0.3:80: refused"))],
        );
        let answer = server.post(&format!("{DEPLOYS}?until=drained"), ORDER);
        assert_eq!(answer.code(), (409, code.into()));
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["deploy"]["phase"], &error["deploy"]["reason"]),
            (&json!(code), &json!("10.2.0.3:80: refused"))
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("10.2.0.3:80: refused"))
        );
    }
    assert_eq!(
        server.get("/v1/deploys/41?until=drained").json()["phase"],
        "failed",
        "it is over"
    );
}

#[test]
fn deploys_are_listed() {
    let server = serves();
    server.post(DEPLOYS, ORDER);
    let list = server.get("/v1/deploys?service=web&limit=5").json();
    assert_eq!(
        (&list["deploys"][0]["id"], &list["deploys"][0]["progress"]["left"]),
        (&json!(41), &json!(0))
    );
    assert_eq!(server.get("/v1/deploys?service=other").json()["deploys"], json!([]));
    for wrong in [
        "deploys?limit=0",
        "deploys?phase=failed",
        "deploys/x",
        "deploys/-1",
        "deploys/41?wait=5s",
        "deploys/41?until=x",
        "deploys/41?until=drained&wait=11m",
    ] {
        assert_eq!(server.get(&format!("/v1/{wrong}")).code().0, 400, "{wrong}");
    }
    assert_eq!(server.get("/v1/deploys/7").code(), (404, "not_found".into()));
}

#[test]
fn a_deploy_is_taken_back() {
    let server = serves();
    server.post(DEPLOYS, ORDER);
    let undone = server.post("/v1/deploys/41/undo", b"");
    assert_eq!((undone.status, &undone.json()["phase"]), (200, &json!("undone")));
    assert_eq!(
        server.post("/v1/services/web/rollback", b"").code(),
        (409, "refused".into())
    );
    server.post(DEPLOYS, ORDER);
    assert_eq!(server.post("/v1/services/web/rollback", b"").json()["id"], 42);
    assert_eq!(server.post("/v1/deploys/7/undo", b"").code().0, 404);
    assert_eq!(server.post("/v1/services/other/rollback", b"").code().0, 404);
    let recorded = server.shared.lock().expect("whole");
    assert_eq!(
        (&recorded.single.undos[0].which, recorded.single.undos[0].by),
        (&DeploySelector::Id(41), Server::me())
    );
    assert_eq!(recorded.single.undos[1].which, DeploySelector::Last("web".into()));
}
