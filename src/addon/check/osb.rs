//! The checks of the Open Service Broker API, version 2.17.
//!
//! Source: `spec.md` of openservicebrokerapi/servicebroker at its tag v2.17, whose sections the checks name. What a broker MUST do
//! fails where it does not; what it SHOULD or MAY do is a warning.

use serde_json::{Value, json};

use super::context::{Context, Thing};
use super::judge::{self, Kind, optional, required};
use super::message::{Body, Effect, Exchange, Login, Request, Version};
use super::{Act, Check, Judgement, Need, catalog, failure, warning, whole};
use crate::addon::dialect::Method;

const AUTHENTICATION: &str = "OSB 2.17, Platform to Service Broker Authentication";
const VERSION: &str = "OSB 2.17, API Version Header";
const ERRORS: &str = "OSB 2.17, Service Broker Errors";
const CATALOG: &str = "OSB 2.17, Catalog Management, Body";
const PROVISIONING: &str = "OSB 2.17, Provisioning";
const FETCHING: &str = "OSB 2.17, Fetching a Service Instance";
const UPDATING: &str = "OSB 2.17, Updating a Service Instance";
const BINDING: &str = "OSB 2.17, Binding";
const FETCHING_BINDING: &str = "OSB 2.17, Fetching a Service Binding";
const UNBINDING: &str = "OSB 2.17, Unbinding";
const DEPROVISIONING: &str = "OSB 2.17, Deprovisioning";
const POLLING: &str = "OSB 2.17, Polling Last Operation for Service Instances";
const MANDATORY: &str = "400 if mandatory data is missing";
const UNKNOWN: &str = "400 for an id that is not in the catalog";

/// Longest `operation`, in characters.
const MAX_OPERATION: usize = 10_000;
/// No offering and no plan has it.
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

/// All checks, in their order.
pub(super) const CHECKS: &[&[Check]] = &[
    ACCESS, SHAPE, REFUSALS, INSTANCE, UPDATE, BIND, UNBIND, REMOVAL, THROUGHOUT,
];

const ACCESS: &[Check] = &[
    Check::ask(
        "no-credentials",
        |_| catalog_request().login(Login::Missing),
        |_, got| judge::unauthorized(got),
        "401 without credentials",
        AUTHENTICATION,
    ),
    Check::ask(
        "wrong-credentials",
        |_| catalog_request().login(Login::Wrong),
        |_, got| judge::unauthorized(got),
        "401 with a wrong password",
        AUTHENTICATION,
    ),
    Check::ask(
        "version-missing",
        |_| versioned(Version::Missing),
        |_, got| version_refused(got, &[400, 412]),
        "400 without X-Broker-API-Version, if it is refused (412, which osb-checker wants, does too)",
        VERSION,
    ),
    Check::ask(
        "version-unsupported",
        |_| versioned(Version::Other("1.0")),
        |_, got| version_refused(got, &[412]),
        "412 for a version that is not supported",
        VERSION,
    ),
    Check::ask(
        "version-malformed",
        |_| versioned(Version::Other("two")),
        |_, got| version_refused(got, &[400, 412]),
        "400 or 412 for a version that is not MAJOR.MINOR",
        VERSION,
    ),
];

const SHAPE: &[Check] = &[
    Check::ask(
        "catalog",
        |_| catalog_request().effect(Effect::Lists),
        catalog::is_catalog,
        "200 and an object with the array services",
        CATALOG,
    ),
    Check::new(
        "catalog-offerings",
        Act::Look("catalog", catalog::offerings),
        "name, id, description, bindable and at least one plan; all fields with their types",
        "OSB 2.17, Service Offering Object",
    ),
    Check::new(
        "catalog-plans",
        Act::Look("catalog", catalog::plan_objects),
        "id, name and description; all fields with their types",
        "OSB 2.17, Service Plan Object",
    ),
    Check::new(
        "catalog-unique",
        Act::Look("catalog", catalog::unique),
        "ids are unique, names of offerings too, and names of plans in their offering",
        "OSB 2.17, Service Offering Object and Service Plan Object",
    ),
    Check::new(
        "catalog-names",
        Act::Look("catalog", catalog::friendly),
        "GUIDs as ids, and names of letters, digits, periods and hyphens, are recommended",
        "OSB 2.17, Service Offering Object and Service Plan Object",
    ),
    Check::new(
        "catalog-schemas",
        Act::Look("catalog", catalog::schemas),
        "a schema has $schema, no reference to other documents, and at most 64 kB",
        "OSB 2.17, Input Parameters Schema Object",
    )
    .needing(&[Need::Schemas]),
    Check::ask(
        "catalog-again",
        |_| catalog_request(),
        catalog::is_stable,
        "the same offerings and plans have the same ids",
        CATALOG,
    )
    .needing(&[Need::Catalog]),
    Check::ask(
        "originating-identity",
        |_| {
            let mut request = catalog_request();
            request.originator = Some("{\"user_id\":\"683ea748-3092-4ff4-b656-39cacc4d5360\"}");
            request
        },
        |_, got| judge::status(got, &[200]),
        "a request that names its user is answered as usual",
        "OSB 2.17, Originating Identity",
    )
    .needing(&[Need::Catalog]),
];

const REFUSALS: &[Check] = &[
    refused_provision("provision-without-service-id", |context| without(context, "service_id")),
    refused_provision("provision-without-plan-id", |context| without(context, "plan_id")),
    refused_provision("provision-without-organization", |context| {
        without(context, "organization_guid")
    }),
    refused_provision("provision-without-space", |context| without(context, "space_guid")),
    Check::ask(
        "provision-malformed",
        |context| creating(context, "provision-malformed").body(Body::Text("{\"service_id\":")),
        |_, got| judge::status(got, &[400]),
        "400 if the request is malformed",
        PROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "provision-unknown-service",
        |context| replaced(context, "provision-unknown-service", "service_id", NOWHERE),
        |_, got| judge::refusal(got, &[400]),
        UNKNOWN,
        PROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "provision-unknown-plan",
        |context| replaced(context, "provision-unknown-plan", "plan_id", NOWHERE),
        |_, got| judge::refusal(got, &[400]),
        UNKNOWN,
        PROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "provision-unauthorized",
        |context| {
            creating(context, "provision-unauthorized")
                .json(provision_body(context))
                .login(Login::Wrong)
        },
        |_, got| judge::unauthorized(got),
        "401 with a wrong password, and nothing is made",
        AUTHENTICATION,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "provision-maintenance-conflict",
        |context| {
            let mut body = provision_body(context);
            body["maintenance_info"] = json!({"version": "0.0.0-tcpgw-check"});
            creating(context, "provision-maintenance-conflict").json(body)
        },
        |_, got| {
            judge::status(got, &[422])?;
            error_code(got, "MaintenanceInfoConflict")
        },
        "422 MaintenanceInfoConflict for another version than the catalog's",
        PROVISIONING,
    )
    .needing(&[Need::Offer, Need::Maintenance]),
    Check::ask(
        "fetch-refused",
        |context| Request::new(Method::Get, instance_path(&context.id("provision-unauthorized"))),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist: what was refused has made nothing",
        FETCHING,
    )
    .needing(&[Need::Offer, Need::InstancesRetrievable]),
    Check::ask(
        "deprovision-missing",
        |context| {
            let id = context.id("missing");
            let path = with_ids(context, &instance_path(&id), &["service_id", "plan_id"]);
            Request::new(Method::Delete, path).effect(Effect::Removes(Thing::Instance(id)))
        },
        |_, got| judge::status(got, &[410]),
        "410 for an instance that does not exist",
        DEPROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "last-operation-missing",
        |context| {
            let path = format!("{}/last_operation", instance_path(&context.id("missing")));
            Request::new(Method::Get, with_ids(context, &path, &["service_id", "plan_id"]))
        },
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        POLLING,
    )
    .needing(&[Need::Offer]),
];

const INSTANCE: &[Check] = &[
    Check::ask(
        "provision",
        |context| creating(context, "main").json(provision_body(context)),
        |_, got| is_created(got),
        "201; 202 only with accepts_incomplete=true, and 422 AsyncRequired without it where it is needed",
        PROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::new(
        "provision-body",
        Act::Look("provision", |_, got| operation_body(got)),
        "an object; dashboard_url and operation are strings, operation of 10,000 characters at most",
        "OSB 2.17, Provisioning, Body",
    ),
    Check::ask(
        "last-operation",
        |context| {
            let path = format!("{}/last_operation", instance_path(&context.main_id()));
            Request::new(Method::Get, with_ids(context, &path, &["service_id", "plan_id"]))
        },
        last_operation,
        "200 and state in progress, succeeded or failed (a broker that is always synchronous needs no such endpoint)",
        POLLING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "provision-again",
        |context| creating(context, "main").json(provision_body(context)),
        |_, got| is_there_already(got),
        "200 for the same instance with the same values",
        PROVISIONING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "provision-extension",
        |context| {
            let mut body = provision_body(context);
            body["x-tcpgw-check"] = json!({"unknown": [1, null]});
            creating(context, "main").json(body)
        },
        |_, got| is_there_already(got),
        "unknown fields are ignored",
        "OSB 2.17, Vendor Extension Fields",
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "provision-other-plan",
        |context| {
            let mut body = provision_body(context);
            body["plan_id"] = json!(context.other_plan);
            creating(context, "main").json(body)
        },
        |_, got| judge::status(got, &[409]),
        "409 for the same id with another plan",
        PROVISIONING,
    )
    .needing(&[Need::Resource, Need::OtherPlan]),
    Check::ask(
        "provision-other-space",
        |context| {
            let mut body = provision_body(context);
            body["space_guid"] = json!(context.id("other-space"));
            body["context"]["space_guid"] = body["space_guid"].clone();
            creating(context, "main").json(body)
        },
        |_, got| match got.status() {
            200 => Err(warning("the status is 200: the space is not compared")),
            _ => judge::status(got, &[409]),
        },
        "409 for the same id with other attributes",
        PROVISIONING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "fetch-instance",
        |context| Request::new(Method::Get, instance_path(&context.main_id())),
        fetched_instance,
        "200; service_id and plan_id are those of the instance",
        FETCHING,
    )
    .needing(&[Need::Resource, Need::InstancesRetrievable]),
    Check::ask(
        "fetch-instance-missing",
        |context| Request::new(Method::Get, instance_path(&context.id("missing"))),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        FETCHING,
    )
    .needing(&[Need::Offer, Need::InstancesRetrievable]),
];

const UPDATE: &[Check] = &[
    Check::ask(
        "update-without-service-id",
        |context| {
            let mut body = update_body(context, &context.current_plan);
            body.as_object_mut().map(|members| members.remove("service_id"));
            patch(context, body, &context.current_plan)
        },
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        UPDATING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "update-unknown-plan",
        |context| patch(context, update_body(context, NOWHERE), NOWHERE),
        |_, got| judge::refusal(got, &[400]),
        UNKNOWN,
        UPDATING,
    )
    .needing(&[Need::Resource, Need::Updateable]),
    Check::ask(
        "update-plan",
        change_plan,
        |_, got| is_updated(got),
        "200 (202 with accepts_incomplete=true), or 422 if this change of plan is not supported",
        UPDATING,
    )
    .needing(&[Need::Resource, Need::Updateable, Need::OtherPlan]),
    Check::ask(
        "update-plan-again",
        change_plan,
        |_, got| is_updated(got),
        "200 if the request has no effect",
        UPDATING,
    )
    .needing(&[Need::Resource, Need::Updateable, Need::OtherPlan]),
    Check::ask(
        "fetch-updated",
        |context| Request::new(Method::Get, instance_path(&context.main_id())),
        fetched_instance,
        "200; plan_id is the plan that the instance has",
        FETCHING,
    )
    .needing(&[
        Need::Resource,
        Need::Updateable,
        Need::OtherPlan,
        Need::InstancesRetrievable,
    ]),
];

const BIND: &[Check] = &[
    Check::ask(
        "bind-without-service-id",
        |context| refused_bind(context, "bind-without-service-id", "service_id", None),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable]),
    Check::ask(
        "bind-without-plan-id",
        |context| refused_bind(context, "bind-without-plan-id", "plan_id", None),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable]),
    Check::ask(
        "bind-unknown-plan",
        |context| refused_bind(context, "bind-unknown-plan", "plan_id", Some(NOWHERE)),
        |_, got| judge::refusal(got, &[400]),
        UNKNOWN,
        BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable]),
    Check::ask(
        "bind",
        |context| binding(context, &bind_body(context, "app")),
        |_, got| is_created(got),
        "201; 202 only with accepts_incomplete=true, and 422 AsyncRequired without it where it is needed",
        BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable]),
    Check::new(
        "bind-body",
        Act::Look("bind", binding_body),
        "credentials are an object, endpoints have host and ports; what is not in requires is not returned",
        "OSB 2.17, Binding, Body and Endpoint Object",
    )
    .needing(&[Need::Bindable]),
    Check::ask(
        "bind-again",
        |context| binding(context, &bind_body(context, "app")),
        |_, got| is_there_already(got),
        "200 for the same binding with the same values",
        BINDING,
    )
    .needing(&[Need::Binding]),
    Check::ask(
        "bind-other-app",
        |context| binding(context, &bind_body(context, "other-app")),
        |_, got| judge::status(got, &[409]),
        "409 for the same id with other values",
        BINDING,
    )
    .needing(&[Need::Binding]),
    Check::ask(
        "fetch-binding",
        |context| Request::new(Method::Get, binding_path(context, "binding")),
        |context, got| {
            judge::status(got, &[200])?;
            binding_body(context, got)
        },
        "200 and the body of a binding",
        FETCHING_BINDING,
    )
    .needing(&[Need::Binding, Need::BindingsRetrievable]),
    Check::ask(
        "fetch-binding-missing",
        |context| Request::new(Method::Get, binding_path(context, "missing-binding")),
        |_, got| judge::status(got, &[404]),
        "404 for a binding that does not exist",
        FETCHING_BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable, Need::BindingsRetrievable]),
];

const UNBIND: &[Check] = &[
    Check::ask(
        "unbind-without-service-id",
        |context| unbinding(context, &["plan_id"]),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        UNBINDING,
    )
    .needing(&[Need::Binding]),
    Check::ask(
        "unbind-without-plan-id",
        |context| unbinding(context, &["service_id"]),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        UNBINDING,
    )
    .needing(&[Need::Binding]),
    Check::ask(
        "unbind",
        |context| unbinding(context, &["service_id", "plan_id"]),
        |_, got| is_removed(got),
        "200 (202 with accepts_incomplete=true) and an object",
        UNBINDING,
    )
    .needing(&[Need::Binding]),
    Check::ask(
        "unbind-again",
        |context| unbinding(context, &["service_id", "plan_id"]),
        |_, got| judge::status(got, &[410]),
        "410 for a binding that does not exist",
        UNBINDING,
    )
    .needing(&[Need::BindingRemoved]),
    Check::ask(
        "fetch-unbound",
        |context| Request::new(Method::Get, binding_path(context, "binding")),
        |_, got| judge::status(got, &[404]),
        "404 for a binding that does not exist",
        FETCHING_BINDING,
    )
    .needing(&[Need::BindingRemoved, Need::BindingsRetrievable]),
];

const REMOVAL: &[Check] = &[
    Check::ask(
        "deprovision-without-service-id",
        |context| deprovisioning(context, &["plan_id"]),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        DEPROVISIONING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "deprovision-without-plan-id",
        |context| deprovisioning(context, &["service_id"]),
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        DEPROVISIONING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "deprovision",
        |context| deprovisioning(context, &["service_id", "plan_id"]),
        |_, got| is_removed(got),
        "200 (202 with accepts_incomplete=true) and an object",
        DEPROVISIONING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "deprovision-again",
        |context| deprovisioning(context, &["service_id", "plan_id"]),
        |_, got| judge::status(got, &[410]),
        "410 for an instance that does not exist",
        DEPROVISIONING,
    )
    .needing(&[Need::ResourceRemoved]),
    Check::ask(
        "fetch-deprovisioned",
        |context| Request::new(Method::Get, instance_path(&context.main_id())),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        FETCHING,
    )
    .needing(&[Need::ResourceRemoved, Need::InstancesRetrievable]),
];

const THROUGHOUT: &[Check] = &[
    Check::new(
        "error-bodies",
        Act::Each(whole::osb_error),
        "error and description are strings that are not empty; instance_usable and update_repeatable only where they belong",
        ERRORS,
    ),
    Check::new(
        "content-type",
        Act::Each(whole::content_type),
        "bodies should be sent as application/json",
        "OSB 2.17, Content Type",
    ),
    Check::new(
        "request-identity",
        Act::Each(whole::request_identity),
        "the header X-Broker-API-Request-Identity should be in the response",
        "OSB 2.17, Request Identity",
    ),
];

const fn refused_provision(name: &'static str, request: fn(&Context) -> Request) -> Check {
    Check::ask(
        name,
        request,
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        PROVISIONING,
    )
    .needing(&[Need::Offer])
}

fn catalog_request() -> Request {
    Request::new(Method::Get, "/v2/catalog")
}

fn versioned(version: Version) -> Request {
    let mut request = catalog_request();
    request.version = version;
    request
}

fn instance_path(id: &str) -> String {
    format!("/v2/service_instances/{id}")
}

fn binding_path(context: &Context, purpose: &str) -> String {
    let instance = instance_path(&context.main_id());
    format!("{instance}/service_bindings/{}", context.id(purpose))
}

/// Returns a path with a query of the plan's and the offering's ids.
fn with_ids(context: &Context, path: &str, names: &[&str]) -> String {
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
fn creating(context: &Context, purpose: &str) -> Request {
    let id = if purpose == "main" {
        context.main_id()
    } else {
        context.id(purpose)
    };
    Request::new(Method::Put, instance_path(&id)).effect(Effect::Creates(Thing::Instance(id)))
}

fn provision_body(context: &Context) -> Value {
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
fn without(context: &Context, field: &str) -> Request {
    let mut body = provision_body(context);
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.remove("context");
    }
    creating(context, &format!("provision-without-{field}")).json(body)
}

fn replaced(context: &Context, purpose: &str, field: &str, value: &str) -> Request {
    let mut body = provision_body(context);
    body[field] = json!(value);
    creating(context, purpose).json(body)
}

fn update_body(context: &Context, plan: &str) -> Value {
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

fn patch(context: &Context, body: Value, plan: &str) -> Request {
    Request::new(Method::Patch, instance_path(&context.main_id()))
        .json(body)
        .effect(Effect::Changes(context.main_thing(), plan.to_owned()))
}

fn change_plan(context: &Context) -> Request {
    let plan = context.other_plan.clone().unwrap_or_default();
    patch(context, update_body(context, &plan), &plan)
}

fn bind_body(context: &Context, app: &str) -> Value {
    json!({
        "service_id": context.offer.as_ref().map(|offer| &offer.service_id),
        "plan_id": context.current_plan,
        "bind_resource": {"app_guid": context.id(app)},
    })
}

fn binding(context: &Context, body: &Value) -> Request {
    Request::new(Method::Put, binding_path(context, "binding"))
        .json(body.clone())
        .effect(Effect::Creates(context.main_binding()))
}

/// Returns a request for a binding of its own, with a field that is missing or has another value.
fn refused_bind(context: &Context, purpose: &str, field: &str, value: Option<&str>) -> Request {
    let mut body = bind_body(context, "app");
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
        members.extend(value.map(|value| (field.to_owned(), json!(value))));
    }
    Request::new(Method::Put, binding_path(context, purpose))
        .json(body)
        .effect(Effect::Creates(Thing::Binding(context.main_id(), context.id(purpose))))
}

fn unbinding(context: &Context, ids: &[&str]) -> Request {
    Request::new(
        Method::Delete,
        with_ids(context, &binding_path(context, "binding"), ids),
    )
    .effect(Effect::Removes(context.main_binding()))
}

fn deprovisioning(context: &Context, ids: &[&str]) -> Request {
    Request::new(
        Method::Delete,
        with_ids(context, &instance_path(&context.main_id()), ids),
    )
    .effect(Effect::Removes(context.main_thing()))
}

/// Returns the request that removes a thing, whatever has become of it.
pub(super) fn removing(context: &Context, thing: &Thing) -> Option<Request> {
    let path = match thing {
        Thing::Instance(id) => instance_path(id),
        Thing::Binding(instance, id) => format!("{}/service_bindings/{id}", instance_path(instance)),
        Thing::Resource(_) => return None,
    };
    let path = with_ids(context, &path, &["service_id", "plan_id"]);
    let request = Request::new(Method::Delete, format!("{path}&accepts_incomplete=true"));
    Some(request.effect(Effect::Removes(thing.clone())))
}

/// Returns the request that asks how an operation goes.
pub(super) fn polling(context: &Context, thing: &Thing, operation: Option<&str>) -> Option<Request> {
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

/// Whether the answer says that the operation must be asked for with `accepts_incomplete`.
pub(super) fn wants_asynchronous(got: &Exchange) -> bool {
    got.status() == 422 && got.member("error").is_some_and(|error| error == "AsyncRequired")
}

fn version_refused(got: &Exchange, wanted: &[u16]) -> Judgement {
    if got.status() == 200 {
        return Err(warning("the status is 200: the version is not looked at"));
    }
    judge::status(got, wanted)
}

fn error_code(got: &Exchange, wanted: &str) -> Judgement {
    match got.member("error") {
        Some(Value::String(error)) if error == wanted => Ok(()),
        _ => Err(failure(format!("error is not {wanted:?}"))),
    }
}

/// 202 may come only where it was asked for.
fn asked_for_202(got: &Exchange) -> Judgement {
    if got.status() == 202 && !got.request.path.contains("accepts_incomplete=true") {
        return Err(failure("the status is 202 without accepts_incomplete=true"));
    }
    Ok(())
}

fn is_created(got: &Exchange) -> Judgement {
    asked_for_202(got)?;
    judge::status(got, &[201, 202])
}

fn is_there_already(got: &Exchange) -> Judgement {
    match got.status() {
        409 => Err(warning(
            "the status is 409; 200 is what SHOULD be returned for the same values",
        )),
        201 => Err(failure(
            "the status is 201, as if it had been made anew; 200 is for what exists already",
        )),
        _ => judge::status(got, &[200]),
    }
}

fn is_updated(got: &Exchange) -> Judgement {
    asked_for_202(got)?;
    if got.status() == 422 {
        return Err(warning("the status is 422: this change of plan is not supported"));
    }
    judge::status(got, &[200, 202])?;
    operation_body(got)
}

fn is_removed(got: &Exchange) -> Judgement {
    asked_for_202(got)?;
    judge::status(got, &[200, 202])?;
    operation_body(got)
}

/// The body of an answer that says that something was begun or done.
fn operation_body(got: &Exchange) -> Judgement {
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    let members = [
        ("dashboard_url", Kind::AnyText),
        ("operation", Kind::AnyText),
        ("metadata", Kind::Object),
    ];
    optional(body, "", &members)?;
    let is_long = |text: &str| text.chars().count() > MAX_OPERATION;
    if got.member("operation").and_then(Value::as_str).is_some_and(is_long) {
        return Err(failure("operation has more than 10,000 characters"));
    }
    Ok(())
}

fn last_operation(context: &Context, got: &Exchange) -> Judgement {
    if got.status() == 404 && !context.is_asynchronous {
        return Ok(());
    }
    judge::status(got, &[200])?;
    state(got).map(drop)
}

/// Returns the state that an answer of `last_operation` tells.
pub(super) fn state(got: &Exchange) -> Result<&str, super::Flaw> {
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    required(body, "", &[("state", Kind::Text)])?;
    optional(body, "", &[("description", Kind::AnyText)])?;
    match body["state"].as_str() {
        Some(state @ ("in progress" | "succeeded" | "failed")) => Ok(state),
        _ => Err(failure("state is not in progress, succeeded or failed")),
    }
}

fn fetched_instance(context: &Context, got: &Exchange) -> Judgement {
    judge::status(got, &[200])?;
    judge::object(got)?;
    let members = [
        ("service_id", Kind::Text),
        ("plan_id", Kind::Text),
        ("dashboard_url", Kind::AnyText),
        ("parameters", Kind::Object),
        ("maintenance_info", Kind::Object),
        ("metadata", Kind::Object),
    ];
    optional(got.json().unwrap_or(&Value::Null), "", &members)?;
    let service = context.offer.as_ref().map_or("", |offer| &offer.service_id);
    for (name, wanted) in [("service_id", service), ("plan_id", &context.current_plan)] {
        if got.member(name).is_some_and(|value| value != wanted) {
            return Err(failure(format!("{name} is not that of the instance")));
        }
    }
    Ok(())
}

fn binding_body(context: &Context, got: &Exchange) -> Judgement {
    if got.status() == 202 {
        return match got.member("credentials") {
            Some(_) => Err(failure("credentials are in an answer with the status 202")),
            None => operation_body(got),
        };
    }
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    let members = [
        ("metadata", Kind::Object),
        ("credentials", Kind::Object),
        ("syslog_drain_url", Kind::AnyText),
        ("route_service_url", Kind::AnyText),
        ("volume_mounts", Kind::Array),
        ("endpoints", Kind::Array),
        ("parameters", Kind::Object),
    ];
    optional(body, "", &members)?;
    for (name, permission) in [
        ("syslog_drain_url", "syslog_drain"),
        ("route_service_url", "route_forwarding"),
        ("volume_mounts", "volume_mount"),
    ] {
        let is_declared = context
            .offer
            .as_ref()
            .is_some_and(|offer| offer.requires.iter().any(|declared| declared == permission));
        // Some brokers send empty ones.
        let is_sent = body[name].as_str().is_some_and(|text| !text.is_empty())
            || body[name].as_array().is_some_and(|items| !items.is_empty());
        if is_sent && !is_declared {
            return Err(failure(format!(
                "{name} is returned without {permission} in the catalog's requires"
            )));
        }
    }
    for (at, endpoint) in body["endpoints"].as_array().into_iter().flatten().enumerate() {
        let at = format!("endpoints[{at}].");
        required(endpoint, &at, &[("host", Kind::Text), ("ports", Kind::Texts)])?;
        let ports = endpoint["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        if ports.is_empty() || !ports.iter().filter_map(Value::as_str).all(is_port_range) {
            return Err(failure(format!("{at}ports are not ports or ranges of ports")));
        }
        let is_protocol = |protocol: &Value| ["tcp", "udp", "all"].iter().any(|known| protocol == known);
        if !endpoint["protocol"].is_null() && !is_protocol(&endpoint["protocol"]) {
            return Err(failure(format!("{at}protocol is not tcp, udp or all")));
        }
    }
    Ok(())
}

/// `443`, `9000-9010`
fn is_port_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first > 0 && first <= last,
        _ => false,
    }
}
