//! Those who send orders to the daemon and wait for its answers.

use std::time::Duration;

use tcpgw::control::core::Order;
use tcpgw::control::request::{
    BatchItem, BatchOrder, DeployOrder, EditOrder, Edited, EditedBatch, PauseOrder, Peer, Refused, Resumed,
    ServiceEdit, TornDown,
};
use tcpgw::store::Expect;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::World;

/// The user that gives all orders.
pub(crate) const PEER: Peer = Peer {
    uid: 1000,
    gid: 1000,
    pid: Some(7),
    browser: None,
};

/// The answer to an order, when it has come.
pub(crate) type Answer<T> = oneshot::Receiver<Result<T, Refused>>;

/// The clients of a law: what they have asked, and what they know from answers.
pub(crate) trait Clients: Sized {
    /// Receives the answers that have come, each time that something was carried out.
    fn hear(_world: &mut World<Self>) {}

    /// Gives up the requests without an answer: the daemon has died.
    fn lose_daemon(&mut self) {}
}

/// Removes the orders that were answered.
pub(crate) fn still_waiting<T>(answers: &mut Vec<Answer<T>>) -> usize {
    answers.retain_mut(|answer| take(answer).is_none());
    answers.len()
}

/// Returns the answer to an order if it has come.
///
/// # Panics
///
/// Panics when none will come.
pub(crate) fn take<T>(answer: &mut oneshot::Receiver<T>) -> Option<T> {
    match answer.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => panic!("an order is not answered"),
    }
}

impl<C: Clients> World<C> {
    pub(crate) fn order_edit(&mut self, name: &str, edit: ServiceEdit) -> Answer<Edited> {
        let (reply, answer) = oneshot::channel();
        let order = EditOrder {
            name: name.into(),
            edit,
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Edit(order, reply));
        answer
    }

    pub(crate) fn order_batch(&mut self, items: Vec<BatchItem>) -> Answer<EditedBatch> {
        let (reply, answer) = oneshot::channel();
        let order = BatchOrder {
            items,
            revision: None,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Batch(order, reply));
        answer
    }

    pub(crate) fn order_deploy(&mut self, order: DeployOrder) -> Answer<u64> {
        let (reply, answer) = oneshot::channel();
        self.core.order(Order::Deploy(order, reply));
        answer
    }

    /// Orders a pause for that time, or its end.
    pub(crate) fn order_pause(&mut self, name: &str, time: Option<Duration>) -> Answer<Vec<String>> {
        let (reply, answer) = oneshot::channel();
        let order = PauseOrder {
            name: name.into(),
            time,
            by: PEER,
        };
        let now = self.time();
        self.core.pause(&order, reply, now);
        answer
    }

    pub(crate) fn order_resume(&mut self) -> Answer<Resumed> {
        let (reply, answer) = oneshot::channel();
        let now = self.time();
        self.core.resume(PEER, reply, now);
        answer
    }

    pub(crate) fn order_teardown(&mut self) -> Answer<TornDown> {
        let (reply, answer) = oneshot::channel();
        self.core.teardown(PEER, reply);
        answer
    }
}
