//! The provider APIs that have `resources`: Scalingo's, Heroku's and Clever Cloud's. What differs between them is in [`DialectRules`].

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::body::{object, requested_port};
use super::exchange::{AuthenticatedRequest, Call, DialectAnswer, Method};
use super::gateway::GatewayProperties;
use crate::addon::decision::AddonOutcome;
use crate::addon::id::{IdError, PlanName, PlatformId};
use crate::addon::refusal::Refusal;
use crate::addon::request::{AddonRequest, Provision, ResourceTarget};
use crate::addon::resource::{Dialect, Resource};
use tcpgw_core::model::Word as _;

/// Differences between these dialects. Sources: Scalingo's add-on provider boilerplate and API tester; Heroku's add-on partner
/// API reference, version 3; Clever Cloud's add-on provider documentation.
struct DialectRules {
    /// The field that names the app.
    app: &'static str,
    /// The field that identifies the request, if one is sent.
    uuid: Option<&'static str>,
    /// Whether the path names a resource by the platform's id instead of the id that tcpgw has given.
    by_app: bool,
    /// Whether there are `suspend` and `resume`.
    suspends: bool,
    /// Status code of a new resource.
    created: u16,
    removed: u16,
    /// Status code of a request for a known id with other values.
    conflict: u16,
    /// Status code of a change of an unknown resource.
    unknown: u16,
}

const SCALINGO: DialectRules = DialectRules {
    app: "app_id",
    uuid: Some("uuid"),
    by_app: false,
    suspends: true,
    created: 201,
    removed: 204,
    conflict: 409,
    unknown: 404,
};

const HEROKU: DialectRules = DialectRules {
    app: "uuid",
    uuid: None,
    by_app: true,
    suspends: false,
    created: 200,
    removed: 204,
    conflict: 422,
    unknown: 410,
};

const CLEVER_CLOUD: DialectRules = DialectRules {
    app: "addon_id",
    uuid: None,
    by_app: false,
    suspends: false,
    created: 200,
    removed: 200,
    conflict: 409,
    unknown: 404,
};

/// Status of requests that no platform sends; `options` of the command line come as values.
const UNPROCESSABLE: u16 = 422;

fn rules(dialect: Dialect) -> &'static DialectRules {
    match dialect {
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Scalingo | Dialect::Osb | Dialect::Local => &SCALINGO,
    }
}

pub(super) fn parse(dialect: Dialect, exchange: &AuthenticatedRequest<'_>) -> Result<Call, DialectAnswer> {
    let rules = rules(dialect);
    let request = match (exchange.method, exchange.path) {
        (Method::Post, ["resources"]) => AddonRequest::Provision(provision(dialect, rules, exchange.body)?),
        (Method::Get, ["resources", id]) => return Ok(Call::Show(target(dialect, rules, id, 404)?)),
        (Method::Put, ["resources", id]) => {
            let target = target(dialect, rules, id, rules.unknown)?;
            AddonRequest::ChangePlan(target, plan(dialect, &object(dialect, exchange.body)?)?.into())
        }
        (Method::Delete, ["resources", id]) => AddonRequest::Deprovision(target(dialect, rules, id, rules.unknown)?),
        (Method::Post, ["resources", id, "suspend"]) if rules.suspends => {
            AddonRequest::Suspend(target(dialect, rules, id, 404)?)
        }
        (Method::Post, ["resources", id, "resume"]) if rules.suspends => {
            AddonRequest::Resume(target(dialect, rules, id, 404)?)
        }
        (_, ["resources"] | ["resources", _]) => {
            return Err(DialectAnswer::error(
                dialect,
                405,
                "MethodNotAllowed",
                "this method is not allowed here",
            ));
        }
        (_, ["resources", _, "suspend" | "resume"]) if rules.suspends => {
            return Err(DialectAnswer::error(
                dialect,
                405,
                "MethodNotAllowed",
                "only POST is allowed here",
            ));
        }
        _ => return Err(DialectAnswer::error(dialect, 404, "NotFound", "there is nothing here")),
    };
    Ok(Call::Change(request))
}

fn provision(dialect: Dialect, rules: &DialectRules, body: &[u8]) -> Result<Provision, DialectAnswer> {
    let body = object(dialect, body)?;
    let uuid = rules.uuid.map_or(Ok(None), |field| id_of(dialect, &body, field))?;
    let app = match (id_of(dialect, &body, rules.app)?, &uuid) {
        (Some(app), _) => app,
        // Older clients of Scalingo send `uuid` only.
        (None, Some(uuid)) => uuid.clone(),
        (None, None) => return Err(unprocessable(dialect, &format!("{} is missing", rules.app))),
    };
    let port = requested_port(body.get("options")).map_err(|why| unprocessable(dialect, &format!("options: {why}")))?;
    Ok(Provision {
        dialect,
        app,
        uuid,
        owner: None,
        plan: plan(dialect, &body)?.into(),
        port,
        asked: None,
    })
}

fn id_of(dialect: Dialect, body: &Map<String, Value>, field: &str) -> Result<Option<PlatformId>, DialectAnswer> {
    let text = match body.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(unprocessable(dialect, &format!("{field} must be a string"))),
    };
    let id: Result<PlatformId, IdError> = text.parse();
    id.map(Some)
        .map_err(|error| unprocessable(dialect, &format!("{field} {error}")))
}

fn plan(dialect: Dialect, body: &Map<String, Value>) -> Result<PlanName, DialectAnswer> {
    match body.get("plan") {
        None | Some(Value::Null) => Err(unprocessable(dialect, "plan is missing")),
        Some(Value::String(text)) => {
            let plan: Result<PlanName, IdError> = text.parse();
            plan.map_err(|error| unprocessable(dialect, &format!("plan {error}")))
        }
        Some(_) => Err(unprocessable(dialect, "plan must be a string")),
    }
}

/// Returns the resource that an id names. A text that cannot be an id is answered like an unknown id.
fn target(dialect: Dialect, rules: &DialectRules, id: &str, unknown: u16) -> Result<ResourceTarget, DialectAnswer> {
    let target = if rules.by_app {
        id.parse().ok().map(|app| ResourceTarget::App(dialect, app))
    } else {
        id.parse().ok().map(|id| ResourceTarget::Id(dialect, id))
    };
    let word = if unknown == 410 { "Gone" } else { "NotFound" };
    target.ok_or_else(|| DialectAnswer::error(dialect, unknown, word, &Refusal::NotFound.to_string()))
}

fn unprocessable(dialect: Dialect, text: &str) -> DialectAnswer {
    DialectAnswer::error(dialect, UNPROCESSABLE, "InvalidRequest", text)
}

pub(super) fn answer(
    dialect: Dialect,
    request: &AddonRequest,
    result: &Result<AddonOutcome, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    let rules = rules(dialect);
    let resource = match result {
        Err(refusal) => return refused(dialect, rules, request, refusal),
        Ok(AddonOutcome::Removed(_)) if rules.removed == 204 => return DialectAnswer::empty(204),
        Ok(AddonOutcome::Removed(_)) => return DialectAnswer::new(rules.removed, json!({})),
        Ok(AddonOutcome::Created(resource) | AddonOutcome::Changed(resource) | AddonOutcome::Unchanged(resource)) => {
            resource
        }
    };
    match request {
        AddonRequest::Provision(_) => {
            let is_new = matches!(result, Ok(AddonOutcome::Created(_)));
            let status = if is_new { rules.created } else { 200 };
            let mut body = described(resource, gateway, "is provisioned");
            body["id"] = resource.id.as_str().into();
            DialectAnswer::new(status, body)
        }
        AddonRequest::Suspend(_) | AddonRequest::Resume(_) => DialectAnswer::empty(204),
        AddonRequest::ChangePlan(..)
        | AddonRequest::Deprovision(_)
        | AddonRequest::Bind(..)
        | AddonRequest::Unbind(..) => DialectAnswer::new(200, described(resource, gateway, "has this plan")),
    }
}

pub(super) fn shown(
    dialect: Dialect,
    found: &Result<Arc<Resource>, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    match found {
        Ok(resource) => {
            let mut body = described(resource, gateway, "is provisioned");
            body["id"] = resource.id.as_str().into();
            body["plan"] = resource.plan.as_str().into();
            body["status"] = resource.status.word().into();
            DialectAnswer::new(200, body)
        }
        Err(Refusal::Gone) => DialectAnswer::error(dialect, 410, "Gone", &Refusal::Gone.to_string()),
        Err(refusal) => DialectAnswer::error(dialect, 404, "NotFound", &refusal.to_string()),
    }
}

fn described(resource: &Resource, gateway: GatewayProperties<'_>, what: &str) -> Value {
    let url = gateway.tcp_url(resource.port);
    let plan = &resource.plan;
    json!({"config": {"TCP_URL": url}, "message": format!("{url} {what} ({plan})")})
}

fn refused(dialect: Dialect, rules: &DialectRules, request: &AddonRequest, refusal: &Refusal) -> DialectAnswer {
    let is_provision = matches!(request, AddonRequest::Provision(_));
    let (status, error) = match refusal {
        Refusal::UnknownPlan { .. } | Refusal::UnlistedPlan => (UNPROCESSABLE, "UnknownPlan"),
        Refusal::Port(_) => (UNPROCESSABLE, "NoPort"),
        Refusal::TooManyBindings | Refusal::Ambiguous(_) | Refusal::Prefixed => (UNPROCESSABLE, "InvalidRequest"),
        Refusal::Conflict(_) => (rules.conflict, "Conflict"),
        Refusal::Gone => (410, "Gone"),
        Refusal::NotFound | Refusal::NoBinding if rules.unknown == 410 && !is_provision => (410, "Gone"),
        Refusal::NotFound | Refusal::NoBinding => (404, "NotFound"),
    };
    DialectAnswer::error(dialect, status, error, &refusal.for_platform())
}
