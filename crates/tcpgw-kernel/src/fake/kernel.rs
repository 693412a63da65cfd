//! Answers of the kernel in memory to each call.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::faults::{Fail, KernelCall};
use super::table::{self, FakeTable};
use super::{Fake, owns};
use crate::conntrack::{Deletion, Flow, Pair, Selection};
use crate::linux::next_generation;
use crate::nftables::ownership::{Adoption, Ownership};
use crate::{
    Commit, Counted, InFlight, Kernel, KernelError, Observed, ObservedTable, RulesetIdentity, TableProperties,
};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

const SETTLING: Duration = Duration::from_millis(25);

impl Kernel for Fake {
    fn identity(&mut self) -> Result<RulesetIdentity, KernelError> {
        let fail = self.enter(KernelCall::Identity)?;
        let identity = RulesetIdentity {
            generation: self.generation,
            table: self.table.as_ref().map(FakeTable::handle),
        };
        self.leave(fail, identity)
    }

    fn observe(&mut self, mark: FlowMark) -> Result<Observed, KernelError> {
        let fail = self.enter(KernelCall::Observe)?;
        let table = self
            .table
            .as_ref()
            .map_or(ObservedTable::Absent, |table| table.seen(mark));
        let observed = Observed {
            generation: self.generation,
            table,
        };
        self.leave(fail, observed)
    }

    fn comment(&mut self) -> Result<Option<String>, KernelError> {
        let fail = self.enter(KernelCall::Comment)?;
        let comment = self.table.as_ref().and_then(FakeTable::comment);
        self.leave(fail, comment)
    }

    fn about(&mut self) -> Result<Option<TableProperties>, KernelError> {
        let fail = self.enter(KernelCall::About)?;
        let about = self.table.as_ref().map(|table| TableProperties {
            handle: table.handle(),
            comment: table.comment(),
            flags: table.ownership().flags(),
            owner: table.owner(),
        });
        self.leave(fail, about)
    }

    fn ownership(&self) -> Ownership {
        self.ownership
    }

    fn adopt(&mut self, generation: u32) -> Result<Adoption, KernelError> {
        if self.attainable() != Ownership::Owned {
            return Ok(Adoption::Unwanted);
        }
        let fail = self.enter(KernelCall::Adopt)?;
        if fail == Some(Fail::Outdated) {
            self.disturb();
        }
        let Some(table) = &mut self.table else {
            return self.leave(fail, Adoption::Absent);
        };
        let adoption = match (table.ownership(), table.owner()) {
            (_, Some(owner)) if owner == self.port => Adoption::Owned,
            (_, Some(owner)) => Adoption::Foreign(owner),
            (Ownership::Plain, _) => Adoption::Plain,
            _ if generation != self.generation => return Err(KernelError::Outdated),
            _ => {
                table.set_owner(self.port);
                self.disturb();
                Adoption::Adopted(self.generation)
            }
        };
        self.leave(fail, adoption)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<u32, KernelError> {
        let fail = self.enter(KernelCall::Commit)?;
        if fail == Some(Fail::Outdated) {
            self.disturb();
        }
        if commit.build.is_none() && commit.step.is_empty() && commit.forget.is_empty() {
            return self.leave(fail, commit.generation);
        }
        if commit.generation != self.generation {
            return Err(KernelError::Outdated);
        }
        self.permit()?;
        let generation = next_generation(self.generation);
        let mut table = self
            .build(commit.build, commit.mark)
            .map_err(|refused| KernelError::Refused(vec![refused]))?;
        table::apply(&mut table, commit, generation).map_err(KernelError::Refused)?;
        (self.table, self.generation) = (table, generation);
        self.leave(fail, generation)
    }

    fn remove(&mut self) -> Result<bool, KernelError> {
        let fail = self.enter(KernelCall::Remove)?;
        self.permit()?;
        let removed = self.table.take().is_some();
        if removed {
            self.disturb();
        }
        self.leave(fail, removed)
    }

    fn timeouts(&mut self) -> KernelTimeouts {
        self.timeouts
    }

    fn counted(&mut self, set: SetName) -> Result<Vec<Counted>, KernelError> {
        let fail = self.enter(KernelCall::Counted)?;
        let counted = self.table.as_ref().map(|table| table.counted(set)).unwrap_or_default();
        self.leave(fail, counted)
    }

    fn counters(&mut self, keys: &[(SetName, Box<[u8]>)]) -> Result<Vec<Counted>, KernelError> {
        let fail = self.enter(KernelCall::Counted)?;
        let counted = keys.iter().map(|(set, key)| {
            let table = self.table.as_ref();
            let all = table.map(|table| table.counted(*set)).unwrap_or_default();
            let found = all.into_iter().find(|counted| counted.key == *key);
            found.unwrap_or_else(|| Counted {
                key: key.clone(),
                packets: 0,
                bytes: 0,
            })
        });
        let counted = counted.collect();
        self.leave(fail, counted)
    }

    fn flows(&mut self, mark: FlowMark, each: &mut dyn FnMut(&Flow)) -> Result<(), KernelError> {
        let fail = self.enter(KernelCall::Flows)?;
        self.flows.iter().filter(|flow| owns(mark, flow)).for_each(each);
        self.leave(fail, ())
    }

    fn select(
        &mut self,
        mark: FlowMark,
        selection: &Selection,
        each: &mut dyn FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), KernelError> {
        let fail = self.enter(KernelCall::Flows)?;
        let _ = self
            .flows
            .iter()
            .filter(|flow| owns(mark, flow) && selection.matches(flow))
            .try_for_each(each);
        self.leave(fail, ())
    }

    fn who(&mut self, mark: FlowMark, backend: SocketAddr, seen_as: SocketAddr) -> Result<Option<Flow>, KernelError> {
        let fail = self.enter(KernelCall::Flows)?;
        let is_it = |flow: &&Flow| owns(mark, flow) && (flow.backend, flow.seen_as) == (backend, seen_as);
        let found = self.flows.iter().find(is_it).cloned();
        self.leave(fail, found)
    }

    fn sweep(&mut self, mark: FlowMark, judge: &mut dyn FnMut(&Flow) -> bool) -> Result<Deletion, KernelError> {
        let fail = self.enter(KernelCall::Sweep)?;
        let deletion = self.delete_flows(mark, judge);
        self.leave(fail, deletion)
    }

    fn flush_pairs(&mut self, mark: FlowMark, pairs: &[Pair]) -> Result<Deletion, KernelError> {
        let fail = self.enter(KernelCall::Sweep)?;
        let deletion = self.delete_flows(mark, &mut |flow| pairs.iter().any(|pair| pair.matches(flow)));
        self.leave(fail, deletion)
    }

    fn settle(&mut self) -> Result<InFlight, KernelError> {
        let fail = self.enter(KernelCall::Settle)?;
        let answer = if self.flows.is_empty() && self.late.is_empty() {
            InFlight::NoFlows
        } else if self.blind {
            self.waited += SETTLING;
            InFlight::Unknown
        } else {
            self.pause(SETTLING);
            InFlight::Through
        };
        self.leave(fail, answer)
    }

    fn now(&self) -> Instant {
        self.begin + self.waited
    }

    fn pause(&mut self, time: Duration) {
        self.waited += time;
        self.flows.append(&mut self.late);
    }
}
