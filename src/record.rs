//! Record of what tcpgw last put into the kernel, in the run directory. Reading the table takes longer than writing it,
//! so the next run uses this record unless another program has committed. With its [`journal`] it contains what the
//! kernel does not: names, owners, drains, pauses.
//!
//! A record that is missing, torn or outdated costs time and these details, and nothing else.

mod boot;
mod encoding;
pub mod entry;
mod head;
pub mod journal;
mod notes;
mod store_identity;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use self::boot::{boot_id, since_boot};
pub use self::encoding::Record;
use self::encoding::{checked, encode, take};
pub use self::head::{ApplyNote, Deadline, RecordHead, RecordedPause, StoreRevision, TeardownNote};
pub use self::journal::{JournalEntry, RecordView, ServiceEntry};
pub use self::notes::{RecordedStore, author};
pub use self::store_identity::{StoreEpoch, StoreIdentity, StoreLineage};
use crate::run_file;
use tcpgw_core::ruleset::Ruleset;

/// The largest record that is read, in bytes: several times what 100,000 backends need.
const MOST_BYTES: u64 = 256 << 20;

/// The largest note of a teardown that is read, in bytes: more than 10,000 pauses need.
const MOST_BYTES_TORN: u64 = 4 << 20;

/// Files of the record of a network namespace. One process writes them at a time.
#[derive(Debug, Clone)]
pub struct RecordFile {
    path: PathBuf,
    /// The checksum of the record that is there, as far as this process knows.
    checksum: Cell<Option<u32>>,
    /// The length of the journal, once this process has made sure of it.
    length: Cell<Option<u64>>,
    /// Reason why the record or its journal could not be written the last time.
    unwritten: RefCell<Option<String>>,
    /// Reason why the note of a teardown could not be written, or removed, the last time.
    unnoted: RefCell<Option<String>>,
}

impl RecordFile {
    /// Creates the paths for a network namespace, in this directory.
    pub fn new(directory: &Path, namespace: u64) -> Self {
        Self {
            path: directory.join(format!("netns-{namespace}.state")),
            checksum: Cell::new(None),
            length: Cell::new(None),
            unwritten: RefCell::new(None),
            unnoted: RefCell::new(None),
        }
    }

    /// Returns the file that could not be written the last time, and the reason: the next process lacks its data.
    /// `None` if all was written.
    pub fn trouble(&self) -> Option<String> {
        self.unnoted
            .borrow()
            .clone()
            .or_else(|| self.unwritten.borrow().clone())
    }

    /// Returns the last record, if there is one that is whole. What another user wrote, the daemon's to root, is a hint.
    pub fn load(&self) -> Option<Record> {
        let content = self.read()?;
        let mut record = Record::decode(&content.bytes);
        if let Some(record) = &mut record {
            self.complete(&mut record.head, &content);
        } else {
            tracing::debug!(path = %tcpgw_core::escape::path(&self.path), "the record cannot be read; the kernel is read instead");
        }
        record
    }

    /// Returns the text of the last record, without the elements, which is enough for display.
    pub fn load_head(&self) -> Option<RecordHead> {
        let content = self.read()?;
        let mut head: RecordHead = serde_json::from_slice(take(&mut checked(&content.bytes)?)?).ok()?;
        self.complete(&mut head, &content);
        Some(head)
    }

    /// Returns what the record of that boot knows of the store at that path: the highest revision, the changes of its journal with
    /// it, whether they were made or not (the store had them first), and the last identity.
    pub fn store(&self, boot: &str, store: &Path) -> RecordedStore {
        let Some(head) = self.load_head().filter(|head| head.boot == boot && !head.is_hint) else {
            return RecordedStore::default();
        };
        let path = store.to_string_lossy();
        let changes = head.changes.iter().filter_map(|entry| entry.applied.as_ref());
        let mut known = RecordedStore::default();
        for applied in head.applied.iter().chain(changes) {
            let Some(store) = applied.store.as_ref().filter(|store| store.path == path) else {
                continue;
            };
            known = RecordedStore {
                revision: known.revision.max(store.revision),
                identity: store.identity,
                lineage: if store.revision >= known.revision {
                    *store.lineage
                } else {
                    known.lineage
                },
                known: applied.known,
            };
        }
        known
    }

    /// Returns whether the record is one of that boot that a daemon has written, with changes since. Only a daemon knows a store.
    pub fn is_of_daemon(&self, boot: &str) -> bool {
        let Some(head) = self.load_head().filter(|head| head.boot == boot) else {
            return false;
        };
        let changes = head.changes.iter().filter_map(|entry| entry.applied.as_ref());
        let mut notes = changes.chain(&head.applied);
        notes.any(|applied| applied.store.is_some())
    }

    fn read(&self) -> Option<run_file::FileContent> {
        self.checksum.set(None);
        self.length.set(None);
        read(&self.path, MOST_BYTES)
    }

    /// Applies the journal's entries to a record that was read.
    fn complete(&self, head: &mut RecordHead, record: &run_file::FileContent) {
        let checksum = record.bytes.last_chunk().map(|checksum| u32::from_le_bytes(*checksum));
        self.checksum.set(checksum);
        head.is_hint = !record.trusted;
        let Some(content) = read(&self.journal(), journal::MOST_BYTES) else {
            return;
        };
        if let Some((changes, _)) = checksum.and_then(|checksum| journal::read(&content.bytes, checksum)) {
            head.is_hint |= !content.trusted;
            head.changes = changes;
        }
    }

    /// Writes the record, whole or not at all, and ends the journal.
    ///
    /// # Errors
    ///
    /// Fails when the files cannot be written.
    pub fn save(&self, head: &RecordHead, ruleset: &Ruleset) -> io::Result<()> {
        let saved = self.try_save(head, ruleset);
        note_failure(&self.unwritten, &self.path, &saved);
        saved
    }

    fn try_save(&self, head: &RecordHead, ruleset: &Ruleset) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let saved = write(&temporary, head, ruleset).and_then(|checksum| {
            fs::rename(&temporary, &self.path)?;
            Ok(checksum)
        });
        match saved {
            Ok(checksum) => {
                self.checksum.set(Some(checksum));
                self.length.set(None);
                // Beside this record it is nothing, whether it can be removed or not.
                let _ = fs::remove_file(self.journal());
                Ok(())
            }
            Err(error) => {
                // Where it is full, what is left of it would keep it full.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// Appends a change to the journal of the record that was read or written last.
    ///
    /// # Errors
    ///
    /// Fails with [`io::ErrorKind::NotFound`] when there is no such record, with [`io::ErrorKind::FileTooLarge`] when
    /// the journal is full, and when the file cannot be written. The journal is then as before, and takes no entry
    /// until a record is written: a journal with a change also has those before it.
    pub fn append(&self, entry: &JournalEntry) -> io::Result<()> {
        let appended = self.try_append(entry);
        if appended.is_err() {
            self.checksum.set(None);
        }
        note_failure(&self.unwritten, &self.journal(), &appended);
        appended
    }

    fn try_append(&self, entry: &JournalEntry) -> io::Result<()> {
        let frame = journal::frame(entry)?;
        let no_record = || io::Error::new(io::ErrorKind::NotFound, "there is no record to append to");
        let checksum = self.checksum.get().ok_or_else(no_record)?;
        let length = match self.length.take() {
            Some(length) => length,
            None => self.begin_journal(checksum)?,
        };
        if length + frame.len() as u64 > journal::MOST_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the journal of the record is full",
            ));
        }
        let mut file = run_file::open_to_append(&self.journal())?;
        let written = if file.metadata()?.len() == length {
            file.write_all(&frame)
        } else {
            Err(io::Error::other(
                "another process has written to the journal of the record",
            ))
        };
        if written.is_err() {
            // What is left of an entry is no entry; the next one would follow it.
            let _ = file.set_len(length);
        }
        written?;
        self.length.set(Some(length + frame.len() as u64));
        Ok(())
    }

    /// Prepares the journal for this process, with its complete entries. Returns its length.
    fn begin_journal(&self, checksum: u32) -> io::Result<u64> {
        let there = read(&self.journal(), journal::MOST_BYTES);
        let there = there.map(|content| content.bytes).unwrap_or_default();
        let kept = journal::read(&there, checksum).map(|(_, length)| &there[..length]);
        let header = journal::header(checksum);
        let kept = kept.unwrap_or(&header);
        run_file::replace(&self.journal(), kept)?;
        Ok(kept.len() as u64)
    }

    fn journal(&self) -> PathBuf {
        self.path.with_extension("journal")
    }

    /// Returns the last teardown, unless something was applied since.
    pub fn load_torn_down(&self) -> Option<TeardownNote> {
        let content = run_file::read(&self.torn_down(), MOST_BYTES_TORN).ok()?;
        serde_json::from_slice(&content.bytes).ok()
    }

    /// Writes the note of a teardown.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save_torn_down(&self, torn: &TeardownNote) -> io::Result<()> {
        let bytes = serde_json::to_vec(torn).map_err(io::Error::other)?;
        let saved = run_file::replace(&self.torn_down(), &bytes);
        note_failure(&self.unnoted, &self.torn_down(), &saved);
        saved
    }

    /// Removes the note of a teardown.
    ///
    /// # Errors
    ///
    /// Fails when the file exists and cannot be removed.
    pub fn forget_torn_down(&self) -> io::Result<()> {
        let forgotten = match fs::remove_file(self.torn_down()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        note_failure(&self.unnoted, &self.torn_down(), &forgotten);
        forgotten
    }

    fn torn_down(&self) -> PathBuf {
        self.path.with_extension("torn-down")
    }

    /// Removes the record.
    ///
    /// # Errors
    ///
    /// Fails when the file exists and cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        self.checksum.set(None);
        self.length.set(None);
        // There is nothing to be written any more.
        self.unwritten.replace(None);
        for path in [&self.path, &self.journal()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Stores the reason why a file could not be written, or that it could.
fn note_failure(kept: &RefCell<Option<String>>, path: &Path, written: &io::Result<()>) {
    let failure = written.as_ref().err();
    kept.replace(failure.map(|error| format!("{}: {error}", tcpgw_core::escape::path(path))));
}

fn read(path: &Path, most: u64) -> Option<run_file::FileContent> {
    match run_file::read(path, most) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "{}: {error}; the kernel will be read instead",
                tcpgw_core::escape::path(path)
            );
            None
        }
    }
}

/// Writes a record without fsync: a record that a crash of the machine tears is of another boot anyway. Returns its
/// checksum.
fn write(path: &Path, head: &RecordHead, ruleset: &Ruleset) -> io::Result<u32> {
    let file = BufWriter::with_capacity(1 << 16, run_file::create(path)?);
    Ok(encode(file, head, ruleset)?.1)
}
