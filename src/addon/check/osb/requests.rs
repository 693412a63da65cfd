//! Requests as a platform sends them by the Open Service Broker API.

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::message::{Effect, Request, Version};
use crate::addon::check::thing::Thing;
use crate::addon::dialect::exchange::Method;

pub(super) fn catalog_request() -> Request {
    Request::new(Method::Get, "/v2/catalog")
}

pub(super) fn versioned(version: Version) -> Request {
    let mut request = catalog_request();
    request.version = version;
    request
}

pub(super) fn instance_path(id: &str) -> String {
    format!("/v2/service_instances/{id}")
}

pub(super) fn binding_path(context: &Context, purpose: &str) -> String {
    let instance = instance_path(&context.main_id());
    format!("{instance}/service_bindings/{}", context.id(purpose))
}

/// Returns a path with a query of the plan's and the offering's ids.
pub(super) fn with_ids(context: &Context, path: &str, names: &[&str]) -> String {
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
pub(super) fn creating(context: &Context, purpose: &str) -> Request {
    let id = if purpose == "main" {
        context.main_id()
    } else {
        context.id(purpose)
    };
    Request::new(Method::Put, instance_path(&id)).effect(Effect::Creates(Thing::Instance(id)))
}

pub(super) fn provision_body(context: &Context) -> Value {
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
pub(super) fn without(context: &Context, field: &str) -> Request {
    let mut body = provision_body(context);
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.remove("context");
    }
    creating(context, &format!("provision-without-{field}")).json(body)
}

pub(super) fn replaced(context: &Context, purpose: &str, field: &str, value: &str) -> Request {
    let mut body = provision_body(context);
    body[field] = json!(value);
    creating(context, purpose).json(body)
}

pub(super) fn update_body(context: &Context, plan: &str) -> Value {
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

pub(super) fn patch(context: &Context, body: Value, plan: &str) -> Request {
    Request::new(Method::Patch, instance_path(&context.main_id()))
        .json(body)
        .effect(Effect::Changes(context.main_thing(), plan.to_owned()))
}

pub(super) fn change_plan(context: &Context) -> Request {
    let plan = context.other_plan.clone().unwrap_or_default();
    patch(context, update_body(context, &plan), &plan)
}

pub(super) fn bind_body(context: &Context, app: &str) -> Value {
    json!({
        "service_id": context.offer.as_ref().map(|offer| &offer.service_id),
        "plan_id": context.current_plan,
        "bind_resource": {"app_guid": context.id(app)},
    })
}

pub(super) fn binding(context: &Context, body: &Value) -> Request {
    Request::new(Method::Put, binding_path(context, "binding"))
        .json(body.clone())
        .effect(Effect::Creates(context.main_binding()))
}

/// Returns a request for a binding of its own, with a field that is missing or has another value.
pub(super) fn refused_bind(context: &Context, purpose: &str, field: &str, value: Option<&str>) -> Request {
    let mut body = bind_body(context, "app");
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.extend(value.map(|value| (field.to_owned(), json!(value))));
    }
    Request::new(Method::Put, binding_path(context, purpose))
        .json(body)
        .effect(Effect::Creates(Thing::Binding(context.main_id(), context.id(purpose))))
}

pub(super) fn unbinding(context: &Context, ids: &[&str]) -> Request {
    Request::new(
        Method::Delete,
        with_ids(context, &binding_path(context, "binding"), ids),
    )
    .effect(Effect::Removes(context.main_binding()))
}

pub(super) fn deprovisioning(context: &Context, ids: &[&str]) -> Request {
    Request::new(
        Method::Delete,
        with_ids(context, &instance_path(&context.main_id()), ids),
    )
    .effect(Effect::Removes(context.main_thing()))
}

/// Returns the request that removes a thing, whatever its state.
pub(in super::super) fn removing(context: &Context, thing: &Thing) -> Option<Request> {
    let path = match thing {
        Thing::Instance(id) => instance_path(id),
        Thing::Binding(instance, id) => format!("{}/service_bindings/{id}", instance_path(instance)),
        Thing::Resource(_) => return None,
    };
    let path = with_ids(context, &path, &["service_id", "plan_id"]);
    let request = Request::new(Method::Delete, format!("{path}&accepts_incomplete=true"));
    Some(request.effect(Effect::Removes(thing.clone())))
}

/// Returns the request for the state of an operation.
pub(in super::super) fn polling(context: &Context, thing: &Thing, operation: Option<&str>) -> Option<Request> {
    let path = match thing {
        Thing::Instance(id) => instance_path(id),
        Thing::Binding(instance, id) => format!("{}/service_bindings/{id}", instance_path(instance)),
        Thing::Resource(_) => return None,
    };
    let mut path = with_ids(context, &format!("{path}/last_operation"), &["service_id", "plan_id"]);
    if let Some(operation) = operation {
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair("operation", operation)
            .finish();
        path = format!("{path}&{pair}");
    }
    Some(Request::new(Method::Get, path))
}
