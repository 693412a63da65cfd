use super::*;
use crate::addon::Fingerprint;
use crate::addon::dialect::exchange::Method;
use crate::addon::id::ResourceId;
use crate::addon::plan::{AddonPlan, Plans};
use crate::addon::request::{Provision, ResourceTarget, WantedPlan};
use crate::addon::resource::{Binding, Resource, ResourceStatus};
use crate::addon::sso::FormFields;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

const PLAN: &str = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11";

fn plans() -> Plans {
    Plans::new(vec![AddonPlan::example("free", PLAN)]).unwrap()
}

fn send(dialect: Dialect, method: Method, path: &str, body: &str) -> Result<Call, DialectAnswer> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let exchange = AuthenticatedRequest {
        method,
        path: &path.split('/').collect::<Vec<_>>(),
        query: &query,
        version: Some("2.17"),
        body: body.as_bytes(),
    };
    parse(dialect, &exchange)
}

#[track_caller]
fn provision(call: Result<Call, DialectAnswer>) -> Provision {
    match call {
        Ok(Call::Change(AddonRequest::Provision(provision))) => provision,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_dialect_names_the_app_in_its_own_way() {
    let body = r#"{"plan": "free", "app_id": "a", "uuid": "u", "addon_id": "c", "unknown": [1], "options": {"port": "20003"}}"#;
    let cases = [
        (Dialect::Scalingo, "a", Some("u")),
        (Dialect::Heroku, "u", None),
        (Dialect::CleverCloud, "c", None),
    ];
    for (dialect, app, uuid) in cases {
        let wanted = provision(send(dialect, Method::Post, "resources", body));
        assert_eq!(wanted.app.as_str(), app, "{dialect:?}");
        assert_eq!(
            wanted.uuid.as_ref().map(super::super::id::PlatformId::as_str),
            uuid,
            "{dialect:?}"
        );
        assert_eq!(wanted.port.map(NonZeroU16::get), Some(20_003));
    }
    let old = provision(send(
        Dialect::Scalingo,
        Method::Post,
        "resources",
        r#"{"plan": "free", "uuid": "u"}"#,
    ));
    assert_eq!(old.app.as_str(), "u");
}

#[test]
fn what_cannot_be_understood_has_its_status() {
    let cases = [
        (Method::Post, "resources", "{", 400),
        (Method::Post, "resources", "[]", 400),
        (Method::Post, "resources", r#"{"app_id": "a"}"#, 422),
        (Method::Post, "resources", r#"{"plan": "free"}"#, 422),
        (Method::Post, "resources", r#"{"plan": 1, "app_id": "a"}"#, 422),
        (Method::Post, "resources", r#"{"plan": "free", "app_id": "a/b"}"#, 422),
        (Method::Post, "resources", r#"{"plan": "free", "app_id": "a\nb"}"#, 422),
        (
            Method::Post,
            "resources",
            r#"{"plan": "free", "app_id": "a", "options": {"port": 70000}}"#,
            422,
        ),
        (Method::Put, "resources/aaaaaaaaaaaa", "{}", 422),
        (Method::Delete, "resources/x", "", 404),
        (Method::Delete, "resources", "", 405),
        (Method::Get, "resources/aaaaaaaaaaaa/suspend", "", 405),
        (Method::Get, "", "", 404),
    ];
    for (method, path, body, status) in cases {
        let answer = send(Dialect::Scalingo, method, path, body).unwrap_err();
        assert_eq!(answer.status, status, "{method:?} {path} {body}");
        let text = answer.body.unwrap()["error"].as_str().unwrap().to_owned();
        assert!(!text.is_empty() && !text.contains('\n'), "{text}");
    }
}

/// Each method that an answer 405 names as allowed is accepted.
#[test]
fn the_methods_that_are_allowed_are_those_that_are_understood() {
    let methods = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete];
    for (dialect, path) in [
        (Dialect::Osb, "catalog"),
        (Dialect::Osb, "service_instances/i"),
        (Dialect::Osb, "service_instances/i/last_operation"),
        (Dialect::Osb, "service_instances/i/service_bindings/b"),
        (Dialect::Osb, "service_instances/i/service_bindings/b/last_operation"),
        (Dialect::Scalingo, "resources"),
        (Dialect::Scalingo, "resources/aaaaaaaaaaaa"),
        (Dialect::Scalingo, "resources/aaaaaaaaaaaa/suspend"),
        (Dialect::Heroku, "resources/a"),
    ] {
        let segments: Vec<&str> = path.split('/').collect();
        let allowed: Vec<&str> = allowed(dialect, &segments).split(", ").collect();
        for method in methods {
            let is_refused = matches!(send(dialect, method, path, ""), Err(answer) if answer.status == 405);
            assert_eq!(allowed.contains(&method.name()), !is_refused, "{path} {method:?}");
        }
    }
}

#[test]
fn an_id_that_cannot_be_is_answered_as_any_other_that_is_not_known() {
    for method in [Method::Put, Method::Delete] {
        let status = |dialect| send(dialect, method, "resources/a b", "").unwrap_err().status;
        assert_eq!((status(Dialect::Heroku), status(Dialect::Scalingo)), (410, 404));
    }
}

fn osb_body() -> String {
    let service = catalog(&plans())["services"][0]["id"].clone();
    json!({"service_id": service, "plan_id": PLAN, "organization_guid": "org", "space_guid": "space"}).to_string()
}

#[track_caller]
fn refused(call: Result<Call, DialectAnswer>) -> (u16, String) {
    let answer = call.unwrap_err();
    let body = answer.body.unwrap();
    assert!(body["description"].is_string(), "{body}");
    (answer.status, body["error"].as_str().unwrap().to_owned())
}

fn osb_with(name: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(&osb_body()).unwrap();
    body[name] = value;
    body.to_string()
}

#[test]
fn an_update_of_parameters_is_refused_and_not_passed_over() {
    let patch = |body: &str| send(Dialect::Osb, Method::Patch, "service_instances/i", body);
    for parameters in [json!({"port": 20111}), json!({"foo": 1})] {
        let refusal = refused(patch(&osb_with("parameters", parameters)));
        assert_eq!(refusal, (422, "NotSupported".into()));
    }
    for parameters in [json!({"port": "xyz"}), json!(3)] {
        let refusal = refused(patch(&osb_with("parameters", parameters)));
        assert_eq!(refusal, (400, "InvalidRequest".into()));
    }
    for parameters in [json!({}), Value::Null] {
        assert!(matches!(
            patch(&osb_with("parameters", parameters)),
            Ok(Call::Change(AddonRequest::ChangePlan(..)))
        ));
    }
}

/// An update that changes nothing gets the answer of an update, and not that of a fetch.
#[test]
fn an_update_of_nothing_is_answered_as_an_update() {
    let plans = plans();
    let mut body: Value = serde_json::from_str(&osb_body()).unwrap();
    body.as_object_mut().unwrap().remove("plan_id");
    let call = send(Dialect::Osb, Method::Patch, "service_instances/i", &body.to_string()).unwrap();
    for (pages, expected) in [
        (None, json!({})),
        (
            Some("https://gw/apps/"),
            json!({"dashboard_url": "https://gw/apps/aaaaaaaaaaaa"}),
        ),
    ] {
        let gateway = GatewayProperties {
            host: "gw.example.com",
            pages,
            plans: &plans,
        };
        let change = AddonRequest::ChangePlan(ResourceTarget::Any("a".parse().unwrap()), WantedPlan::Id(None));
        let changed = answer(Dialect::Osb, &change, &Ok(AddonOutcome::Changed(resource())), gateway);
        let kept = shown(Dialect::Osb, &call, &Ok(resource()), gateway);
        assert_eq!((kept.status, kept.body.clone()), (200, Some(expected)));
        assert_eq!(kept, changed);
        let missing = shown(Dialect::Osb, &call, &Err(Refusal::NotFound), gateway);
        assert_eq!(missing.status, 404);
    }
}

/// The catalog has no `maintenance_info`, so every version is a conflict.
#[test]
fn a_version_of_maintenance_that_is_not_the_catalogs_is_a_conflict() {
    assert!(catalog(&plans())["services"][0]["plans"][0]["maintenance_info"].is_null());
    let body = osb_with("maintenance_info", json!({"version": "9.9.9"}));
    for method in [Method::Put, Method::Patch] {
        let refusal = refused(send(Dialect::Osb, method, "service_instances/i", &body));
        assert_eq!(refusal, (422, "MaintenanceInfoConflict".into()), "{method:?}");
    }
}

#[track_caller]
fn binding(body: &str) -> (WantedPlan, Binding) {
    match send(
        Dialect::Osb,
        Method::Put,
        "service_instances/i/service_bindings/b",
        body,
    ) {
        Ok(Call::Change(AddonRequest::Bind(_, _, plan, binding))) => (plan, binding),
        other => panic!("{other:?}"),
    }
}

/// A repeated request is told from a request with the same id and other values.
#[test]
fn parameters_and_the_plan_of_a_binding_are_told_apart() {
    let instance = |body: &str| provision(send(Dialect::Osb, Method::Put, "service_instances/i", body)).asked;
    let of_bodies = |asked: &dyn Fn(&str) -> Option<Fingerprint>| {
        let none = asked(&osb_body());
        assert!(none.is_some());
        for same in [json!({}), Value::Null] {
            assert_eq!(none, asked(&osb_with("parameters", same)));
        }
        let (one, two) = (
            osb_with("parameters", json!({"foo": 1})),
            osb_with("parameters", json!({"foo": 2})),
        );
        assert!(asked(&one) != none && asked(&one) != asked(&two) && asked(&one) == asked(&one));
        assert_eq!(none, asked(&osb_with("context", json!({"platform": "x"}))));
    };
    of_bodies(&instance);
    of_bodies(&|body| binding(body).1.asked);
    let (plan, first) = binding(&osb_body());
    assert_eq!(plan, WantedPlan::Id(Some(PLAN.parse().unwrap())));
    let (plan, again) = binding(&osb_with("plan_id", PLAN.to_ascii_uppercase().into()));
    assert!(matches!(plan, WantedPlan::Id(Some(id)) if id.is(PLAN)));
    assert_eq!(again.asked, first.asked);
    let (plan, other) = binding(&osb_with("plan_id", "left".into()));
    assert_eq!(plan, WantedPlan::Id(None));
    assert_ne!(other.asked, first.asked);
}

/// Organizations and spaces are not part of a path, so the standard leaves their characters to the platform.
#[test]
fn organizations_and_spaces_are_any_text_but_none() {
    let owner = |name: &str, value: Value| {
        provision(send(
            Dialect::Osb,
            Method::Put,
            "service_instances/i",
            &osb_with(name, value),
        ))
        .owner
        .unwrap()
    };
    for name in ["organization_guid", "space_guid"] {
        let texts = ["org name", "s/1", "..", "\u{1b}[31m", "é", "org"].map(|text| owner(name, text.into()));
        for (at, one) in texts.iter().enumerate() {
            assert!(texts[at + 1..].iter().all(|other| other != one), "{texts:?}");
        }
        assert_eq!(texts[0], owner(name, "org name".into()));
        let long = owner(name, "x".repeat(10_000).into());
        assert!(long.organization.as_str().len() + long.space.as_str().len() < 200);
        for bad in [json!(""), json!(1), Value::Null, json!([])] {
            let refusal = refused(send(
                Dialect::Osb,
                Method::Put,
                "service_instances/i",
                &osb_with(name, bad),
            ));
            assert_eq!(refusal, (400, "InvalidRequest".into()));
        }
    }
}

#[test]
fn members_of_the_wrong_type_are_malformed() {
    let binding = "service_instances/i/service_bindings/b";
    for (method, path, name) in [
        (Method::Put, "service_instances/i", "context"),
        (Method::Put, "service_instances/i", "parameters"),
        (Method::Patch, "service_instances/i", "previous_values"),
        (Method::Put, binding, "bind_resource"),
        (Method::Put, binding, "parameters"),
        (Method::Put, binding, "context"),
    ] {
        let refusal = refused(send(Dialect::Osb, method, path, &osb_with(name, json!("x"))));
        assert_eq!(refusal, (400, "InvalidRequest".into()), "{method:?} {path} {name}");
    }
}

#[test]
fn an_instance_of_osb_needs_all_that_the_standard_demands() {
    let put = |body: &str| send(Dialect::Osb, Method::Put, "service_instances/i", body);
    let wanted = provision(put(&osb_body()));
    assert_eq!(
        (wanted.app.as_str(), wanted.owner.unwrap().space.as_str()),
        ("i", "space")
    );
    let whole: Map<String, Value> = serde_json::from_str(&osb_body()).unwrap();
    for name in whole.keys() {
        let mut part = whole.clone();
        part.remove(name);
        let answer = put(&Value::from(part).to_string()).unwrap_err();
        assert_eq!(answer.status, 400, "{name}");
        assert_eq!(answer.body.unwrap()["description"], format!("{name} is missing"));
    }
    let delete = send(Dialect::Osb, Method::Delete, "service_instances/i", "").unwrap_err();
    assert_eq!(delete.status, 400);
    assert!(
        send(
            Dialect::Osb,
            Method::Delete,
            "service_instances/i?service_id=s&plan_id=p",
            ""
        )
        .is_ok()
    );
}

#[test]
fn versions_of_osb_are_told_apart() {
    let with = |version| {
        let exchange = AuthenticatedRequest {
            method: Method::Get,
            path: &["catalog"],
            query: &FormFields::new(),
            version,
            body: &[],
        };
        parse(Dialect::Osb, &exchange).map_err(|answer| answer.status)
    };
    for good in ["2.13", "2.14", "2.17", " 2.15 "] {
        assert_eq!(with(Some(good)), Ok(Call::Catalog), "{good}");
    }
    for bad in [
        None,
        Some(""),
        Some("2"),
        Some("2.12"),
        Some("2.18"),
        Some("3.0"),
        Some("2.17.1"),
        Some("x"),
    ] {
        assert_eq!(with(bad), Err(412), "{bad:?}");
    }
}

fn resource() -> Arc<Resource> {
    Arc::new(Resource {
        id: ResourceId::from_random(0),
        dialect: Dialect::Scalingo,
        app: "a".parse().unwrap(),
        uuid: None,
        owner: None,
        plan: "free".parse().unwrap(),
        plan_id: None,
        port: NonZeroU16::new(20_003).unwrap(),
        status: ResourceStatus::Active,
        bindings: BTreeMap::new(),
        created: Duration::ZERO,
        asked: None,
    })
}

/// Status codes of every outcome in every dialect.
#[test]
fn every_outcome_has_the_status_that_its_dialect_demands() {
    let plans = plans();
    let gateway = GatewayProperties {
        host: "gw.example.com",
        pages: None,
        plans: &plans,
    };
    let body = r#"{"plan": "free", "app_id": "a", "uuid": "u", "addon_id": "c"}"#;
    let provision = AddonRequest::Provision(provision(send(Dialect::Scalingo, Method::Post, "resources", body)));
    let target = ResourceTarget::Any("a".parse().unwrap());
    let free: crate::addon::id::PlanName = "free".parse().unwrap();
    let change = AddonRequest::ChangePlan(target.clone(), free.into());
    let (suspend, delete) = (AddonRequest::Suspend(target.clone()), AddonRequest::Deprovision(target));
    let exhausted = crate::addon::PortRefusal::InUse(NonZeroU16::MIN);
    let conflict = Refusal::Conflict("x".into());
    let cases = [
        (&provision, Ok(AddonOutcome::Created(resource())), [201, 201, 200, 200]),
        (
            &provision,
            Ok(AddonOutcome::Unchanged(resource())),
            [200, 200, 200, 200],
        ),
        (&provision, Err(Refusal::Port(exhausted)), [422, 422, 422, 422]),
        (&provision, Err(conflict), [409, 409, 422, 409]),
        (&provision, Err(Refusal::Gone), [404, 410, 410, 410]),
        (&change, Ok(AddonOutcome::Changed(resource())), [200, 200, 200, 200]),
        (&change, Err(Refusal::Gone), [404, 410, 410, 410]),
        (&suspend, Ok(AddonOutcome::Changed(resource())), [200, 204, 204, 204]),
        (&suspend, Ok(AddonOutcome::Unchanged(resource())), [200, 204, 204, 204]),
        (&delete, Ok(AddonOutcome::Removed(resource())), [200, 204, 204, 200]),
        (&delete, Err(Refusal::Gone), [410, 410, 410, 410]),
        (&delete, Err(Refusal::NotFound), [410, 404, 410, 404]),
    ];
    let dialects = [Dialect::Osb, Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud];
    for (request, result, expected) in cases {
        for (dialect, status) in dialects.into_iter().zip(expected) {
            let answer = answer(dialect, request, &result, gateway);
            assert_eq!(answer.status, status, "{dialect:?} {request:?} {result:?}");
            assert_eq!(answer.body.is_none(), status == 204, "{dialect:?} {request:?}");
        }
    }
    let created = answer(
        Dialect::Scalingo,
        &provision,
        &Ok(AddonOutcome::Created(resource())),
        gateway,
    );
    assert_eq!(
        created.body.unwrap()["config"],
        json!({"TCP_URL": "tcp://gw.example.com:20003"})
    );
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let plans = plans();
    let gateway = GatewayProperties {
        host: "2001:db8::1",
        pages: None,
        plans: &plans,
    };
    assert_eq!(
        gateway.tcp_url(NonZeroU16::new(20_003).unwrap()),
        "tcp://[2001:db8::1]:20003"
    );
}
