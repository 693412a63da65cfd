//! Recording of the kernel's contents for the next run, and of changes before they are made.

use super::desired::Desired;
use super::known::{KnownContents, KnownTable};
use super::reconciler::Reconciler;
use crate::record::{JournalEntry, RecordHead, RecordView, boot_id};
use tcpgw_core::ruleset::{Ruleset, skeleton};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Kernel;

impl<K: Kernel> Reconciler<'_, K> {
    pub(super) fn remember(&mut self, known: &KnownContents, desired: &Desired, swept: bool) {
        let KnownTable::Ours(table) = known.table else { return };
        let head = RecordHead {
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

    fn head(&self, known: &KnownContents, table: u64, desired: &Desired) -> RecordHead {
        RecordHead {
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
pub(super) fn program() -> String {
    format!("{}, {}", env!("CARGO_PKG_VERSION"), skeleton::name())
}
