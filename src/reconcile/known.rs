//! Contents of the kernel, read or taken from the record; and the record for the next run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::desired::Desired;
use super::error::{ATTEMPTS, ReconcileError};
use super::reconciler::Reconciler;
use crate::record::{
    ApplyNote, Deadline, Head, JournalEntry, Record, RecordView, RecordedPause, TeardownNote, boot_id,
};
use crate::store::last::Last;
use crate::view::{ServicesView, Table};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::{self, AllDetails, Owner};
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::{Rows, read_endpoint};
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::ruleset::{Ruleset, skeleton};
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::nftables::ownership::Adoption;
use tcpgw_kernel::{Kernel, KernelError, ObservedTable, RulesetIdentity, reading};

/// Contents of the kernel, as far as they are known.
#[derive(Debug, Clone)]
pub struct KnownContents {
    /// Generation at which the contents were read.
    pub(super) generation: u32,
    pub(super) table: KnownTable,
    /// Contents of the sets.
    pub(super) ruleset: Ruleset,
    /// Sizes of the sets.
    pub(super) room: Room,
    /// The services, with names and draining backends as far as the record tells them.
    pub summary: Summary,
    /// Contents of the record, if there is one of this boot, whether the kernel agrees with it or not.
    pub recorded: Option<RecordedContents>,
    /// Whether the flows were swept since.
    pub(super) swept: bool,
    pub(super) trusted: bool,
}

/// Contents of a record about services, of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedContents {
    /// The services that were served.
    pub summary: Summary,
    /// Owners of the services; `None` in a record of an earlier build.
    pub details: Option<AllDetails>,
    /// Services that were served before the last changes, and no longer there after them. The kernel holds one still if such a
    /// change was not made, or by half.
    pub left: Summary,
    /// Ends of drains.
    pub deadlines: Vec<Deadline>,
    /// Services whose new connections are held back.
    pub pauses: Vec<RecordedPause>,
    /// The last change.
    pub applied: Option<ApplyNote>,
}

impl From<Head> for RecordedContents {
    fn from(head: Head) -> Self {
        Self {
            summary: head.summary,
            details: head.details,
            left: head.left,
            deadlines: head.deadlines,
            pauses: head.pauses,
            applied: head.applied,
        }
    }
}

impl RecordedContents {
    /// Returns when it was so, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    pub fn known(&self) -> Duration {
        self.applied.as_ref().map_or(Duration::ZERO, |applied| applied.known)
    }

    /// Returns a summary of what may be in the kernel.
    fn guide(&self) -> Summary {
        let mut guide = self.summary.clone();
        guide.complete_by_listen_keys(&self.left);
        guide
    }

    /// Returns whether a service of this name was in effect and not removed.
    fn serves(&self, name: &str) -> bool {
        let mut services = self.summary.services.iter();
        let details = self.details.as_ref().and_then(|details| details.get(name));
        services.any(|service| service.name.as_deref() == Some(name))
            && details.is_none_or(|details| details.owner != Owner::Removed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownTable {
    Absent,
    Ours(u64),
    Other(Option<String>),
    /// The table has the right rules, but was created without the flag `persist`, and is to be owned.
    Plain,
}

impl KnownContents {
    /// Returns whether new connections from outside reach backends through services only.
    pub fn protects(&self) -> bool {
        self.ruleset.protects()
    }

    /// Returns the present timeouts of conntrack, if the table exists.
    pub fn timeouts(&self) -> Option<&KernelTimeouts> {
        matches!(self.table, KnownTable::Ours(_)).then(|| self.ruleset.timeouts())
    }

    /// Returns whether the elements that depend on the gateway's links differ from the desired ones.
    pub fn has_other_links(&self, desired: &Ruleset) -> bool {
        let of_links = Family::BOTH.map(SetName::LinkSources);
        let differs = |name: SetName| self.ruleset.rows(name) != desired.rows(name);
        differs(SetName::SameLink) || of_links.into_iter().any(differs)
    }

    /// Returns the services of `last`, which was written in this boot, that belong to no state file and are missing in
    /// the kernel, for example because another program removed the table. A service that was not held back and that the record does
    /// not have was removed by its provider, unless the record is older than `last`, because it could not be written.
    pub fn lost<'a>(&'a self, last: &'a Last) -> impl Iterator<Item = (Owner, &'a str)> {
        let found: BTreeSet<&str> = self
            .summary
            .services
            .iter()
            .filter_map(|of| of.name.as_deref())
            .collect();
        let of_others = last.services.iter().filter(|(owner, _)| *owner != Owner::File);
        let names = of_others.map(|(owner, service)| (*owner, &*service.name));
        names.filter(move |(_, name)| {
            let recorded = self.recorded.as_ref();
            let is_recorded = |recorded: &RecordedContents| recorded.serves(name) || recorded.known() < last.known;
            let is_wanted = last.unserved.contains(*name) || recorded.is_none_or(is_recorded);
            is_wanted && !found.contains(name)
        })
    }

    /// Returns the known contents after a commit, for the record.
    pub(super) fn left(generation: u32, table: u64, room: Room) -> Self {
        Self {
            generation,
            table: KnownTable::Ours(table),
            ruleset: Ruleset::default(),
            room,
            summary: Summary::default(),
            recorded: None,
            swept: true,
            trusted: true,
        }
    }

    /// Returns whether a table of tcpgw exists.
    pub fn has_table(&self) -> bool {
        self.table != KnownTable::Absent
    }

    /// Returns the identity of the kernel's rules at that time; a table with other rules has none.
    pub(super) fn identity(&self) -> RulesetIdentity {
        let table = match self.table {
            KnownTable::Ours(handle) => Some(handle),
            KnownTable::Absent | KnownTable::Other(_) | KnownTable::Plain => None,
        };
        RulesetIdentity {
            generation: self.generation,
            table,
        }
    }

    /// Returns whether the table's comment is of this version although its rules differ.
    pub fn is_edited(&self) -> bool {
        let own = format!("{},", skeleton::name());
        matches!(&self.table, KnownTable::Other(Some(comment)) if comment.starts_with(&own))
    }

    /// Returns the reason why the table has to be created again, if there is one.
    pub fn rebuild(&self) -> Option<String> {
        match &self.table {
            KnownTable::Other(comment) => Some(match comment {
                Some(_) if self.is_edited() => "another program changed the rules of the table in the kernel".into(),
                Some(comment) => format!("the table in the kernel has other rules ({comment})"),
                None => "the table in the kernel has other rules".into(),
            }),
            KnownTable::Plain => Some("the table could not be taken over: it was made without the flag persist".into()),
            KnownTable::Absent | KnownTable::Ours(_) => None,
        }
    }
}

impl<K: Kernel> Reconciler<'_, K> {
    /// Returns the contents of the kernel: from the record, or read anew if another program has written.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn read_contents(&mut self, desired: &Summary) -> Result<KnownContents, ReconcileError> {
        let identity = self.kernel.identity()?;
        let record = self.store.load().map(|Record { head, ruleset }| Record {
            head: head.at(identity.generation),
            ruleset,
        });
        match record.filter(|record| self.is_of_this_boot(&record.head)) {
            Some(Record { head, ruleset }) if self.is_of_here(&head) && head.holds(identity) => Ok(KnownContents {
                generation: identity.generation,
                table: KnownTable::Ours(head.table),
                ruleset,
                room: head.room.parse().unwrap_or_default(),
                swept: head.swept,
                summary: head.summary.clone(),
                recorded: Some(head.into()),
                trusted: true,
            }),
            record => {
                // The record of another version is not trusted about the contents of the table, but about owners it is.
                let recorded = record.map(|record| RecordedContents::from(record.head));
                let mut guide = recorded.as_ref().map(RecordedContents::guide).unwrap_or_default();
                // The record may be older than services that were created since.
                guide.complete_from(desired);
                let mut known = self.read(&guide)?;
                if let Some(recorded) = &recorded {
                    known.summary.name_once(&recorded.left);
                }
                Ok(KnownContents { recorded, ..known })
            }
        }
    }

    /// Returns the teardown of this boot, if nothing was applied since.
    pub(super) fn torn_down(&self) -> Option<TeardownNote> {
        self.store.load_torn_down().filter(|torn| torn.boot == boot_id())
    }

    /// Takes over the table, if the kernel is to keep others from it ([`Kernel::ownership`]): an orphan becomes owned
    /// without a change, and a table that cannot be owned is created again by [`Reconciler::apply`], which calls this
    /// itself.
    ///
    /// # Errors
    ///
    /// Fails with [`ReconcileError::Foreign`], [`ReconcileError::Busy`] and [`ReconcileError::Kernel`].
    pub fn own(&mut self, known: KnownContents) -> Result<KnownContents, ReconcileError> {
        let mut known = known;
        for _ in 0..ATTEMPTS {
            if !matches!(known.table, KnownTable::Ours(_)) {
                // It will be made, and owned then.
                return Ok(known);
            }
            match self.kernel.adopt(known.generation) {
                Ok(Adoption::Unwanted | Adoption::Owned) => return Ok(known),
                Ok(Adoption::Adopted(generation)) => return Ok(KnownContents { generation, ..known }),
                Ok(Adoption::Plain) => {
                    return Ok(KnownContents {
                        table: KnownTable::Plain,
                        ..known
                    });
                }
                Ok(Adoption::Foreign(port)) => return Err(ReconcileError::Foreign(port)),
                Ok(Adoption::Absent) | Err(KernelError::Outdated | KernelError::Unknown(_)) => {
                    tracing::debug!("the table is not as it was: reading the kernel again");
                    let read = self.read(&known.summary)?;
                    known = KnownContents {
                        recorded: known.recorded,
                        ..read
                    };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReconcileError::Busy)
    }

    /// Returns the services for display: from the record unless another program has written, otherwise from the kernel,
    /// with the names of the record. Uses the flow mark of the table.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read.
    pub fn services(&mut self) -> Result<ServicesView, ReconcileError> {
        let identity = self.kernel.identity()?;
        let about = self.kernel.about()?;
        let comment = about.as_ref().and_then(|about| about.comment.as_deref());
        let configured = self.mark;
        self.mark = comment.and_then(skeleton::mark_of).unwrap_or(configured);
        let head = self.head_of_here(identity.generation);
        let table = about.map(|about| Table::new(about, identity.generation));
        let applied = head
            .as_ref()
            .filter(|head| Some(head.table) == identity.table)
            .and_then(|head| head.applied.clone());
        let owners = head.as_ref().and_then(|head| head.details.as_ref()).map(owner::owners);
        let pauses = head.as_ref().map(|head| head.pauses.clone()).unwrap_or_default();
        let mut services = ServicesView {
            table,
            applied,
            owners,
            pauses,
            mark: self.mark,
            configured,
            ..ServicesView::default()
        };
        match head {
            Some(head) if self.is_of_here(&head) && head.holds(identity) => services.summary = head.summary,
            head => {
                let recorded = head.map(RecordedContents::from);
                let mut known = self.read(&recorded.as_ref().map(RecordedContents::guide).unwrap_or_default())?;
                if let Some(recorded) = &recorded {
                    known.summary.name_once(&recorded.left);
                }
                services.changed = known.rebuild();
                services.is_edited = known.is_edited();
                services.unplaced = unplaced(&known.ruleset, &known.summary);
                services.summary = known.summary;
            }
        }
        Ok(services)
    }

    /// Assigns backends that no record contains to the service of their flows, as draining: a process that was killed
    /// before it wrote its record leaves no other information.
    pub(super) fn place(&mut self, known: &mut KnownContents) -> Result<(), KernelError> {
        let unplaced = unplaced(&known.ruleset, &known.summary);
        if unplaced.is_empty() {
            return Ok(());
        }
        let summary = &known.summary;
        let mut found = BTreeSet::new();
        reading(|| {
            found.clear();
            self.kernel.flows(self.mark, &mut |flow| {
                if unplaced.contains(&flow.backend)
                    && let Some(at) = summary.position_at(flow.public)
                {
                    found.insert((flow.backend, at));
                }
            })
        })?;
        for (backend, at) in found {
            known.summary.services[at].draining.insert(backend);
        }
        Ok(())
    }

    /// Returns the contents of the record, of any version, in a kernel at this generation.
    pub(super) fn recorded(&self, generation: u32) -> Option<RecordedContents> {
        self.head_of_here(generation).map(RecordedContents::from)
    }

    fn is_of_here(&self, head: &Head) -> bool {
        self.is_of_this_boot(head) && head.program == program() && head.mark == self.mark.to_string()
    }

    fn is_of_this_boot(&self, head: &Head) -> bool {
        head.namespace == self.namespace && head.boot == boot_id()
    }

    /// Returns the head of the record, of any version, in a kernel at this generation.
    fn head_of_here(&self, generation: u32) -> Option<Head> {
        let head = self.store.load_head()?.at(generation);
        self.is_of_this_boot(&head).then_some(head)
    }

    pub(super) fn read(&mut self, guide: &Summary) -> Result<KnownContents, ReconcileError> {
        let observed = self.kernel.observe(self.mark)?;
        let (table, ruleset, room) = match observed.table {
            ObservedTable::Absent => (KnownTable::Absent, Ruleset::default(), Room::default()),
            ObservedTable::Ours { handle, ruleset, room } => (KnownTable::Ours(handle), ruleset, room),
            ObservedTable::Other { comment, ruleset, .. } => {
                self.check_mark(comment.as_deref())?;
                (KnownTable::Other(comment), ruleset, Room::default())
            }
        };
        let summary = Summary::of_kernel(&ruleset, guide);
        Ok(KnownContents {
            recorded: None,
            generation: observed.generation,
            table,
            ruleset,
            room,
            summary,
            swept: false,
            trusted: false,
        })
    }

    fn check_mark(&self, comment: Option<&str>) -> Result<(), ReconcileError> {
        match comment.and_then(skeleton::mark_of) {
            Some(theirs) if theirs != self.mark => Err(ReconcileError::OtherMark {
                theirs,
                ours: self.mark,
            }),
            _ => Ok(()),
        }
    }

    /// Returns the flow mark of the table in the kernel, if its comment contains it.
    pub(super) fn mark_in_kernel(&mut self) -> Result<Option<FlowMark>, ReconcileError> {
        Ok(self.kernel.comment()?.as_deref().and_then(skeleton::mark_of))
    }

    pub(super) fn remember(&mut self, known: &KnownContents, desired: &Desired, swept: bool) {
        let KnownTable::Ours(table) = known.table else { return };
        let head = Head {
            swept,
            ..self.head(known, table, desired)
        };
        self.end_teardown();
        if let Err(error) = self.store.save(&head, &desired.ruleset)
            && !self.had_trouble
        {
            // What fails for long is tried again and again.
            tracing::warn!(%error, "failed to write the record; the next run will read the kernel, and may not know all that was ordered");
        }
    }

    /// Records what is about to be changed, as far as it differs from the present record: a process that is killed
    /// meanwhile leaves nothing in the kernel that no record explains.
    ///
    /// # Errors
    ///
    /// Fails when the record cannot be written.
    pub(super) fn announce(&mut self, known: &KnownContents, desired: &Desired) -> std::io::Result<()> {
        let recorded = known.recorded.as_ref();
        let recorded = recorded.and_then(|recorded| Some((recorded, recorded.details.as_ref()?)));
        if let Some((recorded, details)) = recorded {
            let before = RecordView {
                summary: &recorded.summary,
                details,
                deadlines: &recorded.deadlines,
                pauses: &recorded.pauses,
            };
            let after = RecordView {
                summary: &desired.summary,
                details: &self.details,
                deadlines: &self.drains,
                pauses: &self.pauses,
            };
            let services = before.difference(&after);
            if services.is_empty() {
                return Ok(());
            }
            self.store.append(&JournalEntry {
                awaits: Self::differs(known, desired).then_some(known.generation),
                applied: self.applied.clone(),
                services,
            })
        } else {
            // No table has that number, so no process takes the record for the contents of the kernel.
            let head = self.head(known, u64::MAX, desired);
            self.store.save(&head, &Ruleset::default())
        }
    }

    fn head(&self, known: &KnownContents, table: u64, desired: &Desired) -> Head {
        Head {
            program: program(),
            boot: boot_id(),
            namespace: self.namespace,
            generation: known.generation,
            table,
            room: known.room.to_string(),
            mark: self.mark.to_string(),
            swept: false,
            applied: self.applied.clone(),
            deadlines: self.drains.clone(),
            pauses: self.pauses.clone(),
            details: Some(self.details.clone()),
            timeouts: *desired.ruleset.timeouts(),
            summary: desired.summary.clone(),
            is_hint: false,
            changes: Vec::new(),
            left: Summary::default(),
        }
    }
}

impl<K: Kernel> Reconciler<'_, K> {
    /// Removes the note of a teardown: there is a table again.
    fn end_teardown(&self) {
        if let Err(error) = self.store.forget_torn_down() {
            tracing::debug!(%error, "failed to remove the note of a teardown");
        }
    }
}

/// Logs that a change could not be recorded before it is made.
pub(super) fn unannounced(error: &std::io::Error) {
    tracing::warn!(%error, "failed to record a change before it is made; if tcpgw is killed now, the next run may not know to which provider the services belong");
}

/// Returns the versions of the program and of its rules: a record of others says nothing about this version's table.
fn program() -> String {
    format!("{}, {}", env!("CARGO_PKG_VERSION"), skeleton::name())
}

/// Returns the backends whose service is not known: those that were removed while their flows continue, and draining
/// ones that no record contains.
fn unplaced(ruleset: &Ruleset, summary: &Summary) -> BTreeSet<SocketAddr> {
    let mut backends = BTreeSet::new();
    for family in Family::BOTH {
        for set in [SetName::Limited(family), SetName::Unlimited(family)] {
            let rows = ruleset.rows(set).into_iter().flat_map(Rows::iter);
            let endpoints = rows.filter_map(|row| read_endpoint(family, row));
            backends.extend(endpoints.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port.get())));
        }
    }
    for backend in summary.services.iter().flat_map(ServiceSummary::backends) {
        backends.remove(&backend);
    }
    backends
}
