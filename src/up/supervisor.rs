//! The processes of an app as a state machine: what is started, ended, restarted and sent connections to, and when.
//!
//! Pure: takes what happened and the time, and gives what is to be done. Knows neither processes nor the gateway.
//!
//! An instance of `tcp` gets connections from when its port answers, which the gateway finds out, until it is told to end or has
//! ended. A restart starts new instances beside the old ones, and ends the old ones when the gateway has switched to the new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::formation::Formation;
use super::procfile::TypeName;

/// The process type whose instances get the connections of the public port.
pub const TCP: &str = "tcp";
/// First pause before a process that has ended is started again; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that has run for so long is well: its next end counts as the first.
pub const WELL: Duration = Duration::from_secs(10);
/// Time for which the network of a process stays after its end, so that the ends of its connections reach the clients.
const LINGER: Duration = Duration::from_secs(2);

/// Id of an instance, which is never used again.
pub type InstanceId = u32;

/// Event for the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorEvent {
    /// A process has ended, or could not be started.
    Ended(InstanceId),
    /// The instances of these types are to be replaced by new ones.
    Restart(Vec<TypeName>),
    /// Number of instances that are to run.
    Scale(Formation),
    /// The gateway sends connections to what [`Action::Balance`] of this number named.
    Balanced(u64),
    /// The gateway has switched to the new instances, which all have answered.
    Switched,
    /// The gateway has not switched, and sends connections where it did before.
    NotSwitched,
    /// All processes are to end.
    Stop,
    /// All are to end at once.
    Kill,
}

/// An action for the caller to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Starts a process in a network of its own.
    Start(InstanceId),
    /// Starts a process again, in the network that it had.
    StartAgain(InstanceId),
    /// Tells the process group of an instance to end: SIGTERM.
    Terminate(InstanceId),
    /// Kills a process with all that it has started.
    Kill(InstanceId),
    /// Removes the network of an instance.
    Remove(InstanceId),
    /// Send connections to these; `at_once`: others have ended, so that their connections need not be waited for.
    Balance {
        /// Its number, for [`SupervisorEvent::Balanced`].
        number: u64,
        /// The instances of [`TCP`].
        targets: Vec<InstanceId>,
        /// Whether flows of those that leave are flushed at once.
        at_once: bool,
    },
    /// Switches to these instances as soon as all have answered a handshake.
    Replace(Vec<InstanceId>),
    /// Gives up the switch that is under way.
    Abandon,
    /// Shows a line to the user: the name of the source, and the text.
    Say(String, String),
}

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstancePhase {
    /// The process runs since this time.
    Running(Instant),
    /// The process has ended by itself, and is started again at this time.
    Waiting(Instant),
    /// The process gets no new connections once the gateway has confirmed [`Action::Balance`] of this number, and is told to
    /// end then. Until then it is in use.
    Draining(u64),
    /// The process was told to end, and is killed at this time.
    Ending(Instant),
    /// The process was killed.
    Killed,
    /// The process has ended; its network is removed at this time.
    Ended(Instant),
}

/// An instance of a process type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Process type.
    pub kind: TypeName,
    /// Its number within the type, from 1.
    pub index: u32,
    /// State of the instance.
    pub phase: InstancePhase,
    /// Number of times that the process has ended by itself.
    pub ends: u32,
    /// Number of such ends in a row, without a time of [`WELL`] in between.
    failures: u32,
}

impl Instance {
    /// Returns its name as foreman has it, `tcp.1`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.kind, self.index)
    }

    fn is_wanted(&self) -> bool {
        matches!(self.phase, InstancePhase::Running(_) | InstancePhase::Waiting(_))
    }
}

/// A restart of instances of [`TCP`] that are not switched to yet.
#[derive(Debug)]
struct Rollout {
    old: Vec<InstanceId>,
    new: Vec<InstanceId>,
}

/// State machine of all instances.
#[derive(Debug)]
pub struct Supervisor {
    grace: Duration,
    instances: BTreeMap<InstanceId, Instance>,
    next: InstanceId,
    rollout: Option<Rollout>,
    /// Instances that the gateway was told last.
    balanced: Vec<InstanceId>,
    /// Number of the latest [`Action::Balance`].
    number: u64,
    /// Number of the latest one that the gateway has confirmed.
    confirmed: u64,
    is_stopping: bool,
}

impl Supervisor {
    /// Returns one without instances. A process that was told to end has `grace` to do so.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            instances: BTreeMap::new(),
            next: 1,
            rollout: None,
            balanced: Vec::new(),
            number: 0,
            confirmed: 0,
            is_stopping: false,
        }
    }

    /// Returns all instances, with those that have ended and whose network is still there.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.instances.iter().map(|(id, instance)| (*id, instance))
    }

    /// Returns the instance with this id.
    pub fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    /// Returns whether a restart of instances of [`TCP`] waits for the new ones to answer.
    pub fn is_restarting(&self) -> bool {
        self.rollout.is_some()
    }

    /// Returns the names of instances that are to end, and get connections until the gateway knows.
    pub fn draining(&self) -> impl Iterator<Item = String> {
        let draining = self
            .instances
            .values()
            .filter(|one| matches!(one.phase, InstancePhase::Draining(_)));
        draining.map(Instance::name)
    }

    /// Returns whether the gateway has confirmed that it sends connections to this instance.
    pub fn is_served(&self, id: InstanceId) -> bool {
        self.confirmed == self.number && self.balanced.contains(&id)
    }

    /// Returns whether all processes were to end, and have ended.
    pub fn is_over(&self) -> bool {
        self.is_stopping && self.instances.is_empty()
    }

    /// Returns the time at which [`Self::tick`] has work.
    pub fn next_time(&self) -> Option<Instant> {
        let times = self.instances.values().filter_map(|instance| match instance.phase {
            InstancePhase::Waiting(at) | InstancePhase::Ending(at) | InstancePhase::Ended(at) => Some(at),
            InstancePhase::Running(_) | InstancePhase::Draining(_) | InstancePhase::Killed => None,
        });
        times.min()
    }

    /// Handles an event, and returns the actions that follow from it.
    pub fn take(&mut self, input: SupervisorEvent, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            SupervisorEvent::Ended(id) => self.ended(id, now, &mut actions),
            SupervisorEvent::Restart(kinds) => self.restart(&kinds, now, &mut actions),
            SupervisorEvent::Scale(formation) => self.scale(&formation, now, &mut actions),
            SupervisorEvent::Balanced(number) => self.confirmed(number, now, &mut actions),
            SupervisorEvent::Switched => self.switched(now, &mut actions),
            SupervisorEvent::NotSwitched => self.not_switched(now, &mut actions),
            SupervisorEvent::Stop => self.stop(now, &mut actions),
            SupervisorEvent::Kill => self.kill(&mut actions),
        }
        actions
    }

    /// Returns the actions that are due.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let late = |instance: &Instance| match instance.phase {
            InstancePhase::Waiting(at) | InstancePhase::Ending(at) | InstancePhase::Ended(at) => at <= now,
            InstancePhase::Running(_) | InstancePhase::Draining(_) | InstancePhase::Killed => false,
        };
        let ids: Vec<InstanceId> = self
            .instances()
            .filter(|(_, one)| late(one))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            match self.instances.get(&id).map(|one| one.phase) {
                Some(InstancePhase::Waiting(_)) => {
                    self.set(id, InstancePhase::Running(now));
                    actions.push(Action::StartAgain(id));
                }
                Some(InstancePhase::Ending(_)) => {
                    let name = self.name(id);
                    let grace = tcpgw_core::model::duration::show(self.grace);
                    actions.push(Action::Say(
                        "system".into(),
                        format!("{name} has not ended within {grace}: sending SIGKILL"),
                    ));
                    self.set(id, InstancePhase::Killed);
                    actions.push(Action::Kill(id));
                }
                Some(InstancePhase::Ended(_)) => self.forget(id, &mut actions),
                _ => {}
            }
        }
        self.balance(false, &mut actions);
        actions
    }

    fn set(&mut self, id: InstanceId, phase: InstancePhase) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.phase = phase;
        }
    }

    fn name(&self, id: InstanceId) -> String {
        self.instances.get(&id).map(Instance::name).unwrap_or_default()
    }

    fn start(&mut self, kind: &TypeName, index: u32, now: Instant, actions: &mut Vec<Action>) -> InstanceId {
        let id = self.next;
        self.next += 1;
        let instance = Instance {
            kind: kind.clone(),
            index,
            phase: InstancePhase::Running(now),
            ends: 0,
            failures: 0,
        };
        self.instances.insert(id, instance);
        actions.push(Action::Start(id));
        id
    }

    fn terminate(&mut self, id: InstanceId, now: Instant, actions: &mut Vec<Action>) {
        match self.instances.get(&id).map(|one| one.phase) {
            // There is no process.
            Some(InstancePhase::Waiting(_)) => self.forget(id, actions),
            Some(InstancePhase::Running(_) | InstancePhase::Draining(_)) => {
                self.set(id, InstancePhase::Ending(now + self.grace));
                actions.push(Action::Terminate(id));
            }
            _ => {}
        }
    }

    fn forget(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        self.instances.remove(&id);
        actions.push(Action::Remove(id));
    }

    fn ended(&mut self, id: InstanceId, now: Instant, actions: &mut Vec<Action>) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        match instance.phase {
            InstancePhase::Running(since) if !self.is_stopping => {
                instance.ends += 1;
                instance.failures = if now.saturating_duration_since(since) >= WELL {
                    1
                } else {
                    instance.failures + 1
                };
                let doubled = FIRST_PAUSE.saturating_mul(1 << (instance.failures - 1).min(16));
                let pause = doubled.min(LONGEST_PAUSE);
                instance.phase = InstancePhase::Waiting(now + pause);
                let name = instance.name();
                if self.rollout.as_ref().is_some_and(|rollout| rollout.new.contains(&id)) {
                    actions.push(Action::Say(
                        "system".into(),
                        format!("restart failed: the new {name} has ended; the old processes go on"),
                    ));
                    actions.push(Action::Abandon);
                    self.not_switched(now, actions);
                    return;
                }
                actions.push(Action::Say(
                    "system".into(),
                    format!(
                        "{name} is started again in {}",
                        tcpgw_core::model::duration::show(pause)
                    ),
                ));
                self.balance(true, actions);
            }
            InstancePhase::Waiting(_) | InstancePhase::Ended(_) => {}
            _ if self.is_stopping => self.forget(id, actions),
            _ => {
                instance.phase = InstancePhase::Ended(now + LINGER);
                self.balance(true, actions);
            }
        }
    }

    fn restart(&mut self, kinds: &[TypeName], now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping || self.rollout.is_some() {
            return;
        }
        let is_old = |one: &Instance| one.is_wanted() && kinds.contains(&one.kind);
        let old: Vec<(InstanceId, TypeName, u32)> = self
            .instances()
            .filter(|(_, one)| is_old(one))
            .map(|(id, one)| (id, one.kind.clone(), one.index))
            .collect();
        let mut rollout = Rollout {
            old: Vec::new(),
            new: Vec::new(),
        };
        for (id, kind, index) in old {
            let new = self.start(&kind, index, now, actions);
            if kind.as_str() == TCP {
                rollout.old.push(id);
                rollout.new.push(new);
            } else {
                self.terminate(id, now, actions);
            }
        }
        if !rollout.new.is_empty() {
            actions.push(Action::Replace(rollout.new.clone()));
            self.rollout = Some(rollout);
        }
    }

    fn switched(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(rollout) = self.rollout.take() else { return };
        self.balanced = rollout.new;
        for id in rollout.old {
            self.terminate(id, now, actions);
        }
        // Only the new instances get connections, whatever the gateway was told before.
        self.confirmed(self.number, now, actions);
        self.balance(false, actions);
    }

    fn not_switched(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(rollout) = self.rollout.take() else { return };
        for id in rollout.new {
            self.terminate(id, now, actions);
        }
        // The gateway has dropped what it was told meanwhile.
        self.balanced.clear();
        self.balance(false, actions);
    }

    fn scale(&mut self, formation: &Formation, now: Instant, actions: &mut Vec<Action>) {
        if self.is_stopping || self.rollout.is_some() {
            return;
        }
        let mut draining = Vec::new();
        for (kind, wanted) in formation {
            let of_kind = self.instances().filter(|(_, one)| one.is_wanted() && one.kind == *kind);
            let there: BTreeMap<u32, InstanceId> = of_kind.map(|(id, one)| (one.index, id)).collect();
            draining.extend(there.range(wanted + 1..).map(|(_, id)| *id));
            for index in (1..=*wanted).filter(|index| !there.contains_key(index)) {
                self.start(kind, index, now, actions);
            }
        }
        for id in draining {
            let is_balanced = self.balanced.contains(&id);
            if is_balanced
                && matches!(
                    self.instances.get(&id).map(|one| one.phase),
                    Some(InstancePhase::Running(_))
                )
            {
                self.set(id, InstancePhase::Draining(self.number + 1));
            } else {
                self.terminate(id, now, actions);
            }
        }
        self.balance(false, actions);
    }

    /// Ends the instances that get no connections any more since the gateway has confirmed this number.
    fn confirmed(&mut self, number: u64, now: Instant, actions: &mut Vec<Action>) {
        self.confirmed = self.confirmed.max(number);
        let has_left = |one: &Instance| matches!(one.phase, InstancePhase::Draining(of) if of <= number);
        let ids: Vec<InstanceId> = self
            .instances()
            .filter(|(_, one)| has_left(one))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.terminate(id, now, actions);
        }
    }

    fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.is_stopping = true;
        self.rollout = None;
        for id in self.instances.keys().copied().collect::<Vec<_>>() {
            if matches!(
                self.instances.get(&id).map(|one| one.phase),
                Some(InstancePhase::Ended(_))
            ) {
                self.forget(id, actions);
            } else {
                self.terminate(id, now, actions);
            }
        }
    }

    fn kill(&mut self, actions: &mut Vec<Action>) {
        self.is_stopping = true;
        self.rollout = None;
        for id in self.instances.keys().copied().collect::<Vec<_>>() {
            match self.instances.get(&id).map(|one| one.phase) {
                Some(InstancePhase::Waiting(_) | InstancePhase::Ended(_)) => self.forget(id, actions),
                Some(InstancePhase::Killed) | None => {}
                Some(_) => {
                    self.set(id, InstancePhase::Killed);
                    actions.push(Action::Kill(id));
                }
            }
        }
    }

    /// Tells the gateway where connections go, if that is another set than before.
    fn balance(&mut self, at_once: bool, actions: &mut Vec<Action>) {
        // Until a restart is decided, the old ones serve.
        let new: BTreeSet<InstanceId> = self
            .rollout
            .iter()
            .flat_map(|rollout| rollout.new.iter().copied())
            .collect();
        let serves = |id: &InstanceId, one: &Instance| {
            one.kind.as_str() == TCP && matches!(one.phase, InstancePhase::Running(_)) && !new.contains(id)
        };
        let targets: Vec<InstanceId> = self
            .instances()
            .filter(|(id, one)| serves(id, one))
            .map(|(id, _)| id)
            .collect();
        if self.is_stopping || targets == self.balanced {
            return;
        }
        self.number += 1;
        self.balanced.clone_from(&targets);
        actions.push(Action::Balance {
            number: self.number,
            targets,
            at_once,
        });
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
