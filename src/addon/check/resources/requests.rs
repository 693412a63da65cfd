//! Requests as a platform sends them.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::super::context::CheckContext;
use super::super::message::{Body, CheckRequest, Login, PathBase, RequestEffect};
use super::rules::rules_of;
use crate::addon::Dialect;
use crate::addon::check::created_resource::ProviderResource;
use crate::addon::dialect::exchange::Method;
use crate::addon::sso;

/// Characters that are percent-encoded in a segment of a path: all but the unreserved ones (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the thing that a request for this purpose makes.
fn thing(context: &CheckContext, purpose: &str) -> ProviderResource {
    match purpose {
        "main" => context.main_thing(),
        _ => ProviderResource::Resource(context.id(purpose)),
    }
}

pub(super) fn creating(context: &CheckContext, purpose: &str) -> CheckRequest {
    CheckRequest::new(Method::Post, "").effect(RequestEffect::Creates(thing(context, purpose)))
}

/// Returns the body of a request to provision.
pub(super) fn body(context: &CheckContext, purpose: &str) -> Value {
    let ProviderResource::Resource(app) = thing(context, purpose) else {
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

/// Returns the path of the provisioned resource: by the provider's id, or with Heroku by the platform's.
pub(super) fn resource_path(context: &CheckContext) -> String {
    path_of(context, &context.main_thing()).unwrap_or_default()
}

fn path_of(context: &CheckContext, thing: &ProviderResource) -> Option<String> {
    let ProviderResource::Resource(app) = thing else {
        return None;
    };
    let id = match context.settings.dialect {
        Dialect::Heroku => Some(app.clone()),
        _ => context.find(thing)?.id.clone(),
    };
    // These two would be parts of the path's syntax.
    let id = id.filter(|id| id != "." && id != "..")?;
    Some(format!("/{}", utf8_percent_encode(&id, SEGMENT)))
}

/// Returns the request that removes a thing, if the provider has told its id.
pub(in super::super) fn removing(context: &CheckContext, thing: &ProviderResource) -> Option<CheckRequest> {
    let path = path_of(context, thing)?;
    Some(CheckRequest::new(Method::Delete, path).effect(RequestEffect::Removes(thing.clone())))
}

pub(super) fn removal(context: &CheckContext) -> CheckRequest {
    CheckRequest::new(Method::Delete, resource_path(context)).effect(RequestEffect::Removes(context.main_thing()))
}

pub(super) fn act(context: &CheckContext, verb: &str) -> CheckRequest {
    CheckRequest::new(Method::Post, format!("{}/{verb}", resource_path(context)))
}

/// Returns a change to the plan that the resource has.
pub(super) fn keep_plan(context: &CheckContext) -> CheckRequest {
    CheckRequest::new(Method::Put, resource_path(context)).json(json!({"plan": context.current_plan, "options": {}}))
}

pub(super) fn change_plan(context: &CheckContext) -> CheckRequest {
    let plan = context.other_plan.clone().unwrap_or_default();
    CheckRequest::new(Method::Put, resource_path(context))
        .json(json!({"plan": plan, "options": {}}))
        .effect(RequestEffect::Changes(context.main_thing(), plan))
}

pub(super) fn id_field(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Heroku {
        "resource_id"
    } else {
        "id"
    }
}

pub(super) fn is_token(name: &str) -> bool {
    ["token", "resource_token", "user_scoped_resource_token", "signature"].contains(&name)
}

/// Returns the fields by which a platform signs its user on, at a time that is so many seconds from now.
pub(super) fn signed(context: &CheckContext, seconds: i64) -> sso::FormFields {
    let thing = context.main_thing();
    let own = context.find(&thing).and_then(|made| made.id.clone());
    let own = own.unwrap_or_default();
    let id = match (&thing, context.settings.dialect) {
        (ProviderResource::Resource(app), Dialect::Heroku) => app.clone(),
        _ => own.clone(),
    };
    signed_for(context, &id, own, seconds)
}

/// Returns the fields with which a user is signed on to a resource that does not exist.
pub(super) fn signed_for_missing(context: &CheckContext) -> sso::FormFields {
    signed_for(
        context,
        &context.id("missing-resource"),
        context.id("missing-resource-of-provider"),
        0,
    )
}

/// `id` names the resource; `own` is the provider's id.
fn signed_for(context: &CheckContext, id: &str, own: String, seconds: i64) -> sso::FormFields {
    let dialect = context.settings.dialect;
    let now = i64::try_from(context.now.as_secs()).unwrap_or(i64::MAX);
    let at = now.saturating_add(seconds).max(0);
    let at = if dialect == Dialect::CleverCloud {
        at.saturating_mul(1000)
    } else {
        at
    };
    let mut fields: sso::FormFields = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        fields.insert(name.to_owned(), value.to_owned());
    };
    set(id_field(dialect), id);
    set("timestamp", &at.to_string());
    let user = context.id("user");
    match dialect {
        Dialect::Heroku => {
            // `id` is the provider's own, of which the older `token` is made.
            set("id", &own);
            set("user_id", &user);
            set("email", "tcpgw-check@example.com");
            set("app", "tcpgw-check");
            set("context_app", "tcpgw-check");
            set("nav-data", "e30=");
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
        if dialect == Dialect::Heroku {
            let older = BTreeMap::from([("id".to_owned(), own), ("timestamp".to_owned(), at.to_string())]);
            if let Ok((name, token)) = sso::token(Dialect::Scalingo, &older, salt.expose()) {
                fields.insert(name.into(), token);
            }
        }
    }
    fields
}

pub(super) fn signing_on(context: &CheckContext, fields: &sso::FormFields) -> CheckRequest {
    let method = match context.settings.dialect {
        Dialect::Heroku | Dialect::CleverCloud => Method::Post,
        _ => Method::Get,
    };
    let mut request = CheckRequest::new(method, "").body(Body::Form(fields.clone()));
    request.place = PathBase::SignOn;
    request.login = Login::Missing;
    request
}
