//! Orders that begin a deploy, or take one back.
use std::sync::Arc;

use serde_json::{Value, json};

use super::{DeployStage, MOST, PendingStep, StartingDeploy, Undo};
use crate::control::core::acceptance::{GatewayCheck, JudgementError, ProviderSize};
use crate::control::core::edits::missing;
use crate::control::core::order::{Order, Undecided, by};
use crate::control::core::pending_write::{OnWritten, PendingWrite};
use crate::control::core::{Core, DaemonPhase, Now, Provider};
use crate::control::reply::ReplySender;
use crate::control::request::{ApplyOptions, DeployOrder, DeploySelector, Peer, Refused, UndoOrder};
use crate::control::storage::Write;
use crate::store::{DeployPhase, DeployStep, NewDeploy};
use tcpgw_core::model::{self, BackendState, Edits, InputProblem, InputProblems, Service};

/// Option that supersedes a deploy under way.
const SUPERSEDE: &str = "--supersede of `tcpgw deploy`";

impl Core {
    pub(in crate::control::core) fn take_deploy(
        &mut self,
        order: DeployOrder,
        reply: ReplySender<Result<u64, Refused>>,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let judged = self.judges_singly().map_err(JudgementError::from);
        let new = match judged.and_then(|()| self.judge_deploy(&order, vet)) {
            Ok(new) => new,
            Err(JudgementError::Pending) => return Err(Undecided(Box::new(Order::Deploy(order, reply)))),
            // The client may have disconnected.
            Err(JudgementError::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let ends = new.ends.iter().filter_map(|id| self.deploys.end_of(*id)).collect();
        let stored = NewDeploy {
            service: new.service.clone(),
            targets: new.targets.iter().map(|target| target.endpoint).collect(),
            details: json!({
                "min": new.min,
                "timeout": model::duration::show(new.timeout),
                "drain_timeout": new.drain.map(model::duration::show),
            }),
            ends,
            supersedes: new.supersedes.clone(),
        };
        let by = new.by.clone();
        self.order_queue.accepted = vec![PendingWrite::step(PendingStep::Begin(Box::new(new), reply))];
        Ok(Some(Write::Begin(stored, by, now.unix)))
    }

    fn judge_deploy(&self, order: &DeployOrder, vet: &mut GatewayCheck<'_>) -> Result<StartingDeploy, JudgementError> {
        let (service, min) = self.judge_targets(order)?;
        let targets = service.backends.clone();
        let edits = Edits {
            put: vec![Arc::new(service)],
            gone: Vec::new(),
        };
        let size = ProviderSize {
            provider: Provider::Api,
            before: 1,
            after: 1,
        };
        for warning in self.judge(&edits, size, ApplyOptions::default(), vet)?.warnings {
            tracing::warn!("{warning}");
        }
        Ok(StartingDeploy {
            service: order.service.clone(),
            targets,
            min,
            timeout: order.timeout,
            drain: order.drain,
            by: by(order.by, "deploy"),
            ends: self.deploys.reported_of(&order.service),
            supersedes: self.deploys.in_the_way(&order.service),
        })
    }

    /// Returns the service with its targets alone, and the number of targets that have to answer.
    fn judge_targets(&self, order: &DeployOrder) -> Result<(Service, usize), Refused> {
        let name = &order.service;
        self.judge_owner(name, Provider::Api)?;
        self.judge_suspended(name)?;
        if self.phase == DaemonPhase::TornDown {
            return Err(Refused::Refused(crate::control::core::TORN_DOWN.into()));
        }
        if self.orphans.get(name).is_some() {
            return Err(Refused::Refused(format!(
                "service \"{name}\" is an orphan, which no provider defines: define it anew first, with `tcpgw service set {name}` or \
                 `tcpgw apply`"
            )));
        }
        let current = self.api.get(name).ok_or_else(|| missing(name))?;
        if let Some(id) = self.deploys.in_the_way(name).first().filter(|_| !order.supersede) {
            return Err(Refused::Refused(format!(
                "deploy {id} of service \"{name}\" is under way; wait for it, take it back with `tcpgw rollback {name}`, or let this one \
                 supersede it ({SUPERSEDE})"
            )));
        }
        if self.deploys.live.len() >= MOST {
            return Err(Refused::Refused(format!(
                "{MOST} deploys are under way, and no more are accepted at once; wait until one of them has ended (`tcpgw deploys`)"
            )));
        }
        let service = with_targets(&current.service, &order.targets).map_err(Refused::Invalid)?;
        let min = order.min.unwrap_or(service.backends.len());
        if min == 0 || min > service.backends.len() {
            let message = format!(
                "is {min}; 1 to {} (the number of targets) are accepted",
                service.backends.len()
            );
            let place = "min".into();
            return Err(Refused::Invalid(
                [InputProblem { place, message }].into_iter().collect(),
            ));
        }
        Ok((service, min))
    }

    pub(in crate::control::core) fn take_undo(
        &mut self,
        order: &UndoOrder,
        reply: ReplySender<Result<u64, Refused>>,
        now: Now,
    ) -> Option<Write> {
        match self.judges_singly().and_then(|()| self.judge_undo(order)) {
            Ok(Undo::End(id)) => Some(self.end(id, DeployPhase::Undone, asked_by(order.by), Some(reply), now)),
            Ok(Undo::Restore(id, edits)) => {
                let reason = asked_by(order.by);
                let mut change = self.api.change(&edits);
                change.deploy = Some(DeployStep {
                    id,
                    phase: DeployPhase::Undone,
                    reason: Some(reason.clone()),
                });
                self.order_queue.accepted = vec![PendingWrite {
                    edits,
                    cause: format!("deploy {id} is taken back"),
                    drain: None,
                    warnings: Vec::new(),
                    obstacles: std::collections::BTreeMap::new(),
                    then: OnWritten::Deploy(PendingStep::Restore(id, reason, reply)),
                }];
                Some(Write::Change(change, by(order.by, "rollback"), now.unix))
            }
            Err(refused) => {
                drop(reply.send(Err(refused)));
                None
            }
        }
    }

    fn judge_undo(&self, order: &UndoOrder) -> Result<Undo, Refused> {
        let id = match &order.which {
            DeploySelector::Id(id) => *id,
            DeploySelector::Last(service) => {
                self.judge_owner(service, Provider::Api)?;
                self.api.get(service).ok_or_else(|| missing(service))?;
                self.deploys.last_of(service).ok_or_else(|| {
                    Refused::Refused(format!(
                        "no deploy of service \"{service}\" is under way, so that none can be undone: `tcpgw history {service}` \
                         shows what changed; deploy the backends that it had anew"
                    ))
                })?
            }
        };
        let over = || {
            Refused::Refused(format!(
                "deploy {id} has ended or does not exist: see `tcpgw deploys {id}`"
            ))
        };
        let deploy = self.deploys.live.get(&id).ok_or_else(over)?;
        match deploy.stage {
            DeployStage::Probing(_) => return Ok(Undo::End(id)),
            DeployStage::Left | DeployStage::Ending(..) => return Err(over()),
            DeployStage::Switching | DeployStage::Switched => {}
        }
        let service = &deploy.service;
        if let Some(later) = self.deploys.last_of(service).filter(|last| *last != id) {
            return Err(Refused::Refused(format!(
                "deploy {later} of service \"{service}\" came after deploy {id}; take that one back first"
            )));
        }
        let current = &self.api.get(service).ok_or_else(|| missing(service))?.service;
        if deploy.before.is_empty() {
            return Err(Refused::Refused(format!(
                "service \"{service}\" had no other backends before deploy {id}: there is nothing to go back to"
            )));
        }
        let service = Arc::new(Service {
            backends: deploy.before.clone(),
            ..Service::clone(current)
        });
        let edits = Edits {
            put: vec![service],
            gone: Vec::new(),
        };
        self.judge_change(&edits, false)?;
        Ok(Undo::Restore(id, edits))
    }
}

fn asked_by(peer: Peer) -> String {
    format!("asked for by {}", peer.author())
}

/// Returns the service with these backends.
fn with_targets(service: &Service, targets: &[Value]) -> Result<Service, InputProblems> {
    let problem = |message: &str| InputProblem {
        place: "targets".into(),
        message: message.into(),
    };
    if targets.is_empty() {
        return Err([problem("are missing: at least one new backend is needed")]
            .into_iter()
            .collect());
    }
    let patch = json!({"backends": targets}).to_string();
    let renamed = |problems: InputProblems| -> InputProblems {
        let problems = problems.iter().map(|problem| InputProblem {
            place: problem.place.replacen("backends", "targets", 1),
            message: problem.message.replace("backends[", "targets["),
        });
        problems.collect()
    };
    let service = model::patch_service(service, patch.as_bytes()).map_err(renamed)?;
    if service
        .backends
        .iter()
        .any(|backend| backend.state != BackendState::Active)
    {
        return Err([problem("must all be active: a draining backend cannot be a target")]
            .into_iter()
            .collect());
    }
    Ok(service)
}
