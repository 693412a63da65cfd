//! An instance: made, changed and removed.

use serde_json::json;

use super::super::judge;
use super::super::message::{CheckRequest, Login};
use super::answers::{
    fetched_instance, is_created, is_removed, is_there_already, is_updated, last_operation, last_operation_refused,
    operation_body,
};
use super::authentication::without_credentials;
use super::requests::{
    change_plan, creating, deprovisioning, instance_path, last_operation_of, patch, provision_body, update_body,
};
use super::source::{
    AUTHENTICATION, DEPROVISIONING, FETCHING, MANDATORY, NOWHERE, POLLING, PROVISIONING, UNKNOWN, UPDATING,
    WITHOUT_CREDENTIALS,
};
use crate::addon::check::definition::{Act, Check};
use crate::addon::check::judgement::warning;
use crate::addon::check::need::Need;
use crate::addon::dialect::exchange::Method;

pub(super) const INSTANCE: &[Check] = &[
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
        Act::Judge("provision", |_, got| operation_body(got)),
        "an object; dashboard_url and operation are strings, operation of 10,000 characters at most",
        "OSB 2.17, Provisioning, Body",
    ),
    Check::ask(
        "last-operation",
        |context| last_operation_of(context, &instance_path(&context.main_id())),
        last_operation,
        "200 and state in progress, succeeded or failed (a broker that is always synchronous needs no such endpoint)",
        POLLING,
    )
    .needing(&[Need::Resource]),
    Check::ask(
        "last-operation-no-credentials",
        |context| last_operation_of(context, &instance_path(&context.main_id())).login(Login::Missing),
        last_operation_refused,
        WITHOUT_CREDENTIALS,
        AUTHENTICATION,
    )
    .needing(&[Need::Resource]),
    // An instance that exists: a broker that accepts the request makes nothing.
    without_credentials("provision-no-credentials", |context| {
        creating(context, "main")
            .json(provision_body(context))
            .login(Login::Missing)
    })
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
        |context| CheckRequest::new(Method::Get, instance_path(&context.main_id())),
        fetched_instance,
        "200; service_id and plan_id are those of the instance",
        FETCHING,
    )
    .needing(&[Need::Resource, Need::InstancesRetrievable]),
    without_credentials("fetch-instance-no-credentials", |context| {
        CheckRequest::new(Method::Get, instance_path(&context.main_id())).login(Login::Missing)
    })
    .needing(&[Need::Resource, Need::InstancesRetrievable]),
    Check::ask(
        "fetch-instance-missing",
        |context| CheckRequest::new(Method::Get, instance_path(&context.id("missing"))),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        FETCHING,
    )
    .needing(&[Need::Offer, Need::InstancesRetrievable]),
];

pub(super) const UPDATE: &[Check] = &[
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
    // A change to the plan that the instance has: a broker that accepts the request changes nothing.
    without_credentials("update-no-credentials", |context| {
        patch(
            context,
            update_body(context, &context.current_plan),
            &context.current_plan,
        )
        .login(Login::Missing)
    })
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
        |context| CheckRequest::new(Method::Get, instance_path(&context.main_id())),
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

pub(super) const REMOVAL: &[Check] = &[
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
    without_credentials("deprovision-no-credentials", |context| {
        deprovisioning(context, &["service_id", "plan_id"]).login(Login::Missing)
    })
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
        |context| CheckRequest::new(Method::Get, instance_path(&context.main_id())),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        FETCHING,
    )
    .needing(&[Need::ResourceRemoved, Need::InstancesRetrievable]),
];
