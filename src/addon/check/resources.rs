//! The checks of the provider APIs that have resources: Scalingo's, Heroku's and Clever Cloud's.
//!
//! Sources: Scalingo, "Addon Provider API" (developers.scalingo.com), and its add-on provider boilerplate; Heroku, "Add-on Partner API
//! Reference", version 3 (devcenter.heroku.com), and its tester kensa; Clever Cloud, "Marketplace APIs & Tools" of its documentation.
//! Where a document says nothing, another answer is a warning.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::context::{Context, Thing};
use super::judge::{self, Kind, optional, required};
use super::message::{Body, Effect, Exchange, Login, Place, Request};
use super::{Act, Check, Judgement, Need, failure, manifest, warning, whole};
use crate::addon::Dialect;
use crate::addon::dialect::Method;
use crate::addon::sso;

/// What stands in a path as it is (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest id (Scalingo).
const MAX_ID: usize = 255;

/// What differs between the dialects.
pub(super) struct Rules {
    dialect: Dialect,
    /// The field that names the app.
    app: &'static str,
    created: &'static [u16],
    created_rule: &'static str,
    removed: &'static [u16],
    removed_rule: &'static str,
    /// Statuses of what is removed once more.
    removed_again: &'static [u16],
    /// What the documents say besides.
    says: &'static [Says],
    sources: Sources,
}

/// What the documents of some dialects say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The same request again makes nothing new.
    Idempotent,
    /// The plan can be changed.
    PlanChange,
    /// Resources can be suspended.
    Suspension,
    /// A token of single sign-on must not be older than 5 minutes. The others recommend it.
    TokenAge,
}

impl Rules {
    fn say(&self, what: Says) -> bool {
        self.says.contains(&what)
    }
}

struct Sources {
    access: &'static str,
    manifest: &'static str,
    provision: &'static str,
    again: &'static str,
    extension: &'static str,
    change: &'static str,
    suspend: &'static str,
    sign_on: &'static str,
    remove: &'static str,
    bodies: &'static str,
}

pub(super) static SCALINGO: Rules = Rules {
    dialect: Dialect::Scalingo,
    app: "app_id",
    created: &[200, 201, 202],
    created_rule: "200, 201 or 202",
    removed: &[204],
    removed_rule: "204",
    removed_again: &[404, 410],
    says: &[Says::PlanChange, Says::Suspension, Says::TokenAge],
    sources: Sources {
        access: "Scalingo, Addon definition manifest: username and password",
        manifest: "Scalingo, Addon definition manifest, Structure",
        provision: "Scalingo, Addon Provider API, Addon provisioning",
        again: "Scalingo says nothing of it; the same uuid is the same request",
        extension: "Scalingo says nothing of it",
        change: "Scalingo, Addon Provider API, Plan modification",
        suspend: "Scalingo, add-on provider boilerplate: suspend and resume",
        sign_on: "Scalingo, Addon definition manifest: sso_salt; its boilerplate refuses what is older than 5 minutes",
        remove: "Scalingo, Addon Provider API, Addon deprovisioning",
        bodies: "Scalingo, Addon Provider API: answers are JSON",
    },
};

pub(super) static HEROKU: Rules = Rules {
    dialect: Dialect::Heroku,
    app: "uuid",
    created: &[200, 202],
    created_rule: "200, or 202 if it is provisioned later",
    removed: &[200, 204],
    removed_rule: "204 (200, which kensa wants, does too)",
    removed_again: &[404, 410],
    says: &[Says::Idempotent, Says::PlanChange, Says::TokenAge],
    sources: Sources {
        access: "Heroku, Add-on Partner API Reference, Authentication & SSL",
        manifest: "Heroku, kensa: ManifestCheck",
        provision: "Heroku, Add-on Partner API Reference, Provisioning; kensa: ProvisionResponseCheck",
        again: "Heroku, Add-on Partner API Reference, Idempotency",
        extension: "Heroku, Add-on Partner API Reference, Validation",
        change: "Heroku, Add-on Partner API Reference, Plan Change",
        suspend: "",
        sign_on: "Heroku, Add-on Single Sign-On; kensa: SsoCheck",
        remove: "Heroku, Add-on Partner API Reference, Deprovisioning",
        bodies: "Heroku, Add-on Partner API Reference, Response Bodies and Exceptions",
    },
};

pub(super) static CLEVER_CLOUD: Rules = Rules {
    dialect: Dialect::CleverCloud,
    app: "addon_id",
    created: &[200, 201],
    created_rule: "200",
    removed: &[200],
    removed_rule: "200",
    removed_again: &[200, 404, 410],
    says: &[],
    sources: Sources {
        access: "Clever Cloud, Marketplace APIs & Tools, Authentication",
        manifest: "Clever Cloud, Marketplace APIs & Tools, Add-on Manifest",
        provision: "Clever Cloud, Marketplace APIs & Tools, Provisioning",
        again: "Clever Cloud says nothing of it",
        extension: "Clever Cloud says nothing of it",
        change: "Clever Cloud, Marketplace APIs & Tools, Sample code (its text says nothing of it)",
        suspend: "",
        sign_on: "Clever Cloud, Marketplace APIs & Tools, SSO",
        remove: "Clever Cloud, Marketplace APIs & Tools, De-provisioning",
        bodies: "Clever Cloud, Marketplace APIs & Tools, Provisioning: answers are JSON",
    },
};

fn rules_of(context: &Context) -> &'static Rules {
    match context.settings.dialect {
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Scalingo | Dialect::Local | Dialect::Osb => &SCALINGO,
    }
}

/// Returns the checks of a dialect, in their order.
pub(super) fn checks(rules: &'static Rules) -> Vec<Check> {
    let mut checks = manifest_checks(rules);
    checks.extend(refusal_checks(rules));
    checks.extend(provision_checks(rules));
    checks.extend(change_checks(rules));
    if rules.say(Says::Suspension) {
        checks.extend(suspend_checks(rules));
    }
    checks.extend(sign_on_checks(rules));
    checks.extend(removal_checks(rules));
    checks.extend(whole_checks(rules));
    checks
}

fn manifest_checks(rules: &'static Rules) -> Vec<Check> {
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

fn refusal_checks(rules: &'static Rules) -> Vec<Check> {
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

fn provision_checks(rules: &'static Rules) -> Vec<Check> {
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
            Act::Look("provision", resource_id),
            "id is a string that is not empty, of 255 characters at most",
            sources.provision,
        ),
        Check::new(
            "provision-body",
            Act::Look("provision", |_, got| described(got)),
            "an object; message is a string, config an object of strings",
            sources.provision,
        ),
        Check::new(
            "provision-variables",
            Act::Look("provision", declared),
            "the keys of config are in the manifest's config_vars",
            sources.provision,
        )
        .needing(&[Need::Manifest]),
        Check::new(
            "provision-urls",
            Act::Look("provision", urls),
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

fn change_checks(rules: &'static Rules) -> Vec<Check> {
    let source = rules.sources.change;
    vec![
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
            |context| Request::new(Method::Put, resource_path(context)).json(json!({})),
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
                Request::new(Method::Put, resource_path(context)).json(body)
            },
            |context, got| undocumented(context, judge::refusal(got, &[400, 422])),
            "a plan that there is not is refused (422 or 400)",
            source,
        )
        .needing(&[Need::Resource]),
    ]
}

fn suspend_checks(rules: &'static Rules) -> Vec<Check> {
    let check = |name, request: fn(&Context) -> Request, rule| {
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
        check("suspend", |context| act(context, "suspend"), "204"),
        check(
            "suspend-again",
            |context| act(context, "suspend"),
            "204 if it is suspended already",
        ),
        check("resume", |context| act(context, "resume"), "204"),
        check(
            "resume-again",
            |context| act(context, "resume"),
            "204 if it is not suspended",
        ),
    ]
}

fn sign_on_checks(rules: &'static Rules) -> Vec<Check> {
    let check = |name, request: fn(&Context) -> Request, judge: fn(&Context, &Exchange) -> Judgement, rule| {
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
                let minutes = if rules_of(context).say(Says::TokenAge) { 6 } else { 20 };
                signing_on(context, &signed(context, -60 * minutes))
            },
            |context, got| match judge::refusal(got, &[403]) {
                Err(flaw) if !rules_of(context).say(Says::TokenAge) => Err(warning(flaw.why)),
                judgement => judgement,
            },
            if rules.say(Says::TokenAge) {
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

fn removal_checks(rules: &'static Rules) -> Vec<Check> {
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
                Request::new(Method::Put, resource_path(context)).json(body)
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

fn whole_checks(rules: &'static Rules) -> Vec<Check> {
    let source = rules.sources.bodies;
    let mut checks = vec![
        Check::new(
            "json-bodies",
            Act::Each(whole::json_bodies),
            "what has a body has JSON",
            source,
        ),
        Check::new(
            "error-bodies",
            Act::Each(whole::resources_error),
            "an error should have a message (or error) that is shown to the user",
            source,
        ),
        Check::new(
            "content-type",
            Act::Each(whole::content_type),
            "JSON should be sent as application/json or a vendor's type",
            source,
        ),
    ];
    if rules.dialect == Dialect::Heroku {
        checks.push(Check::new(
            "answer-time",
            Act::Each(whole::heroku_time),
            "within 25 s; within 3 s is recommended",
            "Heroku, Add-on Partner API Reference, Timeouts",
        ));
    }
    checks
}

/// Returns the thing that a request for a purpose makes.
fn thing(context: &Context, purpose: &str) -> Thing {
    match purpose {
        "main" => context.main_thing(),
        _ => Thing::Resource(context.id(purpose)),
    }
}

fn creating(context: &Context, purpose: &str) -> Request {
    Request::new(Method::Post, "").effect(Effect::Creates(thing(context, purpose)))
}

/// Returns what a platform sends to provision.
fn body(context: &Context, purpose: &str) -> Value {
    let Thing::Resource(app) = thing(context, purpose) else {
        return Value::Null;
    };
    let callback = format!("https://platform.invalid/addons/{app}");
    let mut body = match context.settings.dialect {
        Dialect::Heroku => json!({
            "callback_url": callback,
            "name": "tcpgw-check",
            "oauth_grant": {"code": context.id("grant"), "expires_at": "2030-01-01T00:00:00Z", "type": "authorization_code"},
            "region": "amazon-web-services::eu-west-1",
        }),
        Dialect::CleverCloud => json!({
            "owner_id": format!("orga_{}", context.id("owner")),
            "owner_name": "tcpgw-check",
            "user_id": format!("user_{}", context.id("user")),
            "region": "EU",
            "callback_url": callback,
        }),
        _ => json!({"uuid": context.id(&format!("uuid-of-{purpose}"))}),
    };
    body[rules_of(context).app] = json!(app);
    body["plan"] = json!(context.plan);
    body["options"] = Value::Object(context.settings.parameters.clone());
    body
}

/// Returns the path of what was provisioned: by the provider's id, or with Heroku by the platform's.
fn resource_path(context: &Context) -> String {
    path_of(context, &context.main_thing()).unwrap_or_default()
}

fn path_of(context: &Context, thing: &Thing) -> Option<String> {
    let Thing::Resource(app) = thing else { return None };
    let id = match context.settings.dialect {
        Dialect::Heroku => Some(app.clone()),
        _ => context.find(thing)?.id.clone(),
    };
    // These two would be parts of the path's syntax.
    let id = id.filter(|id| id != "." && id != "..")?;
    Some(format!("/{}", utf8_percent_encode(&id, SEGMENT)))
}

/// Returns the request that removes a thing, if the provider has told its id.
pub(super) fn removing(context: &Context, thing: &Thing) -> Option<Request> {
    let path = path_of(context, thing)?;
    Some(Request::new(Method::Delete, path).effect(Effect::Removes(thing.clone())))
}

fn removal(context: &Context) -> Request {
    Request::new(Method::Delete, resource_path(context)).effect(Effect::Removes(context.main_thing()))
}

fn act(context: &Context, verb: &str) -> Request {
    Request::new(Method::Post, format!("{}/{verb}", resource_path(context)))
}

fn change_plan(context: &Context) -> Request {
    let plan = context.other_plan.clone().unwrap_or_default();
    Request::new(Method::Put, resource_path(context))
        .json(json!({"plan": plan, "options": {}}))
        .effect(Effect::Changes(context.main_thing(), plan))
}

fn id_field(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Heroku {
        "resource_id"
    } else {
        "id"
    }
}

fn is_token(name: &str) -> bool {
    ["token", "resource_token", "user_scoped_resource_token", "signature"].contains(&name)
}

/// Returns the fields by which a platform signs its user on, at a time that is so many seconds from now.
fn signed(context: &Context, seconds: i64) -> sso::Fields {
    let dialect = context.settings.dialect;
    let thing = context.main_thing();
    let own = context.find(&thing).and_then(|made| made.id.clone());
    let id = match (&thing, dialect) {
        (Thing::Resource(app), Dialect::Heroku) => app.clone(),
        _ => own.unwrap_or_default(),
    };
    let now = i64::try_from(context.now.as_secs()).unwrap_or(i64::MAX);
    let at = now.saturating_add(seconds).max(0);
    let at = if dialect == Dialect::CleverCloud {
        at.saturating_mul(1000)
    } else {
        at
    };
    let mut fields: sso::Fields = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        fields.insert(name.to_owned(), value.to_owned());
    };
    set(id_field(dialect), &id);
    set("timestamp", &at.to_string());
    let user = context.id("user");
    match dialect {
        Dialect::Heroku => {
            set("user_id", &user);
            set("user_email", "tcpgw-check@example.com");
            set("email", "tcpgw-check@example.com");
            set("app", "tcpgw-check");
        }
        Dialect::CleverCloud => {
            set("user_id", &format!("user_{user}"));
            set("email", "tcpgw-check@example.com");
            set("nav-data", "");
        }
        _ => {}
    }
    if let Some(salt) = &context.settings.credentials.sso_salt {
        for (name, token) in sso::tokens(dialect, &fields, salt.expose()) {
            fields.insert(name.into(), token);
        }
    }
    fields
}

fn signing_on(context: &Context, fields: &sso::Fields) -> Request {
    let method = match context.settings.dialect {
        Dialect::Heroku | Dialect::CleverCloud => Method::Post,
        _ => Method::Get,
    };
    let mut request = Request::new(method, "").body(Body::Form(fields.clone()));
    request.place = Place::SignOn;
    request.login = Login::Missing;
    request
}

fn resource_id(context: &Context, got: &Exchange) -> Judgement {
    let body = got.json().unwrap_or(&Value::Null);
    // Before version 3 of Heroku's API ids were numbers.
    if context.settings.dialect == Dialect::Heroku && body["id"].is_number() {
        return Err(warning("id is a number; a string is usual"));
    }
    required(body, "", &[("id", Kind::Text)])?;
    let length = body["id"].as_str().map_or(0, |id| id.chars().count());
    if length > MAX_ID {
        return Err(failure(format!("id has {length} characters")));
    }
    Ok(())
}

/// The body that describes a resource.
fn described(got: &Exchange) -> Judgement {
    judge::object(got)?;
    let members = [
        ("message", Kind::AnyText),
        ("config", Kind::Object),
        ("log_drain_url", Kind::AnyText),
    ];
    optional(got.json().unwrap_or(&Value::Null), "", &members)?;
    match config(got).find(|(_, value)| !value.is_string()) {
        Some((name, _)) => Err(failure(format!("config.{name} is not a string"))),
        None => Ok(()),
    }
}

fn config(got: &Exchange) -> impl Iterator<Item = (&String, &Value)> {
    got.member("config").and_then(Value::as_object).into_iter().flatten()
}

fn declared(context: &Context, got: &Exchange) -> Judgement {
    let manifest = context.settings.manifest.as_ref();
    let declared = manifest.and_then(|manifest| manifest::variables(context.settings.dialect, manifest));
    let declared = declared.unwrap_or_default();
    match config(got).find(|(name, _)| !declared.contains(&name.as_str())) {
        Some((name, _)) => Err(failure(format!("config has {name}, which is not in config_vars"))),
        None => Ok(()),
    }
}

fn urls(_: &Context, got: &Exchange) -> Judgement {
    for (name, value) in config(got).filter(|(name, _)| name.ends_with("_URL")) {
        let Some(url) = value.as_str() else { continue };
        let parts = url.split_once("://");
        let is_scheme = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
        };
        let host = parts.map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let host = host.map(|host| host.rsplit('@').next().unwrap_or_default());
        let is_host = |host: &str| !host.is_empty() && !host.starts_with(':') && !host.contains(char::is_whitespace);
        if !parts.is_some_and(|(scheme, _)| is_scheme(scheme)) || !host.is_some_and(is_host) {
            return Err(failure(format!("{name} is no URL with a scheme and a host")));
        }
    }
    Ok(())
}

/// The same resource again. A dialect that says nothing of it may do otherwise.
fn is_same(context: &Context, got: &Exchange) -> Judgement {
    let rules = rules_of(context);
    let flaw = |why: String| {
        if rules.say(Says::Idempotent) {
            failure(why)
        } else {
            warning(why)
        }
    };
    if !got.is_success() {
        return Err(match got.status() {
            status @ 500.. => failure(format!("the status is {status}")),
            status => flaw(format!("the status is {status}")),
        });
    }
    let known = context.find(&context.main_thing()).and_then(|made| made.id.as_deref());
    let id = match got.member("id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    if id.as_deref() != known {
        return Err(flaw("id is another than before".into()));
    }
    Ok(())
}

/// What a dialect's documents do not have is a warning.
fn undocumented(context: &Context, judgement: Judgement) -> Judgement {
    match judgement {
        Err(flaw) if !rules_of(context).say(Says::PlanChange) => Err(warning(flaw.why)),
        judgement => judgement,
    }
}

fn is_changed(context: &Context, got: &Exchange) -> Judgement {
    let judgement = judge::status(got, &[200]).and_then(|()| described(got));
    undocumented(context, judgement.and_then(|()| if_declared(context, got)))
}

fn if_declared(context: &Context, got: &Exchange) -> Judgement {
    match context.settings.manifest {
        Some(_) => declared(context, got),
        None => Ok(()),
    }
}

fn without_plan(context: &Context, got: &Exchange) -> Judgement {
    if context.settings.dialect != Dialect::Scalingo {
        return undocumented(context, judge::refusal(got, &[400, 422]));
    }
    judge::status(got, &[422])?;
    judge::object(got)?;
    required(got.json().unwrap_or(&Value::Null), "", &[("error", Kind::Text)])
}

fn is_removed(context: &Context, got: &Exchange) -> Judgement {
    judge::status(got, rules_of(context).removed)?;
    if got.status() == 204 && got.json().is_some() {
        return Err(failure("the status is 204, and there is a body"));
    }
    Ok(())
}
