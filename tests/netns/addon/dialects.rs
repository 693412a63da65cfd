//! Responses of the provider API in each platform's dialect, request by request.

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{
    LARGE, Reply, SERVICE, SMALL, ask, ask_with, configure, daemon, deprovision, port_of, provision, services,
    standard_headers,
};
use crate::harness::Net;

fn pps(daemon: &crate::harness::daemon::Daemon<'_>) -> Value {
    services(daemon)[0]["service"]["limit"]["pps"].clone()
}

fn is_empty(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{reply:?}");
}

#[test]
fn scalingo_gets_what_it_expects() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (method, path, body) = provision(Dialect::Scalingo, "my-app", "small");
    let first = ask(&net, method, &path, &body);
    let made = first.is(201);
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(made["config"], json!({"TCP_URL": "tcp://gateway.example.com:20000"}));
    assert!(made["message"].is_string());
    assert_eq!(ask(&net, method, &path, &body).is(200), made, "the same again");
    let resource = format!("{path}/{id}");
    assert_eq!(ask(&net, "GET", &resource, "").is(200)["status"], "active");
    assert_eq!(pps(&daemon), 500);

    let changed = ask(&net, "PUT", &resource, json!({"plan": "large"})).is(200);
    assert_eq!((&changed["config"], pps(&daemon)), (&made["config"], json!(5000)));
    assert!(ask(&net, "PUT", &resource, json!({"plan": "none"})).is(422)["error"].is_string());
    assert!(ask(&net, "PUT", &resource, json!({"options": {}})).is(422)["error"].is_string());
    // The same app with another plan than it has is no new resource.
    assert!(ask(&net, method, &path, &body).is(409)["error"].is_string());

    for (verb, status) in [
        ("suspend", "suspended"),
        ("suspend", "suspended"),
        ("resume", "active"),
        ("resume", "active"),
    ] {
        is_empty(&ask(&net, "POST", &format!("{resource}/{verb}"), ""), 204);
        assert_eq!(ask(&net, "GET", &resource, "").is(200)["status"], status);
    }
    is_empty(&deprovision(&net, &resource), 204);
    assert_eq!(deprovision(&net, &resource).status, 410);
    assert_eq!(ask(&net, "POST", &format!("{resource}/resume"), "").status, 410);
    assert_eq!(ask(&net, "PUT", &resource, json!({"plan": "large"})).status, 410);
    assert!(services(&daemon).is_empty());
    // The app may come again, and gets another port: the old one rests.
    let again = ask(&net, method, &path, &body).is(201);
    assert_eq!(port_of(&again["config"]["TCP_URL"]), 20001);
    assert_ne!(again["id"], made["id"]);
    // Older clients name their request by `uuid`.
    let old = json!({"plan": "small", "uuid": "5343eccd-646f-4140-8000-000000000000"});
    let made = ask(&net, method, &path, &old).is(201);
    assert_eq!(ask(&net, method, &path, &old).is(200), made);
}

#[test]
fn heroku_gets_what_it_expects() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let (method, path, body) = provision(Dialect::Heroku, uuid, "small");
    let first = ask(&net, method, &path, &body);
    let made = first.is(200);
    assert_eq!(
        first.header("content-type"),
        Some("application/vnd.heroku-addons+json; version=3")
    );
    assert!(made["id"].is_string() && made["message"].is_string());
    assert_eq!(made["config"], json!({"TCP_URL": "tcp://gateway.example.com:20000"}));
    assert_eq!(ask(&net, method, &path, &body).is(200), made, "delivered twice");
    let resource = format!("{path}/{uuid}");
    let changed = ask(&net, "PUT", &resource, json!({"plan": "large"})).is(200);
    assert_eq!((&changed["config"], pps(&daemon)), (&made["config"], json!(5000)));
    ask(&net, "PUT", &resource, json!({"plan": "large"})).is(200);
    // A UUID is the same in capitals.
    let (_, _, in_capitals) = provision(Dialect::Heroku, &uuid.to_uppercase(), "large");
    assert_eq!(ask(&net, method, &path, &in_capitals).is(200)["id"], made["id"]);
    let resource_in_capitals = format!("{path}/{}", uuid.to_uppercase());
    assert_eq!(ask(&net, "GET", &resource_in_capitals, "").is(200)["id"], made["id"]);
    assert_eq!(services(&daemon).len(), 1);
    is_empty(&deprovision(&net, &resource_in_capitals), 204);
    assert_eq!(deprovision(&net, &resource).status, 410);
    assert_eq!(ask(&net, method, &path, &body).status, 410, "never made again");
    assert_eq!(ask(&net, "PUT", &resource, json!({"plan": "large"})).status, 410);
    assert_eq!(
        ask(&net, "POST", &format!("{resource}/suspend"), "").status,
        404,
        "it has none"
    );
}

#[test]
fn clever_cloud_gets_what_it_expects() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (method, path, body) = provision(Dialect::CleverCloud, "addon_0d9a1b3c", "small");
    let made = ask(&net, method, &path, &body).is(200);
    let id = made["id"].as_str().expect("a string").to_owned();
    assert_eq!(made["config"], json!({"TCP_URL": "tcp://gateway.example.com:20000"}));
    assert_eq!(ask(&net, method, &path, &body).is(200), made, "the same again");
    let resource = format!("{path}/{id}");
    let changed = ask(&net, "PUT", &resource, json!({"plan": "large"})).is(200);
    assert_eq!((&changed["config"], pps(&daemon)), (&made["config"], json!(5000)));
    assert_eq!(deprovision(&net, &resource).status, 200);
    assert!([200, 410].contains(&deprovision(&net, &resource).status));
}

#[test]
fn an_open_service_broker_platform_gets_what_the_standard_says() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let catalog = ask(&net, "GET", "/v2/catalog", "").is(200);
    let offering = &catalog["services"][0];
    assert_eq!(
        (&offering["id"], &offering["plan_updateable"]),
        (&json!(SERVICE), &json!(true))
    );
    let plans = offering["plans"].as_array().expect("plans");
    let plans: Vec<_> = plans
        .iter()
        .map(|plan| (&plan["id"], &plan["name"], &plan["free"]))
        .collect();
    assert_eq!(
        plans,
        [
            (&json!(SMALL), &json!("small"), &json!(true)),
            (&json!(LARGE), &json!("large"), &json!(false))
        ]
    );

    let (method, path, body) = provision(Dialect::Osb, "instance-1", "small");
    ask(&net, method, &path, &body).is(201);
    ask(&net, method, &path, &body).is(200);
    let mut other = body.clone();
    other["space_guid"] = "other".into();
    assert!(ask(&net, method, &path, &other).is(409)["description"].is_string());
    let (_, _, large) = provision(Dialect::Osb, "instance-1", "large");
    assert!(ask(&net, method, &path, &large).is(409)["description"].is_string());
    let answer = ask(&net, "GET", &path, "").is(200);
    assert_eq!(
        (&answer["service_id"], &answer["plan_id"]),
        (&json!(SERVICE), &json!(SMALL))
    );
    ask(&net, "PATCH", &path, json!({"service_id": SERVICE, "plan_id": LARGE})).is(200);
    assert_eq!(pps(&daemon), 5000);
    assert_eq!(
        ask(&net, "GET", &format!("{path}/last_operation"), "").is(200)["state"],
        "succeeded"
    );

    let binding = format!("{path}/service_bindings/binding-1");
    let bind = json!({"service_id": SERVICE, "plan_id": LARGE, "bind_resource": {"app_guid": "app-1"}});
    let made = ask(&net, "PUT", &binding, &bind).is(201);
    assert_eq!(made["credentials"]["uri"], "tcp://gateway.example.com:20000");
    assert_eq!(
        made["endpoints"],
        json!([{"host": "gateway.example.com", "ports": ["20000"], "protocol": "tcp"}])
    );
    assert_eq!(ask(&net, "PUT", &binding, &bind).is(200), made);
    let mut other = bind.clone();
    other["bind_resource"]["app_guid"] = "app-2".into();
    assert!(ask(&net, "PUT", &binding, &other).is(409)["description"].is_string());
    assert_eq!(
        ask(&net, "GET", &binding, "").is(200)["credentials"],
        made["credentials"]
    );
    assert_eq!(
        ask(&net, "GET", &format!("{binding}/last_operation"), "").is(200)["state"],
        "succeeded"
    );
    let missing = format!("{path}/service_bindings/none");
    assert_eq!(ask(&net, "GET", &missing, "").status, 404);
    assert_eq!(ask(&net, "GET", &format!("{missing}/last_operation"), "").status, 404);
    let query = format!("?service_id={SERVICE}&plan_id={LARGE}");
    assert_eq!(ask(&net, "DELETE", &format!("{binding}{query}"), "").is(200), json!({}));
    assert!(ask(&net, "DELETE", &format!("{binding}{query}"), "").is(410)["description"].is_string());

    assert_eq!(
        ask(&net, "DELETE", &path, "").status,
        400,
        "without service_id and plan_id"
    );
    assert_eq!(ask(&net, "DELETE", &format!("{path}{query}"), "").is(200), json!({}));
    ask(&net, "DELETE", &format!("{path}{query}"), "").is(410);
    assert_eq!(ask(&net, "GET", &path, "").status, 404);
    assert_eq!(ask(&net, "GET", &format!("{path}/last_operation"), "").status, 410);
    ask(&net, method, &path, &body).is(201);

    // The request's identity comes back, with errors too.
    let headers = format!("{}x-broker-api-request-identity: e26cee84\r\n", standard_headers());
    for path in ["/v2/catalog", "/v2/service_instances/none"] {
        let reply = ask_with(&net, "GET", path, &headers, "");
        assert_eq!(
            reply.header("x-broker-api-request-identity"),
            Some("e26cee84"),
            "{reply:?}"
        );
    }
    let wrong = ask_with(
        &net,
        "GET",
        "/v2/catalog",
        "x-broker-api-request-identity: e26cee84\r\n",
        "",
    );
    assert_eq!(
        (wrong.status, wrong.header("x-broker-api-request-identity")),
        (401, Some("e26cee84"))
    );
}

/// A platform can read and change its own resources only.
#[test]
fn one_platform_does_not_reach_the_resources_of_another() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (method, path, body) = provision(Dialect::Scalingo, "my-app", "small");
    let id = ask(&net, method, &path, &body).is(201)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for path in [
        format!("/clever-cloud/resources/{id}"),
        format!("/heroku/resources/{id}"),
        "/heroku/resources/my-app".into(),
        "/v2/service_instances/my-app".into(),
    ] {
        assert_eq!(ask(&net, "GET", &path, "").status, 404, "{path}");
        assert!([404, 410].contains(&deprovision(&net, &path).status), "{path}");
    }
    // An app has one resource, whatever dialect asks for it.
    for dialect in [Dialect::Osb, Dialect::Heroku, Dialect::CleverCloud] {
        let (method, path, body) = provision(dialect, "my-app", "small");
        let refused = ask(&net, method, &path, &body);
        assert!([409, 422].contains(&refused.status), "{refused:?}");
    }
    assert_eq!(services(&daemon).len(), 1);
}
