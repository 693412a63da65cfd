//! Ended flows, and the services that they belong to.

use std::ops::ControlFlow;

use super::log_entry::{note, overrun};
use super::{ASK_AGAIN, AT_ONCE, TrafficSampler};
use crate::daemon::names_teller::{CountsBefore, NamesNews};
use crate::daemon::table_counters::read_counters;
use crate::traffic::EndedFlow;
use tcpgw_kernel::conntrack::{Flow, Selection};
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::{Kernel as _, KernelError};

/// A flow that has ended, and the time at which conntrack forgot it.
pub(super) type FlowReport = (Flow, Option<u64>);

impl TrafficSampler {
    /// Receives reports while no list of flows is being made, and news of the services.
    pub(super) fn receive(&mut self) {
        let mut ended = self.drain();
        self.learn();
        // The daemon has just begun.
        let is_early = self.persisted.ledger().knows_nobody() && !ended.is_empty();
        if is_early && self.known.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            self.know_services();
        }
        self.count_ended(std::mem::take(&mut ended));
        while let Some(counted) = self.ending.take() {
            self.hand_over();
            self.persisted.ledger_mut().change_ends(true);
            let _ = counted.try_send(());
            self.learn();
        }
    }

    fn drain(&mut self) -> Vec<FlowReport> {
        let mut ended = Vec::new();
        let Some(monitor) = &mut self.monitor else { return ended };
        let drained = monitor.drain(AT_ONCE, |flow, stopped| ended.push((flow.clone(), stopped)));
        match drained {
            Ok(drained) => {
                self.is_busy = drained.messages > 0;
                overrun(self.log.as_ref(), self.persisted.ledger_mut(), drained.overruns);
            }
            Err(error) => {
                self.monitor = None;
                self.is_busy = false;
                self.tell("failed to receive reports of ended flows", &error.to_string());
            }
        }
        ended
    }

    /// Adds ended flows to the flow log and the totals.
    pub(super) fn count_ended(&mut self, ended: Vec<FlowReport>) {
        for (flow, stopped) in ended {
            note(self.log.as_ref(), self.persisted.ledger(), &flow, stopped);
            if self.settings.counts_traffic {
                self.persisted.ledger_mut().ended(&EndedFlow::from(&flow));
            } else {
                self.persisted.ledger_mut().forget(&flow);
            }
        }
    }

    /// Takes news of the services, up to the end of a change that somebody waits for.
    pub(super) fn learn(&mut self) {
        while self.ending.is_none()
            && let Ok(news) = self.news.try_recv()
        {
            match news {
                NamesNews::TableEnds(last) => self.persisted.ledger_mut().last_counters(last),
                NamesNews::Begins(change) => self.persisted.ledger_mut().change_begins(change),
                NamesNews::Ends(true, CountsBefore::Awaited(counted)) => self.ending = Some(counted),
                NamesNews::Ends(is_made, before) => {
                    let ledger = self.persisted.ledger_mut();
                    if let CountsBefore::Read(last) = before {
                        ledger.last_counters(last);
                    }
                    ledger.change_ends(is_made);
                }
            }
        }
    }

    /// Counts what belongs to services that lose a place by the change that has just been made, and finds the flows that go on.
    fn hand_over(&mut self) {
        if let Err(error) = self.read_before_change() {
            self.tell(
                "failed to read the counters of services that are no more",
                &error.to_string(),
            );
        }
        let ended = self.drain();
        self.count_ended(ended);
    }

    fn read_before_change(&mut self) -> Result<(), KernelError> {
        let mut kernel = Linux::open()?;
        let counters = read_counters(&mut kernel)?;
        self.take_counters(counters);
        let wants_flows = self.settings.counts_traffic || self.log.is_some();
        if wants_flows && self.persisted.ledger().hands_over() {
            let ledger = self.persisted.ledger_mut();
            kernel.select(self.mark, &Selection::default(), &mut |flow| {
                ledger.carry(flow);
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }
}
