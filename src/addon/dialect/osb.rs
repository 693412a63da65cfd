//! The Open Service Broker API, versions 2.13 to 2.17, synchronous only.
//!
//! Source: `spec.md` of openservicebrokerapi/servicebroker.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::body::{object, requested_port};
use super::exchange::{AuthenticatedRequest, Call, DialectAnswer, Method};
use super::gateway::GatewayProperties;
use crate::addon::decision::AddonOutcome;
use crate::addon::fingerprint::{Fingerprint, stand_in};
use crate::addon::id::{IdError, PlatformId};
use crate::addon::plan::{AddonPlan, Plans};
use crate::addon::refusal::Refusal;
use crate::addon::request::{AddonRequest, Provision, ResourceTarget, WantedPlan};
use crate::addon::resource::{Binding, Dialect, Resource, ResourceOwner};

/// The minor versions of major version 2 that are understood.
pub const SUPPORTED_VERSIONS: std::ops::RangeInclusive<u32> = 13..=17;
/// Id of the service offering. It is the same on every gateway, since all gateways offer the same.
const SERVICE_ID: &str = "0f6c1d8e-5f0c-4c55-9d1b-7c2f6a3be4d1";
const SERVICE_NAME: &str = "tcp-gateway";

pub(super) fn parse(exchange: &AuthenticatedRequest<'_>) -> Result<Call, DialectAnswer> {
    supported(exchange.version)?;
    match exchange.path {
        ["catalog"] => only(exchange, Method::Get).map(|()| Call::Catalog),
        ["service_instances", instance] => self::instance(exchange, instance),
        ["service_instances", instance, "last_operation"] => {
            only(exchange, Method::Get)?;
            Ok(Call::LastOperation(target(instance)?))
        }
        ["service_instances", instance, "service_bindings", binding] => self::binding(exchange, instance, binding),
        [
            "service_instances",
            instance,
            "service_bindings",
            binding,
            "last_operation",
        ] => {
            only(exchange, Method::Get)?;
            Ok(Call::LastBindingOperation(
                target(instance)?,
                id("binding_id", binding)?,
            ))
        }
        _ => Err(error(404, "NotFound", "there is nothing here")),
    }
}

fn supported(version: Option<&str>) -> Result<(), DialectAnswer> {
    let (first, last) = (SUPPORTED_VERSIONS.start(), SUPPORTED_VERSIONS.end());
    let known = format!("versions 2.{first} to 2.{last} are supported");
    let minor = version.and_then(|version| version.trim().strip_prefix("2.")?.parse().ok());
    match (version, minor) {
        (_, Some(minor)) if SUPPORTED_VERSIONS.contains(&minor) => Ok(()),
        (None, _) => Err(error(
            412,
            "UnsupportedVersion",
            &format!("the header X-Broker-API-Version is missing; {known}"),
        )),
        (Some(_), _) => Err(error(
            412,
            "UnsupportedVersion",
            &format!("this X-Broker-API-Version is not supported; {known}"),
        )),
    }
}

fn instance(exchange: &AuthenticatedRequest<'_>, instance: &str) -> Result<Call, DialectAnswer> {
    let target = || target(instance);
    let request = match exchange.method {
        Method::Get => return Ok(Call::Show(target()?)),
        Method::Put => {
            let body = object(Dialect::Osb, exchange.body)?;
            let owner = ResourceOwner {
                organization: owner_id(&body, "organization_guid")?,
                space: owner_id(&body, "space_guid")?,
            };
            service(body.get("service_id"))?;
            objects(&body, &["context", "parameters", "maintenance_info"])?;
            let port = requested_port(body.get("parameters")).map_err(|why| invalid(&format!("parameters: {why}")))?;
            AddonRequest::Provision(Provision {
                dialect: Dialect::Osb,
                app: id("instance_id", instance)?,
                uuid: None,
                owner: Some(owner),
                plan: {
                    let plan = plan(body.get("plan_id"))?;
                    no_maintenance(&body)?;
                    plan
                },
                port,
                asked: Some(Fingerprint::of(&parameters(&body))),
            })
        }
        Method::Patch => {
            let body = object(Dialect::Osb, exchange.body)?;
            service(body.get("service_id"))?;
            objects(&body, &["context", "parameters", "maintenance_info", "previous_values"])?;
            requested_port(body.get("parameters")).map_err(|why| invalid(&format!("parameters: {why}")))?;
            no_maintenance(&body)?;
            fixed_parameters(&body)?;
            match body.get("plan_id") {
                None | Some(Value::Null) => return Ok(Call::Keep(target()?)),
                given => AddonRequest::ChangePlan(target()?, plan(given)?),
            }
        }
        Method::Delete => {
            service_and_plan(exchange)?;
            AddonRequest::Deprovision(target()?)
        }
        Method::Post => return Err(not_allowed()),
    };
    Ok(Call::Change(request))
}

fn binding(exchange: &AuthenticatedRequest<'_>, instance: &str, binding: &str) -> Result<Call, DialectAnswer> {
    let (target, binding) = (target(instance)?, id("binding_id", binding)?);
    let request = match exchange.method {
        Method::Get => return Ok(Call::ShowBinding(target, binding)),
        Method::Put => {
            let body = object(Dialect::Osb, exchange.body)?;
            service(body.get("service_id"))?;
            objects(&body, &["context", "parameters", "bind_resource"])?;
            let plan = plan(body.get("plan_id"))?;
            let plan_id = body.get("plan_id").and_then(Value::as_str).unwrap_or_default();
            let asked = json!({"plan_id": plan_id.to_ascii_lowercase(), "parameters": parameters(&body)});
            let resource = body.get("bind_resource").and_then(|resource| resource.get("app_guid"));
            let app = match resource.or(body.get("app_guid")) {
                None | Some(Value::Null) => None,
                Some(app) => Some(text_id("app_guid", Some(app))?),
            };
            let fingerprint = Some(Fingerprint::of(&asked));
            AddonRequest::Bind(
                target,
                binding,
                plan,
                Binding {
                    app,
                    asked: fingerprint,
                },
            )
        }
        Method::Delete => {
            service_and_plan(exchange)?;
            AddonRequest::Unbind(target, binding)
        }
        Method::Post | Method::Patch => return Err(not_allowed()),
    };
    Ok(Call::Change(request))
}

fn only(exchange: &AuthenticatedRequest<'_>, method: Method) -> Result<(), DialectAnswer> {
    (exchange.method == method).then_some(()).ok_or_else(not_allowed)
}

fn not_allowed() -> DialectAnswer {
    error(405, "MethodNotAllowed", "this method is not allowed here")
}

fn target(instance: &str) -> Result<ResourceTarget, DialectAnswer> {
    Ok(ResourceTarget::App(Dialect::Osb, id("instance_id", instance)?))
}

fn id(name: &str, text: &str) -> Result<PlatformId, DialectAnswer> {
    text.parse().map_err(|why: IdError| invalid(&format!("{name} {why}")))
}

/// Returns the id of an organization or a space. Any text is accepted, since it is in no path: a text that is no valid id is
/// replaced by its hash.
fn owner_id(body: &Map<String, Value>, name: &str) -> Result<PlatformId, DialectAnswer> {
    match body.get(name) {
        Some(Value::String(text)) if !text.is_empty() => match text.parse() {
            Ok(id) => Ok(id),
            Err(_) => stand_in(text).map_err(|why| invalid(&format!("{name} {why}"))),
        },
        other => text_id(name, other),
    }
}

/// Returns the parameters. Absent parameters are the same as an empty object.
fn parameters(body: &Map<String, Value>) -> Value {
    match body.get("parameters") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(parameters) => parameters.clone(),
    }
}

fn text_id(name: &str, value: Option<&Value>) -> Result<PlatformId, DialectAnswer> {
    match value {
        None | Some(Value::Null) => Err(invalid(&format!("{name} is missing"))),
        Some(Value::String(text)) => id(name, text),
        Some(_) => Err(invalid(&format!("{name} must be a string"))),
    }
}

fn service(given: Option<&Value>) -> Result<(), DialectAnswer> {
    match given {
        Some(Value::String(id)) if id == SERVICE_ID => Ok(()),
        None | Some(Value::Null) => Err(invalid("service_id is missing")),
        Some(_) => Err(invalid("service_id is not that of a service in the catalog")),
    }
}

fn plan(given: Option<&Value>) -> Result<WantedPlan, DialectAnswer> {
    match given {
        Some(Value::String(id)) => Ok(WantedPlan::Id(id.parse().ok())),
        None | Some(Value::Null) => Err(invalid("plan_id is missing")),
        Some(_) => Err(invalid("plan_id must be a string")),
    }
}

/// Refuses members that are present and are no objects.
fn objects(body: &Map<String, Value>, names: &[&str]) -> Result<(), DialectAnswer> {
    for name in names {
        if !matches!(body.get(*name), None | Some(Value::Null | Value::Object(_))) {
            return Err(invalid(&format!("{name} must be an object")));
        }
    }
    Ok(())
}

/// Refuses a version of `maintenance_info`, since no plan of the catalog has one.
fn no_maintenance(body: &Map<String, Value>) -> Result<(), DialectAnswer> {
    let version = body.get("maintenance_info").and_then(|info| info.get("version"));
    match version {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(error(
            422,
            "MaintenanceInfoConflict",
            "the catalog has no maintenance_info, so that its version cannot be this one: fetch the catalog again",
        )),
    }
}

/// Refuses an update of parameters: an instance keeps those of its provision.
fn fixed_parameters(body: &Map<String, Value>) -> Result<(), DialectAnswer> {
    let given = body.get("parameters").and_then(Value::as_object);
    let is_asked = given.is_some_and(|parameters| !parameters.is_empty());
    if is_asked {
        let why = "parameters cannot be changed: the port is chosen when the instance is made, and stays; nothing was changed";
        return Err(error(422, "NotSupported", why));
    }
    Ok(())
}

/// Checks that a DELETE names service and plan. A plan that is no longer in the catalog is accepted.
fn service_and_plan(exchange: &AuthenticatedRequest<'_>) -> Result<(), DialectAnswer> {
    for name in ["service_id", "plan_id"] {
        if exchange.query.get(name).is_none_or(String::is_empty) {
            return Err(invalid(&format!("the query parameter {name} is missing")));
        }
    }
    Ok(())
}

fn invalid(description: &str) -> DialectAnswer {
    error(400, "InvalidRequest", description)
}

fn error(status: u16, error: &str, description: &str) -> DialectAnswer {
    DialectAnswer::error(Dialect::Osb, status, error, description)
}

/// Returns the catalog: one service with all plans.
pub fn catalog(plans: &Plans) -> Value {
    json!({"services": [{
        "id": SERVICE_ID,
        "name": SERVICE_NAME,
        "description": "A public TCP port for an app, balanced and rate-limited in the gateway's kernel",
        "bindable": true,
        "instances_retrievable": true,
        "bindings_retrievable": true,
        "plan_updateable": true,
        "tags": ["tcp"],
        "plans": plans.iter().map(described_plan).collect::<Vec<_>>(),
    }]})
}

fn described_plan(plan: &AddonPlan) -> Value {
    let pps = plan.limit.pps;
    let description = match plan.description.as_str() {
        "" => format!("{pps} packets per second in each direction for each container"),
        text => text.to_owned(),
    };
    json!({
        "id": plan.id,
        "name": plan.name,
        "description": description,
        "free": plan.price.is_free(),
        "metadata": {
            "bullets": [format!("{pps} packets per second and {} bytes per second for each container", plan.limit.bytes_per_second())],
            "costs": [{"amount": {"usd": plan.price.amount()}, "unit": "MONTHLY"}],
        },
    })
}

pub(super) fn answer(
    request: &AddonRequest,
    result: &Result<AddonOutcome, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(refusal) => return refused(request, refusal),
    };
    match (request, outcome) {
        (AddonRequest::Provision(_), AddonOutcome::Created(resource)) => {
            DialectAnswer::new(201, dashboard(resource, gateway))
        }
        (AddonRequest::Bind(..), AddonOutcome::Created(resource)) => {
            DialectAnswer::new(201, credentials(resource, gateway))
        }
        (AddonRequest::Bind(..), AddonOutcome::Unchanged(resource)) => {
            DialectAnswer::new(200, credentials(resource, gateway))
        }
        (
            AddonRequest::Provision(_) | AddonRequest::ChangePlan(..),
            AddonOutcome::Changed(resource) | AddonOutcome::Unchanged(resource),
        ) => DialectAnswer::new(200, dashboard(resource, gateway)),
        _ => DialectAnswer::new(200, json!({})),
    }
}

pub(super) fn shown(
    call: &Call,
    found: &Result<Arc<Resource>, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    let is_operation = matches!(call, Call::LastOperation(_) | Call::LastBindingOperation(..));
    let resource = match found {
        Ok(resource) => resource,
        // A question after a removal is answered with 410.
        Err(Refusal::Gone) if is_operation => return error(410, "Gone", &Refusal::Gone.to_string()),
        Err(refusal) => return error(404, "NotFound", &refusal.to_string()),
    };
    let has = |binding: &PlatformId| resource.bindings.contains_key(binding);
    match call {
        Call::ShowBinding(_, binding) if has(binding) => DialectAnswer::new(200, credentials(resource, gateway)),
        Call::ShowBinding(..) => error(404, "NotFound", &Refusal::NoBinding.to_string()),
        Call::LastBindingOperation(_, binding) if !has(binding) => {
            error(404, "NotFound", &Refusal::NoBinding.to_string())
        }
        Call::LastOperation(_) | Call::LastBindingOperation(..) => {
            DialectAnswer::new(200, json!({"state": "succeeded"}))
        }
        // As one that changes the plan is answered.
        Call::Keep(_) => DialectAnswer::new(200, dashboard(resource, gateway)),
        Call::Show(_) | Call::Change(_) | Call::Catalog => {
            let mut body = dashboard(resource, gateway);
            body["service_id"] = SERVICE_ID.into();
            // A plan that was taken out of the catalog has no id any more.
            if let Some(plan) = gateway.plans.of(resource) {
                body["plan_id"] = plan.id.as_str().into();
            }
            DialectAnswer::new(200, body)
        }
    }
}

/// Returns the body that answers a provision: the URL of the resource's page.
fn dashboard(resource: &Resource, gateway: GatewayProperties<'_>) -> Value {
    match gateway.pages {
        Some(pages) => json!({"dashboard_url": format!("{pages}{}", resource.id)}),
        None => json!({}),
    }
}

/// Returns the body that answers a binding.
fn credentials(resource: &Resource, gateway: GatewayProperties<'_>) -> Value {
    let uri = gateway.tcp_url(resource.port);
    json!({
        "credentials": {"uri": uri, "TCP_URL": uri, "host": gateway.host, "port": resource.port},
        "endpoints": [{"host": gateway.host, "ports": [resource.port.to_string()], "protocol": "tcp"}],
    })
}

fn refused(request: &AddonRequest, refusal: &Refusal) -> DialectAnswer {
    let removes = matches!(request, AddonRequest::Deprovision(_) | AddonRequest::Unbind(..));
    let (status, word) = match refusal {
        Refusal::NotFound | Refusal::Gone | Refusal::NoBinding if removes => (410, "Gone"),
        Refusal::NotFound | Refusal::Gone | Refusal::NoBinding => (404, "NotFound"),
        Refusal::UnknownPlan { .. } | Refusal::UnlistedPlan | Refusal::Ambiguous(_) | Refusal::Prefixed => {
            (400, "InvalidRequest")
        }
        Refusal::Conflict(_) => (409, "Conflict"),
        Refusal::Port(_) => (422, "NoPort"),
        Refusal::TooManyBindings => (422, "TooManyBindings"),
    };
    error(status, word, &refusal.for_platform())
}
