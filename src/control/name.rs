//! Names of services.

/// Name of a service.
pub type Name = Box<str>;
