//! The invariants of orders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tcpgw::store::{DeployPhase, HistoryFilter};
use tcpgw_core::model::{BackendState, Service, State};
use tcpgw_core::ruleset::links::Links;
use tokio::sync::oneshot;

use super::{LONG, World};
use crate::states::{desired, links};
use crate::world::clients::PEER;
use crate::world::examinations;

/// Longest pause between two attempts to tell the kernel.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl World {
    /// Checks the invariants that hold at any time.
    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        self.check_history()?;
        // Nothing here takes time: whatever was taken or refused is answered at once, or when a kernel that failed is told
        // again.
        let waited = self
            .clients
            .waited_since
            .map_or(Duration::ZERO, |since| self.clock.now - since);
        prop_assert!(waited <= LONGEST_RETRY, "somebody waits for an answer");
        let is_stuck = self.examinations.is_stuck(self.clock.now);
        prop_assert!(
            !is_stuck || self.is_troubled || self.clients.is_held || waited <= examinations::PATIENCE,
            "somebody waits for an examination that does not end"
        );
        prop_assert!(
            is_stuck || self.is_troubled || self.clients.is_held || waited.is_zero(),
            "somebody waits for nothing"
        );
        if self.is_troubled || self.clients.is_held {
            return Ok(());
        }
        // After a teardown there is nothing, not even what depends on links alone.
        let is_torn_down = self.core.membership().serving().is_empty() && self.kernel().owner().is_none();
        let links = if is_torn_down { Links::default() } else { links() };
        self.check_kernel(&links)
    }

    /// Checks that each change of a service begins where the one before has ended, that the last one leads to the present
    /// service, and that a deploy has changed its service as often as its phase implies.
    fn check_history(&mut self) -> Result<(), TestCaseError> {
        let store = self.store();
        let filter = HistoryFilter {
            limit: 10_000,
            ..HistoryFilter::default()
        };
        let history = store.history(&filter).unwrap();
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        let mut of_deploys: BTreeMap<u64, usize> = BTreeMap::new();
        for entry in history.iter().rev() {
            prop_assert_eq!(
                now.remove(&entry.service),
                entry.old.as_ref().map(|old| old.get().to_owned())
            );
            if let Some(new) = &entry.new {
                now.insert(entry.service.clone(), new.get().to_owned());
            }
            *of_deploys.entry(entry.deploy.unwrap_or(0)).or_default() += 1;
        }
        let loaded = store.load().unwrap();
        let there = loaded.services.iter();
        let there: BTreeMap<String, String> = there
            .map(|stored| {
                (
                    stored.service.name.to_string(),
                    tcpgw_core::model::write::service_text(&stored.service),
                )
            })
            .collect();
        prop_assert_eq!(now, there);
        for deploy in store.deploys(None, 10_000).unwrap() {
            let changes = of_deploys.get(&deploy.id).copied().unwrap_or(0);
            let most = match deploy.phase {
                DeployPhase::Probing | DeployPhase::Failed => 0,
                DeployPhase::Switched | DeployPhase::Drained => 1,
                DeployPhase::Undone => 2,
            };
            prop_assert!(changes <= most, "{:?} after {} changes", deploy, changes);
            prop_assert!(
                deploy.phase != DeployPhase::Undone || changes != 1,
                "{:?} is undone by half",
                deploy
            );
        }
        Ok(())
    }

    /// Ends all trouble, lets time pass, and checks that every deploy is over and the kernel agrees with the store.
    pub(super) fn end(mut self) -> Result<(), TestCaseError> {
        self.heal();
        self.storage().kill = None;
        self.containers.down.clear();
        self.clients.is_held = false;
        self.wait(LONG);
        // After a teardown nothing is served before a resume, whatever else is ordered.
        let (reply, _) = oneshot::channel();
        self.core.resume(PEER, reply, self.time());
        self.wait(LONG);
        self.check()?;
        prop_assert!(self.core.in_sync());
        prop_assert!(self.core.membership().draining_backends().is_empty());
        prop_assert!(self.core.deploys(self.time()).is_empty());
        let store = self.store();
        prop_assert!(store.unfinished_deploys().unwrap().is_empty());
        let known: BTreeSet<u64> = store
            .deploys(None, 10_000)
            .unwrap()
            .iter()
            .map(|deploy| deploy.id)
            .collect();
        let services = store.load().unwrap().services.into_iter();
        prop_assert!(
            self.clients.begun.is_subset(&known),
            "a deploy that was acknowledged is forgotten"
        );
        let active = |service: &Service| Service {
            backends: service
                .backends
                .iter()
                .filter(|b| b.state == BackendState::Active)
                .copied()
                .collect(),
            ..service.clone()
        };
        let want = State::new(services.map(|stored| active(&stored.service))).unwrap();
        prop_assert_eq!(&self.kernel().ruleset(), &desired(&want).ruleset);
        Ok(())
    }
}
