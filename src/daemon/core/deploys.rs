//! Deploys: new backends are probed, the service is switched to them in one transaction, the old ones drain.
//!
//! Every step is written to the store before it is done, the switch together with the change of the service: a daemon that
//! dies leaves a deploy that either never happened or is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::orders::{Accepted, Then, by, missing, refused};
use super::take::{Standing, Vet};
use super::{Core, Now, Phase, Provider, Wants};
use crate::daemon::ask::{ApplyOptions, DeployOrder, DeployView, Peer, Refused, Reply, TargetView, UndoOrder, Which};
use crate::daemon::events::What;
use crate::daemon::keeper::{Unfinished, Write};
use crate::daemon::roster::{Name, Roster};
use crate::drain::Drain;
use crate::health::{self, State, Target};
use crate::model::{self, Backend, BackendState, Edits, Endpoint, Problem, Problems, Service, Word};
use crate::store::{By, DeployStep, NewDeploy, Phase as Stored, StoreError};

/// Deploys that may be under way.
const MOST: usize = 1024;
/// New backends are probed so often until they answer, unless their service asks for more.
const HASTE: Duration = Duration::from_millis(500);
/// A step that the store did not take is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// A step that is being written.
pub(super) enum Step {
    /// It begins.
    Begin(Box<New>, Reply<Result<u64, Refused>>),
    /// The service has these backends no more.
    Switch(u64, Vec<Backend>),
    /// The service is as it was before.
    Restore(u64, String, Reply<Result<u64, Refused>>),
    /// It is over, and the service stays as it is.
    End(u64, Stored, String, Option<Reply<Result<u64, Refused>>>),
}

/// One that begins.
pub(super) struct New {
    service: Name,
    targets: Vec<Backend>,
    min: usize,
    timeout: Duration,
    drain: Option<Duration>,
    by: By,
}

/// One that is not over.
#[derive(Debug)]
struct Deploy {
    service: Name,
    targets: Vec<Backend>,
    min: usize,
    drain: Option<Duration>,
    by: By,
    /// The service's backends before the switch.
    before: Vec<Backend>,
    stage: Stage,
}

impl Deploy {
    /// Whether its switch is written, as far as is known.
    fn is_switched(&self) -> bool {
        match &self.stage {
            Stage::Switching | Stage::Switched | Stage::Left => true,
            Stage::Ending(phase, ..) => *phase == Stored::Drained,
            Stage::Probing(_) => false,
        }
    }

    /// Who leaves by it.
    fn old(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let old = self.before.iter().map(|backend| backend.endpoint);
        old.filter(|old| !self.targets.iter().any(|target| target.endpoint == *old))
    }
}

/// What taking one back comes to.
enum Undo {
    /// It probes still.
    End(u64),
    /// The service gets its old backends again.
    Restore(u64, Edits),
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The new backends are asked, at most until then.
    Probing(Instant),
    /// Decided and written; the kernel does not hold it yet.
    Switching,
    /// The kernel has it.
    Switched,
    /// The old ones have left.
    Left,
    /// It is over, and the store is to be told, not before then.
    Ending(Stored, String, Instant),
}

/// What the kernel will hold of a deploy once a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The old ones get no new connections.
    Switched,
    /// They have left.
    Left,
}

/// Those that are not over.
#[derive(Debug, Default)]
pub(super) struct Deploys {
    live: BTreeMap<u64, Deploy>,
    /// Who is asked for whom.
    asked: BTreeMap<Endpoint, BTreeSet<u64>>,
    /// Something has happened to these.
    look: BTreeSet<u64>,
    times: BTreeSet<(Instant, u64)>,
    /// One has been switched, and the roster may hold that already.
    fresh: bool,
}

impl Deploys {
    /// Whether somebody waits for an answer of that endpoint.
    pub(super) fn asks(&self, endpoint: Endpoint) -> bool {
        self.asked.contains_key(&endpoint)
    }

    /// The service that an endpoint shall belong to.
    pub(super) fn service_of(&self, endpoint: Endpoint) -> Option<&Name> {
        let id = self.asked.get(&endpoint)?.first()?;
        self.live.get(id).map(|deploy| &deploy.service)
    }

    /// Probes say something else of an endpoint.
    pub(super) fn probed(&mut self, endpoint: Endpoint) {
        self.look.extend(self.asked.get(&endpoint).into_iter().flatten());
    }

    /// When something is due that nobody tells.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// Whether what the roster says has to be looked at though it says nothing new.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// What the kernel holds of each, once it holds what the roster says.
    pub(super) fn reached(&self, roster: &Roster) -> Vec<(u64, Reached)> {
        let reached = self.live.iter().filter_map(|(id, deploy)| {
            let leavers = || deploy.old().filter_map(|endpoint| roster.leavers().get(endpoint));
            match deploy.stage {
                Stage::Switching if leavers().any(|leaving| leaving.drain == Drain::Serving) => None,
                Stage::Switching | Stage::Switched if leavers().next().is_none() => Some((*id, Reached::Left)),
                Stage::Switching => Some((*id, Reached::Switched)),
                Stage::Probing(_) | Stage::Switched | Stage::Left | Stage::Ending(..) => None,
            }
        });
        reached.collect()
    }

    fn insert(&mut self, id: u64, deploy: Deploy) {
        if let Stage::Probing(at) | Stage::Ending(_, _, at) = deploy.stage {
            self.times.insert((at, id));
            self.look.insert(id);
        }
        if let Stage::Probing(_) = deploy.stage {
            for target in &deploy.targets {
                self.asked.entry(target.endpoint).or_default().insert(id);
            }
        }
        self.live.insert(id, deploy);
    }

    fn remove(&mut self, id: u64) -> Option<Deploy> {
        let deploy = self.live.remove(&id)?;
        if let Stage::Probing(at) | Stage::Ending(_, _, at) = deploy.stage {
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

    /// Puts it into another stage.
    fn set(&mut self, id: u64, stage: Stage) {
        if let Some(deploy) = self.remove(id) {
            self.insert(id, Deploy { stage, ..deploy });
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some((at, id)) = self.times.first().copied().filter(|(at, _)| *at <= now) {
            self.times.remove(&(at, id));
            self.look.insert(id);
        }
    }

    fn last_of(&self, service: &str) -> Option<u64> {
        let mut of = self.live.iter().rev().filter(|(_, deploy)| *deploy.service == *service);
        of.next().map(|(id, _)| *id)
    }
}

impl Core {
    /// Deploys that a daemon before this one has not finished.
    pub(super) fn take_up(&mut self, unfinished: Vec<Unfinished>, now: Now) {
        for Unfinished { deploy, before } in unfinished {
            let stage = if deploy.phase == Stored::Switched {
                Stage::Switching
            } else {
                let reason = "the daemon ended while it probed the new backends; nothing was switched";
                Stage::Ending(Stored::Undone, reason.into(), now.instant)
            };
            let drain = deploy.details["drain_timeout"].as_str();
            let drain = drain.and_then(|text| model::duration::parse(text).ok());
            if let Some(time) = drain.filter(|_| stage == Stage::Switching) {
                self.roster.drain_within(&deploy.service, time);
            }
            let resumed = Deploy {
                service: deploy.service.into(),
                targets: deploy.targets.iter().copied().map(Backend::active).collect(),
                min: deploy.targets.len(),
                drain,
                by: By {
                    uid: deploy.uid,
                    pid: deploy.pid,
                    what: deploy.what,
                },
                before: before.map(|service| service.backends).unwrap_or_default(),
                stage,
            };
            self.deploys.remove(deploy.id);
            self.deploys.fresh = true;
            self.deploys.insert(deploy.id, resumed);
        }
    }

    /// What the store says of deploys after it has failed: a step that failed may have been made all the same.
    pub(super) fn compare_deploys(&mut self, unfinished: Vec<Unfinished>, now: Now) {
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
        let differs = |unfinished: &Unfinished| {
            let Unfinished { deploy, .. } = unfinished;
            let live = self.deploys.live.get(&deploy.id);
            live.is_none_or(|live| deploy.phase == Stored::Switched && !live.is_switched())
        };
        let others = unfinished.into_iter().filter(differs).collect();
        self.take_up(others, now);
    }

    pub(super) fn take_deploy(
        &mut self,
        order: DeployOrder,
        reply: Reply<Result<u64, Refused>>,
        vet: &mut Vet<'_>,
        now: Now,
    ) -> Option<Write> {
        let new = match self.judges_singly().and_then(|()| self.judge_deploy(order, vet)) {
            Ok(new) => new,
            // Whoever asked may be gone.
            Err(refused) => {
                drop(reply.send(Err(refused)));
                return None;
            }
        };
        let stored = NewDeploy {
            service: new.service.clone(),
            targets: new.targets.iter().map(|target| target.endpoint).collect(),
            details: json!({
                "min": new.min,
                "timeout": model::duration::show(new.timeout),
                "drain_timeout": new.drain.map(model::duration::show),
            }),
        };
        let by = new.by.clone();
        self.desk.accepted = Some(Accepted::step(Step::Begin(Box::new(new), reply)));
        Some(Write::Begin(stored, by, now.unix))
    }

    fn judge_deploy(&self, order: DeployOrder, vet: &mut Vet<'_>) -> Result<New, Refused> {
        let name = order.service;
        self.judge_owner(&name, Provider::Api)?;
        let current = self.api.get(&name).ok_or_else(|| missing(&name))?;
        let mut under_way = self.deploys.live.iter().filter(|(_, deploy)| deploy.service == name);
        let probes = |deploy: &Deploy| matches!(deploy.stage, Stage::Probing(_) | Stage::Ending(..));
        if let Some((id, _)) = under_way.find(|(_, deploy)| probes(deploy)) {
            return Err(Refused::Refused(format!(
                "deploy {id} of service \"{name}\" is under way; wait for it, or take it back with `tcpgw rollback {name}`"
            )));
        }
        if self.deploys.live.len() >= MOST {
            return Err(Refused::Refused(format!(
                "{MOST} deploys are under way; wait for one of them"
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
            return Err(Refused::Invalid([Problem { place, message }].into_iter().collect()));
        }
        let targets = service.backends.clone();
        let edits = Edits {
            put: vec![Arc::new(service)],
            gone: Vec::new(),
        };
        let standing = Standing {
            provider: Provider::Api,
            before: 1,
            after: 1,
        };
        for warning in self.judge(&edits, standing, ApplyOptions::default(), vet)? {
            tracing::warn!("{warning}");
        }
        Ok(New {
            service: name,
            targets,
            min,
            timeout: order.timeout,
            drain: order.drain,
            by: by(order.by, "deploy"),
        })
    }

    pub(super) fn take_undo(
        &mut self,
        order: &UndoOrder,
        reply: Reply<Result<u64, Refused>>,
        now: Now,
    ) -> Option<Write> {
        match self.judges_singly().and_then(|()| self.judge_undo(order)) {
            Ok(Undo::End(id)) => Some(self.end(id, Stored::Undone, asked_by(order.by), Some(reply), now)),
            Ok(Undo::Restore(id, edits)) => {
                let reason = asked_by(order.by);
                let mut change = self.api.change(&edits);
                change.deploy = Some(DeployStep {
                    id,
                    phase: Stored::Undone,
                    reason: Some(reason.clone()),
                });
                self.desk.accepted = Some(Accepted {
                    edits,
                    cause: format!("deploy {id} is taken back"),
                    drain: None,
                    warnings: Vec::new(),
                    then: Then::Deploy(Step::Restore(id, reason, reply)),
                });
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
            Which::Id(id) => *id,
            Which::Last(service) => {
                self.judge_owner(service, Provider::Api)?;
                self.api.get(service).ok_or_else(|| missing(service))?;
                self.deploys.last_of(service).ok_or_else(|| {
                    Refused::Refused(format!(
                        "no deploy of service \"{service}\" is under way: its old backends have left; deploy them anew"
                    ))
                })?
            }
        };
        let over = || {
            Refused::Refused(format!(
                "deploy {id} is over, or there is none: see `tcpgw deploys {id}`"
            ))
        };
        let deploy = self.deploys.live.get(&id).ok_or_else(over)?;
        match deploy.stage {
            Stage::Probing(_) => return Ok(Undo::End(id)),
            Stage::Left | Stage::Ending(..) => return Err(over()),
            Stage::Switching | Stage::Switched => {}
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
        self.judge_books(&edits, Provider::Api)?;
        Ok(Undo::Restore(id, edits))
    }

    /// What is to be written of deploys now.
    pub(super) fn next_step(&mut self, now: Now) -> Option<Write> {
        if matches!(self.phase, Phase::Waiting | Phase::Looking) {
            return None;
        }
        self.deploys.tick(now.instant);
        while let Some(id) = self.deploys.look.pop_first() {
            let write = match self.deploys.live.get(&id).map(|deploy| deploy.stage.clone()) {
                Some(Stage::Probing(deadline)) => self.probing(id, deadline, now),
                Some(Stage::Left) => {
                    let reason = "the old backends have left".into();
                    Some(self.end(id, Stored::Drained, reason, None, now))
                }
                Some(Stage::Ending(phase, reason, at)) if at <= now.instant => {
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

    /// One whose new backends are asked: whether enough have answered.
    fn probing(&mut self, id: u64, deadline: Instant, now: Now) -> Option<Write> {
        let deploy = self.deploys.live.get(&id)?;
        let views = deploy
            .targets
            .iter()
            .map(|target| (target, self.health.get(target.endpoint.into())));
        let has_answered = |view: &Option<health::View>| {
            view.is_some_and(|view| matches!(view.state, State::Healthy | State::Failing { .. }))
        };
        let (good, bad): (Vec<_>, Vec<_>) = views.partition(|(_, view)| has_answered(view));
        if good.len() >= deploy.min {
            return Some(self.switch(id, now));
        }
        if deadline > now.instant {
            return None;
        }
        let bad = bad.into_iter().map(|(target, view)| {
            let last = view.and_then(|view| view.last);
            format!(
                "{} ({})",
                target.endpoint,
                last.map_or("not asked yet".into(), |last| last.to_string())
            )
        });
        let bad: Vec<String> = bad.collect();
        let wanted = if deploy.min == deploy.targets.len() {
            String::new()
        } else {
            format!("; {} of {} were wanted", deploy.min, deploy.targets.len())
        };
        let reason = format!("not answered in time: {}{wanted}; nothing was switched", bad.join(", "));
        Some(self.end(id, Stored::Failed, reason, None, now))
    }

    /// Enough have answered: the service gets its new backends, if it still may.
    fn switch(&mut self, id: u64, now: Now) -> Write {
        let (edits, before) = match self.switched(id) {
            Ok(switched) => switched,
            Err(refused) => {
                let reason = format!("{}; nothing was switched", refused.lines().join("; "));
                return self.end(id, Stored::Failed, reason, None, now);
            }
        };
        let mut change = self.api.change(&edits);
        change.deploy = Some(DeployStep {
            id,
            phase: Stored::Switched,
            reason: None,
        });
        let (service, drain, by) = match self.deploys.live.get(&id) {
            Some(deploy) => (&*deploy.service, deploy.drain, deploy.by.clone()),
            None => ("", None, self.own()),
        };
        self.desk.accepted = Some(Accepted {
            edits,
            cause: format!("deploy {id} of {service}"),
            drain,
            warnings: Vec::new(),
            then: Then::Deploy(Step::Switch(id, before)),
        });
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
        self.judge_books(&edits, Provider::Api)?;
        Ok((edits, before))
    }

    /// It is over, once that is written.
    fn end(
        &mut self,
        id: u64,
        phase: Stored,
        reason: String,
        reply: Option<Reply<Result<u64, Refused>>>,
        now: Now,
    ) -> Write {
        self.deploys
            .set(id, Stage::Ending(phase, reason.clone(), now.instant + AGAIN));
        let step = DeployStep {
            id,
            phase,
            reason: Some(reason.clone()),
        };
        self.desk.accepted = Some(Accepted::step(Step::End(id, phase, reason, reply)));
        Write::Step(step, now.unix)
    }

    /// A step is on the disk.
    pub(super) fn stepped(&mut self, step: Step, now: Now) -> Option<Wants> {
        match step {
            Step::Begin(new, reply) => {
                let id = self.desk.began.take().unwrap_or_default();
                self.begun(id, *new, now);
                drop(reply.send(Ok(id)));
            }
            Step::Switch(id, before) => {
                self.deploys.fresh = true;
                let deploy = self.deploys.remove(id)?;
                let stage = Stage::Switching;
                self.deploys.insert(
                    id,
                    Deploy {
                        before,
                        stage,
                        ..deploy
                    },
                );
            }
            Step::Restore(id, reason, reply) => {
                let deploy = self.deploys.remove(id);
                let service = deploy.map(|deploy| deploy.service).unwrap_or_default();
                return Some(Wants::Restored {
                    id,
                    service,
                    reason,
                    reply,
                });
            }
            Step::End(id, phase, reason, reply) => {
                let service = self.forget(id);
                self.tell_deploy(id, &service, phase.word(), Some(reason), now);
                drop(reply.map(|reply| reply.send(Ok(id))));
            }
        }
        None
    }

    /// The store did not take a step.
    pub(super) fn step_failed(&mut self, step: Step, error: &StoreError, now: Now) {
        let again = now.instant + AGAIN;
        match step {
            Step::Begin(_, reply) | Step::Restore(_, _, reply) => drop(reply.send(Err(refused(error)))),
            Step::Switch(id, _) => {
                let reason = format!("{error}; nothing was switched");
                tracing::error!(id, "deploy: {reason}");
                self.deploys.set(id, Stage::Ending(Stored::Failed, reason, again));
            }
            Step::End(id, _, _, reply) => {
                // Another error is gone at some time, and until then it is tried again.
                if matches!(error, StoreError::Phase { .. } | StoreError::NoDeploy(_)) {
                    self.forget(id);
                }
                drop(reply.map(|reply| reply.send(Err(refused(error)))));
            }
        }
    }

    fn begun(&mut self, id: u64, new: New, now: Now) {
        let params = self.api.get(&new.service).map(|stored| stored.service.health);
        let deploy = Deploy {
            service: new.service.clone(),
            targets: new.targets,
            min: new.min,
            drain: new.drain,
            by: new.by,
            before: Vec::new(),
            stage: Stage::Probing(now.instant + new.timeout),
        };
        for target in &deploy.targets {
            let at = SocketAddr::from(target.endpoint);
            // Who is probed already is asked once more, at once.
            if self.health.probe_now(at, now.instant) {
                continue;
            }
            if let Some(params) = params {
                let target = Target {
                    params: hasty(params),
                    presumed: false,
                };
                self.health.upsert(at, target, now.instant);
            }
        }
        self.deploys.insert(id, deploy);
        self.tell_deploy(id, &new.service, Stored::Probing.word(), None, now);
    }

    /// It is over: who was asked for it alone is asked no more.
    fn forget(&mut self, id: u64) -> Name {
        let Some(deploy) = self.deploys.remove(id) else {
            return Name::default();
        };
        for target in &deploy.targets {
            let endpoint = target.endpoint;
            if self.roster.service_of(endpoint).is_none() && !self.deploys.asks(endpoint) {
                self.since.remove(&endpoint.into());
                self.health.remove(endpoint.into());
            }
        }
        deploy.service
    }

    /// The kernel holds what the roster said when this was asked of it.
    pub(super) fn reach(&mut self, reached: Vec<(u64, Reached)>, now: Now) {
        for (id, reached) in reached {
            let Some(deploy) = self.deploys.live.get_mut(&id) else {
                continue;
            };
            let service = deploy.service.clone();
            if deploy.stage == Stage::Switching {
                deploy.stage = Stage::Switched;
                self.tell_deploy(id, &service, Stored::Switched.word(), None, now);
            }
            if reached == Reached::Left {
                self.deploys.set(id, Stage::Left);
                self.deploys.look.insert(id);
            }
        }
    }

    /// Everything was torn down: nothing is probed, and nothing drains.
    pub(super) fn end_deploys(&mut self, now: Now) {
        let ids: Vec<u64> = self.deploys.live.keys().copied().collect();
        for id in ids {
            let stage = self.deploys.live.get(&id).map(|deploy| deploy.stage.clone());
            let phase = match stage {
                Some(Stage::Probing(_)) => Stored::Undone,
                Some(Stage::Switching | Stage::Switched) => Stored::Drained,
                _ => continue,
            };
            self.deploys
                .set(id, Stage::Ending(phase, "everything was torn down".into(), now.instant));
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
        let service = service.to_owned();
        let what = What::Deploy {
            id,
            service,
            phase,
            reason,
        };
        self.note(what, now);
    }

    /// The deploys that are not over.
    pub fn deploys(&self, now: Now) -> Vec<DeployView> {
        self.deploys
            .live
            .keys()
            .filter_map(|id| self.deploy(*id, now))
            .collect()
    }

    /// The last deploy of a service, if it is not over.
    pub(super) fn deploy_of(&self, service: &str, now: Now) -> Option<DeployView> {
        self.deploy(self.deploys.last_of(service)?, now)
    }

    fn deploy(&self, id: u64, now: Now) -> Option<DeployView> {
        let deploy = self.deploys.live.get(&id)?;
        let targets = deploy.targets.iter().map(|target| {
            let view = self.health.get(target.endpoint.into());
            TargetView {
                backend: target.endpoint.into(),
                health: view.map_or("unknown", |view| view.state.name()),
                reason: view.and_then(|view| super::answer::reason(view.last)),
            }
        });
        let old: Vec<Endpoint> = deploy.old().collect();
        let leaving = old.iter().filter_map(|endpoint| self.roster.leavers().get(*endpoint));
        let leaving: Vec<Drain> = leaving.map(|leaving| leaving.drain).collect();
        let deadline = match deploy.stage {
            Stage::Probing(at) => Some(at),
            _ => leaving.iter().filter_map(|drain| drain.deadline()).max(),
        };
        let flows = leaving.iter().map(|drain| drain.flows()).sum::<Option<u64>>();
        let is_past = matches!(deploy.stage, Stage::Switched | Stage::Left);
        Some(DeployView {
            id,
            service: deploy.service.to_string(),
            phase: match deploy.stage {
                Stage::Probing(_) => "probing",
                Stage::Switching => "switching",
                Stage::Switched | Stage::Left => "switched",
                Stage::Ending(..) => "ending",
            },
            targets: targets.collect(),
            left: if is_past { old.len() - leaving.len() } else { 0 },
            old: old.into_iter().map(SocketAddr::from).collect(),
            flows: flows.filter(|_| is_past),
            seconds_left: deadline.map(|at| at.saturating_duration_since(now.instant).as_secs()),
        })
    }

    /// This program, where nobody else is known.
    fn own(&self) -> By {
        By {
            uid: 0,
            pid: self.daemon().pid,
            what: "deploy".into(),
        }
    }
}

fn asked_by(peer: Peer) -> String {
    format!("asked for by uid {}", peer.uid)
}

/// The service with these backends.
fn with_targets(service: &Service, targets: &[Value]) -> Result<Service, Problems> {
    let problem = |message: &str| Problem {
        place: "targets".into(),
        message: message.into(),
    };
    if targets.is_empty() {
        return Err([problem("are missing: at least one new backend is needed")]
            .into_iter()
            .collect());
    }
    let patch = json!({"backends": targets}).to_string();
    let renamed = |problems: Problems| -> Problems {
        let problems = problems.iter().map(|problem| Problem {
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
        return Err([problem("must all be active: who drains is no new backend")]
            .into_iter()
            .collect());
    }
    Ok(service)
}

/// Whoever deploys waits for it.
fn hasty(params: model::Health) -> model::Health {
    model::Health {
        interval: Some(params.interval.map_or(HASTE, |interval| interval.min(HASTE))),
        ..params
    }
}
