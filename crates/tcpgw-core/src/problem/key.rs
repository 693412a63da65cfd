//! Key of a problem: the values that distinguish it from others.

use std::net::SocketAddr;

use super::kind::ProblemKind;
use super::severity::Severity;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) severity: Severity,
    pub(super) kind: ProblemKind,
    pub(super) port: Option<u16>,
    pub(super) service: Option<String>,
    pub(super) backend: Option<SocketAddr>,
}

impl Key {
    /// Returns a key that is not greater than any other of this severity and kind.
    pub(super) fn first(severity: Severity, kind: ProblemKind) -> Self {
        Self {
            severity,
            kind,
            port: None,
            service: None,
            backend: None,
        }
    }
}
