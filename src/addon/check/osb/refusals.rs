//! Checks of the requests that a broker has to refuse before an instance exists.

use serde_json::json;

use super::super::context::CheckContext;
use super::super::judge;
use super::super::message::{Body, CheckRequest, Login, RequestEffect};
use super::answers::error_code;
use super::requests::{creating, instance_path, last_operation_of, provision_body, replaced, with_ids, without};
use super::source::{AUTHENTICATION, DEPROVISIONING, FETCHING, MANDATORY, NOWHERE, POLLING, PROVISIONING, UNKNOWN};
use crate::addon::check::created_resource::ProviderResource;
use crate::addon::check::definition::Check;
use crate::addon::check::judgement::warning;
use crate::addon::check::need::Need;
use crate::addon::dialect::exchange::Method;

pub(super) const REFUSALS: &[Check] = &[
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
        |context, got| {
            let has_version = context.offer.as_ref().is_some_and(|offer| offer.maintenance.is_some());
            match got.status() {
                422 => error_code(got, "MaintenanceInfoConflict"),
                // The standard speaks of the catalog's version, and leaves open what holds where there is none.
                status @ 200..500 if !has_version => Err(warning(format!(
                    "the status is {status}: the version is not compared with the catalog, which has none"
                ))),
                _ => judge::status(got, &[422]),
            }
        },
        "422 MaintenanceInfoConflict for another version than the catalog's",
        PROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "fetch-refused",
        |context| CheckRequest::new(Method::Get, instance_path(&context.id("provision-unauthorized"))),
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
            CheckRequest::new(Method::Delete, path).effect(RequestEffect::Removes(ProviderResource::Instance(id)))
        },
        |_, got| judge::status(got, &[410]),
        "410 for an instance that does not exist",
        DEPROVISIONING,
    )
    .needing(&[Need::Offer]),
    Check::ask(
        "last-operation-missing",
        |context| last_operation_of(context, &instance_path(&context.id("missing"))),
        |_, got| judge::status(got, &[404]),
        "404 for an instance that does not exist",
        POLLING,
    )
    .needing(&[Need::Offer]),
];

const fn refused_provision(name: &'static str, request: fn(&CheckContext) -> CheckRequest) -> Check {
    Check::ask(
        name,
        request,
        |_, got| judge::status(got, &[400]),
        MANDATORY,
        PROVISIONING,
    )
    .needing(&[Need::Offer])
}
