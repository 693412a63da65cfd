//! Reading of the kernel's contents: from the record where it still holds, else from the kernel.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::error::{ATTEMPTS, ReconcileError};
use super::known::{KnownContents, KnownTable, RecordedContents};
use super::reconciler::Reconciler;
use super::recording::program;
use crate::record::{Record, RecordHead, TeardownNote, boot_id};
use crate::view::{ServicesView, TableView};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner;
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::{Rows, read_endpoint};
use tcpgw_core::ruleset::{Ruleset, skeleton};
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::nftables::ownership::Adoption;
use tcpgw_kernel::{Kernel, KernelError, ObservedTable, reading};

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
        let table = about.map(|about| TableView::new(about, identity.generation));
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

    fn is_of_here(&self, head: &RecordHead) -> bool {
        self.is_of_this_boot(head) && head.program == program() && head.mark == self.mark.to_string()
    }

    fn is_of_this_boot(&self, head: &RecordHead) -> bool {
        head.namespace == self.namespace && head.boot == boot_id()
    }

    /// Returns the head of the record, of any version, in a kernel at this generation.
    fn head_of_here(&self, generation: u32) -> Option<RecordHead> {
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
