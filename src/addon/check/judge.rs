//! Checks of an answer that are the same in all dialects.

use serde_json::Value;

use super::judgement::{CheckResult, failure, warning};
use super::message::{AnswerBody, CheckExchange, OperationEnd};

/// Checks that the status is one of these, and that an operation which was begun has succeeded.
pub(super) fn status(got: &CheckExchange, wanted: &[u16]) -> CheckResult {
    ended(got)?;
    if wanted.contains(&got.status()) {
        return Ok(());
    }
    Err(failure(format!(
        "the status is {}, not {}",
        got.status(),
        listed(wanted)
    )))
}

/// Checks that the status is one of these. Another status of an error is a warning, a status of success is a failure.
pub(super) fn refusal(got: &CheckExchange, wanted: &[u16]) -> CheckResult {
    match got.status() {
        status if wanted.contains(&status) => Ok(()),
        status @ 400..500 => Err(warning(format!("the status is {status}; {} is usual", listed(wanted)))),
        status => Err(failure(format!("the status is {status}, not {}", listed(wanted)))),
    }
}

/// Checks that the request was refused because of its credentials.
pub(super) fn unauthorized(got: &CheckExchange) -> CheckResult {
    if got.status() == 429 {
        return Err(warning(
            "the status is 429: too many wrong logins came from here; run the checks again later",
        ));
    }
    status(got, &[401])
}

/// Checks that an operation which went on after its answer has succeeded.
pub(super) fn ended(got: &CheckExchange) -> CheckResult {
    match &got.end {
        None | Some(OperationEnd::Succeeded) => Ok(()),
        Some(OperationEnd::Failed(why)) => Err(failure(format!("the operation has failed: {why}"))),
        Some(OperationEnd::GivenUp(why)) => Err(failure(format!("the operation has not ended: {why}"))),
    }
}

/// Returns the statuses in words: `200`, `200 or 201`.
fn listed(statuses: &[u16]) -> String {
    let texts: Vec<String> = statuses.iter().map(u16::to_string).collect();
    texts.join(" or ")
}

/// Checks that the body is a JSON object.
pub(super) fn object(got: &CheckExchange) -> CheckResult {
    match &got.answer.content {
        AnswerBody::Json(Value::Object(_)) => Ok(()),
        AnswerBody::Json(_) => Err(failure("the body is JSON, but no object")),
        AnswerBody::Empty => Err(failure("there is no body")),
        AnswerBody::Other(_) => Err(failure("the body is not JSON")),
    }
}

/// A type of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonType {
    /// A string that is not empty.
    Text,
    /// Any string.
    AnyText,
    Boolean,
    Object,
    Array,
    /// An array of strings.
    Texts,
    Integer,
}

impl JsonType {
    pub(super) fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::AnyText => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            Self::Integer => value.is_u64(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Text => "a string that is not empty",
            Self::AnyText => "a string",
            Self::Boolean => "true or false",
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Texts => "an array of strings",
            Self::Integer => "a whole number",
        }
    }
}

/// Checks that an object has these members, each of this type.
pub(super) fn required(object: &Value, at: &str, members: &[(&str, JsonType)]) -> CheckResult {
    for (name, kind) in members {
        match object.get(name) {
            None | Some(Value::Null) => return Err(failure(format!("{at}{name} is missing"))),
            Some(value) if kind.fits(value) => {}
            Some(_) => return Err(failure(format!("{at}{name} is not {}", kind.word()))),
        }
    }
    Ok(())
}

/// Checks that these members of an object are of this type, if they are present.
pub(super) fn optional(object: &Value, at: &str, members: &[(&str, JsonType)]) -> CheckResult {
    for (name, kind) in members {
        match object.get(name) {
            None | Some(Value::Null) => {}
            Some(value) if kind.fits(value) => {}
            Some(_) => return Err(failure(format!("{at}{name} is not {}", kind.word()))),
        }
    }
    Ok(())
}
