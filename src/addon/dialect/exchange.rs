//! A request to a provider API, and its answer.

use serde_json::{Value, json};

use crate::addon::request::{AddonRequest, ResourceTarget};
use crate::addon::resource::Dialect;
use crate::addon::sso::FormFields;

/// A method of HTTP that provider APIs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `GET`: reads.
    Get,
    /// `POST`: creates, or acts.
    Post,
    /// `PUT`: creates or replaces.
    Put,
    /// `PATCH`: changes a part.
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
pub struct AuthenticatedRequest<'r> {
    /// The method.
    pub method: Method,
    /// The path's segments behind the provider API's own prefix, percent-decoded.
    pub path: &'r [&'r str],
    /// The query's parameters.
    pub query: &'r FormFields,
    /// `X-Broker-API-Version`, if it was sent.
    pub version: Option<&'r str>,
    /// The body.
    pub body: &'r [u8],
}

/// Meaning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Change of a resource: provision, plan change, suspend, resume, deprovision or a binding.
    Change(AddonRequest),
    /// The catalog (OSB).
    Catalog,
    /// The present state of a resource.
    Show(ResourceTarget),
    /// An update that changes nothing (OSB).
    Keep(ResourceTarget),
    /// The present state of a binding (OSB).
    ShowBinding(ResourceTarget, crate::addon::id::PlatformId),
    /// State of the last operation of a resource (OSB).
    LastOperation(ResourceTarget),
    /// State of the last operation of a binding (OSB).
    LastBindingOperation(ResourceTarget, crate::addon::id::PlatformId),
}

/// An answer: status code and body.
#[derive(Debug, Clone, PartialEq)]
pub struct DialectAnswer {
    /// The status code.
    pub status: u16,
    /// The body; `None`: the answer has no body.
    pub body: Option<Value>,
}

impl DialectAnswer {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
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
