//! The files of a store: its own, and those that SQLite puts beside it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use rusqlite::{Connection, OpenFlags};

use super::error::{Fault, StoreError, system};
use super::schema;
use crate::run_file::with_suffix;

/// Identity of a file: it differs once the path leads to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    pub(super) inode: u64,
}

impl FileId {
    /// Returns the identity of the file that exists now.
    ///
    /// # Errors
    ///
    /// Fails when `stat` fails.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
        })
    }
}

/// Returns how many bytes this process can write on the file system of a file. Where that is not known or has no bound, it is
/// [`u64::MAX`].
pub(super) fn room_beside(path: &Path) -> u64 {
    let Ok(room) = statvfs(path) else { return u64::MAX };
    let blocks = if nix::unistd::geteuid().is_root() {
        room.blocks_free()
    } else {
        room.blocks_available()
    };
    if room.blocks() == 0 {
        return u64::MAX;
    }
    blocks.saturating_mul(room.fragment_size())
}

/// Endings of SQLite's files beside the store: the log, and the journal of an earlier version of this program.
pub(super) const LOGS: [&str; 2] = ["-wal", "-journal"];

/// Endings of other files beside the store.
const BESIDE: [&str; 11] = [
    "-shm",
    ".written",
    ".written.damaged",
    ".last",
    ".last.new",
    ".last.damaged",
    ".last.damaged.1",
    ".last.damaged.2",
    ".last.damaged.3",
    ".lost",
    ".lost.new",
];

/// Returns the files that a daemon writes for its store: the store first.
pub fn files_of(store: &Path) -> Vec<PathBuf> {
    let endings = [""].iter().chain(&LOGS).chain(&BESIDE);
    endings.map(|ending| with_suffix(store, ending)).collect()
}

/// Creates an empty store under another name first, so that a file of this name is always a whole store: an empty file
/// is one that has lost its contents.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let fail = |error: io::Error| system(path, &error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory).map_err(fail)?;
    let new = with_suffix(path, &format!(".new-{}", std::process::id()));
    remove(&new).map_err(fail)?;
    let made = fill(&new, path).and_then(|()| {
        // The log of a store that was moved away would be played into the new one.
        for log in LOGS {
            remove(&with_suffix(path, log)).map_err(fail)?;
        }
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(fail(error)),
            _ => Ok(()),
        }
    });
    remove(&new).map_err(fail)?;
    // Another process may have removed this one, too.
    if !path.exists() {
        made?;
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(fail)
}

/// Removes files of processes that were killed while they created this store.
pub(super) fn tidy(path: &Path) {
    let Some(start) = path.file_name().map(|name| format!("{}.new-", name.to_string_lossy())) else {
        return;
    };
    let entries = path
        .parent()
        .map(fs::read_dir)
        .into_iter()
        .flatten()
        .flatten()
        .flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start)) {
        let _ = fs::remove_file(entry.path());
    }
}

pub(super) fn fill(new: &Path, path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(new).map_err(|error| system(path, &error))?;
    let filled = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(Fault::from)
        .and_then(|mut connection| {
            connection.pragma_update(None, "synchronous", "full")?;
            schema::create(&mut connection)
        });
    filled.map_err(|fault| fault.at(path))
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the store private to its user. By name: closing a file that SQLite has open would end its locks.
pub(super) fn restrict(path: &Path) {
    let is_open = fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o077 != 0);
    if is_open && let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o600)) {
        tracing::debug!(%error, path = %tcpgw_core::escape::path(path), "failed to make the store private");
    }
}
