//! Views of deploys that have not ended.

use std::net::SocketAddr;

use super::DeployStage;
use crate::control::core::replies;
use crate::control::core::{Core, Now};
use crate::control::request::{DeployView, TargetView};
use tcpgw_core::drain::Drain;
use tcpgw_core::model::{Endpoint, Word as _};

impl Core {
    /// Returns the deploys that have not ended.
    pub fn deploys(&self, now: Now) -> Vec<DeployView> {
        self.deploys
            .live
            .keys()
            .filter_map(|id| self.deploy(*id, now))
            .collect()
    }

    /// Returns the last deploy of a service, if it has not ended.
    pub(in crate::control::core) fn deploy_of(&self, service: &str, now: Now) -> Option<DeployView> {
        self.deploy(self.deploys.last_of(service)?, now)
    }

    fn deploy(&self, id: u64, now: Now) -> Option<DeployView> {
        let deploy = self.deploys.live.get(&id)?;
        let targets = deploy.targets.iter().map(|target| {
            let view = self.health.get(target.endpoint.into());
            TargetView {
                backend: target.endpoint.into(),
                health: view.map_or("unknown", |view| view.state.name()).into(),
                reason: view.and_then(|view| replies::reason(view.last)),
            }
        });
        let old: Vec<Endpoint> = deploy.old().collect();
        let draining_backends = self.membership.draining_backends();
        let leaving = old
            .iter()
            .filter_map(|endpoint| draining_backends.get(&deploy.service, *endpoint));
        let leaving: Vec<Drain> = leaving.map(|leaving| leaving.drain).collect();
        let deadline = match deploy.stage {
            DeployStage::Probing(at) => Some(at),
            _ => leaving.iter().filter_map(|drain| drain.deadline()).max(),
        };
        let flows = leaving.iter().map(|drain| drain.flows()).sum::<Option<u64>>();
        let (phase, reason) = match &deploy.stage {
            DeployStage::Probing(_) => ("probing", None),
            DeployStage::Switching => ("switching", None),
            DeployStage::Switched | DeployStage::Left => ("switched", None),
            DeployStage::Ending(phase, reason, _) => (phase.word(), Some(reason.clone())),
        };
        let is_past = matches!(deploy.stage, DeployStage::Switched | DeployStage::Left);
        Some(DeployView {
            id,
            service: deploy.service.to_string(),
            phase: phase.into(),
            reason,
            targets: targets.collect(),
            left: if is_past { old.len() - leaving.len() } else { 0 },
            old: old.into_iter().map(SocketAddr::from).collect(),
            flows: flows.filter(|_| is_past),
            seconds_left: deadline.map(|at| at.saturating_duration_since(now.instant).as_secs()),
        })
    }
}
