//! Changes of probes.

use std::collections::BTreeSet;

use tcpgw_core::model::{Endpoint, HealthSettings};

/// Change of the probes of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probing {
    /// Probe it with these settings; its results so far stay.
    With(HealthSettings),
    /// Probe it with these settings, and at once: another service that has it waits for a result.
    Again(HealthSettings),
    /// Probe it as a new endpoint and forget its results: another service has it now.
    Anew(HealthSettings),
    /// Stop probing it.
    Stop,
}

/// Endpoints whose probes may change.
#[derive(Debug, Default)]
pub(super) struct ProbingChanges {
    /// Endpoints that a service wants.
    pub(super) wanted: BTreeSet<Endpoint>,
    /// Endpoints that a service has given up.
    pub(super) released: BTreeSet<Endpoint>,
    /// Endpoints for [`Probing::Anew`].
    pub(super) anew: BTreeSet<Endpoint>,
    /// Endpoints for [`Probing::Again`].
    pub(super) again: BTreeSet<Endpoint>,
}
