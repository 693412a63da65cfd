//! The target of a request, with an encoded query.

use std::fmt::{self, Write};

/// A target with its query: values are encoded.
#[derive(Debug)]
pub struct RequestTarget(String);

impl RequestTarget {
    /// Returns the target of a path.
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Returns the target of a service, with the rest of the path.
    pub fn of_service(name: &str, below: &str) -> Self {
        let mut target = Self("/v1/services/".to_owned());
        target.encode(name);
        target.0.push_str(below);
        target
    }

    /// Returns the target of an app's resource of the add-on, with the rest of the path.
    pub fn of_resource(app: &str, below: &str) -> Self {
        let mut target = Self("/v1/addon/resources/".to_owned());
        target.encode(app);
        target.0.push_str(below);
        target
    }

    fn encode(&mut self, text: &str) {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                self.0.push(byte.into());
            } else {
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
    }

    /// Adds a parameter, if it has a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&dyn fmt::Display>) -> Self {
        let Some(value) = value else { return self };
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.encode(&value.to_string());
        self
    }

    /// Returns path and query, as they are sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
