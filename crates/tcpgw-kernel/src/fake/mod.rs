//! A kernel in memory, for tests: it keeps what [`Linux`](crate::linux::Linux) would send, refuses what Linux would
//! refuse, and fails where it is told to.
//!
//! Owns a table, a generation and a list of flows. Knows the rules only as far as they choose a backend (see [`Walk`]).

mod packet;
mod table;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use self::packet::{ConnectOutcome, Syn, Walk};
use self::table::FakeTable;
use crate::conntrack::{Deletion, Failure, Flow, Pair, Selection};
use crate::linux::next_generation;
use crate::netlink::socket::NetlinkError;
use crate::netlink::tlv::Nack;
use crate::nftables::ownership::{Adoption, Ownership};
use crate::nftables::transaction::{Refused, Subject};
use crate::{About, Build, Commit, Counted, Identity, InFlight, Kernel, KernelError, Observed, Seen};
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

/// What can be asked of a kernel, for those who want it to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Kernel::identity`]
    Identity,
    /// [`Kernel::observe`]
    Observe,
    /// [`Kernel::comment`]
    Comment,
    /// [`Kernel::about`]
    About,
    /// [`Kernel::adopt`], where the table is to be owned
    Adopt,
    /// [`Kernel::commit`]
    Commit,
    /// [`Kernel::remove`]
    Remove,
    /// [`Kernel::counted`] and [`Kernel::counters`]
    Counted,
    /// [`Kernel::flows`], [`Kernel::select`] and [`Kernel::who`]
    Flows,
    /// [`Kernel::sweep`] and [`Kernel::flush_pairs`]
    Sweep,
    /// [`Kernel::settle`]
    Settle,
}

const SETTLING: Duration = Duration::from_millis(25);

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Somebody else commits just before.
    Outdated,
    /// It does nothing, and its answer is lost.
    UnknownBefore,
    /// It does all, and its answer is lost.
    UnknownAfter,
    /// The kernel refuses it.
    Refused(Errno),
    /// Netlink fails: nothing is done.
    Netlink,
}

/// When the process that asks is killed: nothing answers from there on, until [`Fake::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// At this call, counted from 0 since the last restart.
    pub call: usize,
    /// After the kernel has done it, or before.
    pub done: bool,
}

/// The sets at one generation, as packets find them.
#[derive(Debug, Clone, Default)]
pub struct View(Option<FakeTable>);

/// A kernel in memory.
#[derive(Debug)]
pub struct Fake {
    generation: u32,
    handles: u64,
    table: Option<FakeTable>,
    /// The number of the socket that asks; another one after each restart.
    port: u32,
    /// What new tables are to be.
    pub ownership: Ownership,
    /// Has no tables that persist, as Linux before 6.9.
    pub old: bool,
    /// What conntrack knows, flows of others included.
    pub flows: Vec<Flow>,
    /// Flows that come up when time passes next: SYNs that were in the stack while a sweep went through.
    pub late: Vec<Flow>,
    /// Cannot tell when packets are through, as a kernel with `nohz_full`: late flows come up after the next sweep.
    pub blind: bool,
    /// Ids of flows that cannot be deleted.
    pub stuck: BTreeSet<u32>,
    /// What conntrack's sysctls say.
    pub timeouts: KernelTimeouts,
    failures: VecDeque<(Call, Fail)>,
    crash: Option<Crash>,
    calls: usize,
    begin: Instant,
    waited: Duration,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            generation: 1,
            handles: 0,
            table: None,
            port: 1,
            ownership: Ownership::Persist,
            old: false,
            flows: Vec::new(),
            late: Vec::new(),
            blind: false,
            stuck: BTreeSet::new(),
            timeouts: KernelTimeouts::default(),
            failures: VecDeque::new(),
            crash: None,
            calls: 0,
            begin: Instant::now(),
            waited: Duration::ZERO,
        }
    }
}

impl Fake {
    /// With a table that holds this.
    ///
    /// # Errors
    /// [`KernelError::Refused`] if no kernel could hold it.
    pub fn holding(ruleset: &Ruleset, mark: FlowMark) -> Result<Self, KernelError> {
        let mut fake = Self::default();
        let nothing = Ruleset::default();
        let plan = plan(&nothing, ruleset);
        let empty = tcpgw_core::ruleset::step::Step::default();
        fake.commit(&Commit {
            generation: fake.generation,
            mark,
            build: Some(Build::New(Room::of(ruleset))),
            step: plan.steps.first().unwrap_or(&empty),
            forget: &[],
        })?;
        Ok(fake)
    }

    /// Makes the next such call fail, after those that were asked for before.
    pub fn fail_next(&mut self, call: Call, fail: Fail) {
        self.failures.push_back((call, fail));
    }

    /// Lets the process die there.
    pub fn crash_at(&mut self, crash: Crash) {
        self.crash = Some(crash);
    }

    /// A new process: calls are counted anew and none fails. What the old one owned is an orphan.
    pub fn restart(&mut self) {
        if let Some(table) = &mut self.table {
            table.orphan(self.port);
        }
        self.port += 1;
        self.crash = None;
        self.calls = 0;
        self.failures.clear();
    }

    /// Calls since the last restart.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Its generation, without asking.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Sets the generation, to see it wrap.
    pub fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Somebody else commits something that is not ours.
    pub fn disturb(&mut self) {
        self.generation = next_generation(self.generation);
    }

    /// Somebody changes the rules, or another version of this program made them.
    pub fn tamper(&mut self, comment: Option<&str>) {
        if let Some(table) = &mut self.table {
            table.tamper(comment);
        }
        self.disturb();
    }

    /// What the table is, and the port of the socket that owns it.
    pub fn owner(&self) -> Option<(Ownership, Option<u32>)> {
        self.table.as_ref().map(|table| (table.ownership(), table.owner()))
    }

    /// The number of the socket that asks.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Another process takes the table over, or lets it go (`None`).
    pub fn owned_by(&mut self, port: Option<u32>) {
        let Some(table) = &mut self.table else { return };
        if let Some(port) = port {
            table.set_owner(port);
            self.disturb();
        } else if let Some(owner) = table.owner() {
            table.orphan(owner);
        }
    }

    /// A packet is counted under that key.
    pub fn count(&mut self, set: SetName, key: &[u8]) {
        if let Some(table) = &mut self.table {
            table.count(set, key);
        }
    }

    /// What the sets hold.
    pub fn ruleset(&self) -> Ruleset {
        self.table.as_ref().map(FakeTable::ruleset).unwrap_or_default()
    }

    /// The generation that added an element: while that is the same, it kept its bucket.
    pub fn born(&self, set: SetName, identity: &[u8]) -> Option<u32> {
        self.table.as_ref()?.born(set, identity)
    }

    /// The sets as packets find them now.
    pub fn view(&self) -> View {
        View(self.table.clone())
    }

    /// A client connects: where it is sent, and the flow if it got one.
    pub fn connect(&mut self, syn: &Syn, pick: u32) -> ConnectOutcome {
        let view = self.view();
        let (outcome, _) = Walk::steady(&view).syn(syn, pick);
        if let (ConnectOutcome::Backend(backend), Some(table)) = (outcome, &self.table) {
            let id = self.flows.iter().map(|flow| flow.id).max().unwrap_or(0) + 1;
            self.flows.push(syn.flow(backend, table.mark(), id));
        }
        outcome
    }

    fn enter(&mut self, call: Call) -> Result<Option<Fail>, KernelError> {
        let number = self.calls;
        self.calls += 1;
        if self
            .crash
            .is_some_and(|crash| number > crash.call || number == crash.call && !crash.done)
        {
            return Err(NetlinkError::Timeout.into());
        }
        let fail = match self.failures.front() {
            Some((at, fail)) if *at == call => Some(*fail),
            _ => None,
        };
        if fail.is_some() {
            self.failures.pop_front();
        }
        match fail {
            Some(Fail::Netlink) => Err(NetlinkError::Timeout.into()),
            Some(Fail::UnknownBefore) => Err(KernelError::Unknown(NetlinkError::Overrun)),
            Some(Fail::Refused(errno)) => Err(KernelError::Refused(vec![refused(Subject::Batch, None, errno)])),
            other => Ok(other),
        }
    }

    fn leave<T>(&self, fail: Option<Fail>, answer: T) -> Result<T, KernelError> {
        if self
            .crash
            .is_some_and(|crash| crash.done && self.calls == crash.call + 1)
        {
            return Err(NetlinkError::Timeout.into());
        }
        match fail {
            Some(Fail::UnknownAfter) => Err(KernelError::Unknown(NetlinkError::Overrun)),
            _ => Ok(answer),
        }
    }

    /// What a table that is made now is.
    fn attainable(&self) -> Ownership {
        if self.old { Ownership::Plain } else { self.ownership }
    }

    /// Nobody but its owner may write to a table.
    fn permit(&self) -> Result<(), KernelError> {
        let owner = self.table.as_ref().and_then(FakeTable::owner);
        if owner.is_some_and(|owner| owner != self.port) {
            return Err(KernelError::Refused(vec![refused(Subject::Table, None, Errno::EPERM)]));
        }
        Ok(())
    }

    fn build(&mut self, build: Option<Build>, mark: FlowMark) -> Result<Option<FakeTable>, Refused> {
        let refuse = |errno| Err(refused(Subject::Table, None, errno));
        let room = match (build, &self.table) {
            (None, table) => return Ok(table.clone()),
            (Some(Build::New(..)), Some(_)) => return refuse(Errno::EEXIST),
            (Some(Build::Replace(..)), None) => return refuse(Errno::ENOENT),
            (Some(Build::New(room)), None) | (Some(Build::Replace(room)), Some(_)) => room,
        };
        self.handles += 1;
        Ok(Some(FakeTable::new(
            self.handles,
            mark,
            room,
            self.attainable(),
            self.port,
        )))
    }

    fn delete_flows(&mut self, mark: FlowMark, judge: &mut dyn FnMut(&Flow) -> bool) -> Deletion {
        let mut deletion = Deletion::default();
        let stuck = &self.stuck;
        self.flows.retain(|flow| {
            if !owns(mark, flow) || !judge(flow) {
                return true;
            }
            if stuck.contains(&flow.id) {
                deletion.failed += 1;
                deletion.failures.push(Failure {
                    key: flow.key(),
                    errno: libc::EBUSY,
                });
                return true;
            }
            deletion.deleted += 1;
            false
        });
        if self.blind {
            self.flows.append(&mut self.late);
        }
        deletion
    }
}

fn owns(mark: FlowMark, flow: &Flow) -> bool {
    mark.matches(flow.mark) && flow.status.dnat()
}

fn refused(subject: Subject, element: Option<&[u8]>, errno: Errno) -> Refused {
    Refused {
        subject,
        element: element.map(Into::into),
        expression: None,
        nack: Nack {
            errno: errno as i32,
            seq: 0,
            message: None,
            offset: None,
        },
    }
}

impl Kernel for Fake {
    fn identity(&mut self) -> Result<Identity, KernelError> {
        let fail = self.enter(Call::Identity)?;
        let identity = Identity {
            generation: self.generation,
            table: self.table.as_ref().map(FakeTable::handle),
        };
        self.leave(fail, identity)
    }

    fn observe(&mut self, mark: FlowMark) -> Result<Observed, KernelError> {
        let fail = self.enter(Call::Observe)?;
        let table = self.table.as_ref().map_or(Seen::Absent, |table| table.seen(mark));
        let observed = Observed {
            generation: self.generation,
            table,
        };
        self.leave(fail, observed)
    }

    fn comment(&mut self) -> Result<Option<String>, KernelError> {
        let fail = self.enter(Call::Comment)?;
        let comment = self.table.as_ref().and_then(FakeTable::comment);
        self.leave(fail, comment)
    }

    fn about(&mut self) -> Result<Option<About>, KernelError> {
        let fail = self.enter(Call::About)?;
        let about = self.table.as_ref().map(|table| About {
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
        let fail = self.enter(Call::Adopt)?;
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
        let fail = self.enter(Call::Commit)?;
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
        let fail = self.enter(Call::Remove)?;
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
        let fail = self.enter(Call::Counted)?;
        let counted = self.table.as_ref().map(|table| table.counted(set)).unwrap_or_default();
        self.leave(fail, counted)
    }

    fn counters(&mut self, keys: &[(SetName, Box<[u8]>)]) -> Result<Vec<Counted>, KernelError> {
        let fail = self.enter(Call::Counted)?;
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
        let fail = self.enter(Call::Flows)?;
        self.flows.iter().filter(|flow| owns(mark, flow)).for_each(each);
        self.leave(fail, ())
    }

    fn select(
        &mut self,
        mark: FlowMark,
        selection: &Selection,
        each: &mut dyn FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), KernelError> {
        let fail = self.enter(Call::Flows)?;
        let _ = self
            .flows
            .iter()
            .filter(|flow| owns(mark, flow) && selection.matches(flow))
            .try_for_each(each);
        self.leave(fail, ())
    }

    fn who(&mut self, mark: FlowMark, backend: SocketAddr, seen_as: SocketAddr) -> Result<Option<Flow>, KernelError> {
        let fail = self.enter(Call::Flows)?;
        let is_it = |flow: &&Flow| owns(mark, flow) && (flow.backend, flow.seen_as) == (backend, seen_as);
        let found = self.flows.iter().find(is_it).cloned();
        self.leave(fail, found)
    }

    fn sweep(&mut self, mark: FlowMark, judge: &mut dyn FnMut(&Flow) -> bool) -> Result<Deletion, KernelError> {
        let fail = self.enter(Call::Sweep)?;
        let deletion = self.delete_flows(mark, judge);
        self.leave(fail, deletion)
    }

    fn flush_pairs(&mut self, mark: FlowMark, pairs: &[Pair]) -> Result<Deletion, KernelError> {
        let fail = self.enter(Call::Sweep)?;
        let deletion = self.delete_flows(mark, &mut |flow| pairs.iter().any(|pair| pair.matches(flow)));
        self.leave(fail, deletion)
    }

    fn settle(&mut self) -> Result<InFlight, KernelError> {
        let fail = self.enter(Call::Settle)?;
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
