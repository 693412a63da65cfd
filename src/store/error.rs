//! Errors of a store, and advice for each.

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};
use rusqlite::ErrorCode;
use thiserror::Error;

use super::StoredService;
use super::phase::DeployPhase;
use crate::record::{StoreEpoch, StoreIdentity};
use crate::run_file;
use tcpgw_core::model::word::Word as _;

/// Reason why a store did not carry out a request. Unless it says otherwise, nothing was changed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum StoreError {
    /// The store can be read and not written.
    #[error(
        "{} cannot be written: {why}; nothing was changed; make it writable, then try again",
        tcpgw_core::escape::path(path)
    )]
    ReadOnly {
        /// Path of the store.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// The file system of the store is full.
    #[error("no space is left for {}; nothing was changed; make room on its file system, then try again", tcpgw_core::escape::path(.0))]
    Full(PathBuf),
    /// The store is damaged.
    #[error(
        "{path} is damaged: {what}; write down what is served (`tcpgw export > FILE`), move {path} and {path}-wal away, \
         restart the daemon, and bring the services back (`tcpgw apply FILE`)", path = tcpgw_core::escape::path(path)
    )]
    Corrupt {
        /// Path of the store.
        path: PathBuf,
        /// Description of the damage.
        what: String,
    },
    /// A newer program has written it.
    #[error(
        "{} is of a newer tcpgw (schema {version}; known is {known}); run that version, or move the file away",
        tcpgw_core::escape::path(path)
    )]
    Newer {
        /// Path of the store.
        path: PathBuf,
        /// Version of its schema.
        version: i64,
        /// Newest version that is known.
        known: i64,
    },
    /// The store was replaced by an older one.
    #[error(
        "{path} is older than what was served last: it is at revision {found}, and the store that was in use before at {known}; what is served \
         goes on; put the newer store in its place, or, to use this one as it is, remove {path}.last; then restart the daemon", path = tcpgw_core::escape::path(path)
    )]
    Older {
        /// Path of the store.
        path: PathBuf,
        /// Revision that was in effect.
        known: u64,
        /// Revision of the store.
        found: u64,
    },
    /// The store was replaced by that of another gateway.
    #[error(
        "{path} is not the store that was in use before, but that of another gateway: its identity is {}, and {known_by} says {known}; what \
         is served goes on; put the store that was in use before in its place, or, to use this one as it is, remove {path}.last; then restart \
         the daemon",
        identity(found.as_ref()), path = tcpgw_core::escape::path(path)
    )]
    Foreign {
        /// Path of the store.
        path: PathBuf,
        /// Identity of the store that was in effect.
        known: StoreIdentity,
        /// Identity of the store; `None` if it has none.
        found: Option<StoreIdentity>,
        /// Name of the file, or "the running daemon", that knows the identity that was in effect.
        known_by: Box<str>,
    },
    /// The store was replaced by a copy of it.
    #[error(
        "{path} is not the store that was in use before, but a copy of it that lacks the last start of the daemon (as {known_by} tells): the \
         copy was used elsewhere meanwhile, as the disk of a cloned machine; what is served goes on; put the store that was in use before in \
         its place, or, to use this one as it is, remove {path}.last; then restart the daemon", path = tcpgw_core::escape::path(path)
    )]
    Copied {
        /// Path of the store.
        path: PathBuf,
        /// Last epoch of the store; `None` if it has none.
        found: Option<StoreEpoch>,
        /// Name of the file that knows the store that was in effect.
        known_by: Box<str>,
    },
    /// The store lacks writes that were acknowledged.
    #[error(
        "{path} lacks changes that were acknowledged: its log {path}-wal was removed or cut, or it was copied without its log; what is served \
         goes on; put the log or a newer store in its place, or, to use this one as it is, remove {path}.written, and restart the daemon",
        path = tcpgw_core::escape::path(.0)
    )]
    Incomplete(PathBuf),
    /// Another process uses the store.
    #[error(
        "{} is in use by {holder}, and only one process at a time may use it: end that one, or name another store (--store)",
        tcpgw_core::escape::path(path)
    )]
    Locked {
        /// Path of the store.
        path: PathBuf,
        /// The process, as far as it is known.
        holder: String,
    },
    /// Reading or writing failed. Whether a change was made is unknown: load again.
    #[error("failed to use {}: {what}", tcpgw_core::escape::path(path))]
    Io {
        /// Path of the store.
        path: PathBuf,
        /// Error of the system.
        what: String,
    },
    /// The store was opened again, and is not at the known revision: load again.
    #[error(
        "{} is at revision {found} instead of {known}; nothing was changed; try again",
        tcpgw_core::escape::path(path)
    )]
    Moved {
        /// Path of the store.
        path: PathBuf,
        /// The revision that was known.
        known: u64,
        /// Revision of the store.
        found: u64,
    },
    /// A service is not as the change expects it.
    #[error("service \"{name}\" {}; nothing was changed", conflict(current.as_deref()))]
    Conflict {
        /// Name of the service.
        name: Box<str>,
        /// Present service; `None` if it does not exist.
        current: Option<Box<StoredService>>,
    },
    /// The store has changed since.
    #[error(
        "the services were changed meanwhile, and are at revision {current}, not {expected}; nothing was changed; read them again, then repeat the change"
    )]
    Behind {
        /// The revision that the change was made for.
        expected: u64,
        /// Revision of the store.
        current: u64,
    },
    /// The file of last services, the only one that knows orphans, cannot be written.
    #[error(
        "failed to write {}, which has to record that an orphan (a service that no provider defines) was removed, or it would be served \
         again: {what}; nothing was changed; make it writable, then try again",
        tcpgw_core::escape::path(path)
    )]
    LastServices {
        /// The file of last services.
        path: PathBuf,
        /// Error of the system.
        what: String,
    },
    /// The deploy does not exist, or is forgotten.
    #[error("there is no deploy {0}")]
    NoDeploy(u64),
    /// A deploy of this service has not switched yet.
    #[error(
        "deploy {id} of service \"{service}\" is under way; wait for it, or take it back first (`tcpgw rollback {service}`)"
    )]
    Deploying {
        /// Name of the service.
        service: Box<str>,
        /// Number of the deploy.
        id: u64,
    },
    /// A deploy cannot go from one phase to the other.
    #[error("deploy {id} is {}, it cannot become {}", from.word(), to.word())]
    Phase {
        /// Number of the deploy.
        id: u64,
        /// Present phase.
        from: DeployPhase,
        /// Requested phase.
        to: DeployPhase,
    },
}

fn identity(found: Option<&StoreIdentity>) -> String {
    found.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn conflict(current: Option<&StoredService>) -> String {
    match current {
        Some(current) => format!("was changed meanwhile, and is at revision {}", current.revision),
        None => "does not exist".to_owned(),
    }
}

impl StoreError {
    /// Returns whether a store that could not be opened because of this error may be opened later without a repair of
    /// the file.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly { .. } | Self::Full(_) | Self::Locked { .. } | Self::Io { .. }
        )
    }

    /// Returns whether the store itself has failed, and not the request.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly { .. }
                | Self::Full(_)
                | Self::Corrupt { .. }
                | Self::Newer { .. }
                | Self::Older { .. }
                | Self::Foreign { .. }
                | Self::Copied { .. }
                | Self::Incomplete(_)
                | Self::Locked { .. }
                | Self::Io { .. }
        )
    }
}

/// Error within a transaction, before the path of the file is known.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    /// The data is not what was written.
    Damage(String),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    pub(super) fn damage(what: impl Into<String>) -> Self {
        Self::Damage(what.into())
    }

    pub(super) fn at(self, path: &Path) -> StoreError {
        let corrupt = |what: String| StoreError::Corrupt {
            path: path.to_owned(),
            what,
        };
        let error = match self {
            Self::Store(error) => return error,
            Self::Damage(what) => return corrupt(what),
            Self::Sql(error) => error,
        };
        let what = error.to_string();
        let rusqlite::Error::SqliteFailure(code, _) = error else {
            return corrupt(what);
        };
        match code.code {
            // Unknown is, among others, SQLite's code for a schema that is not that of a store: no such table.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown => corrupt(what),
            ErrorCode::DiskFull => StoreError::Full(path.to_owned()),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked {
                path: path.to_owned(),
                holder: super::holder::of(path),
            },
            ErrorCode::ReadOnly => read_only(path),
            // Without rights, or where the file system turned read-only or full, the answer may be one of these.
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                because_of_file_system(path).unwrap_or(StoreError::Io {
                    path: path.to_owned(),
                    what,
                })
            }
            _ => StoreError::Io {
                path: path.to_owned(),
                what,
            },
        }
    }
}

pub(super) fn read_only(path: &Path) -> StoreError {
    because_of_file_system(path)
        .filter(|error| matches!(error, StoreError::ReadOnly { .. }))
        .unwrap_or(StoreError::ReadOnly {
            path: path.to_owned(),
            why: "its file or its directory may not be written".into(),
        })
}

pub(super) fn system(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
            StoreError::Full(path.to_owned())
        }
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => read_only(path),
        _ => StoreError::Io {
            path: path.to_owned(),
            what: error.to_string(),
        },
    }
}

/// Returns whether the process may not write another page and its place in the log because of its limit of file sizes.
fn is_at_limit(path: &Path) -> bool {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let largest = size(path).max(size(&run_file::with_suffix(path, "-wal")));
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(most, _)| most <= largest.saturating_add(64 << 10))
}

fn because_of_file_system(path: &Path) -> Option<StoreError> {
    let directory = path.ancestors().skip(1).find(|directory| directory.is_dir())?;
    let stats = statvfs(directory).ok()?;
    if stats.flags().contains(FsFlags::ST_RDONLY) {
        return Some(StoreError::ReadOnly {
            path: path.to_owned(),
            why: "its file system is mounted read-only".into(),
        });
    }
    let is_full = stats.blocks_available() == 0 || (stats.files() > 0 && stats.files_available() == 0);
    (is_full || is_at_limit(path)).then(|| StoreError::Full(path.to_owned()))
}
