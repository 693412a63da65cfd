//! Deploys: new backends are probed, the service is switched to them in one transaction, the old ones drain.
//!
//! Every step is written to the store before it is done, the switch together with the change of the service: a daemon
//! that dies leaves a deploy that either never happened or is finished by the next one.

mod commands;
mod steps;
mod view;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Core, Now};
use crate::control::events::EventContent;
use crate::control::membership::Membership;
use crate::control::name::Name;
use crate::control::reply::ReplySender;
use crate::control::request::Refused;
use crate::control::storage::UnfinishedDeploy;
use crate::store::{ChangeAuthor, DeployPhase, DeployStep};
use tcpgw_core::drain::Drain;
use tcpgw_core::model::{self, Backend, Edits, Endpoint, Word as _};

/// Maximum number of deploys under way.
pub(super) const MOST: usize = 1024;
/// Longest interval between probes of new backends until they answer; a service may ask for a shorter one.
const HASTE: Duration = Duration::from_millis(500);
/// Delay before a step is tried again that the store did not take.
const AGAIN: Duration = Duration::from_secs(2);

/// Step of a deploy that is being written.
pub(super) enum PendingStep {
    /// Begins the deploy.
    Begin(Box<StartingDeploy>, ReplySender<Result<u64, Refused>>),
    /// Switches the service; these backends are removed from it.
    Switch(u64, Vec<Backend>),
    /// Restores the old backends, with the reason.
    Restore(u64, String, ReplySender<Result<u64, Refused>>),
    /// Ends the deploy in this phase and for this reason; the service stays as it is.
    End(u64, DeployPhase, String, Option<ReplySender<Result<u64, Refused>>>),
}

/// A deploy that begins.
pub(super) struct StartingDeploy {
    service: Name,
    targets: Vec<Backend>,
    min: usize,
    timeout: Duration,
    drain: Option<Duration>,
    by: ChangeAuthor,
    /// Earlier deploys of the service that have ended, whose end is written together with this one.
    ends: Vec<u64>,
    /// Earlier deploys of the service that this one ends: they probe, or their end was not reported.
    supersedes: Vec<u64>,
}

/// A deploy that has not ended, or whose end the store does not know.
#[derive(Debug)]
pub(super) struct RunningDeploy {
    service: Name,
    targets: Vec<Backend>,
    min: usize,
    drain: Option<Duration>,
    by: ChangeAuthor,
    /// The service's backends before the switch.
    before: Vec<Backend>,
    stage: DeployStage,
    /// Time at which probes of the new backends began; only results of later probes count.
    began: Instant,
    /// Whether its end was reported, though the store does not know it.
    is_reported: bool,
}

impl RunningDeploy {
    /// Returns whether the switch is written, as far as is known.
    fn is_switched(&self) -> bool {
        match &self.stage {
            DeployStage::Switching | DeployStage::Switched | DeployStage::Left => true,
            DeployStage::Ending(phase, ..) => *phase == DeployPhase::Drained,
            DeployStage::Probing(_) => false,
        }
    }

    /// Returns the text about the old backends for the end of the deploy.
    fn words_at_end(&self) -> &'static str {
        if self.old().next().is_some() {
            "the old backends have left"
        } else if !self.before.is_empty() && self.before.len() == self.targets.len() {
            "nothing changed: these backends serve already"
        } else {
            "there were no other backends, so none had to leave"
        }
    }

    /// Returns the backends that the deploy replaces.
    fn old(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let old = self.before.iter().map(|backend| backend.endpoint);
        old.filter(|old| !self.targets.iter().any(|target| target.endpoint == *old))
    }
}

/// Steps that undo a deploy.
pub(super) enum Undo {
    /// Ends a deploy that still probes.
    End(u64),
    /// Gives the service its old backends again.
    Restore(u64, Edits),
}

/// Stage of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeployStage {
    /// The new backends are probed, until this time at most.
    Probing(Instant),
    /// The switch is written; the kernel does not hold it yet.
    Switching,
    /// The kernel holds the switch.
    Switched,
    /// The old backends have drained.
    Left,
    /// The deploy has ended; the store is told at this time or later. Callers are answered already.
    Ending(DeployPhase, String, Instant),
}

/// Progress of a deploy that a job of the kernel brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeployProgress {
    /// The old backends get no new connections.
    Switched,
    /// The old backends have drained.
    Left,
}

/// The deploys that have not ended.
#[derive(Debug, Default)]
pub(super) struct Deploys {
    live: BTreeMap<u64, RunningDeploy>,
    /// Deploys that probe an endpoint, by endpoint.
    asked: BTreeMap<Endpoint, BTreeSet<u64>>,
    /// Deploys to examine, since something has happened to them.
    to_examine: BTreeSet<u64>,
    times: BTreeSet<(Instant, u64)>,
    /// Whether a deploy was switched that the kernel may already hold.
    fresh: bool,
}

impl Deploys {
    /// Returns whether a deploy waits for probes of the endpoint.
    pub(super) fn asks(&self, endpoint: Endpoint) -> bool {
        self.asked.contains_key(&endpoint)
    }

    /// Returns the service of the first deploy that waits for probes of the endpoint.
    pub(super) fn service_of(&self, endpoint: Endpoint) -> Option<&Name> {
        let id = self.asked.get(&endpoint)?.first()?;
        self.live.get(id).map(|deploy| &deploy.service)
    }

    /// Marks the deploys to examine after a probe of the endpoint.
    pub(super) fn probed(&mut self, endpoint: Endpoint) {
        self.to_examine.extend(self.asked.get(&endpoint).into_iter().flatten());
    }

    /// Marks the deploys of a service to examine, since the service has changed.
    pub(super) fn service_changed(&mut self, service: &str) {
        let of = self.live.iter().filter(|(_, deploy)| *deploy.service == *service);
        self.to_examine.extend(of.map(|(id, _)| *id));
    }

    /// Returns the time of the next timeout or retry.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// Returns whether the progress of deploys has to be examined without a change of the membership, and resets that.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Returns the progress of each deploy once the kernel holds the present membership.
    pub(super) fn reached(&self, membership: &Membership) -> Vec<(u64, DeployProgress)> {
        let reached = self.live.iter().filter_map(|(id, deploy)| {
            let leaving = |endpoint| membership.draining_backends().get(&deploy.service, endpoint);
            let draining_backends = || deploy.old().filter_map(leaving);
            match deploy.stage {
                DeployStage::Switching if draining_backends().any(|leaving| leaving.drain == Drain::Serving) => None,
                DeployStage::Switching | DeployStage::Switched if draining_backends().next().is_none() => {
                    Some((*id, DeployProgress::Left))
                }
                DeployStage::Switching => Some((*id, DeployProgress::Switched)),
                DeployStage::Probing(_) | DeployStage::Switched | DeployStage::Left | DeployStage::Ending(..) => None,
            }
        });
        reached.collect()
    }

    fn insert(&mut self, id: u64, deploy: RunningDeploy) {
        if let DeployStage::Probing(at) | DeployStage::Ending(_, _, at) = deploy.stage {
            self.times.insert((at, id));
            self.to_examine.insert(id);
        }
        if let DeployStage::Probing(_) = deploy.stage {
            for target in &deploy.targets {
                self.asked.entry(target.endpoint).or_default().insert(id);
            }
        }
        self.live.insert(id, deploy);
    }

    fn remove(&mut self, id: u64) -> Option<RunningDeploy> {
        let deploy = self.live.remove(&id)?;
        if let DeployStage::Probing(at) | DeployStage::Ending(_, _, at) = deploy.stage {
            self.times.remove(&(at, id));
        }
        for target in &deploy.targets {
            if let Some(ids) = self.asked.get_mut(&target.endpoint) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.asked.remove(&target.endpoint);
                }
            }
        }
        Some(deploy)
    }

    /// Puts a deploy into another stage.
    fn set(&mut self, id: u64, stage: DeployStage) {
        if let Some(deploy) = self.remove(id) {
            self.insert(id, RunningDeploy { stage, ..deploy });
        }
    }

    /// Returns the deploys of a service whose end was reported but is not in the store.
    fn reported_of(&self, service: &str) -> Vec<u64> {
        let of = self.live.iter().filter(|(_, deploy)| *deploy.service == *service);
        let ended = of.filter(|(_, deploy)| deploy.is_reported && matches!(deploy.stage, DeployStage::Ending(..)));
        ended.map(|(id, _)| *id).collect()
    }

    /// Returns the deploys of a service that prevent another one: they probe, or their end was not reported yet.
    fn in_the_way(&self, service: &str) -> Vec<u64> {
        let of = self.live.iter().filter(|(_, deploy)| *deploy.service == *service);
        let blocks = of.filter(|(_, deploy)| match deploy.stage {
            DeployStage::Probing(_) => true,
            DeployStage::Ending(..) => !deploy.is_reported,
            DeployStage::Switching | DeployStage::Switched | DeployStage::Left => false,
        });
        blocks.map(|(id, _)| *id).collect()
    }

    /// Returns the step that ends a deploy in the store, if it ends.
    fn end_of(&self, id: u64) -> Option<DeployStep> {
        match &self.live.get(&id)?.stage {
            DeployStage::Ending(phase, reason, _) => Some(DeployStep {
                id,
                phase: *phase,
                reason: Some(reason.clone()),
            }),
            _ => None,
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some((at, id)) = self.times.first().copied().filter(|(at, _)| *at <= now) {
            self.times.remove(&(at, id));
            self.to_examine.insert(id);
        }
    }

    /// Returns the last deploy of a service whose end was not reported.
    fn last_of(&self, service: &str) -> Option<u64> {
        let is_live = |deploy: &RunningDeploy| *deploy.service == *service && !deploy.is_reported;
        let mut of = self.live.iter().rev().filter(|(_, deploy)| is_live(deploy));
        of.next().map(|(id, _)| *id)
    }
}

impl Core {
    /// Continues deploys that an earlier daemon has not finished.
    pub(super) fn take_up(&mut self, unfinished: Vec<UnfinishedDeploy>, now: Now) {
        for UnfinishedDeploy { deploy, before } in unfinished {
            let stage = if deploy.phase == DeployPhase::Switched {
                DeployStage::Switching
            } else {
                let reason = "the daemon ended while it probed the new backends; nothing was switched";
                DeployStage::Ending(DeployPhase::Undone, reason.into(), now.instant)
            };
            let drain = deploy.details["drain_timeout"].as_str();
            let drain = drain.and_then(|text| model::duration::parse(text).ok());
            if let Some(time) = drain.filter(|_| stage == DeployStage::Switching) {
                self.membership.drain_within(&deploy.service, time);
            }
            let resumed = RunningDeploy {
                service: deploy.service.into(),
                targets: deploy.targets.iter().copied().map(Backend::active).collect(),
                min: deploy.targets.len(),
                drain,
                by: ChangeAuthor {
                    uid: deploy.uid,
                    pid: deploy.pid,
                    what: deploy.what,
                },
                before: before.map(|service| service.backends).unwrap_or_default(),
                stage,
                began: now.instant,
                is_reported: false,
            };
            self.deploys.remove(deploy.id);
            self.deploys.fresh = true;
            self.deploys.insert(deploy.id, resumed);
        }
    }

    /// Compares deploys with those of the store after it has failed: a step that failed may have been made all the
    /// same.
    pub(super) fn compare_deploys(&mut self, unfinished: Vec<UnfinishedDeploy>, now: Now) {
        let known: BTreeSet<u64> = unfinished.iter().map(|unfinished| unfinished.deploy.id).collect();
        let over: Vec<u64> = self
            .deploys
            .live
            .keys()
            .filter(|id| !known.contains(id))
            .copied()
            .collect();
        for id in over {
            self.forget(id);
        }
        let differs = |unfinished: &UnfinishedDeploy| {
            let UnfinishedDeploy { deploy, .. } = unfinished;
            let live = self.deploys.live.get(&deploy.id);
            live.is_none_or(|live| deploy.phase == DeployPhase::Switched && !live.is_switched())
        };
        let others = unfinished.into_iter().filter(differs).collect();
        self.take_up(others, now);
    }

    /// Removes a deploy. Endpoints that only it probed are probed no more.
    fn forget(&mut self, id: u64) -> Option<RunningDeploy> {
        let deploy = self.deploys.remove(id)?;
        for target in &deploy.targets {
            let endpoint = target.endpoint;
            if self.membership.services_of(endpoint).is_empty() && !self.deploys.asks(endpoint) {
                self.since.remove(&endpoint.into());
                self.health.remove(endpoint.into());
            }
        }
        Some(deploy)
    }

    /// Ends a deploy whose outcome the store cannot record yet. Callers are answered at once and the outcome is
    /// written later; a daemon that takes over before that ends the deploy in the same way.
    fn decided(&mut self, id: u64, phase: DeployPhase, reason: &str, now: Now) {
        let Some(deploy) = self.deploys.live.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut deploy.is_reported, true) {
            return;
        }
        let service = deploy.service.clone();
        self.tell_deploy(id, &service, phase.word(), Some(reason.to_owned()), now);
    }

    /// Records the progress of deploys after a job of the kernel.
    pub(super) fn reach(&mut self, reached: Vec<(u64, DeployProgress)>, now: Now) {
        for (id, reached) in reached {
            let Some(deploy) = self.deploys.live.get_mut(&id) else {
                continue;
            };
            let service = deploy.service.clone();
            if deploy.stage == DeployStage::Switching {
                deploy.stage = DeployStage::Switched;
                self.tell_deploy(id, &service, DeployPhase::Switched.word(), None, now);
            }
            if reached == DeployProgress::Left {
                self.deploys.set(id, DeployStage::Left);
                self.deploys.to_examine.insert(id);
            }
        }
    }

    /// Ends all deploys because everything was torn down.
    pub(super) fn end_deploys(&mut self, now: Now) {
        let ids: Vec<u64> = self.deploys.live.keys().copied().collect();
        for id in ids {
            let stage = self.deploys.live.get(&id).map(|deploy| deploy.stage.clone());
            let phase = match stage {
                Some(DeployStage::Probing(_)) => DeployPhase::Undone,
                Some(DeployStage::Switching | DeployStage::Switched) => DeployPhase::Drained,
                _ => continue,
            };
            self.deploys.set(
                id,
                DeployStage::Ending(phase, "everything was torn down".into(), now.instant),
            );
        }
    }

    pub(super) fn tell_deploy(
        &mut self,
        id: u64,
        service: &str,
        phase: &'static str,
        reason: Option<String>,
        now: Now,
    ) {
        self.own.deployed(phase);
        let service = service.to_owned();
        let what = EventContent::Deploy {
            id,
            service,
            phase,
            reason,
        };
        self.note(what, now);
    }
}
