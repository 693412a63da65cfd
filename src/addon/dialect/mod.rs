//! The provider APIs: what a request of each means to the [`Registry`](super::Registry), and how each is answered.
//!
//! Owns paths, fields, status codes and bodies. No sockets: an [`AuthenticatedRequest`] has what matters of an HTTP request, and a
//! [`DialectAnswer`] what matters of its response. Credentials were checked before.

mod body;
pub mod exchange;
pub mod gateway;
mod manifest;
mod osb;
mod resources;
mod unique;

use std::sync::Arc;

use self::exchange::{AuthenticatedRequest, Call, DialectAnswer};
use self::gateway::GatewayProperties;
use super::decision::AddonOutcome;
use super::refusal::Refusal;
use super::request::AddonRequest;
use super::resource::{Dialect, Resource};

pub use self::manifest::{manifest, objection, path_before};
pub use self::osb::{SUPPORTED_VERSIONS, catalog};

/// Returns the meaning of a request.
///
/// # Errors
/// Fails with the answer to a request that cannot be understood.
pub fn parse(dialect: Dialect, exchange: &AuthenticatedRequest<'_>) -> Result<Call, DialectAnswer> {
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
    request: &AddonRequest,
    result: &Result<AddonOutcome, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    match dialect {
        Dialect::Osb => osb::answer(request, result, gateway),
        Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
            resources::answer(dialect, request, result, gateway)
        }
    }
}

/// Returns the answer to a call that only reads one resource. `call` is no change, and no catalog.
pub fn shown(
    dialect: Dialect,
    call: &Call,
    found: &Result<Arc<Resource>, Refusal>,
    gateway: GatewayProperties<'_>,
) -> DialectAnswer {
    match dialect {
        Dialect::Osb => osb::shown(call, found, gateway),
        Dialect::Scalingo | Dialect::Heroku | Dialect::CleverCloud | Dialect::Local => {
            resources::shown(dialect, found, gateway)
        }
    }
}

#[cfg(test)]
mod tests;
