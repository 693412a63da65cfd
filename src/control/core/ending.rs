//! The end of the daemon: what was accepted before it is carried out and answered, and nothing else is accepted.
use super::pending::NotInKernel;
use super::{Core, Now};
use crate::control::request::Refused;

impl Core {
    /// Refuses the orders that wait and those that still come, because the daemon ends. Orders that are being written to the store,
    /// or that wait for the kernel, go on.
    pub fn refuse_orders(&mut self) {
        self.order_queue.ending = true;
        for order in std::mem::take(&mut self.order_queue.orders) {
            order.refuse(Refused::Ending);
        }
    }

    /// Returns whether a client waits for an answer that depends on the store or the kernel.
    pub fn owes_answers(&self) -> bool {
        let is_out = self.out.as_ref().is_some_and(|out| !out.pending_replies.is_empty());
        is_out || !self.waiting.is_empty() || !self.order_queue.accepted.is_empty() || !self.teardown.is_empty()
    }

    /// Answers the clients whose accepted orders are not in the kernel when the daemon ends. Clients whose orders are still being
    /// written to the store get no answer from here, because the outcome is not known.
    pub fn give_up(&mut self, now: Now) {
        let out = self.out.as_mut().map(|out| std::mem::take(&mut out.pending_replies));
        let waiting = std::mem::take(&mut self.waiting);
        for pending in out.into_iter().flatten().chain(waiting) {
            self.answer(pending, Err(NotInKernel::Ending), now);
        }
        self.order_queue.accepted.clear();
        for (_, reply) in std::mem::take(&mut self.teardown) {
            let text = "the daemon ended before it was known that everything is torn down: look at `tcpgw status`";
            // The client may be gone.
            let _ = reply.send(Err(Refused::Failed(text.into())));
        }
    }
}
