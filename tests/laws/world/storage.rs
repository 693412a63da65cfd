//! The daemon's store on disk, its thread, and what can go wrong with both.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tcpgw::control::storage::{Opened, Write, WriteResult};
use tcpgw::daemon::{store_opening, store_work};
use tcpgw::record::RecordedStore;
use tcpgw::store::last_services::LastServices;
use tcpgw::store::{Store, StoreError};

use super::NAMESPACE;

/// A store and its thread.
pub(crate) struct Storage {
    path: PathBuf,
    opened: Result<Store, StoreError>,
    /// Time until which the disk is full.
    pub(crate) full_until: Option<Instant>,
    /// While all changes are refused, the number of those. The store can be read, and written in a trial.
    pub(crate) refuses: Option<usize>,
    /// The next change fails; `true` when it takes effect all the same.
    pub(crate) fail_change: Option<bool>,
    /// The write at which the daemon is killed.
    pub(crate) kill: Option<Kill>,
    /// Most changes that were written in one transaction.
    pub(crate) most_together: usize,
    /// Number of steps of deploys that the store refused because the deploy had ended already.
    pub(crate) steps_too_late: usize,
}

/// A daemon is killed at one of its next writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    /// Number of writes until then, that one included.
    pub(crate) after: usize,
    /// Writes that count.
    pub(crate) of: Writes,
    /// True when the last write takes effect.
    pub(crate) is_made: bool,
}

/// Kinds of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    All,
    /// Changes of services and resources.
    Changes,
}

impl Storage {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("store.db"),
            opened: Err(never_opened()),
            full_until: None,
            refuses: None,
            fail_change: None,
            kill: None,
            most_together: 0,
            steps_too_late: 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open store.
    pub(crate) fn store(&mut self) -> &mut Store {
        self.opened.as_mut().expect("the store is open")
    }

    /// Reads the file of last services, and opens the store as a daemon does that starts. `recorded`: what the record
    /// knows of it.
    pub(crate) fn open(
        &mut self,
        recorded: RecordedStore,
        boot: &str,
        unix: Duration,
    ) -> (LastServices, Result<Opened, StoreError>) {
        let mut last = LastServices::load(&LastServices::path(&self.path))
            .unwrap()
            .unwrap_or_default();
        let recorded = last.amended(recorded, boot, NAMESPACE);
        let (store, opened) = match store_opening::open(&self.path, &last, &recorded, unix) {
            Ok((store, opened)) => (Ok(store), Ok(opened)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        self.opened = store;
        if let Err(error) = &opened {
            store_opening::keep_known(&mut last, &recorded, error);
        }
        (last, opened)
    }

    /// Closes the store, as the death of its daemon does.
    pub(crate) fn close(&mut self) {
        self.opened = Err(never_opened());
        (self.fail_change, self.kill) = (None, None);
    }

    /// Performs a write as the store's thread does. Returns `None` when the daemon is killed before it gets the result.
    pub(crate) fn perform(&mut self, write: Write, now: Instant) -> Option<WriteResult> {
        let is_change = matches!(write, Write::Change(..) | Write::Together(..));
        self.most_together = self.most_together.max(match &write {
            Write::Together(changes, _) => changes.len(),
            _ => 1,
        });
        if let Some(kill) = &mut self.kill
            && (is_change || kill.of == Writes::All)
        {
            kill.after = kill.after.saturating_sub(1);
            if kill.after == 0 {
                if kill.is_made {
                    store_work::perform(&mut self.opened, write);
                }
                return None;
            }
        }
        if self.full_until.is_some_and(|until| until > now) {
            return Some(refused(&write));
        }
        if let Some(refused_so_far) = &mut self.refuses
            && !matches!(write, Write::Refresh | Write::Remember(..))
        {
            *refused_so_far += 1;
            return Some(refused(&write));
        }
        if let Some(is_made) = self.fail_change.take_if(|_| is_change) {
            let refused = refused(&write);
            if is_made {
                store_work::perform(&mut self.opened, write);
            }
            return Some(refused);
        }
        let result = store_work::perform(&mut self.opened, write);
        if let WriteResult::Stepped(Err(StoreError::Phase { .. })) = &result {
            self.steps_too_late += 1;
        }
        Some(result)
    }
}

fn never_opened() -> StoreError {
    StoreError::NoDeploy(0)
}

/// Returns the result of a write for which the disk has no room.
fn refused(write: &Write) -> WriteResult {
    let full = || StoreError::Full("store.db".into());
    match write {
        Write::Change(..) | Write::RemoveOrphans(_) => WriteResult::Changed(Err(full())),
        Write::Together(changes, _) => WriteResult::Together(changes.iter().map(|_| Err(full())).collect()),
        Write::Begin(..) => WriteResult::Began(Err(full())),
        Write::Step(..) => WriteResult::Stepped(Err(full())),
        Write::Refresh => WriteResult::Refreshed(Err(full())),
        Write::Remember(..) => WriteResult::Remembered(Err("full".into()), Duration::ZERO),
    }
}
