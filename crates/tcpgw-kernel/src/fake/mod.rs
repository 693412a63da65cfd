//! A kernel in memory, for tests. It keeps what [`Linux`](crate::linux::Linux) would send, refuses what Linux would refuse, and fails
//! where a test asks for it.
//!
//! Owns a table, a generation and a list of flows. Knows the rules only as far as they choose a backend (see [`PacketWalk`]).

mod faults;
mod kernel;
mod packet;
mod refused;
mod table;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use self::faults::{Crash, Fail, KernelCall};
pub use self::packet::{ConnectOutcome, PacketWalk, Syn};
use self::refused::refused;
use self::table::FakeTable;
use crate::conntrack::{DeleteFailure, Deletion, Flow};
use crate::linux::next_generation;
use crate::netlink::error::NetlinkError;
use crate::nftables::ownership::Ownership;
use crate::nftables::transaction::{MessageSubject, RefusedMessage};
use crate::{Build, Commit, Kernel, KernelError};
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

/// The sets at one generation, as packets find them.
#[derive(Debug, Clone, Default)]
pub struct GenerationView(Option<FakeTable>);

/// A kernel in memory.
#[derive(Debug)]
pub struct Fake {
    generation: u32,
    handles: u64,
    table: Option<FakeTable>,
    /// Number of the socket that asks; another one after each restart.
    port: u32,
    /// Ownership of new tables.
    pub ownership: Ownership,
    /// Whether it has no tables that persist, as Linux before 6.9.
    pub old: bool,
    /// Flows in conntrack, those of others included.
    pub flows: Vec<Flow>,
    /// Flows that appear when time passes next: their SYNs were in the stack while a sweep read the flows.
    pub late: Vec<Flow>,
    /// Whether it cannot tell when all packets have left the stack, as with `nohz_full`: late flows appear after the next sweep.
    pub blind: bool,
    /// Ids of flows that cannot be deleted.
    pub stuck: BTreeSet<u32>,
    /// Timeouts that conntrack's sysctls say.
    pub timeouts: KernelTimeouts,
    failures: VecDeque<(KernelCall, Fail)>,
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
    /// Returns a kernel with a table that holds this ruleset.
    ///
    /// # Errors
    /// Fails with [`KernelError::Refused`] when no kernel could hold it.
    pub fn holding(ruleset: &Ruleset, mark: FlowMark) -> Result<Self, KernelError> {
        let mut fake = Self::default();
        let nothing = Ruleset::default();
        let plan = plan(&nothing, ruleset);
        let empty = tcpgw_core::ruleset::step::PlanStep::default();
        fake.commit(&Commit {
            generation: fake.generation,
            mark,
            build: Some(Build::New(Room::of(ruleset))),
            step: plan.steps.first().unwrap_or(&empty),
            forget: &[],
        })?;
        Ok(fake)
    }

    /// Makes the next call of this kind fail, after the failures that were asked for before.
    pub fn fail_next(&mut self, call: KernelCall, fail: Fail) {
        self.failures.push_back((call, fail));
    }

    /// Sets the call at which the process is killed.
    pub fn crash_at(&mut self, crash: Crash) {
        self.crash = Some(crash);
    }

    /// Starts a new process: calls are counted from 0 and none fails. The table that the old one owned has no owner.
    pub fn restart(&mut self) {
        if let Some(table) = &mut self.table {
            table.orphan(self.port);
        }
        self.port += 1;
        self.crash = None;
        self.calls = 0;
        self.failures.clear();
    }

    /// Returns the number of calls since the last restart.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Returns its generation, which is no call.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Sets the generation, so that a test can let it wrap.
    pub fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Lets another program commit something to another table.
    pub fn disturb(&mut self) {
        self.generation = next_generation(self.generation);
    }

    /// Changes the rules as another program, or another version of this one, would.
    pub fn tamper(&mut self, comment: Option<&str>) {
        if let Some(table) = &mut self.table {
            table.tamper(comment);
        }
        self.disturb();
    }

    /// Returns the ownership of the table, and the port of the socket that owns it.
    pub fn owner(&self) -> Option<(Ownership, Option<u32>)> {
        self.table.as_ref().map(|table| (table.ownership(), table.owner()))
    }

    /// Returns the number of the socket that asks.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Lets another process take the table over, or release it (`None`).
    pub fn owned_by(&mut self, port: Option<u32>) {
        let Some(table) = &mut self.table else { return };
        if let Some(port) = port {
            table.set_owner(port);
            self.disturb();
        } else if let Some(owner) = table.owner() {
            table.orphan(owner);
        }
    }

    /// Counts a packet under this key.
    pub fn count(&mut self, set: SetName, key: &[u8]) {
        if let Some(table) = &mut self.table {
            table.count(set, key);
        }
    }

    /// Returns what the sets hold.
    pub fn ruleset(&self) -> Ruleset {
        self.table.as_ref().map(FakeTable::ruleset).unwrap_or_default()
    }

    /// Returns the generation that added an element: while it is the same, the element has kept its bucket.
    pub fn born(&self, set: SetName, identity: &[u8]) -> Option<u32> {
        self.table.as_ref()?.born(set, identity)
    }

    /// Returns the sets as packets find them now.
    pub fn view(&self) -> GenerationView {
        GenerationView(self.table.clone())
    }

    /// Lets a client connect, adds its flow if it got one, and returns where it was sent.
    pub fn connect(&mut self, syn: &Syn, pick: u32) -> ConnectOutcome {
        let view = self.view();
        let (outcome, _) = PacketWalk::steady(&view).syn(syn, pick);
        if let (ConnectOutcome::Backend(backend), Some(table)) = (outcome, &self.table) {
            let id = self.flows.iter().map(|flow| flow.id).max().unwrap_or(0) + 1;
            self.flows.push(syn.flow(backend, table.mark(), id));
        }
        outcome
    }

    fn enter(&mut self, call: KernelCall) -> Result<Option<Fail>, KernelError> {
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
            Some(Fail::Refused(errno)) => Err(KernelError::Refused(vec![refused(MessageSubject::Batch, None, errno)])),
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

    /// Returns the ownership of a table that is made now.
    fn attainable(&self) -> Ownership {
        if self.old { Ownership::Plain } else { self.ownership }
    }

    /// Refuses unless the table has no owner, or this socket is its owner.
    fn permit(&self) -> Result<(), KernelError> {
        let owner = self.table.as_ref().and_then(FakeTable::owner);
        if owner.is_some_and(|owner| owner != self.port) {
            return Err(KernelError::Refused(vec![refused(
                MessageSubject::Table,
                None,
                Errno::EPERM,
            )]));
        }
        Ok(())
    }

    fn build(&mut self, build: Option<Build>, mark: FlowMark) -> Result<Option<FakeTable>, RefusedMessage> {
        let refuse = |errno| Err(refused(MessageSubject::Table, None, errno));
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
                deletion.failures.push(DeleteFailure {
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
