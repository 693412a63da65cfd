//! Steps of deploys: what is written of them, and the actions after the write.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{AGAIN, DeployStage, HASTE, PendingStep, RunningDeploy, StartingDeploy};
use crate::control::core::edits::missing;
use crate::control::core::order::refused;
use crate::control::core::pending::ReplyKind;
use crate::control::core::pending_write::{OnWritten, PendingWrite};
use crate::control::core::{Core, DaemonPhase, Now, Provider};
use crate::control::reply::ReplySender;
use crate::control::request::Refused;
use crate::control::storage::Write;
use crate::store::{ChangeAuthor, DeployPhase, DeployStep, StoreError, superseded_by};
use tcpgw_core::health::{self, EndpointState, ProbeTarget};
use tcpgw_core::model::{self, Backend, Edits, Service, Word};

impl Core {
    /// Returns the next write of a deploy, if one is due.
    pub(in crate::control::core) fn next_step(&mut self, now: Now) -> Option<Write> {
        if matches!(self.phase, DaemonPhase::Waiting | DaemonPhase::Reading) {
            return None;
        }
        self.deploys.tick(now.instant);
        while let Some(id) = self.deploys.to_examine.pop_first() {
            let write = match self.deploys.live.get(&id).map(|deploy| deploy.stage.clone()) {
                Some(DeployStage::Probing(deadline)) => self.probing(id, deadline, now),
                Some(DeployStage::Left) => {
                    let reason = self
                        .deploys
                        .live
                        .get(&id)
                        .map_or("", RunningDeploy::words_at_end)
                        .into();
                    Some(self.end(id, DeployPhase::Drained, reason, None, now))
                }
                Some(DeployStage::Ending(phase, reason, at)) if at <= now.instant => {
                    Some(self.end(id, phase, reason, None, now))
                }
                _ => None,
            };
            if write.is_some() {
                return write;
            }
        }
        None
    }

    /// Examines a deploy that probes: switches it when enough targets have answered, ends it after its timeout.
    fn probing(&mut self, id: u64, deadline: Instant, now: Now) -> Option<Write> {
        let deploy = self.deploys.live.get(&id)?;
        if let Err(refused) = self.judge_still_served(&deploy.service) {
            let reason = format!("{}; nothing was switched", refused.lines().join("; "));
            return Some(self.end(id, DeployPhase::Failed, reason, None, now));
        }
        let views = deploy
            .targets
            .iter()
            .map(|target| (target, self.health.get(target.endpoint.into())));
        let has_answered = |view: &Option<health::EndpointHealth>| {
            let has_answered = |view: &health::EndpointHealth| view.answered.is_some_and(|at| at >= deploy.began);
            view.is_some_and(|view| {
                matches!(view.state, EndpointState::Healthy | EndpointState::Failing { .. }) && has_answered(&view)
            })
        };
        let (good, bad): (Vec<_>, Vec<_>) = views.partition(|(_, view)| has_answered(view));
        if good.len() >= deploy.min {
            return Some(self.switch(id, now));
        }
        if deadline > now.instant {
            return None;
        }
        let bad = bad.into_iter().map(|(target, view)| {
            let is_asked = view.is_some_and(|view| view.sent > 0);
            let silent = if is_asked { "no answer yet" } else { "not asked yet" };
            let last = view.and_then(|view| view.last);
            let why = last.map_or(silent.into(), |last| last.to_string());
            format!("{} ({why})", target.endpoint)
        });
        let bad: Vec<String> = bad.collect();
        let wanted = if deploy.min == deploy.targets.len() {
            String::new()
        } else {
            format!("; {} of {} were wanted", deploy.min, deploy.targets.len())
        };
        let reason = format!("not answered in time: {}{wanted}; nothing was switched", bad.join(", "));
        Some(self.end(id, DeployPhase::Failed, reason, None, now))
    }

    /// Checks that a service can still be switched: it was neither removed nor suspended, and no other provider
    /// defines it.
    fn judge_still_served(&self, name: &str) -> Result<(), Refused> {
        self.judge_suspended(name)?;
        self.judge_owner(name, Provider::Api)?;
        if self.api.get(name).is_some() {
            return Ok(());
        }
        Err(Refused::Missing(match self.app_of_service(name) {
            Some(app) => format!("the add-on of app {app} was deprovisioned"),
            None => format!("service \"{name}\" was removed"),
        }))
    }

    /// Switches the service to its new backends, if it still may.
    fn switch(&mut self, id: u64, now: Now) -> Write {
        let (edits, before) = match self.switched(id) {
            Ok(switched) => switched,
            Err(refused) => {
                let reason = format!("{}; nothing was switched", refused.lines().join("; "));
                return self.end(id, DeployPhase::Failed, reason, None, now);
            }
        };
        let mut change = self.api.change(&edits);
        change.deploy = Some(DeployStep {
            id,
            phase: DeployPhase::Switched,
            reason: None,
        });
        let (service, drain, by) = match self.deploys.live.get(&id) {
            Some(deploy) => (&*deploy.service, deploy.drain, deploy.by.clone()),
            None => ("", None, self.own()),
        };
        self.order_queue.accepted = vec![PendingWrite {
            edits,
            cause: format!("deploy {id} of {service}"),
            drain,
            warnings: Vec::new(),
            obstacles: std::collections::BTreeMap::new(),
            then: OnWritten::Deploy(PendingStep::Switch(id, before)),
        }];
        Write::Change(change, by, now.unix)
    }

    fn switched(&self, id: u64) -> Result<(Edits, Vec<Backend>), Refused> {
        let deploy = self.deploys.live.get(&id);
        let deploy = deploy.ok_or_else(|| Refused::Failed(format!("deploy {id} is gone")))?;
        let current = self.api.get(&deploy.service).ok_or_else(|| missing(&deploy.service))?;
        let before = current.service.backends.clone();
        let mut edits = Edits::default();
        if before != deploy.targets {
            edits.put.push(Arc::new(Service {
                backends: deploy.targets.clone(),
                ..Service::clone(&current.service)
            }));
        }
        self.judge_change(&edits, false)?;
        Ok((edits, before))
    }

    /// Ends a deploy, once that is written.
    pub(super) fn end(
        &mut self,
        id: u64,
        phase: DeployPhase,
        reason: String,
        reply: Option<ReplySender<Result<u64, Refused>>>,
        now: Now,
    ) -> Write {
        self.deploys
            .set(id, DeployStage::Ending(phase, reason.clone(), now.instant + AGAIN));
        let step = DeployStep {
            id,
            phase,
            reason: Some(reason.clone()),
        };
        self.order_queue.accepted = vec![PendingWrite::step(PendingStep::End(id, phase, reason, reply))];
        Write::Step(step, now.unix)
    }

    /// Continues a deploy after a step was written.
    pub(in crate::control::core) fn stepped(&mut self, step: PendingStep, now: Now) -> Option<ReplyKind> {
        match step {
            PendingStep::Begin(new, reply) => {
                let id = self.order_queue.began.take().unwrap_or_default();
                for over in &new.ends {
                    self.forget(*over);
                }
                let superseded = new.supersedes.clone();
                for earlier in &superseded {
                    self.decided(*earlier, DeployPhase::Undone, &superseded_by(id), now);
                }
                self.begun(id, *new, now);
                // This comes last: targets of both deploys stay probed.
                for earlier in superseded {
                    self.forget(earlier);
                }
                drop(reply.send(Ok(id)));
            }
            PendingStep::Switch(id, before) => {
                self.deploys.fresh = true;
                let deploy = self.deploys.remove(id)?;
                let stage = DeployStage::Switching;
                self.deploys.insert(
                    id,
                    RunningDeploy {
                        before,
                        stage,
                        ..deploy
                    },
                );
            }
            PendingStep::Restore(id, reason, reply) => {
                let deploy = self.deploys.remove(id);
                let service = deploy.map(|deploy| deploy.service).unwrap_or_default();
                return Some(ReplyKind::Restored {
                    id,
                    service,
                    reason,
                    reply,
                });
            }
            PendingStep::End(id, phase, reason, reply) => {
                self.decided(id, phase, &reason, now);
                self.forget(id);
                drop(reply.map(|reply| reply.send(Ok(id))));
            }
        }
        None
    }

    /// Handles a step that the store did not write.
    pub(in crate::control::core) fn step_failed(&mut self, step: PendingStep, error: &StoreError, now: Now) {
        let again = now.instant + AGAIN;
        match step {
            PendingStep::Begin(_, reply) | PendingStep::Restore(_, _, reply) => drop(reply.send(Err(refused(error)))),
            PendingStep::Switch(id, _) => {
                let reason = format!("{error}; nothing was switched");
                tracing::error!(id, "deploy: {reason}");
                let stage = DeployStage::Ending(DeployPhase::Failed, reason.clone(), again);
                self.deploys.set(id, stage);
                self.decided(id, DeployPhase::Failed, &reason, now);
            }
            PendingStep::End(id, _, _, reply)
                if matches!(error, StoreError::Phase { .. } | StoreError::NoDeploy(_)) =>
            {
                self.forget(id);
                drop(reply.map(|reply| reply.send(Err(refused(error)))));
            }
            // Other errors may pass; until then the step is tried again.
            PendingStep::End(id, phase, reason, reply) => {
                self.decided(id, phase, &reason, now);
                drop(reply.map(|reply| reply.send(Ok(id))));
            }
        }
    }

    fn begun(&mut self, id: u64, new: StartingDeploy, now: Now) {
        let params = self.api.get(&new.service).map(|stored| stored.service.health.clone());
        let deploy = RunningDeploy {
            service: new.service.clone(),
            targets: new.targets,
            min: new.min,
            drain: new.drain,
            by: new.by,
            before: Vec::new(),
            stage: DeployStage::Probing(now.instant + new.timeout),
            began: now.instant,
            is_reported: false,
        };
        for target in &deploy.targets {
            let at = SocketAddr::from(target.endpoint);
            // An endpoint that is probed already is probed once more, at once.
            if self.health.probe_now(at, now.instant) {
                continue;
            }
            if let Some(params) = params.clone() {
                let target = ProbeTarget {
                    params: hasty(params),
                    presumed: false,
                };
                self.health.upsert(at, target, now.instant);
            }
        }
        self.deploys.insert(id, deploy);
        self.tell_deploy(id, &new.service, DeployPhase::Probing.word(), None, now);
    }

    /// Returns this program as the author of a change without a client.
    pub(in crate::control::core) fn own(&self) -> ChangeAuthor {
        ChangeAuthor {
            uid: 0,
            pid: self.daemon().pid,
            what: "deploy".into(),
        }
    }
}

/// Shortens the interval of probes, since a client waits for the deploy.
fn hasty(params: model::HealthSettings) -> model::HealthSettings {
    model::HealthSettings {
        interval: Some(params.interval.map_or(HASTE, |interval| interval.min(HASTE))),
        ..params
    }
}
