//! Checks of a broker's answers.

use serde_json::Value;

use super::super::context::CheckContext;
use super::super::judge::{self, JsonType, optional, required};
use super::super::message::CheckExchange;
use crate::addon::check::judgement::{CheckResult, Flaw, failure, warning};

/// Longest `operation`, in characters.
const MAX_OPERATION: usize = 10_000;

/// Returns whether the answer says that the operation requires `accepts_incomplete`.
pub(in super::super) fn wants_asynchronous(got: &CheckExchange) -> bool {
    got.status() == 422 && got.member("error").is_some_and(|error| error == "AsyncRequired")
}

pub(super) fn version_refused(got: &CheckExchange, wanted: &[u16]) -> CheckResult {
    if got.status() == 200 {
        return Err(warning("the status is 200: the version is not checked"));
    }
    judge::status(got, wanted)
}

pub(super) fn error_code(got: &CheckExchange, wanted: &str) -> CheckResult {
    match got.member("error") {
        Some(Value::String(error)) if error == wanted => Ok(()),
        _ => Err(failure(format!("error is not {wanted:?}"))),
    }
}

/// Checks that 202 comes only if the request accepted an asynchronous operation.
pub(super) fn asked_for_202(got: &CheckExchange) -> CheckResult {
    if got.status() == 202 && !got.request.path.contains("accepts_incomplete=true") {
        return Err(failure("the status is 202 without accepts_incomplete=true"));
    }
    Ok(())
}

pub(super) fn is_created(got: &CheckExchange) -> CheckResult {
    asked_for_202(got)?;
    judge::status(got, &[201, 202])
}

pub(super) fn is_there_already(got: &CheckExchange) -> CheckResult {
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

pub(super) fn is_updated(got: &CheckExchange) -> CheckResult {
    asked_for_202(got)?;
    if got.status() == 422 {
        return Err(warning("the status is 422: this change of plan is not supported"));
    }
    judge::status(got, &[200, 202])?;
    operation_body(got)
}

pub(super) fn is_removed(got: &CheckExchange) -> CheckResult {
    asked_for_202(got)?;
    judge::status(got, &[200, 202])?;
    operation_body(got)
}

/// Checks the body of an answer that says that an operation was begun or is done.
pub(super) fn operation_body(got: &CheckExchange) -> CheckResult {
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    let members = [
        ("dashboard_url", JsonType::AnyText),
        ("operation", JsonType::AnyText),
        ("metadata", JsonType::Object),
    ];
    optional(body, "", &members)?;
    let is_long = |text: &str| text.chars().count() > MAX_OPERATION;
    if got.member("operation").and_then(Value::as_str).is_some_and(is_long) {
        return Err(failure("operation has more than 10,000 characters"));
    }
    Ok(())
}

pub(super) fn last_operation(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    if got.status() == 404 && !context.is_asynchronous {
        return Ok(());
    }
    judge::status(got, &[200])?;
    state(got).map(drop)
}

/// Checks that `last_operation` needs credentials. A broker that is always synchronous may not have it.
pub(super) fn last_operation_refused(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    if got.status() == 404 && !context.is_asynchronous {
        return Ok(());
    }
    judge::unauthorized(got)
}

/// Returns the state in an answer of `last_operation`.
pub(in super::super) fn state(got: &CheckExchange) -> Result<&str, Flaw> {
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    required(body, "", &[("state", JsonType::Text)])?;
    optional(body, "", &[("description", JsonType::AnyText)])?;
    match body["state"].as_str() {
        Some(state @ ("in progress" | "succeeded" | "failed")) => Ok(state),
        _ => Err(failure("state is not in progress, succeeded or failed")),
    }
}

pub(super) fn fetched_instance(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    judge::status(got, &[200])?;
    judge::object(got)?;
    let members = [
        ("service_id", JsonType::Text),
        ("plan_id", JsonType::Text),
        ("dashboard_url", JsonType::AnyText),
        ("parameters", JsonType::Object),
        ("maintenance_info", JsonType::Object),
        ("metadata", JsonType::Object),
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

pub(super) fn binding_body(context: &CheckContext, got: &CheckExchange) -> CheckResult {
    if got.status() == 202 {
        return match got.member("credentials") {
            Some(_) => Err(failure("credentials are in an answer with the status 202")),
            None => operation_body(got),
        };
    }
    judge::object(got)?;
    let body = got.json().unwrap_or(&Value::Null);
    let members = [
        ("metadata", JsonType::Object),
        ("credentials", JsonType::Object),
        ("syslog_drain_url", JsonType::AnyText),
        ("route_service_url", JsonType::AnyText),
        ("volume_mounts", JsonType::Array),
        ("endpoints", JsonType::Array),
        ("parameters", JsonType::Object),
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
        required(endpoint, &at, &[("host", JsonType::Text), ("ports", JsonType::Texts)])?;
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

/// Returns whether a text is a port or a range of ports: `443`, `9000-9010`.
pub(super) fn is_port_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first > 0 && first <= last,
        _ => false,
    }
}
