//! The checks, in groups.

use serde_json::json;

use super::super::context::CheckContext;
use super::super::message::{Body, CheckExchange, CheckRequest, Login};
use super::super::{all_answers, judge, manifest};
use super::answers::{
    declared, described, is_changed, is_removed, is_same, resource_id, undocumented, urls, without_plan,
};
use super::requests::{
    act, body, change_plan, creating, id_field, is_token, keep_plan, removal, resource_path, signed,
    signed_for_missing, signing_on,
};
use super::rules::{CheckRules, DocumentedRule, rules_of};
use crate::addon::Dialect;
use crate::addon::check::definition::{Act, Check};
use crate::addon::check::judgement::{CheckResult, failure, warning};
use crate::addon::check::need::Need;
use crate::addon::dialect::exchange::Method;

pub(super) fn manifest_checks(rules: &'static CheckRules) -> Vec<Check> {
    let mut checks = vec![
        Check::new(
            "manifest",
            Act::Manifest(manifest::fields),
            "the keys that the platform needs, with their types",
            rules.sources.manifest,
        ),
        Check::new(
            "manifest-variables",
            Act::Manifest(manifest::variable_names),
            match rules.dialect {
                Dialect::Heroku => "names in upper case that begin with config_vars_prefix, or else with the id",
                Dialect::CleverCloud => "names in upper case that begin with the id",
                _ => "names in upper case",
            },
            rules.sources.manifest,
        ),
        Check::new(
            "manifest-encrypted",
            Act::Manifest(manifest::encrypted),
            "the URLs of production are https",
            rules.sources.manifest,
        ),
    ];
    for check in &mut checks {
        check.needs = &[Need::Manifest];
    }
    checks
}

pub(super) fn refusal_checks(rules: &'static CheckRules) -> Vec<Check> {
    let sources = &rules.sources;
    vec![
        Check::ask(
            "no-credentials",
            |context| {
                creating(context, "unauthorized")
                    .json(body(context, "unauthorized"))
                    .login(Login::Missing)
            },
            |_, got| judge::unauthorized(got),
            "401 without credentials",
            sources.access,
        ),
        Check::ask(
            "wrong-credentials",
            |context| {
                creating(context, "unauthorized")
                    .json(body(context, "unauthorized"))
                    .login(Login::Wrong)
            },
            |_, got| judge::unauthorized(got),
            "401 with a wrong password",
            sources.access,
        ),
        Check::ask(
            "provision-malformed",
            |context| creating(context, "malformed").body(Body::Text("{\"plan\":")),
            |_, got| judge::refusal(got, &[400, 422]),
            "a body that is no JSON is refused (400 or 422)",
            sources.provision,
        ),
        Check::ask(
            "provision-without-plan",
            |context| {
                let mut body = body(context, "no-plan");
                body.as_object_mut().map(|members| members.remove("plan"));
                creating(context, "no-plan").json(body)
            },
            |_, got| judge::refusal(got, &[400, 422]),
            "a request without a plan is refused (422 or 400)",
            sources.provision,
        ),
        Check::ask(
            "provision-unknown-plan",
            |context| {
                let mut body = body(context, "unknown-plan");
                body["plan"] = json!("no-such-plan-of-tcpgw-check");
                creating(context, "unknown-plan").json(body)
            },
            |_, got| judge::refusal(got, &[400, 422]),
            "a plan that there is not is refused (422 or 400)",
            sources.provision,
        ),
    ]
}

pub(super) fn provision_checks(rules: &'static CheckRules) -> Vec<Check> {
    let sources = &rules.sources;
    vec![
        Check::ask(
            "provision",
            |context| creating(context, "main").json(body(context, "main")),
            |context, got| judge::status(got, rules_of(context).created),
            rules.created_rule,
            sources.provision,
        ),
        Check::new(
            "provision-id",
            Act::Judge("provision", resource_id),
            "id is a string that is not empty, of 255 characters at most",
            sources.provision,
        ),
        Check::new(
            "provision-body",
            Act::Judge("provision", |_, got| described(got)),
            "an object; message is a string, config an object of strings",
            sources.provision,
        ),
        Check::new(
            "provision-variables",
            Act::Judge("provision", declared),
            "the keys of config are in the manifest's config_vars",
            sources.provision,
        )
        .needing(&[Need::Manifest]),
        Check::new(
            "provision-urls",
            Act::Judge("provision", urls),
            "a variable whose name ends with _URL has a scheme and a host",
            sources.provision,
        ),
        Check::ask(
            "provision-again",
            |context| creating(context, "main").json(body(context, "main")),
            is_same,
            "the same request again makes nothing new: the same id",
            sources.again,
        )
        .needing(&[Need::Resource]),
        Check::ask(
            "provision-extension",
            |context| {
                let mut body = body(context, "main");
                body["x-tcpgw-check"] = json!({"unknown": [1, null]});
                creating(context, "main").json(body)
            },
            is_same,
            "fields that are not known are ignored",
            sources.extension,
        )
        .needing(&[Need::Resource]),
    ]
}

const WITHOUT_CREDENTIALS: &str = "401 without credentials, and nothing is changed";

/// Returns the check that a provider refuses a request for the resource, which has no credentials.
fn without_credentials(
    name: &'static str,
    rules: &'static CheckRules,
    request: fn(&CheckContext) -> CheckRequest,
) -> Check {
    Check::ask(
        name,
        request,
        |_, got| judge::unauthorized(got),
        WITHOUT_CREDENTIALS,
        rules.sources.access,
    )
    .needing(&[Need::Resource])
}

pub(super) fn change_checks(rules: &'static CheckRules) -> Vec<Check> {
    let source = rules.sources.change;
    vec![
        // A change to the plan that the resource has: a provider that accepts the request changes nothing.
        Check::ask(
            "plan-change-no-credentials",
            |context| keep_plan(context).login(Login::Missing),
            |context, got| match judge::unauthorized(got) {
                // A provider that is not required to know changes of plan may not know this request.
                judgement if !got.is_success() => undocumented(context, judgement),
                judgement => judgement,
            },
            WITHOUT_CREDENTIALS,
            rules.sources.access,
        )
        .needing(&[Need::Resource]),
        Check::ask("plan-change", change_plan, is_changed, "200", source).needing(&[Need::Resource, Need::OtherPlan]),
        Check::ask(
            "plan-change-again",
            change_plan,
            is_changed,
            "200: a change to the plan that it has does nothing",
            source,
        )
        .needing(&[Need::Resource, Need::OtherPlan]),
        Check::ask(
            "plan-change-without-plan",
            |context| CheckRequest::new(Method::Put, resource_path(context)).json(json!({})),
            without_plan,
            match rules.dialect {
                Dialect::Scalingo => "422 and error, if the plan is missing",
                _ => "a change without a plan is refused (422 or 400)",
            },
            source,
        )
        .needing(&[Need::Resource]),
        Check::ask(
            "plan-change-unknown-plan",
            |context| {
                let body = json!({"plan": "no-such-plan-of-tcpgw-check"});
                CheckRequest::new(Method::Put, resource_path(context)).json(body)
            },
            |context, got| undocumented(context, judge::refusal(got, &[400, 422])),
            "a plan that there is not is refused (422 or 400)",
            source,
        )
        .needing(&[Need::Resource]),
    ]
}

pub(super) fn suspend_checks(rules: &'static CheckRules) -> Vec<Check> {
    let check = |name, request: fn(&CheckContext) -> CheckRequest, rule| {
        Check::ask(
            name,
            request,
            |_, got| judge::status(got, &[204]),
            rule,
            rules.sources.suspend,
        )
        .needing(&[Need::Resource])
    };
    vec![
        without_credentials("suspend-no-credentials", rules, |context| {
            act(context, "suspend").login(Login::Missing)
        }),
        check("suspend", |context| act(context, "suspend"), "204"),
        check(
            "suspend-again",
            |context| act(context, "suspend"),
            "204 if it is suspended already",
        ),
        without_credentials("resume-no-credentials", rules, |context| {
            act(context, "resume").login(Login::Missing)
        }),
        check("resume", |context| act(context, "resume"), "204"),
        check(
            "resume-again",
            |context| act(context, "resume"),
            "204 if it is not suspended",
        ),
    ]
}

pub(super) fn sign_on_checks(rules: &'static CheckRules) -> Vec<Check> {
    let check = |name,
                 request: fn(&CheckContext) -> CheckRequest,
                 judge: fn(&CheckContext, &CheckExchange) -> CheckResult,
                 rule| {
        Check::ask(name, request, judge, rule, rules.sources.sign_on).needing(&[Need::Resource, Need::SignOn])
    };
    vec![
        check(
            "sign-on",
            |context| signing_on(context, &signed(context, 0)),
            |_, got| match got.status() {
                200..400 => Ok(()),
                status => Err(failure(format!("the status is {status}, not 200 or a redirection"))),
            },
            "a valid token is let in: 200 or a redirection",
        ),
        check(
            "sign-on-wrong-token",
            |context| {
                let mut fields = signed(context, 0);
                for (name, value) in &mut fields {
                    if is_token(name) {
                        *value = "0".repeat(value.len());
                    }
                }
                signing_on(context, &fields)
            },
            |_, got| judge::refusal(got, &[403]),
            "403 for a wrong token",
        ),
        check(
            "sign-on-other-resource",
            |context| {
                let mut fields = signed(context, 0);
                let name = id_field(context.settings.dialect);
                fields.insert(name.into(), context.id("other-resource"));
                signing_on(context, &fields)
            },
            |_, got| judge::refusal(got, &[403]),
            "403 for the token of another resource",
        ),
        check(
            "sign-on-missing",
            |context| signing_on(context, &signed_for_missing(context)),
            |_, got| match got.status() {
                400..500 => Ok(()),
                status => Err(failure(format!("the status is {status}, not 403"))),
            },
            "a valid token for a resource that does not exist lets nobody in: 403 (or another 4xx)",
        ),
        check(
            "sign-on-without-token",
            |context| {
                let mut fields = signed(context, 0);
                fields.retain(|name, _| !is_token(name));
                signing_on(context, &fields)
            },
            |_, got| judge::refusal(got, &[403]),
            "403 without a token",
        ),
        check(
            "sign-on-old",
            |context| {
                let minutes = if rules_of(context).say(DocumentedRule::TokenAge) {
                    6
                } else {
                    20
                };
                signing_on(context, &signed(context, -60 * minutes))
            },
            |context, got| match judge::refusal(got, &[403]) {
                Err(flaw) if !rules_of(context).say(DocumentedRule::TokenAge) => Err(warning(flaw.why)),
                judgement => judgement,
            },
            if rules.say(DocumentedRule::TokenAge) {
                "403 for a token of 6 minutes ago"
            } else {
                "403 for a token of 20 minutes ago is recommended"
            },
        ),
        check(
            "sign-on-future",
            |context| signing_on(context, &signed(context, 10 * 60)),
            |_, got| judge::refusal(got, &[403]).map_err(|flaw| warning(flaw.why)),
            "403 for a token that is 10 minutes ahead, which would be valid for longer than the others, is recommended",
        ),
    ]
}

pub(super) fn removal_checks(rules: &'static CheckRules) -> Vec<Check> {
    let sources = &rules.sources;
    let mut checks = vec![
        Check::ask(
            "deprovision-unauthorized",
            |context| removal(context).login(Login::Wrong),
            |_, got| judge::unauthorized(got),
            "401 with a wrong password, and nothing is removed",
            sources.access,
        )
        .needing(&[Need::Resource]),
        without_credentials("deprovision-no-credentials", rules, |context| {
            removal(context).login(Login::Missing)
        }),
        Check::ask("deprovision", removal, is_removed, rules.removed_rule, sources.remove).needing(&[Need::Resource]),
        Check::ask(
            "deprovision-again",
            removal,
            |context, got| match got.status() {
                status if rules_of(context).removed_again.contains(&status) => Ok(()),
                status @ (200..300 | 400..500) => Err(warning(format!("the status is {status}; 410 is usual"))),
                status => Err(failure(format!("the status is {status}, not 410"))),
            },
            "410: it is gone already",
            sources.remove,
        )
        .needing(&[Need::ResourceRemoved]),
        Check::ask(
            "plan-change-removed",
            |context| {
                let body = json!({"plan": context.plan});
                CheckRequest::new(Method::Put, resource_path(context)).json(body)
            },
            |context, got| undocumented(context, judge::refusal(got, &[404, 410])),
            "404 or 410 for what was removed",
            sources.change,
        )
        .needing(&[Need::ResourceRemoved]),
    ];
    if rules.dialect == Dialect::Heroku {
        checks.push(
            Check::ask(
                "provision-removed",
                |context| creating(context, "main").json(body(context, "main")),
                |_, got| judge::refusal(got, &[410]).map_err(|flaw| warning(flaw.why)),
                "410 is recommended for a uuid that was deprovisioned: a request that is delivered late makes nothing",
                sources.again,
            )
            .needing(&[Need::ResourceRemoved]),
        );
    }
    checks
}

pub(super) fn whole_checks(rules: &'static CheckRules) -> Vec<Check> {
    let source = rules.sources.bodies;
    let mut checks = vec![
        Check::new(
            "json-bodies",
            Act::Each(all_answers::json_bodies),
            "what has a body has JSON",
            source,
        ),
        Check::new(
            "error-bodies",
            Act::Each(all_answers::resources_error),
            "an error should have a message (or error) that is shown to the user",
            source,
        ),
        Check::new(
            "content-type",
            Act::Each(all_answers::content_type),
            "JSON should be sent as application/json or a vendor's type",
            source,
        ),
    ];
    if rules.dialect == Dialect::Heroku {
        checks.push(Check::new(
            "answer-time",
            Act::Each(all_answers::heroku_time),
            "within 25 s; within 3 s is recommended",
            "Heroku, Add-on Partner API Reference, Timeouts",
        ));
    }
    checks
}
