//! Makes the kernel equal to what is desired: look, plan, commit, sweep.
//!
//! What must be flushed follows from the desired state and the flows that there are, never from a memory of events: a
//! run that died in the middle is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::kernel::conntrack::{Flow, Pair};
use crate::kernel::transaction::{Refused, Subject};
use crate::kernel::{Build, Commit, Kernel, KernelError, Seen};
use crate::model::FlowMark;
use crate::model::State;
use crate::plan::{Step, plan};
use crate::record::{Head, Record, Store, boot_id};
use crate::ruleset::Ruleset;
use crate::ruleset::compile::compile;
use crate::ruleset::name::{Family, Scope, SetName};
use crate::ruleset::rows::Rows;
use crate::ruleset::rows::{read_endpoint, read_port};
use crate::summary::{Standing, Standings, Summary};
use crate::words::Changes;

/// Tries in all when others write at the same time.
const ATTEMPTS: u32 = 20;
/// A SYN in flight may confirm an old flow just after it was swept; it is well through the stack after this.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
const SWEEPS: u32 = 50;
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// Above this many retired backends, one pass over all our flows is cheaper than a look for each.
const FEW_PAIRS: usize = 4;

/// What the kernel should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The services.
    pub summary: Summary,
    /// The elements.
    pub ruleset: Ruleset,
}

impl Desired {
    /// For a state, on a gateway with those links.
    pub fn new(state: &State, links: &BTreeSet<String>) -> Self {
        Self {
            summary: Summary::from(state),
            ruleset: compile(state, links),
        }
    }
}

/// What is in the kernel, as far as it is known.
#[derive(Debug, Clone)]
pub struct Known {
    /// The generation at which this was so.
    generation: u32,
    table: Table,
    /// What the sets hold.
    ruleset: Ruleset,
    /// The services, with names and draining backends as far as the record tells them.
    pub summary: Summary,
    /// Whether the flows were swept since.
    swept: bool,
    trusted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Table {
    Absent,
    Ours(u64),
    Other(Option<String>),
}

impl Known {
    /// Why the table has to be made anew, if it has to be.
    pub fn rebuild(&self) -> Option<String> {
        match &self.table {
            Table::Other(comment) => Some(match comment {
                Some(comment) => format!("the table in the kernel has other rules ({comment})"),
                None => "the table in the kernel has other rules".into(),
            }),
            _ => None,
        }
    }
}

/// How to apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How long the flows of retired backends may go on.
    pub drain: Duration,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Services and backends.
    pub changes: Changes,
    /// Elements added and deleted.
    pub elements: usize,
    /// Transactions sent.
    pub transactions: usize,
    /// Established flows that were deleted.
    pub flushed: u64,
    /// Unanswered handshakes that were deleted.
    pub forgotten: u64,
    /// Flows that could not be deleted.
    pub failed: u64,
    /// Why the table was made anew.
    pub rebuilt: Option<String>,
    /// Time in the kernel: sending transactions.
    pub committing: Duration,
}

/// What a teardown removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Torn {
    /// Whether there was a table.
    pub table: bool,
    /// Flows that were deleted.
    pub flushed: u64,
    /// Flows that could not be deleted.
    pub failed: u64,
}

/// Why the kernel is not as desired.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The kernel did not do as asked.
    #[error("{}{source}", owner.as_ref().map(|owner| format!("service {owner}: ")).unwrap_or_default())]
    Kernel {
        /// The service that it is about.
        owner: Option<String>,
        /// What the kernel said.
        source: KernelError,
    },
    /// Others wrote all the time.
    #[error("others changed the ruleset {ATTEMPTS} times while it was to be changed; nothing is half done, run again")]
    Busy,
    /// The flows in the kernel bear another mark.
    #[error(
        "the table in the kernel marks its flows with {theirs}, the configuration says {ours}: run `tcpgw teardown` first"
    )]
    OtherMark {
        /// In the table.
        theirs: FlowMark,
        /// In the configuration.
        ours: FlowMark,
    },
}

impl From<KernelError> for ReconcileError {
    fn from(source: KernelError) -> Self {
        Self::Kernel { owner: None, source }
    }
}

/// Counters of one set whose owners are gone.
type Orphans = (SetName, Vec<Box<[u8]>>);

/// Brings a kernel to what is desired, and keeps a record of it.
pub struct Reconciler<'a, K: Kernel> {
    kernel: &'a mut K,
    store: &'a Store,
    namespace: u64,
    mark: FlowMark,
}

impl<'a, K: Kernel> Reconciler<'a, K> {
    /// For that kernel, whose network namespace has that cookie.
    pub fn new(kernel: &'a mut K, store: &'a Store, namespace: u64, mark: FlowMark) -> Self {
        Self {
            kernel,
            store,
            namespace,
            mark,
        }
    }

    /// What is in the kernel: from the record while nobody else has written, else by reading it all.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn look(&mut self, desired: &Summary) -> Result<Known, ReconcileError> {
        let identity = self.kernel.identity()?;
        let record = self.store.load().filter(|record| self.is_of_here(&record.head));
        if let Some(Record { head, ruleset }) = &record
            && head.holds(identity)
        {
            return Ok(Known {
                generation: identity.generation,
                table: Table::Ours(head.table),
                ruleset: ruleset.clone(),
                summary: head.summary.clone(),
                swept: head.swept,
                trusted: true,
            });
        }
        let guide = record.as_ref().map_or(desired, |record| &record.head.summary);
        self.read(guide)
    }

    fn is_of_here(&self, head: &Head) -> bool {
        head.namespace == self.namespace
            && head.boot == boot_id()
            && head.program == env!("CARGO_PKG_VERSION")
            && head.mark == self.mark.to_string()
    }

    fn read(&mut self, guide: &Summary) -> Result<Known, ReconcileError> {
        let observed = self.kernel.observe(self.mark)?;
        let (table, ruleset) = match observed.table {
            Seen::Absent => (Table::Absent, Ruleset::default()),
            Seen::Ours { handle, ruleset } => (Table::Ours(handle), ruleset),
            Seen::Other { comment, ruleset, .. } => {
                self.check_mark(comment.as_deref())?;
                (Table::Other(comment), ruleset)
            }
        };
        let summary = Summary::of_kernel(&ruleset, guide);
        Ok(Known {
            generation: observed.generation,
            table,
            ruleset,
            summary,
            swept: false,
            trusted: false,
        })
    }

    fn check_mark(&self, comment: Option<&str>) -> Result<(), ReconcileError> {
        match comment.and_then(mark_of) {
            Some(theirs) if theirs != self.mark => Err(ReconcileError::OtherMark {
                theirs,
                ours: self.mark,
            }),
            _ => Ok(()),
        }
    }

    /// What would change, and how many flows would be flushed.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn diff(&mut self, known: &Known, desired: &Desired) -> Result<(Changes, u64), ReconcileError> {
        let standings = Standings::new(&desired.summary);
        let mut flows: BTreeMap<(u16, SocketAddr), u64> = BTreeMap::new();
        self.kernel.flows(self.mark, &mut |flow| {
            if standings.of(flow.public, flow.backend) == Standing::Stale {
                *flows.entry((flow.public.port(), flow.backend)).or_default() += 1;
            }
        })?;
        let total = flows.values().sum();
        Ok((Changes::between(&known.summary, &desired.summary, &flows), total))
    }

    /// Whether the kernel's rules differ from what is desired, flows aside.
    pub fn differs(known: &Known, desired: &Desired) -> bool {
        !matches!(known.table, Table::Ours(_)) || known.ruleset != desired.ruleset
    }

    /// Makes the kernel equal to what is desired.
    ///
    /// # Errors
    /// [`ReconcileError`]; the kernel is then as it was, or as it was after one of a plan's transactions.
    pub fn apply(&mut self, known: Known, desired: &Desired, options: &Options) -> Result<Report, ReconcileError> {
        let mut report = Report {
            changes: Changes::between(&known.summary, &desired.summary, &BTreeMap::new()),
            rebuilt: known.rebuild(),
            ..Report::default()
        };
        let (before, trusted) = (known.summary.clone(), known.trusted && known.swept);
        let mut known = known;
        if !options.drain.is_zero() {
            let meanwhile = Desired {
                summary: desired.summary.clone(),
                ruleset: with_leaving(&known.ruleset, desired),
            };
            known = self.commit(known, &meanwhile, &mut report)?;
            self.drain(desired, options.drain, &mut report)?;
        }
        let known = self.commit(known, desired, &mut report)?;
        let quick = if trusted {
            few_retired(&before, &desired.summary)
        } else {
            None
        };
        self.sweep(&desired.summary, quick.as_deref(), &mut report)?;
        self.remember(&known, desired, report.failed == 0);
        Ok(report)
    }

    /// Commits until nothing differs any more.
    fn commit(&mut self, known: Known, desired: &Desired, report: &mut Report) -> Result<Known, ReconcileError> {
        let mut known = known;
        for _ in 0..ATTEMPTS {
            match self.commit_once(&known, desired, report) {
                Ok(generation) => {
                    let table = match known.table {
                        Table::Ours(handle) => Table::Ours(handle),
                        _ => Table::Ours(self.kernel.identity()?.table.unwrap_or(0)),
                    };
                    return Ok(Known {
                        generation,
                        table,
                        ruleset: desired.ruleset.clone(),
                        ..known
                    });
                }
                Err(KernelError::Outdated | KernelError::Unknown(_)) => {
                    tracing::debug!("somebody else committed, or the answer was lost: reading the kernel again");
                    known = self.read(&known.summary)?;
                }
                Err(source) => {
                    let owner = owner(&source, &desired.summary);
                    return Err(ReconcileError::Kernel { owner, source });
                }
            }
        }
        Err(ReconcileError::Busy)
    }

    fn commit_once(&mut self, known: &Known, desired: &Desired, report: &mut Report) -> Result<u32, KernelError> {
        let nothing = Ruleset::default();
        let (build, have) = match known.table {
            Table::Ours(_) => (None, &known.ruleset),
            Table::Absent => (Some(Build::New(self.mark)), &nothing),
            Table::Other(_) => (Some(Build::Replace(self.mark)), &nothing),
        };
        let mut steps = plan(have, &desired.ruleset).steps;
        let orphans = if build.is_none() && (!known.trusted || retires(&steps)) {
            self.orphans(&desired.ruleset)?
        } else {
            Vec::new()
        };
        if steps.is_empty() && (build.is_some() || !orphans.is_empty()) {
            steps.push(Step::default());
        }
        let mut generation = known.generation;
        let last = steps.len().saturating_sub(1);
        for (at, step) in steps.iter().enumerate() {
            let commit = Commit {
                generation,
                build: build.filter(|_| at == 0),
                step,
                forget: if at == last { &orphans } else { &[] },
            };
            let begin = Instant::now();
            generation = self.kernel.commit(&commit)?;
            report.committing += begin.elapsed();
            report.transactions += 1;
            report.elements += step.elements();
        }
        Ok(generation)
    }

    /// Counters of what is no longer there.
    fn orphans(&mut self, want: &Ruleset) -> Result<Vec<Orphans>, KernelError> {
        let mut orphans = Vec::new();
        for set in SetName::fixed() {
            let owners = set.owners();
            if owners.is_empty() {
                continue;
            }
            let owned = |key: &[u8]| {
                owners
                    .iter()
                    .any(|owner| want.rows(*owner).is_some_and(|rows| rows.contains(key)))
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

    /// Waits until no flow is stale, or the time is over. Unanswered handshakes are forgotten at once.
    fn drain(&mut self, desired: &Desired, time: Duration, report: &mut Report) -> Result<(), ReconcileError> {
        let standings = Standings::new(&desired.summary);
        let begin = Instant::now();
        loop {
            let mut left = 0_u64;
            let forgotten = self.kernel.sweep(self.mark, &mut |flow| {
                let stale = standings.of(flow.public, flow.backend) == Standing::Stale;
                left += u64::from(stale && flow.status.seen_reply() && !is_over(flow));
                !flow.status.seen_reply() && is_condemned(&standings, flow)
            })?;
            report.forgotten += forgotten.deleted;
            if left == 0 || begin.elapsed() >= time {
                return Ok(());
            }
            tracing::debug!(flows = left, "draining");
            std::thread::sleep(DRAIN_PAUSE.min(time.saturating_sub(begin.elapsed())));
        }
    }

    /// Deletes stale flows and unanswered handshakes to backends that get no new connections, until a pass finds none.
    fn sweep(&mut self, summary: &Summary, quick: Option<&[Pair]>, report: &mut Report) -> Result<(), ReconcileError> {
        let standings = Standings::new(summary);
        let mut swept = false;
        for _ in 0..SWEEPS {
            let (mut flushed, mut forgotten) = (0, 0);
            let deletion = match quick {
                Some([]) => return Ok(()),
                Some(pairs) => {
                    let deletion = self.kernel.flush_pairs(self.mark, pairs)?;
                    flushed = deletion.deleted;
                    deletion
                }
                None => self.kernel.sweep(self.mark, &mut |flow| {
                    let condemned = is_condemned(&standings, flow);
                    if condemned && flow.status.seen_reply() {
                        flushed += 1;
                    } else if condemned {
                        forgotten += 1;
                    }
                    condemned
                })?,
            };
            report.flushed += flushed;
            report.forgotten += forgotten;
            report.failed = deletion.failed;
            if deletion.failed > 0 || deletion.deleted == 0 && deletion.gone == 0 && (swept || report.transactions == 0)
            {
                return Ok(());
            }
            swept = true;
            std::thread::sleep(SWEEP_PAUSE);
        }
        Ok(())
    }

    /// Removes everything: the table, then our flows.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn teardown(&mut self) -> Result<Torn, ReconcileError> {
        let observed = self.kernel.identity()?.table.is_some();
        if observed && let Some(mark) = self.mark_in_kernel()? {
            self.mark = mark;
        }
        let removed = self.kernel.remove()?;
        let (mut flushed, mut failed) = (0, 0);
        for _ in 0..SWEEPS {
            let deletion = self.kernel.sweep(self.mark, &mut |_| true)?;
            flushed += deletion.deleted;
            failed = deletion.failed;
            if deletion.deleted == 0 || failed > 0 {
                break;
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
        if let Err(error) = self.store.remove() {
            tracing::warn!(%error, "failed to remove the record; the next run will find it outdated");
        }
        Ok(Torn {
            table: removed,
            flushed,
            failed,
        })
    }

    fn mark_in_kernel(&mut self) -> Result<Option<FlowMark>, ReconcileError> {
        Ok(self.kernel.comment()?.as_deref().and_then(mark_of))
    }

    fn remember(&mut self, known: &Known, desired: &Desired, swept: bool) {
        let Table::Ours(table) = known.table else { return };
        let head = Head {
            program: env!("CARGO_PKG_VERSION").into(),
            boot: boot_id(),
            namespace: self.namespace,
            generation: known.generation,
            table,
            mark: self.mark.to_string(),
            swept,
            summary: desired.summary.clone(),
        };
        if let Err(error) = self.store.save(&head, &desired.ruleset) {
            tracing::warn!(%error, "failed to write the record; the next run will read the kernel, which takes longer");
        }
    }
}

fn mark_of(comment: &str) -> Option<FlowMark> {
    comment.split_once("flow mark ")?.1.parse().ok()
}

fn is_condemned(standings: &Standings<'_>, flow: &Flow) -> bool {
    match standings.of(flow.public, flow.backend) {
        Standing::Active => false,
        Standing::Draining => !flow.status.seen_reply(),
        Standing::Stale => true,
    }
}

/// Whether both ends have closed it.
fn is_over(flow: &Flow) -> bool {
    use crate::kernel::conntrack::TcpState;
    matches!(flow.tcp_state, Some(TcpState::TimeWait | TcpState::Close))
}

fn retires(steps: &[Step<'_>]) -> bool {
    let owning = |set: &SetName| matches!(set, SetName::Services(_) | SetName::Limited(_) | SetName::Unlimited(_));
    steps.iter().any(|step| step.delete.keys().any(owning))
}

/// What is desired, with the backends that leave kept among those that have limits, sources and counters.
fn with_leaving(have: &Ruleset, desired: &Desired) -> Ruleset {
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
        ] {
            let spec = crate::ruleset::spec::SetSpec::of(set);
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
    Ruleset::new(sets, desired.ruleset.turns().clone())
}

/// The pairs of service and backend that are gone, if they are few and nothing else needs a look at the flows.
fn few_retired(old: &Summary, new: &Summary) -> Option<Vec<Pair>> {
    type Key = (Option<IpAddr>, u16, SocketAddr);
    let pairs = |summary: &Summary, active: bool| -> BTreeSet<Key> {
        let of = |service: &crate::summary::ServiceSummary| {
            let doors: Vec<Option<IpAddr>> = if service.addresses.is_empty() {
                vec![None]
            } else {
                service.addresses.iter().copied().map(Some).collect()
            };
            let backends: Vec<SocketAddr> = if active {
                service.active.keys().copied().collect()
            } else {
                service.backends().collect()
            };
            let port = service.port;
            backends
                .into_iter()
                .flat_map(move |backend| doors.clone().into_iter().map(move |door| (door, port, backend)))
                .collect::<Vec<_>>()
        };
        summary.services.iter().flat_map(of).collect()
    };
    if old == new {
        // Nothing changed: whoever runs it again wants to be sure, so look at every flow.
        return None;
    }
    let wanted = pairs(new, false);
    let active = pairs(new, true);
    let retired: Vec<Key> = pairs(old, false).difference(&wanted).copied().collect();
    let leaving = pairs(old, true)
        .difference(&active)
        .filter(|pair| wanted.contains(pair))
        .count();
    let mut kept: BTreeSet<(u16, SocketAddr)> = BTreeSet::new();
    kept.extend(wanted.iter().map(|(_, port, backend)| (*port, *backend)));
    let moved = retired
        .iter()
        .any(|(_, port, backend)| kept.contains(&(*port, *backend)));
    (retired.len() <= FEW_PAIRS && leaving == 0 && !moved).then(|| {
        retired
            .into_iter()
            .map(|(public, public_port, backend)| Pair {
                public,
                public_port,
                backend,
            })
            .collect()
    })
}

/// The service that a refusal is about.
fn owner(error: &KernelError, summary: &Summary) -> Option<String> {
    let KernelError::Refused(refused) = error else {
        return None;
    };
    let Refused {
        subject: Subject::Elements(set),
        element: Some(key),
        ..
    } = refused.first()?
    else {
        return None;
    };
    let standings = Standings::new(summary);
    let service = match set {
        SetName::Limited(family)
        | SetName::Unlimited(family)
        | SetName::Preserved(family)
        | SetName::LimitTo(family)
        | SetName::LimitFrom(family)
        | SetName::LimitBoth(family) => {
            let endpoint = read_endpoint(*family, key)?;
            standings.service_of(SocketAddr::new(endpoint.address, endpoint.port.get()))
        }
        _ => {
            let port = match set.scope()? {
                Scope::Any if matches!(set, SetName::Slots(_) | SetName::Allowed(_) | SetName::Denied(_)) => {
                    read_port(key)
                }
                Scope::Any => read_port(key.get(4..)?),
                Scope::At(family) => read_port(key.get(family.address_len()..)?),
            }?;
            summary.services.iter().find(|service| service.port == port.get())
        }
    };
    service.map(ToString::to_string)
}
