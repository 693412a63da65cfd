//! The invariants of the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tcpgw::reconcile::Desired;
use tcpgw_core::model::{BackendState, Service};
use tcpgw_core::summary::Summary;

use super::{LONG, World};
use crate::world::surroundings::Surroundings;

impl World {
    /// Checks the invariants that hold at any time, as long as the kernel obeys.
    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        if self.is_troubled {
            return Ok(());
        }
        let links = self.links.clone();
        self.check_kernel(&links)
    }

    /// Returns the wanted services that are served: those in the kernel, or in its table before another program removed it.
    pub(super) fn served(&mut self) -> BTreeMap<Box<str>, Arc<Service>> {
        let ruleset = self.kernel().ruleset();
        if !ruleset.is_empty() {
            self.clients.0 = ruleset;
        }
        let held = Summary::of_kernel(&self.clients.0, &Summary::default())
            .services
            .into_iter();
        let ports: BTreeSet<u16> = held.map(|held| held.port).collect();
        let membership = self.core.membership();
        let mut served = membership.serving().clone();
        served.retain(|name, service| membership.wanted().contains_key(name) && ports.contains(&service.port.get()));
        served
    }

    /// Checks that each service that was served stays while it is in the file and no other service claims its port.
    pub(super) fn check_stays(&self, before: &BTreeMap<Box<str>, Arc<Service>>) -> Result<(), TestCaseError> {
        let file = self.file.content.as_ref().expect("a file");
        for (name, service) in before {
            let claims = |other: &&Arc<Service>| other.name != *name && other.port == service.port;
            let is_said = file.services.iter().any(|said| said.name == *name);
            let is_claimed = file.services.iter().any(|said| claims(&said));
            if is_said && !is_claimed {
                prop_assert!(self.core.membership().serving().contains_key(name), "{} is gone", name);
            }
        }
        Ok(())
    }

    /// Ends all trouble, lets time pass, and checks that the kernel agrees with the file.
    pub(super) fn end(mut self) -> Result<(), TestCaseError> {
        self.heal();
        self.surroundings = Surroundings::default();
        self.containers.down.clear();
        self.wait(LONG);
        self.check()?;
        prop_assert!(self.core.in_sync());
        prop_assert!(self.core.membership().draining_backends().is_empty());
        let mut want = self.file.content.clone().expect("a file");
        for service in &mut want.services {
            Arc::make_mut(service)
                .backends
                .retain(|backend| backend.state == BackendState::Active);
        }
        let desired = Desired::new(&want, &self.links);
        prop_assert_eq!(&self.kernel().ruleset(), &desired.ruleset);
        let counts: BTreeMap<_, _> = self.core.membership().serving().clone();
        prop_assert_eq!(counts.len(), want.services.len());
        Ok(())
    }
}
