//! Commit of the transactions: planned for the known contents, and planned again when these were wrong.

use std::collections::BTreeMap;

use super::desired::Desired;
use super::error::{ATTEMPTS, ReconcileError};
use super::known::{KnownContents, KnownTable};
use super::owner::owner;
use super::reconciler::Reconciler;
use super::report::ReconcileReport;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::{Family, ListenScope, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::{PlanStep, RowBatch};
use tcpgw_kernel::{Build, Commit, Kernel, KernelError};

/// Counters of one set whose owners are gone.
pub(super) type OrphanedCounters = (SetName, Vec<Box<[u8]>>);

impl<K: Kernel> Reconciler<'_, K> {
    /// Commits until nothing differs any more.
    pub(super) fn commit(
        &mut self,
        known: KnownContents,
        desired: &Desired,
        report: &mut ReconcileReport,
    ) -> Result<KnownContents, ReconcileError> {
        let mut known = known;
        let mut lost = None;
        let before = report.transactions;
        for _ in 0..ATTEMPTS {
            match self.commit_once(&known, desired, report) {
                Ok((generation, made)) => {
                    let table = match known.table {
                        KnownTable::Ours(handle) if made.is_none() => KnownTable::Ours(handle),
                        _ => KnownTable::Ours(self.kernel.identity()?.table.unwrap_or(0)),
                    };
                    return Ok(KnownContents {
                        generation,
                        table,
                        room: made.unwrap_or(known.room),
                        ruleset: desired.ruleset.clone(),
                        ..known
                    });
                }
                Err(error @ (KernelError::Outdated | KernelError::Unknown(_))) => {
                    tracing::debug!(%error, "the transaction was not applied, or its result is unknown: reading the kernel again");
                    lost = matches!(error, KernelError::Unknown(_)).then_some(error);
                    let read = self.read(&known.summary)?;
                    known = self.own(read)?;
                    report.rebuilt = report.rebuilt.take().or_else(|| known.rebuild());
                }
                Err(source) if report.transactions > before => return Err(ReconcileError::Halfway(source)),
                Err(source) => {
                    let owner = owner(&source, &desired.summary);
                    return Err(ReconcileError::Kernel { owner, source });
                }
            }
        }
        Err(lost.map_or(ReconcileError::Busy, ReconcileError::from))
    }

    /// Commits once. Returns the generation afterwards, and the room of a table that was created.
    fn commit_once(
        &mut self,
        known: &KnownContents,
        desired: &Desired,
        report: &mut ReconcileReport,
    ) -> Result<(u32, Option<Room>), KernelError> {
        let nothing = Ruleset::default();
        let room = Room::of(&desired.ruleset);
        let mut build = match known.table {
            KnownTable::Ours(_) => None,
            KnownTable::Absent => Some(Build::New(room)),
            KnownTable::Other(_) | KnownTable::Plain => Some(Build::Replace(room)),
        };
        let have = if build.is_none() { &known.ruleset } else { &nothing };
        let mut steps = plan(have, &desired.ruleset).steps;
        let elements = |name| known.ruleset.rows(name).map_or(0, Rows::len);
        if build.is_none()
            && let Some(full) = steps.first().and_then(|step| full(known.room, elements, step))
        {
            report
                .rebuilt
                .get_or_insert(format!("set {full} of the table in the kernel has too little room"));
            build = Some(Build::Replace(room));
            steps = plan(&nothing, &desired.ruleset).steps;
        }
        let orphans = if build.is_none() && (!known.trusted || retires(&steps)) {
            let connections = !known.trusted || is_small(&desired.ruleset);
            self.orphans(&desired.ruleset, connections)?
        } else {
            Vec::new()
        };
        if steps.is_empty() && (build.is_some() || !orphans.is_empty()) {
            steps.push(PlanStep::default());
        }
        // Where nothing led to a backend before, no SYN can be on its way to it.
        report.retired |= !known.ruleset.is_empty() && !steps.is_empty();
        let mut generation = known.generation;
        let last = steps.len().saturating_sub(1);
        for (at, step) in steps.iter().enumerate() {
            let commit = Commit {
                generation,
                mark: self.mark,
                build: build.filter(|_| at == 0),
                step,
                forget: if at == last { &orphans } else { &[] },
            };
            let begin = self.kernel.now();
            generation = self.kernel.commit(&commit)?;
            report.committing += self.kernel.now() - begin;
            report.transactions += 1;
            report.elements += step.elements();
        }
        Ok((generation, build.map(|_| room)))
    }

    /// Returns the counters of services and backends that do not exist any more. `connections`: whether to look for
    /// counters of connections.
    pub(super) fn orphans(&mut self, want: &Ruleset, connections: bool) -> Result<Vec<OrphanedCounters>, KernelError> {
        let mut orphans = Vec::new();
        for set in SetName::fixed() {
            let counts_connections = matches!(set, SetName::Connections(_));
            if set.owners().is_empty() && !(counts_connections && connections) {
                continue;
            }
            let owned = |key: &[u8]| {
                set.is_current(key, |owner, key| {
                    want.rows(owner).is_some_and(|rows| rows.contains(key))
                })
            };
            let keys: Vec<_> = self
                .kernel
                .counted(set)?
                .into_iter()
                .map(|counted| counted.key)
                .filter(|key| !owned(key))
                .collect();
            if !keys.is_empty() {
                orphans.push((set, keys));
            }
        }
        Ok(orphans)
    }
}

/// Returns a set that cannot hold what the first step of a plan adds to it; the others only remove.
pub(super) fn full(room: Room, had: impl Fn(SetName) -> usize, step: &PlanStep<'_>) -> Option<SetName> {
    let count = |batches: &BTreeMap<SetName, RowBatch<'_>>, name| batches.get(&name).map_or(0, RowBatch::len);
    Room::decides().into_iter().find(|name| {
        let will = (had(*name) + count(&step.add, *name)).saturating_sub(count(&step.delete, *name));
        !room.holds(*name, will)
    })
}

/// Largest number of slots whose counters of connections are looked through at each change that retires something.
/// Reading 40,000 counters takes 100 ms.
const FEW_SLOTS: usize = 4_000;

fn is_small(ruleset: &Ruleset) -> bool {
    let slots = ListenScope::ALL.map(|listen_scope| ruleset.rows(SetName::Slots(listen_scope)).map_or(0, Rows::len));
    slots.into_iter().sum::<usize>() <= FEW_SLOTS
}

fn retires(steps: &[PlanStep<'_>]) -> bool {
    let owning = |set: &SetName| matches!(set, SetName::Services(_) | SetName::Limited(_) | SetName::Unlimited(_));
    steps.iter().any(|step| step.delete.keys().any(owning))
}

/// Returns what is desired, with the backends that leave kept in the sets of limits, sources and counters.
pub(super) fn with_leaving(have: &Ruleset, desired: &Desired) -> Ruleset {
    let mut sets = desired.ruleset.sets().clone();
    for family in Family::BOTH {
        let stays = |key: &[u8]| {
            [SetName::Limited(family), SetName::Unlimited(family)]
                .iter()
                .any(|set| desired.ruleset.rows(*set).is_some_and(|rows| rows.contains(key)))
        };
        for set in [
            SetName::Limited(family),
            SetName::Unlimited(family),
            SetName::Preserved(family),
            SetName::LimitTo(family),
            SetName::LimitFrom(family),
            SetName::LimitBoth(family),
            SetName::HandshakesTo(family),
            SetName::HandshakesFrom(family),
            SetName::HandshakesBoth(family),
            SetName::Protected(family),
        ] {
            let spec = SetSpec::of(set);
            let leaving = have
                .rows(set)
                .into_iter()
                .flat_map(Rows::iter)
                .filter(|row| !stays(&row[..spec.key_len()]));
            for row in leaving {
                sets.entry(set).or_insert_with(|| Rows::new(&spec)).push(&[row]);
            }
        }
    }
    sets.values_mut().for_each(Rows::sort);
    Ruleset::new(sets, desired.ruleset.round_robin_services().clone()).with_timeouts(*desired.ruleset.timeouts())
}
