//! The reconciler of a process that stays: it remembers what the kernel holds, so that a change costs what it changes,
//! and reads the kernel only when somebody else may have written.
//!
//! After any error it forgets what it cached, and the next run is a full one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::commit::full;
use super::known::unannounced;
use super::retired::{Leaves, few_retired};
use super::sweep::is_over;
use super::{ChangeCounts, Desired, Known, Options, ReconcileError, Reconciler, Recorded, Report};
use crate::record::{Applied, Deadline, Entry, Pause, RecordFile, ServiceEntry, TornDown};
use tcpgw_core::model::{FlowMark, Service, SourceMode};
use tcpgw_core::owner::{AllDetails, Details, Owner};
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::name::{ListenScope, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::skeleton::Asked;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::{Deletion, Pair, Selection};
use tcpgw_kernel::{About, Commit, Identity, Kernel, KernelError, reading};

/// Above this many endpoints, one pass over all our flows is cheaper than a look for each.
const FEW: usize = 3;

/// Numbers of flows by service and backend.
pub type FlowsOfMembers = BTreeMap<(Box<str>, SocketAddr), u64>;

/// Services by name.
pub type Services = BTreeMap<Box<str>, Arc<Service>>;

/// What it knows besides the services themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CachedState {
    identity: Identity,
    room: Room,
    /// Services for each width.
    widths: BTreeMap<(ListenScope, SpreadRule), usize>,
    /// Elements of each set whose size is fixed, or that the rules ask only where it has some.
    elements: BTreeMap<SetName, usize>,
    /// Services that preserve their clients' addresses.
    preserving: usize,
}

/// What is left in the record for the next process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    /// Who applied what there is, and when.
    pub applied: Applied,
    /// Until when backends drain.
    pub drains: Vec<Deadline>,
    /// Services whose new connections are held back.
    pub pauses: Vec<Pause>,
    /// The services as those who define them want them; one that is served and not here was removed.
    pub wanted: Services,
    /// Whose they are, where it is no file's.
    pub owners: BTreeMap<Box<str>, Owner>,
    /// Services whose resource of the add-on is suspended.
    pub suspended: BTreeSet<Box<str>>,
}

impl Memo {
    /// What the record keeps of services that are served like this.
    fn details(&self, serving: &Services) -> AllDetails {
        let of = |serving: &Arc<Service>| {
            let name = &serving.name;
            let details = match self.wanted.get(name) {
                Some(wanted) => {
                    let owner = self.owners.get(name).copied().unwrap_or_default();
                    Details::new(owner, wanted, serving).suspended(self.suspended.contains(name))
                }
                None => Details::new(Owner::Removed, serving, serving),
            };
            (!details.is_default()).then(|| (name.clone(), details))
        };
        serving.values().filter_map(of).collect()
    }
}

/// What a change leaves in the record, of the services that it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMemo {
    /// Who made it, and when.
    pub applied: Applied,
    /// The services.
    pub services: Vec<ServiceEntry>,
}

impl ChangeMemo {
    /// What is written down before it is made.
    fn entry(self, awaits: Option<u32>) -> Entry {
        Entry {
            awaits,
            applied: Some(self.applied),
            services: self.services,
        }
    }
}

/// What was found in the kernel, before anything is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The services.
    pub summary: Summary,
    /// Whether there is a table.
    pub has_table: bool,
    /// What the record says, if there is one of this boot.
    pub recorded: Option<Recorded>,
    /// The teardown that nothing has ended yet.
    pub torn_down: Option<TornDown>,
}

/// What a look at the whole table found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whether the rules or elements were not as they had been left.
    pub drifted: bool,
    /// What was done about it.
    pub report: Report,
}

/// Keeps one kernel as it should be.
pub struct Engine<K: Kernel> {
    kernel: K,
    store: RecordFile,
    namespace: u64,
    mark: FlowMark,
    protect: bool,
    idle: Option<Duration>,
    links: Links,
    timeouts: KernelTimeouts,
    cached: Option<CachedState>,
    /// What the table was left with when a change of links or timeouts could not be written into it; `cached` is `None` then.
    left: Option<Surroundings>,
    found: Option<Known>,
}

/// What the table says of the gateway besides services.
#[derive(Debug, Clone)]
struct Surroundings {
    links: Links,
    timeouts: KernelTimeouts,
}

impl<K: Kernel> Engine<K> {
    /// For that kernel, whose network namespace has that cookie.
    pub fn new(kernel: K, store: RecordFile, namespace: u64, mark: FlowMark) -> Self {
        Self {
            kernel,
            store,
            namespace,
            mark,
            protect: false,
            idle: None,
            links: Links::default(),
            timeouts: KernelTimeouts::default(),
            cached: None,
            left: None,
            found: None,
        }
    }

    /// The same, and new connections from outside reach backends through services only, or past them, too.
    #[must_use]
    pub fn protecting(self, protect: bool) -> Self {
        Self { protect, ..self }
    }

    /// The same, and how long a flow lives in silence, where its service does not say it: as long as conntrack's sysctl says, or so long.
    #[must_use]
    pub fn idling(self, idle: Option<Duration>) -> Self {
        Self { idle, ..self }
    }

    /// The kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The kernel, for the next one.
    pub fn into_kernel(self) -> K {
        self.kernel
    }

    /// Learns the links, and puts the difference into the table that it knows. Where that fails it forgets what it knows: the next
    /// check reads the table. Handshakes that were not answered before the change are forgotten: they may have been sent by another
    /// link, or from another address, than they would be now.
    pub fn set_links(&mut self, links: Links) {
        if self.links == links {
            return;
        }
        let before = std::mem::replace(&mut self.links, links);
        let Some(mut cached) = self.cached.take() else {
            return;
        };
        match self.commit_links(&before, &mut cached) {
            Ok(generation) => cached.identity.generation = generation,
            Err(error) => {
                self.left = Some(Surroundings {
                    links: before,
                    timeouts: self.timeouts,
                });
                return tracing::debug!(%error, "failed to change what depends on links");
            }
        }
        self.cached = Some(cached);
        if self.links.leads_elsewhere(&before) {
            let forgotten = self.kernel.sweep(self.mark, &mut |flow| !flow.status.seen_reply());
            match forgotten {
                Ok(deletion) => tracing::debug!(
                    deletion.deleted,
                    "links have changed: unanswered handshakes are forgotten"
                ),
                Err(error) => tracing::debug!(%error, "failed to forget unanswered handshakes"),
            }
        }
    }

    /// Reads conntrack's sysctls, which the configuration may overrule, and writes them into the table that it knows if they say something else than before. Where that
    /// fails it forgets what it knows: the next check reads the table.
    fn follow_timeouts(&mut self) {
        let timeouts = self.kernel.timeouts().with_idle(self.idle);
        if self.timeouts == timeouts {
            return;
        }
        let before = std::mem::replace(&mut self.timeouts, timeouts);
        let Some(mut cached) = self.cached.take() else {
            return;
        };
        let (others, asked) = (cached.widths.keys().copied().collect(), cached.asked());
        let of = |timeouts| {
            let nothing = Ruleset::default().among(&others, &BTreeSet::new(), &asked);
            nothing.with_timeouts(timeouts)
        };
        match self.commit_all(&of(before), &of(timeouts), &cached) {
            Ok(generation) => cached.identity.generation = generation,
            Err(error) => {
                self.left = Some(Surroundings {
                    links: self.links.clone(),
                    timeouts: before,
                });
                return tracing::debug!(%error, "failed to change the timeouts of flows");
            }
        }
        tracing::info!(?timeouts, "conntrack's timeouts were changed: flows go by them");
        self.cached = Some(cached);
    }

    fn commit_links(&mut self, before: &Links, cached: &mut CachedState) -> Result<u32, KernelError> {
        let preserves = cached.preserving > 0;
        let (had, wanted) = (
            Ruleset::of_links(before, preserves),
            Ruleset::of_links(&self.links, preserves),
        );
        if had == wanted {
            return Ok(cached.identity.generation);
        }
        let others = cached.widths.keys().copied().collect();
        let had_asked = cached.asked();
        cached.count(&wanted, &had);
        let had = had.among(&others, &BTreeSet::new(), &had_asked);
        let wanted = wanted.among(&others, &BTreeSet::new(), &cached.asked());
        self.commit_all(&had, &wanted, cached)
    }

    fn commit_all(&mut self, had: &Ruleset, wanted: &Ruleset, cached: &CachedState) -> Result<u32, KernelError> {
        let mut generation = cached.identity.generation;
        for step in &plan(had, wanted).steps {
            let commit = Commit {
                generation,
                mark: self.mark,
                build: None,
                step,
                forget: &[],
            };
            generation = self.kernel.commit(&commit)?;
        }
        Ok(generation)
    }

    fn reconciler(&mut self) -> Reconciler<'_, K> {
        Reconciler::new(&mut self.kernel, &self.store, self.namespace, self.mark)
    }

    /// What is in the kernel, before anything is changed. `guide` names what only the kernel knows.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn look(&mut self, guide: &Summary) -> Result<Found, ReconcileError> {
        let mut reconciler = self.reconciler();
        let mut known = reconciler.look(guide)?;
        reconciler.place(&mut known)?;
        let found = Found {
            summary: known.summary.clone(),
            has_table: known.has_table(),
            recorded: known.recorded.clone(),
            torn_down: reconciler.torn_down().filter(|_| !known.has_table()),
        };
        self.found = Some(known);
        Ok(found)
    }

    /// Makes the kernel equal to these services, whatever it holds, and flushes what is stale.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn apply_all(&mut self, services: &Services, memo: Memo) -> Result<Report, ReconcileError> {
        self.cached = None;
        self.follow_timeouts();
        let desired = self.desired(services);
        let known = match self.found.take() {
            Some(known) if self.kernel.identity()? == known.identity() => known,
            _ => self.reconciler().look(&desired.summary)?,
        };
        let details = memo.details(services);
        let report = self
            .reconciler()
            .signed(memo.applied)
            .draining_until(memo.drains)
            .pausing(memo.pauses)
            .detailed(details)
            .apply(known, &desired, &Options::default())?;
        self.believe(services, &desired)?;
        Ok(report)
    }

    /// Looks whether the kernel is as it was left, and puts it right. Costs little as long as nobody else has written.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn check(&mut self, services: &Services, memo: Memo) -> Result<Checked, ReconcileError> {
        self.follow_timeouts();
        let identity = self.kernel.identity()?;
        if self.cached.as_ref().is_some_and(|cached| cached.identity == identity) {
            return Ok(Checked::default());
        }
        let knew = self.cached.take().is_some();
        let left = self.left.take();
        let desired = self.desired(services);
        let known = self.reconciler().read(&desired.summary)?;
        let differs = Reconciler::<K>::differs(&known, &desired);
        let drifted = match left {
            // Others have written if it is neither as it was left nor as it is to be.
            Some(left) => differs && Reconciler::<K>::differs(&known, &self.desired_within(services, &left)),
            None => differs,
        };
        let report = if differs || !knew {
            let known = Known {
                recorded: self.reconciler().recorded(known.generation),
                ..known
            };
            let details = memo.details(services);
            self.reconciler()
                .signed(memo.applied)
                .draining_until(memo.drains)
                .pausing(memo.pauses)
                .detailed(details)
                .apply(known, &desired, &Options::default())?
        } else {
            Report::default()
        };
        self.believe(services, &desired)?;
        Ok(Checked { drifted, report })
    }

    fn desired(&self, services: &Services) -> Desired {
        self.desired_within(
            services,
            &Surroundings {
                links: self.links.clone(),
                timeouts: self.timeouts,
            },
        )
    }

    fn desired_within(&self, services: &Services, surroundings: &Surroundings) -> Desired {
        Desired::of(services.values().map(AsRef::as_ref).collect(), &surroundings.links)
            .protecting(self.protect)
            .with_timeouts(surroundings.timeouts)
    }

    fn believe(&mut self, services: &Services, desired: &Desired) -> Result<(), KernelError> {
        self.left = None;
        let identity = self.kernel.identity()?;
        let about = self.kernel.about()?;
        let comment = about.as_ref().and_then(|about| about.comment.as_deref());
        let room = comment
            .and_then(tcpgw_core::ruleset::skeleton::room_of)
            .unwrap_or_default();
        let mut cached = CachedState {
            identity,
            room,
            widths: BTreeMap::new(),
            elements: BTreeMap::new(),
            preserving: 0,
        };
        cached.count(&desired.ruleset, &Ruleset::default());
        cached.preserving = services.values().filter(|service| preserves(service)).count();
        self.cached = Some(cached);
        Ok(())
    }

    /// Puts some services in the place of others, and flushes the flows of backends that are gone. `beside`: services that
    /// stay and share endpoints with these. `memo` is written down before. `Ok(None)`: it does not know what the kernel holds, or the change does not fit: a
    /// full run is due.
    ///
    /// # Errors
    /// [`ReconcileError`]; a full run is due then, too.
    pub fn change(
        &mut self,
        old: &[Arc<Service>],
        new: &[Arc<Service>],
        beside: &[Arc<Service>],
        memo: ChangeMemo,
    ) -> Result<Option<Report>, ReconcileError> {
        if old.is_empty() && new.is_empty() {
            self.announce(&memo.entry(None));
            return Ok(Some(Report::default()));
        }
        let Some(mut cached) = self.cached.take() else {
            return Ok(None);
        };
        let (old, new) = (|| old.iter().chain(beside), || new.iter().chain(beside));
        let of = |services: Vec<&Service>| {
            let desired = Desired::of(services, &self.links).protecting(self.protect);
            desired.with_timeouts(self.timeouts)
        };
        let have = of(old().map(AsRef::as_ref).collect());
        let want = of(new().map(AsRef::as_ref).collect());
        let (services, backends) = ChangeCounts::between(&have.summary, &want.summary);
        let mut report = Report {
            services,
            backends,
            ..Report::default()
        };
        let old_preserving = old().filter(|service| preserves(service)).count();
        let others_preserve = cached.preserving > old_preserving;
        let others = cached.widths_without(&have.ruleset);
        let among = |ruleset: &Ruleset, asked: &Asked| {
            let ruleset = if others_preserve {
                without_links(ruleset)
            } else {
                ruleset.clone()
            };
            ruleset.among(&others, &BTreeSet::new(), asked)
        };
        let (asked, elements) = (cached.asked(), cached.elements.clone());
        cached.count(&want.ruleset, &have.ruleset);
        let had = among(&have.ruleset, &asked);
        let wanted = among(&want.ruleset, &cached.asked());
        let steps = plan(&had, &wanted).steps;
        if let Some(step) = steps.first()
            && full(cached.room, |name| elements.get(&name).copied().unwrap_or(0), step).is_some()
        {
            return Ok(None);
        }
        self.announce(&memo.entry((!steps.is_empty()).then_some(cached.identity.generation)));
        for (at, step) in steps.iter().enumerate() {
            let commit = Commit {
                generation: cached.identity.generation,
                mark: self.mark,
                build: None,
                step,
                forget: &[],
            };
            let begin = self.kernel.now();
            match self.kernel.commit(&commit) {
                Ok(generation) => cached.identity.generation = generation,
                // Whoever wrote may have written to our table: the full run finds out.
                Err(KernelError::Outdated | KernelError::Unknown(_)) => return Ok(None),
                Err(source) if at > 0 => return Err(ReconcileError::Halfway(source)),
                Err(source) => {
                    let owner = super::owner::owner(&source, &want.summary);
                    return Err(ReconcileError::Kernel { owner, source });
                }
            }
            report.committing += self.kernel.now() - begin;
            report.transactions += 1;
            report.elements += step.elements();
        }
        report.retired = !steps.is_empty();
        cached.preserving = cached.preserving - old_preserving + new().filter(|s| preserves(s)).count();
        self.cached = Some(cached);
        let begin = self.kernel.now();
        let swept = self.flush(&have.summary, &want.summary, &mut report);
        report.flushing = self.kernel.now() - begin;
        swept.map_err(ReconcileError::Unswept)?;
        Ok(Some(report))
    }

    fn announce(&self, entry: &Entry) {
        if entry.services.is_empty() {
            return;
        }
        if let Err(error) = self.store.append(entry) {
            unannounced(&error);
        }
    }

    /// Deletes the flows of what the change has taken away.
    fn flush(&mut self, old: &Summary, new: &Summary, report: &mut Report) -> Result<(), KernelError> {
        let mark = self.mark;
        let few = if old == new {
            Some(Vec::new())
        } else {
            few_retired(old, new, Leaves::Service)
        };
        if few.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let changed = report.retired;
        self.reconciler().until_none(changed, |this| {
            let deletion = match &few {
                Some(pairs) => this.kernel.flush_pairs(mark, pairs)?,
                None => this.kernel.sweep(mark, &mut |flow| {
                    old.standing(flow.public, flow.backend) != FlowVerdict::Stale
                        && new.standing(flow.public, flow.backend) == FlowVerdict::Stale
                })?,
            };
            report.flushed += deletion.deleted;
            report.failed = deletion.failed;
            Ok(deletion)
        })
    }

    /// Deletes the flows that none of these services explains, whatever the table holds.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn flush_stale(&mut self, services: &Services) -> Result<Report, ReconcileError> {
        let summary: Summary = services.values().map(AsRef::as_ref).collect();
        let mut report = Report::default();
        let swept = self.reconciler().sweep(&summary, None, false, &mut report);
        swept.map_err(ReconcileError::Unswept)?;
        Ok(report)
    }

    /// Deletes the handshakes that these backends, which left the balance of a service, have not answered.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn forget(&mut self, pairs: &BTreeSet<Pair>) -> Result<Deletion, KernelError> {
        self.kernel.sweep(self.mark, &mut |flow| {
            !flow.status.seen_reply() && Pair::any_of(pairs, flow)
        })
    }

    /// How many flows go on to each of these backends through its service.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn count(&mut self, pairs: &BTreeMap<Pair, Box<str>>) -> Result<FlowsOfMembers, KernelError> {
        let Self { kernel, mark, .. } = self;
        let backends: BTreeSet<SocketAddr> = pairs.keys().map(|pair| pair.backend).collect();
        reading(|| {
            let members = pairs.iter().map(|(pair, service)| (service.clone(), pair.backend));
            let mut counts: FlowsOfMembers = members.map(|member| (member, 0)).collect();
            let mut count = |flow: &tcpgw_kernel::conntrack::Flow| {
                if flow.status.seen_reply()
                    && !is_over(flow)
                    && let Some(service) = Pair::of_flow(pairs, flow)
                    && let Some(count) = counts.get_mut(&(service.clone(), flow.backend))
                {
                    *count += 1;
                }
            };
            if backends.len() > FEW {
                kernel.flows(*mark, &mut count)?;
                return Ok(counts);
            }
            for backend in &backends {
                let selection = Selection {
                    backend: Some(*backend),
                    ..Selection::default()
                };
                kernel.select(*mark, &selection, &mut |flow| {
                    count(flow);
                    std::ops::ControlFlow::Continue(())
                })?;
            }
            Ok(counts)
        })
    }

    /// Removes the counters of services and backends that are gone.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn tidy(&mut self, services: &Services) -> Result<(), ReconcileError> {
        let Some(mut cached) = self.cached.take() else {
            return Ok(());
        };
        let desired = self.desired(services);
        let orphans = self.reconciler().orphans(&desired.ruleset)?;
        if !orphans.is_empty() {
            let commit = Commit {
                generation: cached.identity.generation,
                mark: self.mark,
                build: None,
                step: &tcpgw_core::ruleset::step::Step::default(),
                forget: &orphans,
            };
            cached.identity.generation = self.kernel.commit(&commit)?;
        }
        self.cached = Some(cached);
        Ok(())
    }

    /// Leaves the record for the next process, or for the CLI.
    pub fn record(&mut self, services: &Services, memo: Memo) {
        let Some(cached) = self.cached.clone() else { return };
        let Some(table) = cached.identity.table else { return };
        let desired = self.desired(services);
        let known = Known::left(cached.identity.generation, table, cached.room);
        let details = memo.details(services);
        self.reconciler()
            .signed(memo.applied)
            .draining_until(memo.drains)
            .pausing(memo.pauses)
            .detailed(details)
            .remember(&known, &desired, true);
    }

    /// Removes the table and all our flows.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub fn teardown(&mut self, by: &TornDown) -> Result<super::Torn, ReconcileError> {
        self.cached = None;
        self.found = None;
        self.reconciler().teardown(Some(by))
    }

    /// Writes again that everything was removed, and by whom, where that has failed.
    pub fn note_teardown(&self, by: &TornDown) {
        if let Err(error) = self.store.save_torn_down(by) {
            tracing::debug!(%error, "failed to write that the gateway is torn down");
        }
    }

    /// Returns what of the record, its journal and the note of a teardown could not be written the last time ([`RecordFile::trouble`]).
    pub fn record_trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// What the table is like, and the generation.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn about(&mut self) -> Result<(Option<About>, u32), KernelError> {
        let identity = self.kernel.identity()?;
        Ok((self.kernel.about()?, identity.generation))
    }
}

impl CachedState {
    /// Widths that services other than those of `ruleset` have.
    fn widths_without(&self, ruleset: &Ruleset) -> BTreeSet<(ListenScope, SpreadRule)> {
        let own = widths(ruleset);
        let others = self
            .widths
            .iter()
            .filter(|(width, count)| **count > own.get(width).copied().unwrap_or(0));
        others.map(|(width, _)| *width).collect()
    }

    fn count(&mut self, added: &Ruleset, removed: &Ruleset) {
        let (plus, minus) = (widths(added), widths(removed));
        for (width, count) in minus {
            if let Some(left) = self.widths.get_mut(&width) {
                *left = left.saturating_sub(count);
            }
        }
        for (width, count) in plus {
            *self.widths.entry(width).or_default() += count;
        }
        self.widths.retain(|_, count| *count > 0);
        let counts = |name: &SetName| name.is_optional() || Room::decides().contains(name);
        let names: BTreeSet<SetName> = added.sets().keys().chain(removed.sets().keys()).copied().collect();
        for name in names.into_iter().filter(counts) {
            let of = |ruleset: &Ruleset| ruleset.rows(name).map_or(0, Rows::len);
            let count = self.elements.entry(name).or_default();
            *count = (*count + of(added)).saturating_sub(of(removed));
        }
    }

    /// The optional sets that the rules ask: those that have elements.
    fn asked(&self) -> Asked {
        let filled = self
            .elements
            .iter()
            .filter(|(name, count)| name.is_optional() && **count > 0);
        filled.map(|(name, _)| *name).collect()
    }
}

fn widths(ruleset: &Ruleset) -> BTreeMap<(ListenScope, SpreadRule), usize> {
    let width = |(name, rows): (&SetName, &Rows)| match name {
        SetName::Spread(listen_scope, width) => Some(((*listen_scope, *width), rows.len())),
        _ => None,
    };
    ruleset.sets().iter().filter_map(width).collect()
}

fn preserves(service: &Service) -> bool {
    service.source == SourceMode::Preserve
}

/// Links are every preserving service's together.
fn without_links(ruleset: &Ruleset) -> Ruleset {
    let mut sets = ruleset.sets().clone();
    sets.remove(&SetName::SameLink);
    Ruleset::new(sets, ruleset.turns().clone()).with_timeouts(*ruleset.timeouts())
}
