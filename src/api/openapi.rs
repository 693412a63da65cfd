//! The OpenAPI document.

/// The OpenAPI document of these routes.
pub const OPENAPI: &str = include_str!("openapi.json");
