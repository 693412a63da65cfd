//! Media types of bodies.

/// The media type of JSON (RFC 8259, 11).
pub(super) const JSON: &str = "application/json";
