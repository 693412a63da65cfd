//! The daemon's store on disk, its thread, and what can go wrong with both.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tcpgw::control::storage::{Opened, Write, Written};
use tcpgw::daemon::{store_opening, store_work};
use tcpgw::store::last::Last;
use tcpgw::store::{Store, StoreError};

/// A store and its thread.
pub(crate) struct Storage {
    path: PathBuf,
    opened: Result<Store, StoreError>,
    /// Time until which the disk is full.
    pub(crate) full_until: Option<Instant>,
    /// The write at which the daemon is killed.
    pub(crate) kill: Option<Kill>,
}

/// A daemon is killed at one of its next writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    /// Number of writes until then, that one included.
    pub(crate) after: usize,
    /// True when the last write takes effect.
    pub(crate) is_made: bool,
}

impl Storage {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("store.db"),
            opened: Err(never_opened()),
            full_until: None,
            kill: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open store.
    pub(crate) fn store(&mut self) -> &mut Store {
        self.opened.as_mut().expect("the store is open")
    }

    /// Reads the file of last services, and opens the store as a daemon does that starts. `recorded`: the revision that the
    /// record knows.
    pub(crate) fn open(&mut self, recorded: u64, unix: Duration) -> (Last, Result<Opened, StoreError>) {
        let mut last = Last::load(&Last::path(&self.path)).unwrap().unwrap_or_default();
        let (store, opened) = match store_opening::open(&self.path, &last, recorded, unix) {
            Ok((store, opened)) => (Ok(store), Ok(opened)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        self.opened = store;
        if matches!(opened, Err(StoreError::Older { .. })) {
            last.revision = last.revision.max(recorded);
        }
        (last, opened)
    }

    /// Closes the store, as the death of its daemon does.
    pub(crate) fn close(&mut self) {
        self.opened = Err(never_opened());
        self.kill = None;
    }

    /// Performs a write as the store's thread does. Returns `None` when the daemon is killed before it gets the result.
    pub(crate) fn perform(&mut self, write: Write, now: Instant) -> Option<Written> {
        if let Some(kill) = &mut self.kill {
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
        Some(store_work::perform(&mut self.opened, write))
    }
}

fn never_opened() -> StoreError {
    StoreError::NoDeploy(0)
}

/// Returns the result of a write for which the disk has no room.
fn refused(write: &Write) -> Written {
    let full = || StoreError::Full("store.db".into());
    match write {
        Write::Change(..) | Write::RemoveOrphans(_) => Written::Changed(Err(full())),
        Write::Together(changes, _) => Written::Together(changes.iter().map(|_| Err(full())).collect()),
        Write::Begin(..) => Written::Began(Err(full())),
        Write::Step(..) => Written::Stepped(Err(full())),
        Write::Refresh => Written::Refreshed(Err(full())),
        Write::Remember(..) => Written::Remembered(Err("full".into()), Duration::ZERO),
    }
}
