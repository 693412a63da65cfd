//! Checks of all answers of a run.

use std::time::Duration;

use serde_json::Value;

use super::context::CheckContext;
use super::created_resource::ProviderResource;
use super::judge::{JsonType, optional};
use super::judgement::{CheckResult, failure, warning};
use super::message::{AnswerBody, CheckExchange, PathBase, RequestEffect};
use crate::addon::Dialect;
use crate::addon::dialect::exchange::Method;

/// Times within which Heroku should have an answer, and after which it gives up.
const HEROKU_TIMES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(25));

fn is_refusal(got: &CheckExchange) -> bool {
    got.status() >= 400
}

pub(super) fn osb_error(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    if !is_refusal(got) {
        return Ok(());
    }
    let body = match &got.answer.content {
        AnswerBody::Empty => return Ok(()),
        AnswerBody::Json(body @ Value::Object(_)) => body,
        AnswerBody::Json(_) => return Err(failure("the body of an error is JSON, but no object")),
        AnswerBody::Other(_) => return Err(warning("the body of an error is not JSON")),
    };
    optional(body, "", &[("error", JsonType::Text), ("description", JsonType::Text)])?;
    let changes_instance = got.request.method == Method::Patch
        || matches!(
            &got.request.effect,
            RequestEffect::Removes(ProviderResource::Instance(_))
        )
        || (got.request.method == Method::Delete && !got.request.path.contains("/service_bindings/"));
    for (name, may_be_there) in [
        ("instance_usable", changes_instance),
        ("update_repeatable", got.request.method == Method::Patch),
    ] {
        match body.get(name) {
            None => {}
            Some(Value::Bool(_)) if may_be_there => {}
            Some(Value::Bool(_)) => return Err(failure(format!("{name} is in the error of another operation"))),
            Some(_) => return Err(failure(format!("{name} is not true or false"))),
        }
    }
    Ok(())
}

/// Checks the errors of the dialects other than OSB: they need a message that a platform can show to its user.
pub(super) fn resources_error(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    if !is_refusal(got) || got.request.place == PathBase::SignOn || got.status() == 401 {
        return Ok(());
    }
    let is_text = |name: &str| got.member(name).is_some_and(|text| JsonType::Text.fits(text));
    if is_text("message") || is_text("error") {
        return Ok(());
    }
    Err(warning("the error has neither message nor error for the user"))
}

pub(super) fn json_bodies(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    if got.request.place == PathBase::SignOn {
        return Ok(());
    }
    match &got.answer.content {
        AnswerBody::Empty | AnswerBody::Json(_) => Ok(()),
        AnswerBody::Other(_) if context.settings.dialect == Dialect::Heroku => Err(failure("the body is not JSON")),
        AnswerBody::Other(_) => Err(warning("the body is not JSON")),
    }
}

pub(super) fn content_type(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    if got.request.place == PathBase::SignOn || !matches!(got.answer.content, AnswerBody::Json(_)) {
        return Ok(());
    }
    let media = got.answer.media.as_deref().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" => Err(warning("JSON is sent without Content-Type")),
        "application/json" => Ok(()),
        vendor if vendor.starts_with("application/") && vendor.ends_with("+json") => Ok(()),
        other => Err(warning(format!("JSON is sent as {other}"))),
    }
}

pub(super) fn request_identity(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    match &got.answer.identity {
        Some(identity) if *identity == got.identity => Ok(()),
        Some(_) => Err(warning(
            "the response has another X-Broker-API-Request-Identity than the request",
        )),
        None => Err(warning("the response has no X-Broker-API-Request-Identity")),
    }
}

pub(super) fn heroku_time(_: &CheckContext, got: &CheckExchange) -> CheckResult {
    let (usual, longest) = HEROKU_TIMES;
    match got.answer.took {
        took if took > longest => Err(failure(format!("the answer took {:.1} s", took.as_secs_f64()))),
        took if took > usual => Err(warning(format!("the answer took {:.1} s", took.as_secs_f64()))),
        _ => Ok(()),
    }
}
