//! One thing wrong in one answer: exactly the check that it belongs to says so.

use super::*;
use crate::addon::check::checks::checks;
use crate::addon::check::definition::Act;

/// Flaw that a test puts into an answer.
#[derive(Debug, Clone)]
enum Wrong {
    /// The request has another status than it would, and does nothing.
    Status(u16),
    /// The body has another value there (a JSON pointer).
    Member(&'static str, Value),
    /// The body lacks a member.
    Missing(&'static str, &'static str),
    Body(AnswerBody),
    Media(Option<&'static str>),
    Identity(Option<&'static str>),
    Took(u64),
}

fn apply(wrong: &Wrong, answer: &mut ProviderAnswer) {
    match wrong {
        Wrong::Status(status) => {
            answer.status = *status;
            answer.content = AnswerBody::Json(json!({"error": "e", "description": "d", "message": "m"}));
        }
        Wrong::Body(content) => {
            answer.content = content.clone();
            answer.media = Some("application/json".into());
        }
        Wrong::Media(media) => answer.media = media.map(str::to_owned),
        Wrong::Identity(identity) => answer.identity = identity.map(str::to_owned),
        Wrong::Took(seconds) => answer.took = Duration::from_secs(*seconds),
        Wrong::Member(at, value) => {
            let AnswerBody::Json(body) = &mut answer.content else {
                panic!("no JSON: {at}")
            };
            let (parent, name) = at.rsplit_once('/').unwrap();
            let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {at}"));
            match parent {
                Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
                _ => parent[name] = value.clone(),
            }
        }
        Wrong::Missing(at, name) => {
            let AnswerBody::Json(body) = &mut answer.content else {
                panic!("no JSON: {at}")
            };
            let parent = body.pointer_mut(at).and_then(Value::as_object_mut).unwrap();
            assert!(parent.remove(*name).is_some(), "{name} is not there");
        }
    }
}

/// Runs with one answer that is wrong: that to the request of the check `at`.
fn mutated(dialect: Dialect, at: &str, wrong: &Wrong) -> CheckReport {
    let mut provider = Provider::new(dialect);
    let mut is_done = false;
    let report = run_with(settings(dialect), |name, request, identity| {
        if is_done || name != at {
            return Ok(provider.answer(request, identity));
        }
        is_done = true;
        // A refusal does nothing; accepting a request that is to be refused does something else than was requested.
        let mut answer = if matches!(wrong, Wrong::Status(_)) {
            let mut refusal = Provider::new(dialect).answer(&CheckRequest::new(Method::Get, "/nothing"), identity);
            refusal.media = Some("application/json".into());
            refusal
        } else {
            provider.answer(request, identity)
        };
        apply(wrong, &mut answer);
        Ok(answer)
    });
    assert!(is_done, "{dialect:?}: {at} has sent nothing");
    report.0
}

#[track_caller]
fn is_found(dialect: Dialect, at: &str, wrong: &Wrong, check: &str, verdict: CheckVerdict) {
    let report = mutated(dialect, at, wrong);
    let found: Vec<_> = of(&report, &[Fail, Warn])
        .into_iter()
        .map(|(name, verdict, _)| (name, verdict))
        .collect();
    assert_eq!(
        found,
        [(check, verdict)],
        "{dialect:?}: {wrong:?} at {at}: {:#?}",
        of(&report, &[Fail, Warn])
    );
    // The requested resource may exist: its id is not known, or it was acknowledged, and its removal is not.
    let is_unknown = |left: &String| match wrong {
        Wrong::Status(200..300) => true,
        Wrong::Status(_) => left.contains("has not told"),
        _ => false,
    };
    assert!(
        report.left.iter().all(is_unknown),
        "{dialect:?}: {wrong:?} at {at}: {:?}",
        report.left
    );
}

/// For every request: a provider that answers it with 500 fails that check, and no other.
#[test]
fn a_request_that_goes_wrong_fails_its_check() {
    for dialect in DIALECTS {
        let skipped: Vec<&str> = of(&run(dialect), &[Skip]).into_iter().map(|(name, ..)| name).collect();
        for check in checks(dialect) {
            if matches!(check.act, Act::Send(..)) && !skipped.contains(&check.name) {
                let is_mere_advice = match dialect {
                    Dialect::CleverCloud => check.name.starts_with("plan-change") || check.name == "sign-on-old",
                    _ => false,
                };
                let is_mere_advice = is_mere_advice || ["sign-on-future", "provision-removed"].contains(&check.name);
                let verdict = if is_mere_advice { Warn } else { Fail };
                is_found(dialect, check.name, &Wrong::Status(500), check.name, verdict);
            }
        }
    }
}

/// For every request that has to be refused: a provider that accepts it fails that check, and no other.
#[test]
fn a_request_that_is_taken_fails_its_check() {
    for name in [
        "no-credentials",
        "wrong-credentials",
        "provision-without-service-id",
        "provision-without-plan-id",
        "provision-without-organization",
        "provision-without-space",
        "provision-malformed",
        "provision-unknown-service",
        "provision-unknown-plan",
        "provision-unauthorized",
        "provision-other-plan",
        "fetch-refused",
        "deprovision-missing",
        "last-operation-missing",
        "fetch-instance-missing",
        "update-without-service-id",
        "bind-without-service-id",
        "bind-without-plan-id",
        "bind-unknown-plan",
        "bind-other-app",
        "fetch-binding-missing",
        "unbind-again",
        "fetch-unbound",
        "deprovision-again",
        "fetch-deprovisioned",
    ] {
        is_found(Dialect::Osb, name, &Wrong::Status(200), name, Fail);
    }
    for dialect in [Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud] {
        for name in [
            "no-credentials",
            "wrong-credentials",
            "provision-malformed",
            "provision-without-plan",
            "provision-unknown-plan",
            "sign-on-wrong-token",
            "sign-on-other-resource",
            "sign-on-without-token",
        ] {
            is_found(dialect, name, &Wrong::Status(200), name, Fail);
        }
    }
}

/// A check, what is wrong with the answer to its request, and the check that finds it, with its verdict.
type Case = (&'static str, Wrong, &'static str, CheckVerdict);

fn status(at: &'static str, status: u16, verdict: CheckVerdict) -> Case {
    (at, Wrong::Status(status), at, verdict)
}

fn member(at: &'static str, pointer: &'static str, value: Value, check: &'static str) -> Case {
    (at, Wrong::Member(pointer, value), check, Fail)
}

fn json_body(at: &'static str, body: Value, check: &'static str) -> Case {
    (at, Wrong::Body(AnswerBody::Json(body)), check, Fail)
}

fn text_body(at: &'static str, check: &'static str, verdict: CheckVerdict) -> Case {
    (at, Wrong::Body(AnswerBody::Other("<html>".into())), check, verdict)
}

fn empty_body(at: &'static str, check: &'static str) -> Case {
    (at, Wrong::Body(AnswerBody::Empty), check, Fail)
}

fn wrong_catalogs() -> Vec<Case> {
    let duplicate = json!({"id": "00000000-0000-4000-8000-000000000011", "name": "small", "description": "d"});
    let outside = json!({"$schema": "http://json-schema.org/draft-04/schema#", "a": [{"$ref": "http://example.com/"}]});
    let large = json!({"$schema": "http://json-schema.org/draft-04/schema#", "a": "x".repeat(65 << 10)});
    let schemas = |schema: Value| json!({"service_binding": {"create": {"parameters": schema}}});
    let in_catalog = |pointer, value, check| member("catalog", pointer, value, check);
    vec![
        text_body("catalog", "catalog", Fail),
        json_body("catalog", json!([]), "catalog"),
        empty_body("catalog", "catalog"),
        (
            "catalog",
            Wrong::Missing("/services/0", "description"),
            "catalog-offerings",
            Fail,
        ),
        in_catalog("/services/0/bindable", json!("yes"), "catalog-offerings"),
        in_catalog("/services/0/tags", json!([1]), "catalog-offerings"),
        in_catalog("/services/0/requires", json!(["root"]), "catalog-offerings"),
        in_catalog("/services/0/plans/0/description", json!(""), "catalog-plans"),
        in_catalog("/services/0/plans/0/free", json!("no"), "catalog-plans"),
        in_catalog(
            "/services/0/plans/1/maintenance_info",
            json!({"version": "1"}),
            "catalog-plans",
        ),
        in_catalog("/services/0/plans/1", duplicate, "catalog-unique"),
        (
            "catalog",
            Wrong::Member("/services/0/name", json!("tcp gateway")),
            "catalog-names",
            Warn,
        ),
        in_catalog("/services/0/plans/0/schemas", schemas(json!({})), "catalog-schemas"),
        in_catalog("/services/0/plans/0/schemas", schemas(outside), "catalog-schemas"),
        in_catalog("/services/0/plans/0/schemas", schemas(large), "catalog-schemas"),
        member("catalog-again", "/services/0/id", json!("other"), "catalog-again"),
    ]
}

fn wrong_instances() -> Vec<Case> {
    vec![
        status("version-missing", 200, Warn),
        status("version-unsupported", 200, Warn),
        status("version-unsupported", 400, Fail),
        status("version-malformed", 200, Warn),
        status("provision-unknown-service", 404, Warn),
        status("provision-unknown-plan", 422, Warn),
        // The catalog has no version.
        status("provision-maintenance-conflict", 400, Warn),
        empty_body("provision", "provision-body"),
        json_body("provision", json!({"dashboard_url": 1}), "provision-body"),
        json_body("provision", json!({"operation": "x".repeat(10_001)}), "provision-body"),
        json_body("last-operation", json!({"state": "done"}), "last-operation"),
        json_body("last-operation", json!({}), "last-operation"),
        status("provision-again", 201, Fail),
        status("provision-again", 409, Warn),
        status("provision-extension", 400, Fail),
        status("provision-other-space", 200, Warn),
        member("fetch-instance", "/plan_id", json!("other"), "fetch-instance"),
        member("fetch-instance", "/service_id", json!("other"), "fetch-instance"),
        status("update-plan", 422, Warn),
        json_body("update-plan", json!([]), "update-plan"),
        member("fetch-updated", "/plan_id", json!("other"), "fetch-updated"),
        text_body("deprovision", "deprovision", Fail),
    ]
}

fn wrong_bindings() -> Vec<Case> {
    vec![
        member("bind", "/credentials", json!("uri"), "bind-body"),
        member("bind", "/syslog_drain_url", json!("syslog://h"), "bind-body"),
        ("bind", Wrong::Missing("/endpoints/0", "host"), "bind-body", Fail),
        member("bind", "/endpoints/0/ports", json!([]), "bind-body"),
        member("bind", "/endpoints/0/ports", json!(["0"]), "bind-body"),
        member("bind", "/endpoints/0/protocol", json!("sctp"), "bind-body"),
        status("bind-again", 409, Warn),
        member("fetch-binding", "/credentials", json!(1), "fetch-binding"),
        empty_body("unbind", "unbind"),
    ]
}

fn wrong_bodies() -> Vec<Case> {
    vec![
        member("deprovision-missing", "/error", json!(""), "error-bodies"),
        member("deprovision-missing", "/description", json!(1), "error-bodies"),
        member("unbind-again", "/instance_usable", json!(true), "error-bodies"),
        member("deprovision-missing", "/update_repeatable", json!(true), "error-bodies"),
        member("deprovision-missing", "/instance_usable", json!("x"), "error-bodies"),
        json_body("deprovision-missing", json!("gone"), "error-bodies"),
        text_body("deprovision-missing", "error-bodies", Warn),
        (
            "provision",
            Wrong::Media(Some("text/html; charset=utf-8")),
            "content-type",
            Warn,
        ),
        ("provision", Wrong::Media(None), "content-type", Warn),
        ("bind", Wrong::Identity(None), "request-identity", Warn),
        ("bind", Wrong::Identity(Some("other")), "request-identity", Warn),
    ]
}

#[test]
fn what_is_wrong_in_a_broker_is_found_where_it_belongs() {
    let cases = [wrong_catalogs(), wrong_instances(), wrong_bindings(), wrong_bodies()].concat();
    for (at, wrong, check, verdict) in &cases {
        is_found(Dialect::Osb, at, wrong, check, *verdict);
    }
    covers(Dialect::Osb, &cases);
}

fn wrong_everywhere() -> Vec<Case> {
    vec![
        status("provision", 204, Fail),
        member("provision", "/message", json!(1), "provision-body"),
        member("provision", "/config", json!([]), "provision-body"),
        member("provision", "/config/TCP_URL", json!(1), "provision-body"),
        member("provision", "/config/OTHER", json!("x"), "provision-variables"),
        member("provision", "/config/TCP_URL", json!("gateway:20000"), "provision-urls"),
        member("provision", "/config/TCP_URL", json!("tcp://:20000"), "provision-urls"),
        (
            "provision-unknown-plan",
            Wrong::Body(AnswerBody::Json(json!({}))),
            "error-bodies",
            Warn,
        ),
        ("provision", Wrong::Media(Some("text/plain")), "content-type", Warn),
    ]
}

fn wrong_of(dialect: Dialect) -> Vec<Case> {
    match dialect {
        Dialect::Heroku => vec![
            status("provision-again", 409, Fail),
            member("provision-again", "/id", json!("other"), "provision-again"),
            status("provision-extension", 422, Fail),
            status("plan-change-again", 409, Fail),
            status("deprovision-again", 204, Warn),
            status("provision-removed", 422, Warn),
            status("sign-on-old", 302, Fail),
            ("sign-on", Wrong::Took(4), "answer-time", Warn),
            ("sign-on", Wrong::Took(26), "answer-time", Fail),
            text_body("deprovision-unauthorized", "json-bodies", Fail),
        ],
        Dialect::CleverCloud => vec![
            status("provision-again", 409, Warn),
            status("deprovision", 204, Fail),
            status("sign-on-old", 200, Warn),
            text_body("deprovision-unauthorized", "json-bodies", Warn),
        ],
        _ => vec![
            status("plan-change-without-plan", 400, Fail),
            member("plan-change", "/config/OTHER", json!("x"), "plan-change"),
            status("suspend", 200, Fail),
            json_body("deprovision", json!({}), "deprovision"),
            status("sign-on-old", 200, Fail),
            status("sign-on-future", 200, Warn),
            text_body("deprovision-unauthorized", "json-bodies", Warn),
        ],
    }
}

#[test]
fn what_is_wrong_in_a_provider_of_resources_is_found_where_it_belongs() {
    for dialect in [Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud] {
        let mut cases = [wrong_everywhere(), wrong_of(dialect)].concat();
        for (at, wrong, check, verdict) in &cases {
            is_found(dialect, at, wrong, check, *verdict);
        }
        if dialect != Dialect::Heroku {
            // A resource cannot be removed by a wrong id, and the run says so.
            for id in [json!(17), json!(""), json!("x".repeat(256))] {
                let report = mutated(dialect, "provision", &Wrong::Member("/id", id));
                let found = of(&report, &[Fail]);
                assert_eq!(found.first().map(|(name, ..)| *name), Some("provision-id"), "{found:?}");
                assert_eq!(report.left.len(), 1, "{:?}", report.left);
            }
        }
        cases.push(("provision", Wrong::Missing("", "id"), "provision-id", Fail));
        covers(dialect, &cases);
    }
}

/// Heroku's provider gives an id that requests do not use; it is only compared with the id in the next answer.
#[test]
fn herokus_id_is_a_text() {
    for (id, verdict) in [(json!(""), Fail), (json!([1]), Fail), (json!(17), Warn)] {
        let report = mutated(Dialect::Heroku, "provision", &Wrong::Member("/id", id.clone()));
        let found = of(&report, &[Fail, Warn]);
        let found: Vec<_> = found.iter().map(|(name, verdict, _)| (*name, *verdict)).collect();
        assert_eq!(found.first(), Some(&("provision-id", verdict)), "{id}: {found:?}");
        assert_eq!(report.left, Vec::<String>::new());
    }
}

/// Checks that the cases have a flaw for every check that judges answers of other checks.
#[track_caller]
fn covers(dialect: Dialect, cases: &[Case]) {
    let found: BTreeSet<&str> = cases.iter().map(|(_, _, check, _)| *check).collect();
    let judging = checks(dialect)
        .into_iter()
        .filter(|check| matches!(check.act, Act::Judge(..) | Act::Each(_)));
    let lacks: Vec<&str> = judging
        .map(|check| check.name)
        .filter(|name| !found.contains(name))
        .collect();
    assert_eq!(lacks, Vec::<&str>::new(), "{dialect:?}");
}

#[test]
fn what_is_wrong_in_a_manifest_is_found() {
    let cases: [(Dialect, &str, Value, &str, CheckVerdict); 12] = [
        (Dialect::Scalingo, "/config_vars", json!("TCP_URL"), "manifest", Fail),
        (Dialect::Scalingo, "/plans/0", json!({"name": 1}), "manifest", Fail),
        (Dialect::Scalingo, "/production/base_url", json!(""), "manifest", Fail),
        (
            Dialect::Scalingo,
            "/production/base_url",
            json!("http://a"),
            "manifest-encrypted",
            Warn,
        ),
        (
            Dialect::Scalingo,
            "/config_vars",
            json!(["TCP_URL", "tcp"]),
            "manifest-variables",
            Fail,
        ),
        (Dialect::Heroku, "/api/regions", json!(["mars"]), "manifest", Fail),
        (Dialect::Heroku, "/api/password", json!(""), "manifest", Fail),
        (
            Dialect::Heroku,
            "/api/config_vars_prefix",
            json!("OTHER"),
            "manifest-variables",
            Fail,
        ),
        (
            Dialect::Heroku,
            "/api/production/sso_url",
            json!("http://a"),
            "manifest-encrypted",
            Warn,
        ),
        (Dialect::CleverCloud, "/api/regions", json!(["us"]), "manifest", Fail),
        (
            Dialect::CleverCloud,
            "/id",
            json!("other-name"),
            "manifest-variables",
            Fail,
        ),
        (
            Dialect::CleverCloud,
            "/api/config_vars",
            json!(["TCP_URL", "1"]),
            "manifest-variables",
            Fail,
        ),
    ];
    for (dialect, at, value, check, verdict) in cases {
        let mut settings = settings(dialect);
        let manifest = settings.manifest.as_mut().unwrap();
        *manifest.pointer_mut(at).unwrap_or_else(|| panic!("nothing at {at}")) = value;
        settings.plan = Some("small".into());
        let mut provider = Provider::new(dialect);
        let report = run_with(settings, |_, request, identity| Ok(provider.answer(request, identity))).0;
        let found: Vec<_> = of(&report, &[Fail, Warn])
            .into_iter()
            .map(|(name, verdict, _)| (name, verdict))
            .collect();
        let expected: &[_] = match (at, dialect) {
            // The answers are compared with it, too.
            ("/config_vars", _) if check == "manifest" => &[
                ("manifest", Fail),
                ("provision-variables", Fail),
                ("plan-change", Fail),
                ("plan-change-again", Fail),
            ],
            _ => &[(check, verdict)],
        };
        assert_eq!(found, expected, "{dialect:?} {at}");
    }
}
