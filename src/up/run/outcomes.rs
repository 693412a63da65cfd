//! Answers to the clients of `tcpgw up restart` and `scale`: the new processes serve and the old ones get no connections, or why not.

use std::time::{Duration, Instant};

use super::Up;
use super::waiting::{WaitingClient, WaitingOrder};
use crate::up::control::UpAnswer;
use crate::up::supervisor::{InstanceId, InstancePhase, TCP};
use tcpgw_core::model::duration;

/// Progress of an instance that an order has started.
enum StartProgress {
    Serves,
    /// The process has not started, or the gateway has not confirmed that it gets connections.
    Pending,
    /// The process cannot serve, for this reason.
    Failed(String),
}

impl Up<'_> {
    /// Answers the clients whose orders are carried out, have failed, or take too long.
    pub(super) fn answer_waiting(&mut self, now: Instant) {
        for client in std::mem::take(&mut self.waiting) {
            match self.outcome(&client, now) {
                Some(answer) => client.answer(answer),
                None => self.waiting.push(client),
            }
        }
    }

    /// Answers the client of the restart under way that the gateway has not switched.
    pub(super) fn fail_restart(&mut self, why: &str) {
        for client in self
            .waiting
            .extract_if(.., |client| client.order == WaitingOrder::Switch)
        {
            client.answer(UpAnswer::Failed(why.into()));
        }
    }

    fn outcome(&self, client: &WaitingClient, now: Instant) -> Option<UpAnswer> {
        let mut pending = Vec::new();
        for id in &client.started {
            match self.progress(*id) {
                StartProgress::Serves => {}
                StartProgress::Pending => pending.push(self.name(*id)),
                StartProgress::Failed(why) => return Some(UpAnswer::Failed(why)),
            }
        }
        let draining: Vec<String> = match client.order {
            WaitingOrder::Scale => self.supervisor.draining().collect(),
            WaitingOrder::Restart | WaitingOrder::Switch => Vec::new(),
        };
        if pending.is_empty() && draining.is_empty() {
            return Some(UpAnswer::Done);
        }
        (client.until <= now).then(|| UpAnswer::Failed(self.overdue(client.patience, &pending, &draining)))
    }

    fn progress(&self, id: InstanceId) -> StartProgress {
        let Some(instance) = self.supervisor.get(id) else {
            return StartProgress::Failed("another order has ended a process that this one has started".into());
        };
        let name = instance.name();
        match instance.phase {
            InstancePhase::Running(_) if instance.kind.as_str() == TCP => match &self.unanswered {
                _ if !self.supervisor.is_served(id) => StartProgress::Pending,
                Some(why) => StartProgress::Failed(why.clone()),
                None => StartProgress::Serves,
            },
            InstancePhase::Running(_) => match self.running.get(&id).and_then(|place| place.pid) {
                Some(_) => StartProgress::Serves,
                None => StartProgress::Pending,
            },
            InstancePhase::Waiting(_) => StartProgress::Failed(format!(
                "{name} has ended, and is started again: the output of `tcpgw up` has the reason"
            )),
            InstancePhase::Draining(_) | InstancePhase::Ending(_) | InstancePhase::Killed | InstancePhase::Ended(_) => {
                StartProgress::Failed(format!("another order has ended {name}"))
            }
        }
    }

    /// Returns what has not happened in time.
    fn overdue(&self, patience: Duration, pending: &[String], draining: &[String]) -> String {
        let why = self.not_told.as_deref().unwrap_or("the daemon has not answered");
        let mut consequences = Vec::new();
        if !pending.is_empty() {
            consequences.push(format!("{} get connections when it confirms", pending.join(", ")));
        }
        if !draining.is_empty() {
            consequences.push(format!(
                "{} still get some, and end when it confirms",
                draining.join(", ")
            ));
        }
        format!(
            "the gateway has not confirmed within {} which processes get connections ({why}): {}",
            duration::show(patience),
            consequences.join("; ")
        )
    }
}
