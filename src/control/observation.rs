//! Looks at the gateway's surroundings: what is asked for, and what was seen.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::handshakes::HandshakeReport;
use crate::doctor::Subject;
use tcpgw_core::problem::Problem;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct ObservationRequest {
    /// The services, and what the configuration says of them.
    pub subject: Subject,
    /// Backends that answer probes.
    pub answering: Arc<BTreeSet<SocketAddr>>,
    /// Whether to look at the surroundings.
    pub surroundings: bool,
    /// Whether to look at handshakes.
    pub handshakes: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What is wrong with the surroundings, where these were asked for.
    pub surroundings: Option<Vec<Problem>>,
    /// Handshakes, where these were asked for and could be read.
    pub handshakes: Option<HandshakeReport>,
    /// Handshakes need not be looked for sooner.
    pub pause: Duration,
}
