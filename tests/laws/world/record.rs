//! The record of what the kernel has, in the run directory.

use std::fs;
use std::path::PathBuf;

use tcpgw::record::{self, RecordFile, RecordedStore};
use tcpgw_kernel::fake::Fake;

use super::storage::Storage;
use super::{Clients, NAMESPACE, World};

/// Ends of the names of files that are written in place of the record, of its journal, and of the note of a teardown.
const WRITTEN: [&str; 4] = ["new", "journal", "journal.new", "torn-down.new"];

impl<C: Clients> World<C> {
    /// Returns the record, as the daemon or another program reads and writes it.
    pub(crate) fn record_file(&self) -> RecordFile {
        RecordFile::new(self.directory.path(), NAMESPACE)
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        self.directory.path().join(format!("netns-{NAMESPACE}.state"))
    }

    /// Returns what the record knows of the store.
    pub(super) fn recorded_store(&self) -> RecordedStore {
        let storage = self.storage.as_ref();
        let of = |storage: &Storage| self.record_file().store(&record::boot_id(), storage.path());
        storage.map(of).unwrap_or_default()
    }

    /// Makes the record and its journal impossible to write, and leaves them as they are.
    pub(crate) fn forbid_record(&self) {
        self.allow_record();
        let journal = self.record_path().with_extension("journal");
        drop(fs::rename(&journal, journal.with_extension("kept")));
        for blocked in WRITTEN {
            fs::create_dir(self.record_path().with_extension(blocked)).unwrap();
        }
    }

    /// Makes the record and its journal possible to write again.
    pub(crate) fn allow_record(&self) {
        for blocked in WRITTEN {
            let _ = fs::remove_dir(self.record_path().with_extension(blocked));
        }
        let journal = self.record_path().with_extension("journal");
        drop(fs::rename(journal.with_extension("kept"), journal));
    }

    /// Boots the machine, on which no daemon runs, and returns its kernel.
    #[must_use]
    pub(crate) fn boot(&mut self) -> Fake {
        let _ = fs::remove_file(self.record_path());
        self.boot = format!("after {}", self.boot);
        Fake::default()
    }
}
