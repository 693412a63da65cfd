//! Values of a request's body.

use std::num::NonZeroU16;

use serde_json::{Map, Value};

use super::exchange::DialectAnswer;
use super::unique;
use crate::addon::resource::Dialect;

/// Returns the members of a body that must be a JSON object; an empty body is an empty one.
pub(super) fn object(dialect: Dialect, body: &[u8]) -> Result<Map<String, Value>, DialectAnswer> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body).map(|unique::Unique(value)| value) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(DialectAnswer::error(
            dialect,
            400,
            "MalformedRequest",
            "the body must be a JSON object",
        )),
        Err(error) => {
            let text = format!("the body is not JSON: {error}");
            Err(DialectAnswer::error(dialect, 400, "MalformedRequest", &text))
        }
    }
}

/// Returns the port requested in `options` or `parameters`: a number, or a text of one.
pub(super) fn requested_port(options: Option<&Value>) -> Result<Option<NonZeroU16>, &'static str> {
    const WRONG: &str = "port must be a number from 1 to 65535";
    let port = match options {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(options)) => options.get("port"),
        Some(_) => return Err("must be an object"),
    };
    let number = match port {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
    };
    let port = number
        .and_then(|number| u16::try_from(number).ok())
        .and_then(NonZeroU16::new);
    port.map(Some).ok_or(WRONG)
}
