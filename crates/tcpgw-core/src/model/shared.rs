//! One endpoint in several services: what they have to agree on.
//!
//! Buckets, source addresses and probes belong to the endpoint, whatever service a connection came through; the kernel's sets
//! are keyed by it. So services in which it is active must say the same about these. One in which it drains says
//! nothing: there it is only waited for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{BackendState, Endpoint, Health, Limit, Service, SourceMode};

/// What a service says about its backends that belongs to their endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    limit: Option<Limit>,
    source: SourceMode,
    source_addresses: BTreeSet<IpAddr>,
    health: Health,
    /// Endpoints of which it says nothing.
    draining: BTreeSet<Endpoint>,
}

impl Terms {
    /// Those of a service.
    pub fn of(service: &Service) -> Self {
        let draining = service.backends.iter();
        let draining = draining.filter(|backend| backend.state == BackendState::Draining);
        Self {
            limit: service.limit,
            source: service.source,
            source_addresses: service.source_addresses.clone(),
            health: service.health,
            draining: draining.map(|backend| backend.endpoint).collect(),
        }
    }

    /// Whether they are about that endpoint, which is one of the service's.
    pub fn bind(&self, endpoint: Endpoint) -> bool {
        !self.draining.contains(&endpoint)
    }

    /// The fields in which these differ from others for an endpoint that both have, if any.
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

/// Why two services cannot share an endpoint: `site` is where the other one has it.
pub fn disagreement(endpoint: Endpoint, site: &str, differing: &str) -> String {
    format!(
        "{endpoint} is also {site}, with another {differing}: limit, source, source_addresses and health belong to the \
         backend, so all services that it is active in must say the same; change them together"
    )
}
