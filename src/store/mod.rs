//! Store of what came in through the API: services, the history of changes, deploys.
//!
//! One SQLite file, used by one process at a time, in one thread. Acknowledged changes are on the disk
//! (`synchronous=FULL`), and a change that a kill or a power cut interrupts is not made. A change is added to a
//! write-ahead log, the file `-wal` beside the store, and costs one flush of the disk.
//! [`checkpoint`](Store::checkpoint), opening and closing move it into the file, so that a store that is not open is
//! one file, which can be copied, and read where nothing can be written. The log's index is in memory and not in a file
//! `-shm`, since no other process uses the store. Rows have checksums: SQLite has none in the file, and a log that
//! belongs to an older copy of the file is found by them. The store reads no clock: times come from the caller, as time
//! since 1970.

mod author;
mod connection;
mod deploys;
mod epochs;
mod error;
mod file;
mod head;
mod history;
mod history_bounds;
mod holder;
mod identity;
mod integer;
pub mod last_services;
pub mod lost;
mod phase;
mod requested;
mod resources;
mod schema;
mod seal;
mod services;
mod stored_service;
pub mod write_count;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction};

use tcpgw_core::model::Service;

use crate::run_file::with_suffix;

use self::connection::{in_transaction, open_locked, open_unwritable, or_nothing, try_to_write};
use self::error::{Fault, read_only};
use self::file::{create, restrict, room_beside};
use self::integer::{counter, number};

pub use self::author::ChangeAuthor;
pub use self::deploys::{DeployStep, NewDeploy, StoredDeploy, superseded_by};
pub use self::epochs::MOST_EPOCHS;
pub use self::error::StoreError;
pub use self::file::{FileId, files_of};
pub use self::history::{HistoryEntry, HistoryFilter};
pub use self::history_bounds::HistoryBounds;
pub use self::phase::DeployPhase;
pub use self::resources::LoadedResources;
pub use self::services::{CommittedChange, Expect, LoadedServices, StoreChange, StoreEdit};
pub use self::stored_service::StoredService;
pub use crate::record::{StoreEpoch, StoreIdentity, StoreLineage};

/// An open store. Not shared between threads: calls wait for the disk.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    keep: HistoryBounds,
    /// Connection; `None` after an error that leaves its state unknown: it is opened again.
    connection: Option<Connection>,
    /// The file that was opened.
    file: Option<FileId>,
    /// File of the log.
    log: Option<FileId>,
    /// Whether more writes were acknowledged than the store had when it was opened.
    lacks_writes: bool,
    /// Whether the store was opened for reading only: it cannot be written, or could not be when it was opened.
    read_only: bool,
    /// Revision that the caller has seen.
    revision: i64,
    /// Identity of the store; `None` if an earlier version made it, and it could not be written since.
    identity: Option<StoreIdentity>,
    /// Epochs of the store, the newest first.
    epochs: Vec<StoreEpoch>,
    /// Reason why the last write failed, unless one has succeeded since.
    trouble: Option<StoreError>,
}

impl Store {
    /// Opens a store, creates it if there is none (the file with mode 0600, its directory 0700), and checks whether it
    /// is whole. One that can be read but not written is opened, too: see [`trouble`](Self::trouble).
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Corrupt`], [`StoreError::Newer`], [`StoreError::Locked`] and [`StoreError::Io`], and
    /// when a new store cannot be created.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, HistoryBounds::default())
    }

    /// Opens a store as [`open`](Self::open) does, with these bounds of the history.
    pub fn open_with(path: &Path, keep: HistoryBounds) -> Result<Self, StoreError> {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            create(path)?;
        }
        let mut store = Self {
            path: path.to_owned(),
            keep,
            connection: None,
            file: None,
            log: None,
            lacks_writes: false,
            read_only: false,
            revision: 0,
            identity: None,
            epochs: Vec::new(),
            trouble: None,
        };
        store.revision = store.connect()?;
        Ok(store)
    }

    /// Returns whether changes can be written, as far as the last attempt tells.
    pub fn is_writable(&self) -> bool {
        self.trouble.is_none()
    }

    /// Returns the reason why the last attempt to write failed; opening the store was the first attempt.
    pub fn trouble(&self) -> Option<&StoreError> {
        self.trouble.as_ref()
    }

    /// Returns whether the store lacked acknowledged writes when it was opened, as the [file beside it](write_count) tells.
    pub fn lacks_writes(&self) -> bool {
        self.lacks_writes
    }

    /// Accepts the store as it is, whatever it has lost: what is acknowledged counts from here on.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or written.
    pub fn accept(&mut self) -> Result<(), StoreError> {
        let written = self.read(|connection, _| schema::written(connection))?;
        self.lacks_writes = false;
        self.note_written(written);
        Ok(())
    }

    /// Returns the identity of the file; `None` if it is unknown.
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Returns the identity of the store; `None` if an earlier version made it, and it could not be written since.
    pub fn identity(&self) -> Option<StoreIdentity> {
        self.identity
    }

    /// Returns the epochs of the store, the newest first.
    pub fn epochs(&self) -> &[StoreEpoch] {
        &self.epochs
    }

    /// Returns the path of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all services, and the revision of the store.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn load(&mut self) -> Result<LoadedServices, StoreError> {
        let loaded = self.read(|connection, _| services::load(connection))?;
        self.revision = number(loaded.revision);
        Ok(loaded)
    }

    /// Returns all resources of the add-on.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn resources(&mut self) -> Result<LoadedResources, StoreError> {
        self.read(|connection, _| resources::load(connection))
    }

    /// Makes a change, as a whole or not at all; when this returns, it is on the disk. A change without effect writes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Conflict`] when a service is not as expected, and when the store cannot be written.
    pub fn commit(
        &mut self,
        change: &StoreChange,
        by: &ChangeAuthor,
        at: Duration,
    ) -> Result<CommittedChange, StoreError> {
        let committed = self.write(|transaction, keep| services::commit(transaction, change, by, at, keep))?;
        self.revision = number(committed.revision);
        Ok(committed)
    }

    /// Makes several changes in one transaction, which is flushed once. Each of them is made or refused separately, as
    /// [`commit`](Self::commit) one after the other would do. Returns the result of each. If the transaction fails, its
    /// error is the result of all.
    pub fn commit_together(
        &mut self,
        changes: &[(StoreChange, ChangeAuthor)],
        at: Duration,
    ) -> Vec<Result<CommittedChange, StoreError>> {
        let path = self.path.clone();
        let one = |transaction: &Transaction<'_>, keep: &HistoryBounds, change, by| {
            let committed = or_nothing(transaction, || services::commit(transaction, change, by, at, keep));
            match committed.map_err(|fault| fault.at(&path)) {
                Ok(committed) => Ok(Ok(committed)),
                Err(error) if error.is_trouble() => Err(Fault::from(error)),
                Err(refused) => Ok(Err(refused)),
            }
        };
        let done = self.write(|transaction, keep| {
            let done = changes.iter().map(|(change, by)| one(transaction, keep, change, by));
            done.collect::<Result<Vec<_>, Fault>>()
        });
        match done {
            Ok(done) => {
                if let Some(last) = done.iter().flatten().last() {
                    self.revision = number(last.revision);
                }
                done
            }
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Gives a new store the identity of the one before it, and at least its revision, so that it looks neither older nor like
    /// that of another gateway.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or written.
    pub fn succeed(&mut self, identity: Option<StoreIdentity>, revision: u64) -> Result<(), StoreError> {
        self.revision = self.write(|transaction, _| {
            if let Some(identity) = identity {
                identity::write(transaction, identity)?;
            }
            schema::raise_revision(transaction, number(revision))
        })?;
        self.identity = identity.or(self.identity);
        Ok(())
    }

    /// Replaces the epochs by these, the newest first.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or written.
    pub fn set_epochs(&mut self, epochs: Vec<StoreEpoch>) -> Result<(), StoreError> {
        self.write(|transaction, _| epochs::write(transaction, &epochs))?;
        self.epochs = epochs;
        Ok(())
    }

    /// Writes a value without meaning, to see whether changes can be written: [`trouble`](Self::trouble) is up to date
    /// after that.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or written.
    pub fn probe(&mut self) -> Result<(), StoreError> {
        self.write(|transaction, _| schema::touch(transaction))
    }

    /// Moves the contents of the log into the file, flushes the file, and empties the log. If this fails, the contents
    /// are still in the log, and nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or written.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.read_only || self.connection.is_none() {
            return Ok(());
        }
        self.read(|connection, _| schema::checkpoint(connection))
    }

    /// Returns the entries of the history that meet the filter, the newest first.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn history(&mut self, filter: &HistoryFilter) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read(|connection, _| history::read(connection, filter))
    }

    /// Returns the services that were removed and do not exist, by name, in their last form.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn removed(&mut self) -> Result<BTreeMap<Box<str>, Option<Service>>, StoreError> {
        self.read(|connection, _| history::removed(connection))
    }

    /// Records the beginning of a deploy, in the phase [`DeployPhase::Probing`]. Returns its id, which is never used again.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Deploying`] while an earlier deploy of this service probes, and when the store cannot
    /// be written.
    pub fn deploy_begin(&mut self, deploy: &NewDeploy, by: &ChangeAuthor, at: Duration) -> Result<u64, StoreError> {
        self.write(|transaction, keep| deploys::begin(transaction, deploy, by, at, keep))
    }

    /// Records a step of a deploy without a change of its service. A step with a change belongs to that change:
    /// [`StoreChange::deploy`].
    ///
    /// # Errors
    ///
    /// Fails when the deploy does not exist or cannot go to that phase, or the store cannot be written: [`StoreError`].
    pub fn deploy_update(&mut self, step: &DeployStep, at: Duration) -> Result<(), StoreError> {
        self.write(|transaction, _| deploys::step(transaction, step, None, at))
    }

    /// Returns a deploy; `None` if it does not exist, or is forgotten.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn deploy(&mut self, id: u64) -> Result<Option<StoredDeploy>, StoreError> {
        self.read(|connection, _| deploys::one(connection, id))
    }

    /// Returns the deploys of one service or of all, the newest first.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn deploys(&mut self, service: Option<&str>, limit: usize) -> Result<Vec<StoredDeploy>, StoreError> {
        self.read(|connection, _| deploys::list(connection, service, limit))
    }

    /// Returns the deploys that are not over, the oldest first: a daemon that was killed has to finish or undo them.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be opened or read.
    pub fn unfinished_deploys(&mut self) -> Result<Vec<StoredDeploy>, StoreError> {
        self.read(|connection, _| deploys::unfinished(connection))
    }

    fn read<T>(&mut self, work: impl FnOnce(&Connection, &HistoryBounds) -> Result<T, Fault>) -> Result<T, StoreError> {
        if self.connection.is_none() {
            self.connect()?;
        }
        let Some(connection) = &self.connection else {
            return Err(self.closed());
        };
        work(connection, &self.keep).map_err(|fault| self.suffer(fault))
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &HistoryBounds) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        if self.read_only {
            self.close();
        }
        if self.connection.is_none() {
            let found = self.connect()?;
            if found != self.revision {
                // Until it is loaded every change meets this.
                self.close();
                return Err(StoreError::Moved {
                    path: self.path.clone(),
                    known: counter(self.revision),
                    found: counter(found),
                });
            }
        }
        if self.read_only {
            return Err(self.trouble.clone().unwrap_or_else(|| read_only(&self.path)));
        }
        let Some(connection) = &mut self.connection else {
            return Err(self.closed());
        };
        let before = connection.total_changes();
        // Writes to a store that lacks acknowledged ones are not counted before it is accepted: its count would reach
        // the acknowledged one.
        let counts = !self.lacks_writes;
        let counted = |transaction: &Transaction<'_>| {
            let done = work(transaction, &self.keep)?;
            let is_changed = transaction.total_changes() != before;
            let written = (is_changed && counts).then(|| schema::count_write(transaction));
            Ok((done, written.transpose()?))
        };
        match in_transaction(connection, counted) {
            Ok((done, written)) => {
                if connection.total_changes() != before {
                    self.trouble = None;
                }
                if let Some(written) = written {
                    self.note_written(written);
                    self.leave_room();
                }
                Ok(done)
            }
            Err(fault) => Err(self.suffer(fault)),
        }
    }

    /// Moves the log into the file as long as there is room for that: the file may grow by as much as the log has. Otherwise the log would
    /// fill a small file system, and could not be moved any more. What fails here is in the log still.
    fn leave_room(&self) {
        let log = fs::metadata(with_suffix(&self.path, "-wal")).map_or(0, |log| log.len());
        if room_beside(&self.path) >= log.saturating_mul(2) {
            return;
        }
        if let Some(Err(fault)) = self.connection.as_ref().map(schema::checkpoint) {
            let error = fault.at(&self.path);
            tracing::debug!("failed to move the log of the store into its file: {error}");
        }
    }

    /// Writes the number of acknowledged writes, before the acknowledgement. If that fails, the change is on the disk
    /// nevertheless.
    fn note_written(&self, written: u64) {
        if let Err(error) = write_count::note(&self.path, written) {
            tracing::debug!(%error, "failed to note how many writes of the store were acknowledged");
        }
    }

    /// Stores an error. After one that leaves the contents of the file unknown, the file is opened again.
    fn suffer(&mut self, fault: Fault) -> StoreError {
        let error = fault.at(&self.path);
        if error.is_trouble() {
            self.trouble = Some(error.clone());
        }
        let unsure = matches!(error, StoreError::Io { .. } | StoreError::Corrupt { .. });
        if unsure || self.connection.as_ref().is_some_and(|open| !open.is_autocommit()) {
            self.close();
        }
        error
    }

    /// Closes the file, which moves the log into it. Removes the log, except if its name belongs to the log of another
    /// store that replaced this one.
    fn close(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let is_another = FileId::of(&with_suffix(&self.path, "-wal")).is_ok_and(|there| Some(there) != self.log);
        if is_another {
            let moved = schema::checkpoint(&connection);
            let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if moved.is_err() || kept.is_err() {
                tracing::debug!("failed to close a store whose file was replaced");
            }
        }
    }

    fn closed(&self) -> StoreError {
        StoreError::Io {
            path: self.path.clone(),
            what: "it is closed".into(),
        }
    }

    /// Opens the file, takes its lock, checks it, and tries to write. Gives its revision.
    fn connect(&mut self) -> Result<i64, StoreError> {
        self.connect_inner().map_err(|fault| fault.at(&self.path))
    }

    fn connect_inner(&mut self) -> Result<i64, Fault> {
        for path in [self.path.clone(), with_suffix(&self.path, "-wal")] {
            restrict(&path);
        }
        let (mut connection, unwritable) = match open_locked(&self.path) {
            Ok(connection) => (connection, None),
            Err(fault) => {
                let (connection, error) = open_unwritable(&self.path, fault)?;
                (connection, Some(error))
            }
        };
        let version = schema::check(&connection)?;
        schema::migrate(&mut connection, version, &self.path)?;
        let head = schema::verify(&connection)?;
        self.is_expected(identity::read(&connection)?)?;
        self.lacks_writes |= write_count::read(&self.path) > Some(schema::written(&connection)?);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.read_only = unwritable.is_some();
        self.trouble = match unwritable {
            Some(error) => Some(error),
            None => match try_to_write(&mut connection).map_err(|fault| fault.at(&self.path)) {
                Ok(()) => None,
                Err(error @ (StoreError::Full(_) | StoreError::ReadOnly { .. })) => Some(error),
                Err(error) => return Err(error.into()),
            },
        };
        self.identity = identity::read(&connection)?;
        self.epochs = epochs::read(&connection)?;
        self.file = FileId::of(&self.path).ok();
        self.log = FileId::of(&with_suffix(&self.path, "-wal")).ok();
        self.connection = Some(connection);
        Ok(head.revision)
    }

    /// Checks whether a file that is opened again is the store that was open before.
    fn is_expected(&self, found: Option<StoreIdentity>) -> Result<(), Fault> {
        match self.identity {
            Some(known) if found != Some(known) => Err(Fault::Store(StoreError::Foreign {
                path: self.path.clone(),
                known,
                found,
                known_by: "the running daemon".into(),
            })),
            _ => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
