//! The provider APIs: what a request of each means to the [`Registry`](super::Registry), and how each is answered.
//!
//! Owns paths, fields, status codes and bodies. No sockets: an [`Exchange`] has what matters of an HTTP request, and an [`Answer`]
//! what matters of its response. Credentials were checked before.

mod manifest;
mod osb;
mod resources;
mod unique;

use std::num::NonZeroU16;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::plan::Plans;
use super::registry::{AddonOutcome, Refusal, Request, Target};
use super::resource::{Dialect, Resource};
use super::sso::Fields;

pub use self::manifest::{manifest, objection};
pub use self::osb::{SUPPORTED_VERSIONS, catalog};

/// A method of HTTP that provider APIs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `GET`: reads.
    Get,
    /// `POST`: creates, or acts.
    Post,
    /// `PUT`: creates or replaces.
    Put,
    /// Changes a part.
    Patch,
    /// `DELETE`: removes.
    Delete,
}

impl Method {
    /// Returns the method's name in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request that was authenticated.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'r> {
    /// The method.
    pub method: Method,
    /// The path's segments behind the provider API's own prefix, percent-decoded.
    pub path: &'r [&'r str],
    /// The query's parameters.
    pub query: &'r Fields,
    /// `X-Broker-API-Version`, if it was sent.
    pub version: Option<&'r str>,
    /// The body.
    pub body: &'r [u8],
}

/// Meaning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A change.
    Change(Request),
    /// The catalog (OSB).
    Catalog,
    /// The present state of a resource.
    Show(Target),
    /// An update that changes nothing (OSB).
    Keep(Target),
    /// The present state of a binding (OSB).
    ShowBinding(Target, super::id::PlatformId),
    /// State of the last operation of a resource (OSB).
    LastOperation(Target),
    /// State of the last operation of a binding (OSB).
    LastBindingOperation(Target, super::id::PlatformId),
}

/// An answer: status code and body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; `None`: none at all.
    pub body: Option<Value>,
}

/// Properties of the gateway that answers contain.
#[derive(Debug, Clone, Copy)]
pub struct Gateway<'g> {
    /// The public name or address.
    pub host: &'g str,
    /// Start of the URL of an app's page, to which the resource's id is added; `None`: not known.
    pub pages: Option<&'g str>,
    /// The plans.
    pub plans: &'g Plans,
}

impl Gateway<'_> {
    /// Returns the value of `TCP_URL`.
    pub fn tcp_url(&self, port: NonZeroU16) -> String {
        tcp_url(self.host, port)
    }
}

/// Returns the value of `TCP_URL`. An IPv6 address stands in brackets (RFC 3986, 3.2.2).
pub fn tcp_url(host: &str, port: NonZeroU16) -> String {
    if host.contains(':') {
        format!("tcp://[{host}]:{port}")
    } else {
        format!("tcp://{host}:{port}")
    }
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
        }
    }

    fn empty(status: u16) -> Self {
        Self { status, body: None }
    }

    /// Returns an error in the dialect's form. `error` is one word in camel case, `description` for people.
    pub fn error(dialect: Dialect, status: u16, error: &str, description: &str) -> Self {
        let body = match dialect {
            Dialect::Osb => json!({"error": error, "description": description}),
            // Scalingo shows `error`, Heroku and Clever Cloud show `message`.
            Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
                json!({"error": description, "message": description})
            }
        };
        Self::new(status, body)
    }
}

/// Returns the meaning of a request.
///
/// # Errors
/// The answer to a request that cannot be understood.
pub fn parse(dialect: Dialect, exchange: &Exchange<'_>) -> Result<Call, Answer> {
    match dialect {
        Dialect::Osb => osb::parse(exchange),
        Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
            resources::parse(dialect, exchange)
        }
    }
}

/// Returns the methods that are allowed at a path, for the header `allow` (RFC 9110, 15.5.6).
pub fn allowed(dialect: Dialect, path: &[&str]) -> &'static str {
    match (dialect, path) {
        (Dialect::Osb, ["service_instances", _]) => "GET, HEAD, PUT, PATCH, DELETE",
        (Dialect::Osb, ["service_instances", _, "service_bindings", _]) => "GET, HEAD, PUT, DELETE",
        (Dialect::Osb, _) => "GET, HEAD",
        (_, ["resources", _]) => "GET, HEAD, PUT, DELETE",
        _ => "POST",
    }
}

/// Returns the answer to a change.
pub fn answer(
    dialect: Dialect,
    request: &Request,
    result: &Result<AddonOutcome, Refusal>,
    gateway: Gateway<'_>,
) -> Answer {
    match dialect {
        Dialect::Osb => osb::answer(request, result, gateway),
        Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
            resources::answer(dialect, request, result, gateway)
        }
    }
}

/// Returns the answer to a call that only reads one resource. `call` is no change, and no catalog.
pub fn shown(dialect: Dialect, call: &Call, found: &Result<Arc<Resource>, Refusal>, gateway: Gateway<'_>) -> Answer {
    match dialect {
        Dialect::Osb => osb::shown(call, found, gateway),
        Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
            resources::shown(dialect, found, gateway)
        }
    }
}

/// Returns the members of a body that must be a JSON object; an empty body is an empty one.
fn object(dialect: Dialect, body: &[u8]) -> Result<Map<String, Value>, Answer> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body).map(|unique::Unique(value)| value) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Answer::error(
            dialect,
            400,
            "MalformedRequest",
            "the body must be a JSON object",
        )),
        Err(error) => {
            let text = format!("the body is not JSON: {error}");
            Err(Answer::error(dialect, 400, "MalformedRequest", &text))
        }
    }
}

/// Returns the port requested in `options` or `parameters`: a number, or a text of one.
fn wished_port(options: Option<&Value>) -> Result<Option<NonZeroU16>, &'static str> {
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

#[cfg(test)]
mod tests;
