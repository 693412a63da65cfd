//! A binding: made and removed.

use super::super::judge;
use super::super::message::{CheckRequest, Login};
use super::answers::{binding_body, is_created, is_removed, is_there_already, last_operation_refused};
use super::authentication::without_credentials;
use super::requests::{bind_body, binding, binding_path, last_operation_of, refused_bind, unbinding};
use super::source::{
    AUTHENTICATION, BINDING, FETCHING_BINDING, MANDATORY, NOWHERE, UNBINDING, UNKNOWN, WITHOUT_CREDENTIALS,
};
use crate::addon::check::definition::{Act, Check};
use crate::addon::check::need::Need;
use crate::addon::dialect::exchange::Method;

pub(super) const BIND: &[Check] = &[
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
        Act::Judge("bind", binding_body),
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
    // The binding that exists: a broker that accepts the request makes nothing, but gives its credentials away.
    without_credentials("bind-no-credentials", |context| {
        binding(context, &bind_body(context, "app")).login(Login::Missing)
    })
    .needing(&[Need::Binding]),
    Check::ask(
        "last-binding-operation-no-credentials",
        |context| last_operation_of(context, &binding_path(context, "binding")).login(Login::Missing),
        last_operation_refused,
        WITHOUT_CREDENTIALS,
        AUTHENTICATION,
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
        |context| CheckRequest::new(Method::Get, binding_path(context, "binding")),
        |context, got| {
            judge::status(got, &[200])?;
            binding_body(context, got)
        },
        "200 and the body of a binding",
        FETCHING_BINDING,
    )
    .needing(&[Need::Binding, Need::BindingsRetrievable]),
    without_credentials("fetch-binding-no-credentials", |context| {
        CheckRequest::new(Method::Get, binding_path(context, "binding")).login(Login::Missing)
    })
    .needing(&[Need::Binding, Need::BindingsRetrievable]),
    Check::ask(
        "fetch-binding-missing",
        |context| CheckRequest::new(Method::Get, binding_path(context, "missing-binding")),
        |_, got| judge::status(got, &[404]),
        "404 for a binding that does not exist",
        FETCHING_BINDING,
    )
    .needing(&[Need::Resource, Need::Bindable, Need::BindingsRetrievable]),
];

pub(super) const UNBIND: &[Check] = &[
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
    without_credentials("unbind-no-credentials", |context| {
        unbinding(context, &["service_id", "plan_id"]).login(Login::Missing)
    })
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
        |context| CheckRequest::new(Method::Get, binding_path(context, "binding")),
        |_, got| judge::status(got, &[404]),
        "404 for a binding that does not exist",
        FETCHING_BINDING,
    )
    .needing(&[Need::BindingRemoved, Need::BindingsRetrievable]),
];
