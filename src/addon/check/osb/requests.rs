//! Requests as a platform sends them by the Open Service Broker API.

use serde_json::{Value, json};

use super::super::context::CheckContext;
use super::super::message::{CheckRequest, RequestEffect, Version};
use crate::addon::check::created_resource::ProviderResource;
use crate::addon::dialect::exchange::Method;

pub(super) fn catalog_request() -> CheckRequest {
    CheckRequest::new(Method::Get, "/v2/catalog")
}

pub(super) fn versioned(version: Version) -> CheckRequest {
    let mut request = catalog_request();
    request.version = version;
    request
}

pub(super) fn instance_path(id: &str) -> String {
    format!("/v2/service_instances/{id}")
}

pub(super) fn binding_path(context: &CheckContext, purpose: &str) -> String {
    let instance = instance_path(&context.main_id());
    format!("{instance}/service_bindings/{}", context.id(purpose))
}

/// Returns a path with a query of the plan's and the offering's ids.
pub(super) fn with_ids(context: &CheckContext, path: &str, names: &[&str]) -> String {
    let service = context.offer.as_ref().map_or("", |offer| &offer.service_id);
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in names {
        query.append_pair(
            name,
            if *name == "service_id" {
                service
            } else {
                &context.current_plan
            },
        );
    }
    format!("{path}?{}", query.finish())
}

/// Returns a request for an instance of its own, without a body.
pub(super) fn creating(context: &CheckContext, purpose: &str) -> CheckRequest {
    let id = if purpose == "main" {
        context.main_id()
    } else {
        context.id(purpose)
    };
    CheckRequest::new(Method::Put, instance_path(&id)).effect(RequestEffect::Creates(ProviderResource::Instance(id)))
}

pub(super) fn provision_body(context: &CheckContext) -> Value {
    let settings = &context.settings;
    let mut body = json!({
        "service_id": context.offer.as_ref().map(|offer| &offer.service_id),
        "plan_id": context.plan,
        "organization_guid": settings.organization,
        "space_guid": settings.space,
        "context": {
            "platform": "cloudfoundry",
            "organization_guid": settings.organization,
            "space_guid": settings.space,
        },
    });
    if !settings.parameters.is_empty() {
        body["parameters"] = Value::Object(settings.parameters.clone());
    }
    body
}

/// Returns a request to provision that lacks a field; `context` must not stand in for it.
pub(super) fn without(context: &CheckContext, field: &str) -> CheckRequest {
    let mut body = provision_body(context);
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.remove("context");
    }
    creating(context, &format!("provision-without-{field}")).json(body)
}

pub(super) fn replaced(context: &CheckContext, purpose: &str, field: &str, value: &str) -> CheckRequest {
    let mut body = provision_body(context);
    body[field] = json!(value);
    creating(context, purpose).json(body)
}

pub(super) fn update_body(context: &CheckContext, plan: &str) -> Value {
    let settings = &context.settings;
    json!({
        "service_id": context.offer.as_ref().map(|offer| &offer.service_id),
        "plan_id": plan,
        "previous_values": {"plan_id": context.current_plan},
        "context": {
            "platform": "cloudfoundry",
            "organization_guid": settings.organization,
            "space_guid": settings.space,
        },
    })
}

pub(super) fn patch(context: &CheckContext, body: Value, plan: &str) -> CheckRequest {
    CheckRequest::new(Method::Patch, instance_path(&context.main_id()))
        .json(body)
        .effect(RequestEffect::Changes(context.main_thing(), plan.to_owned()))
}

pub(super) fn change_plan(context: &CheckContext) -> CheckRequest {
    let plan = context.other_plan.clone().unwrap_or_default();
    patch(context, update_body(context, &plan), &plan)
}

pub(super) fn bind_body(context: &CheckContext, app: &str) -> Value {
    json!({
        "service_id": context.offer.as_ref().map(|offer| &offer.service_id),
        "plan_id": context.current_plan,
        "bind_resource": {"app_guid": context.id(app)},
    })
}

pub(super) fn binding(context: &CheckContext, body: &Value) -> CheckRequest {
    CheckRequest::new(Method::Put, binding_path(context, "binding"))
        .json(body.clone())
        .effect(RequestEffect::Creates(context.main_binding()))
}

/// Returns a request for a binding of its own, with a field that is missing or has another value.
pub(super) fn refused_bind(context: &CheckContext, purpose: &str, field: &str, value: Option<&str>) -> CheckRequest {
    let mut body = bind_body(context, "app");
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.extend(value.map(|value| (field.to_owned(), json!(value))));
    }
    CheckRequest::new(Method::Put, binding_path(context, purpose))
        .json(body)
        .effect(RequestEffect::Creates(ProviderResource::Binding(
            context.main_id(),
            context.id(purpose),
        )))
}

pub(super) fn unbinding(context: &CheckContext, ids: &[&str]) -> CheckRequest {
    CheckRequest::new(
        Method::Delete,
        with_ids(context, &binding_path(context, "binding"), ids),
    )
    .effect(RequestEffect::Removes(context.main_binding()))
}

pub(super) fn deprovisioning(context: &CheckContext, ids: &[&str]) -> CheckRequest {
    CheckRequest::new(
        Method::Delete,
        with_ids(context, &instance_path(&context.main_id()), ids),
    )
    .effect(RequestEffect::Removes(context.main_thing()))
}

/// Returns the request for the state of the last operation of the instance or binding at a path.
pub(super) fn last_operation_of(context: &CheckContext, path: &str) -> CheckRequest {
    let path = format!("{path}/last_operation");
    CheckRequest::new(Method::Get, with_ids(context, &path, &["service_id", "plan_id"]))
}

/// Returns the request that removes a thing, whatever its state.
pub(in super::super) fn removing(context: &CheckContext, thing: &ProviderResource) -> Option<CheckRequest> {
    let path = match thing {
        ProviderResource::Instance(id) => instance_path(id),
        ProviderResource::Binding(instance, id) => format!("{}/service_bindings/{id}", instance_path(instance)),
        ProviderResource::Resource(_) => return None,
    };
    let path = with_ids(context, &path, &["service_id", "plan_id"]);
    let request = CheckRequest::new(Method::Delete, format!("{path}&accepts_incomplete=true"));
    Some(request.effect(RequestEffect::Removes(thing.clone())))
}

/// Returns the request for the state of an operation.
pub(in super::super) fn polling(
    context: &CheckContext,
    thing: &ProviderResource,
    operation: Option<&str>,
) -> Option<CheckRequest> {
    let path = match thing {
        ProviderResource::Instance(id) => instance_path(id),
        ProviderResource::Binding(instance, id) => format!("{}/service_bindings/{id}", instance_path(instance)),
        ProviderResource::Resource(_) => return None,
    };
    let mut path = with_ids(context, &format!("{path}/last_operation"), &["service_id", "plan_id"]);
    if let Some(operation) = operation {
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair("operation", operation)
            .finish();
        path = format!("{path}&{pair}");
    }
    Some(CheckRequest::new(Method::Get, path))
}
