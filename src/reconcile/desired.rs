//! Desired contents of the kernel.

use tcpgw_core::model::{Service, State};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile_services;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;

/// Desired contents of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Summary of the services.
    pub summary: Summary,
    /// Elements of the sets.
    pub ruleset: Ruleset,
}

impl Desired {
    /// Creates the desired contents for a state, on a gateway with these links.
    pub fn new(state: &State, links: &Links) -> Self {
        Self::of(state.services.iter().map(AsRef::as_ref).collect(), links)
    }

    /// Returns the contents with every backend protected from connections that bypass the services, or with none.
    #[must_use]
    pub fn protecting(self, protect: bool) -> Self {
        Self {
            ruleset: self.ruleset.protecting(protect),
            ..self
        }
    }

    /// Creates the desired contents for some services.
    pub fn of(services: Vec<&Service>, links: &Links) -> Self {
        Self {
            summary: services.iter().copied().collect(),
            ruleset: compile_services(services, links),
        }
    }

    /// Returns the contents with these values of conntrack's sysctls.
    #[must_use]
    pub fn with_timeouts(self, timeouts: KernelTimeouts) -> Self {
        Self {
            ruleset: self.ruleset.with_timeouts(timeouts),
            ..self
        }
    }
}
