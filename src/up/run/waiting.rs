//! Clients of `tcpgw up restart` and `scale`, whose orders are under way.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::up::control::UpAnswer;
use crate::up::supervisor::InstanceId;

/// Maximum time for the gateway to confirm that processes get no connections any more.
const FEWER: Duration = Duration::from_secs(5);
/// Maximum time for additional processes to start and answer. Longer than the gateway waits for their handshakes.
const MORE: Duration = Duration::from_secs(15);
/// Maximum time for a restart. Longer than the gateway waits for the handshakes of the new processes.
const RESTART: Duration = Duration::from_secs(45);

/// Order that a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingOrder {
    /// Also waits until the processes that are to end get no connections.
    Scale,
    /// Restart of processes that get no connections.
    Restart,
    /// Restart that ends when the gateway switches to the new `tcp` processes.
    Switch,
}

/// Client whose order is under way.
pub(super) struct WaitingClient {
    answers: SyncSender<UpAnswer>,
    pub(super) order: WaitingOrder,
    /// Instances that its order has started.
    pub(super) started: Vec<InstanceId>,
    /// Maximum time to wait.
    pub(super) patience: Duration,
    /// Time at which that is over.
    pub(super) until: Instant,
}

impl WaitingClient {
    /// Returns a client that has given this order, which has started these instances.
    pub(super) fn new(
        answers: SyncSender<UpAnswer>,
        order: WaitingOrder,
        started: Vec<InstanceId>,
        now: Instant,
    ) -> Self {
        let patience = match order {
            WaitingOrder::Scale if started.is_empty() => FEWER,
            WaitingOrder::Scale => MORE,
            WaitingOrder::Restart | WaitingOrder::Switch => RESTART,
        };
        Self {
            answers,
            order,
            started,
            patience,
            until: now + patience,
        }
    }

    /// Sends the last answer.
    pub(super) fn answer(self, answer: UpAnswer) {
        let _ = self.answers.try_send(answer);
    }
}
