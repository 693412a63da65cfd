//! A table in memory, and the effects of transactions on it.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::refused::refused;
use crate::nftables::ownership::Ownership;
use crate::nftables::transaction::{MessageSubject, RefusedMessage};
use crate::{Commit, Counted, ObservedTable};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::{ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::skeleton::{self, OptionalSets, spread_name};
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::{ListenKey, PlanStep};
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};
use tcpgw_core::ruleset::{Ruleset, idle_timeouts};

type Elements = BTreeMap<Box<[u8]>, FakeElement>;

#[derive(Debug, Clone)]
struct FakeElement {
    rest: Box<[u8]>,
    born: u32,
}

#[derive(Debug, Clone)]
pub(super) struct FakeTable {
    handle: u64,
    ownership: Ownership,
    /// Port of the socket that owns the table.
    owner: Option<u32>,
    mark: FlowMark,
    room: Room,
    comment: Option<String>,
    rules_are_ours: bool,
    sets: BTreeMap<SetName, Elements>,
    counters: BTreeMap<SetName, BTreeMap<Box<[u8]>, u64>>,
    spreads: BTreeMap<ListenScope, BTreeSet<SpreadRule>>,
    optional_sets: OptionalSets,
    timeouts: KernelTimeouts,
    idle_timeouts: BTreeSet<Timeouts>,
    chains: BTreeSet<RoundRobinChain>,
    round_robin_services: BTreeMap<ListenKey, (RoundRobinChain, u32)>,
}

impl FakeTable {
    pub(super) fn new(handle: u64, mark: FlowMark, room: Room, ownership: Ownership, port: u32) -> Self {
        let (counters, sets): (Vec<_>, Vec<_>) = SetName::fixed().into_iter().partition(|name| name.is_counter());
        Self {
            handle,
            ownership,
            owner: (ownership == Ownership::Owned).then_some(port),
            mark,
            room,
            comment: Some(skeleton::comment(mark, room)),
            rules_are_ours: true,
            sets: sets.into_iter().map(|name| (name, Elements::new())).collect(),
            counters: counters.into_iter().map(|name| (name, BTreeMap::new())).collect(),
            spreads: ListenScope::ALL
                .into_iter()
                .map(|listen_scope| (listen_scope, BTreeSet::new()))
                .collect(),
            optional_sets: OptionalSets::new(),
            timeouts: KernelTimeouts::default(),
            idle_timeouts: BTreeSet::new(),
            chains: BTreeSet::new(),
            round_robin_services: BTreeMap::new(),
        }
    }

    pub(super) fn handle(&self) -> u64 {
        self.handle
    }

    pub(super) fn ownership(&self) -> Ownership {
        self.ownership
    }

    pub(super) fn owner(&self) -> Option<u32> {
        self.owner
    }

    pub(super) fn set_owner(&mut self, port: u32) {
        (self.ownership, self.owner) = (Ownership::Owned, Some(port));
    }

    /// Records that this socket was closed.
    pub(super) fn orphan(&mut self, port: u32) {
        if self.owner == Some(port) {
            (self.ownership, self.owner) = (Ownership::Persist, None);
        }
    }

    pub(super) fn mark(&self) -> FlowMark {
        self.mark
    }

    pub(super) fn comment(&self) -> Option<String> {
        self.comment.clone()
    }

    pub(super) fn tamper(&mut self, comment: Option<&str>) {
        self.rules_are_ours = false;
        self.comment = comment.map(str::to_owned);
    }

    pub(super) fn seen(&self, mark: FlowMark) -> ObservedTable {
        let (handle, ruleset) = (self.handle, self.ruleset());
        let whole = self.spreads_follow_sets() && self.idle_timeouts == ruleset.idle_timeouts();
        if self.rules_are_ours && mark == self.mark && whole {
            let room = self.room;
            return ObservedTable::Ours { handle, ruleset, room };
        }
        ObservedTable::Other {
            handle,
            comment: self.comment(),
            ruleset,
        }
    }

    fn spreads_follow_sets(&self) -> bool {
        self.spreads.iter().all(|(listen_scope, widths)| {
            *widths
                == self
                    .widths()
                    .filter(|(of, _)| of == listen_scope)
                    .map(|(_, w)| w)
                    .collect()
        })
    }

    fn widths(&self) -> impl Iterator<Item = (ListenScope, SpreadRule)> + '_ {
        self.sets.keys().filter_map(|name| match name {
            SetName::Spread(listen_scope, width) => Some((*listen_scope, *width)),
            _ => None,
        })
    }

    pub(super) fn ruleset(&self) -> Ruleset {
        let mut sets = BTreeMap::new();
        for (name, elements) in &self.sets {
            let mut rows = Rows::new(&SetSpec::of(*name));
            for (identity, element) in elements {
                rows.push(&[identity, &element.rest]);
            }
            sets.insert(*name, rows);
        }
        let round_robin_services = self
            .round_robin_services
            .iter()
            .map(|(listen_key, (chain, _))| (listen_key.clone(), chain.clone()));
        Ruleset::new(sets, round_robin_services.collect())
            .among(&self.widths().collect(), &self.chains, &self.optional_sets)
            .with_timeouts(self.timeouts)
    }

    pub(super) fn born(&self, set: SetName, identity: &[u8]) -> Option<u32> {
        match set {
            SetName::RoundRobin(listen_scope) => self
                .round_robin_services
                .get(&(listen_scope, identity.into()))
                .map(|(_, born)| *born),
            _ => self.sets.get(&set)?.get(identity).map(|element| element.born),
        }
    }

    pub(super) fn count(&mut self, set: SetName, key: &[u8]) {
        if let Some(counters) = self.counters.get_mut(&set) {
            *counters.entry(key.into()).or_default() += 1;
        }
    }

    pub(super) fn counted(&self, set: SetName) -> Vec<Counted> {
        let counters = self.counters.get(&set).into_iter().flatten();
        counters
            .map(|(key, packets)| Counted {
                key: key.clone(),
                packets: *packets,
                bytes: packets * 40,
            })
            .collect()
    }

    pub(super) fn contains(&self, set: SetName, key: &[u8]) -> bool {
        self.sets.get(&set).is_some_and(|elements| elements.contains_key(key))
    }

    pub(super) fn data(&self, set: SetName, key: &[u8]) -> Option<&[u8]> {
        Some(&self.sets.get(&set)?.get(key)?.rest)
    }

    /// Returns whether a range of an interval set contains the key.
    pub(super) fn covers(&self, set: SetName, key: &[u8]) -> bool {
        let holds = |identity: &[u8]| {
            let (first, last) = identity.split_at(identity.len() / 2);
            first <= key && key <= last
        };
        self.sets
            .get(&set)
            .is_some_and(|elements| elements.keys().any(|identity| holds(identity)))
    }

    pub(super) fn round_robin_chain(&self, listen_key: &ListenKey) -> Option<&RoundRobinChain> {
        self.round_robin_services.get(listen_key).map(|(chain, _)| chain)
    }

    pub(super) fn spread(&self, listen_scope: ListenScope) -> impl Iterator<Item = SpreadRule> + '_ {
        self.spreads.get(&listen_scope).into_iter().flatten().copied()
    }

    /// Returns whether the rules look into the set.
    pub(super) fn asks(&self, set: SetName) -> bool {
        !set.is_optional() || self.optional_sets.contains(&set)
    }

    pub(super) fn has_chain(&self, chain: &RoundRobinChain) -> bool {
        self.chains.contains(chain)
    }
}

/// Applies a transaction in its order. Returns all parts that the kernel would refuse, if there are any.
pub(super) fn apply(
    table: &mut Option<FakeTable>,
    commit: &Commit<'_>,
    generation: u32,
) -> Result<(), Vec<RefusedMessage>> {
    let Some(table) = table else {
        return Err(vec![refused(MessageSubject::Table, None, Errno::ENOENT)]);
    };
    let mut work = Work {
        table,
        generation,
        refused: Vec::new(),
    };
    work.make(commit.step);
    work.delete(commit.step);
    work.add(commit.step);
    work.discard(commit.step);
    for (set, keys) in commit.forget {
        for key in keys {
            work.forget(*set, key);
        }
    }
    if work.refused.is_empty() {
        Ok(())
    } else {
        Err(work.refused)
    }
}

struct Work<'a> {
    table: &'a mut FakeTable,
    generation: u32,
    refused: Vec<RefusedMessage>,
}

impl Work<'_> {
    fn refuse(&mut self, subject: MessageSubject, element: Option<&[u8]>, errno: Errno) {
        self.refused.push(refused(subject, element, errno));
    }

    fn make(&mut self, step: &PlanStep<'_>) {
        if let Some(retimed) = &step.retimed {
            // Rules would be lost, or hold on to the objects.
            if retimed.spreads != self.table.spreads || retimed.optional_sets != self.table.optional_sets {
                self.refuse(MessageSubject::Timeouts, None, Errno::EBUSY);
            }
            self.table.timeouts = retimed.timeouts;
        }
        for (timeouts, kernel) in &step.new_timeouts {
            // An object with other timeouts is taken for that of another program.
            if *kernel != self.table.timeouts || !self.table.idle_timeouts.insert(*timeouts) {
                self.refuse(MessageSubject::Timeouts, None, Errno::EEXIST);
            }
        }
        for (listen_scope, width) in &step.new_widths {
            let name = SetName::Spread(*listen_scope, *width);
            if self.table.sets.contains_key(&name) {
                self.refuse(MessageSubject::Set(name), None, Errno::EEXIST);
            }
            self.table.sets.entry(name).or_default();
        }
        for chain in &step.new_round_robin_chains {
            // The kernel would take the chain as it is and add its rule once more.
            if !self.table.chains.insert(chain.clone()) {
                self.refuse(MessageSubject::Chain(chain.to_string()), None, Errno::EEXIST);
            }
        }
        for (listen_scope, widths) in &step.spreads {
            for width in widths {
                if !self.table.sets.contains_key(&SetName::Spread(*listen_scope, *width)) {
                    self.refuse(MessageSubject::Rule(spread_name(*listen_scope)), None, Errno::ENOENT);
                }
            }
            if !idle_timeouts(*listen_scope, widths).is_subset(&self.table.idle_timeouts) {
                self.refuse(MessageSubject::Rule(spread_name(*listen_scope)), None, Errno::ENOENT);
            }
            self.table.spreads.insert(*listen_scope, widths.clone());
        }
        if let Some((had, wanted)) = &step.optional_sets {
            // The chains that differ are found from the sets that they were said to look up.
            if self.table.optional_sets != *had {
                self.refuse(MessageSubject::Rule("guard".into()), None, Errno::EINVAL);
            }
            self.table.optional_sets.clone_from(wanted);
        }
    }

    fn delete(&mut self, step: &PlanStep<'_>) {
        for listen_key in &step.delete_round_robin_services {
            if self.table.round_robin_services.remove(listen_key).is_none() {
                self.refuse(
                    MessageSubject::Elements(SetName::RoundRobin(listen_key.0)),
                    Some(&listen_key.1),
                    Errno::ENOENT,
                );
            }
        }
        for (name, batch) in &step.delete {
            for row in batch.rows() {
                self.delete_row(*name, row);
            }
        }
    }

    fn delete_row(&mut self, name: SetName, row: &[u8]) {
        let spec = SetSpec::of(name);
        let Some(identity) = row.get(..spec.identity_len()) else {
            return self.refuse(MessageSubject::Elements(name), None, Errno::EINVAL);
        };
        let gone = self.table.sets.get_mut(&name).and_then(|set| set.remove(identity));
        if gone.is_none() {
            self.refuse(
                MessageSubject::Elements(name),
                Some(&row[..spec.key_len()]),
                Errno::ENOENT,
            );
        }
    }

    fn add(&mut self, step: &PlanStep<'_>) {
        for (name, batch) in &step.add {
            for row in batch.rows() {
                self.add_row(*name, row);
            }
        }
        for (listen_key, chain) in &step.add_round_robin_services {
            let subject = MessageSubject::Elements(SetName::RoundRobin(listen_key.0));
            if !self.table.chains.contains(chain) {
                self.refuse(subject.clone(), Some(&listen_key.1), Errno::ENOENT);
            }
            let served = (chain.clone(), self.generation);
            if self
                .table
                .round_robin_services
                .insert(listen_key.clone(), served)
                .is_some()
            {
                self.refuse(subject, Some(&listen_key.1), Errno::EEXIST);
            }
        }
    }

    fn add_row(&mut self, name: SetName, row: &[u8]) {
        let spec = SetSpec::of(name);
        let subject = MessageSubject::Elements(name);
        if row.len() != spec.row_len() {
            return self.refuse(subject, None, Errno::EINVAL);
        }
        let Some(set) = self.table.sets.get(&name) else {
            return self.refuse(subject, None, Errno::ENOENT);
        };
        let (identity, rest) = row.split_at(spec.identity_len());
        let key = &row[..spec.key_len()];
        let (first, last) = identity.split_at(identity.len() / 2);
        if spec.interval && first > last {
            return self.refuse(subject, Some(key), Errno::EINVAL);
        }
        // Ranges differ in their last field only, so they are ranges of whole keys.
        let overlaps = |other: &[u8]| {
            let (low, high) = other.split_at(other.len() / 2);
            first <= high && low <= last
        };
        if set.contains_key(identity) || spec.interval && set.keys().any(|other| overlaps(other)) {
            return self.refuse(subject, Some(key), Errno::EEXIST);
        }
        let element = FakeElement {
            rest: rest.into(),
            born: self.generation,
        };
        self.table
            .sets
            .entry(name)
            .or_default()
            .insert(identity.into(), element);
    }

    fn discard(&mut self, step: &PlanStep<'_>) {
        for (listen_scope, width) in &step.old_widths {
            let name = SetName::Spread(*listen_scope, *width);
            if self.table.spread(*listen_scope).any(|used| used == *width) {
                self.refuse(MessageSubject::Set(name), None, Errno::EBUSY);
            }
            if self.table.sets.remove(&name).is_none() {
                self.refuse(MessageSubject::Set(name), None, Errno::ENOENT);
            }
        }
        for chain in &step.old_round_robin_chains {
            let subject = MessageSubject::Chain(chain.to_string());
            if self.table.round_robin_services.values().any(|(used, _)| used == chain) {
                self.refuse(subject.clone(), None, Errno::EBUSY);
            }
            if !self.table.chains.remove(chain) {
                self.refuse(subject, None, Errno::ENOENT);
            }
        }
        for timeouts in &step.old_timeouts {
            let mut spreads = self.table.spreads.iter();
            if spreads.any(|(listen_scope, rules)| idle_timeouts(*listen_scope, rules).contains(timeouts)) {
                self.refuse(MessageSubject::Timeouts, None, Errno::EBUSY);
            }
            if !self.table.idle_timeouts.remove(timeouts) {
                self.refuse(MessageSubject::Timeouts, None, Errno::ENOENT);
            }
        }
    }

    fn forget(&mut self, set: SetName, key: &[u8]) {
        let gone = self
            .table
            .counters
            .get_mut(&set)
            .and_then(|counters| counters.remove(key));
        if gone.is_none() {
            self.refuse(MessageSubject::Elements(set), Some(key), Errno::ENOENT);
        }
    }
}
