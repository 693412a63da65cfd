//! Settings on which services that share an endpoint must agree.
//!
//! Limits, source addresses and probes belong to the endpoint, whatever service a connection used; the kernel's sets
//! are keyed by it. So services in which it is active must have the same settings. A service in which it drains does
//! not count: it only waits for the endpoint's flows to end.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{BackendState, Endpoint, HealthSettings, Limit, Service, SourceMode};

/// Settings of a service that belong to the endpoints of its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    limit: Option<Limit>,
    source: SourceMode,
    source_addresses: BTreeSet<IpAddr>,
    health: HealthSettings,
    /// Endpoints that drain in this service, so that its settings do not apply to them.
    draining: BTreeSet<Endpoint>,
}

impl Terms {
    /// Returns the settings of a service.
    pub fn of(service: &Service) -> Self {
        let draining = service.backends.iter();
        let draining = draining.filter(|backend| backend.state == BackendState::Draining);
        Self {
            limit: service.limit,
            source: service.source,
            source_addresses: service.source_addresses.clone(),
            health: service.health.clone(),
            draining: draining.map(|backend| backend.endpoint).collect(),
        }
    }

    /// Returns whether the settings apply to this endpoint, which must be one of the service's.
    pub fn bind(&self, endpoint: Endpoint) -> bool {
        !self.draining.contains(&endpoint)
    }

    /// Returns the names of the fields in which two services differ for an endpoint that both have; `None` if they
    /// agree.
    pub fn differences(&self, other: &Self, endpoint: Endpoint) -> Option<String> {
        if !self.bind(endpoint) || !other.bind(endpoint) {
            return None;
        }
        let of_family = |terms: &Self| -> BTreeSet<IpAddr> {
            let addresses = terms.source_addresses.iter();
            let of_family = addresses.filter(|address| address.is_ipv4() == endpoint.address.is_ipv4());
            of_family.copied().collect()
        };
        let differing = [
            ("limit", self.limit != other.limit),
            ("source", self.source != other.source),
            ("source_addresses", of_family(self) != of_family(other)),
            ("health", self.health != other.health),
        ];
        let differing: Vec<&str> = differing
            .iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| *name)
            .collect();
        (!differing.is_empty()).then(|| differing.join(", "))
    }
}

/// Returns the message for two services that disagree about an endpoint. `site` names the other one's backend.
pub fn disagreement(endpoint: Endpoint, site: &str, differing: &str) -> String {
    format!(
        "{endpoint} is also {site}, with another {differing}: limit, source, source_addresses and health belong to the \
         backend, so all services that it is active in must say the same; change them together"
    )
}
