//! What a store may answer instead, and what to do about it.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};
use rusqlite::ErrorCode;
use thiserror::Error;

use super::StoredService;
use super::deploys::Phase;
use tcpgw_core::model::word::Word as _;

/// Why a store did not do as asked. Unless it says otherwise, nothing was changed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum StoreError {
    /// It can be read, not written.
    #[error(
        "{} cannot be written: {why}; nothing was changed; make it writable, then try again",
        tcpgw_core::escape::path(path)
    )]
    ReadOnly {
        /// The store.
        path: PathBuf,
        /// What forbids it.
        why: String,
    },
    /// Its file system has no room.
    #[error("no space is left for {}; nothing was changed; make room on its file system, then try again", tcpgw_core::escape::path(.0))]
    Full(PathBuf),
    /// It is not what was written.
    #[error(
        "{path} is damaged: {what}; write down what is served (`tcpgw export > FILE`), move {path} and {path}-wal away, \
         restart the daemon, and bring the services back (`tcpgw apply FILE`)", path = tcpgw_core::escape::path(path)
    )]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer program has written it.
    #[error(
        "{} is of a newer tcpgw (schema {version}; known is {known}); run that version, or move the file away",
        tcpgw_core::escape::path(path)
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its schema.
        version: i64,
        /// The newest that is known.
        known: i64,
    },
    /// It was put in the place of one that was changed since.
    #[error(
        "{path} is older than what was served last: it is at revision {found}, and {known} was there; what is served goes on; put the \
         newer one in its place, or, to go by this one, remove {path}.last, and restart the daemon", path = tcpgw_core::escape::path(path)
    )]
    Older {
        /// The store.
        path: PathBuf,
        /// The revision that was served.
        known: u64,
        /// Its revision.
        found: u64,
    },
    /// It does not have all that was acknowledged.
    #[error(
        "{path} lacks changes that were acknowledged: its log {path}-wal was removed or cut, or it was copied without its log; what is served \
         goes on; put the log or a newer store in its place, or, to go by this one, remove {path}.written, and restart the daemon",
        path = tcpgw_core::escape::path(.0)
    )]
    Incomplete(PathBuf),
    /// Another process has it.
    #[error(
        "{} is in use by {holder}; one process at a time may have it",
        tcpgw_core::escape::path(path)
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// Which process, as far as the system tells.
        holder: String,
    },
    /// The system failed to read or write. Whether a change was made is open: load again.
    #[error("failed to use {}: {what}", tcpgw_core::escape::path(path))]
    Io {
        /// The store.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// It was opened anew, and is not at the revision that was known: load again.
    #[error(
        "{} is at revision {found} instead of {known}; nothing was changed; it has to be read again",
        tcpgw_core::escape::path(path)
    )]
    Moved {
        /// The store.
        path: PathBuf,
        /// The revision that was known.
        known: u64,
        /// Its revision.
        found: u64,
    },
    /// A service is not as the change expects it.
    #[error("service \"{name}\" {}; nothing was changed", conflict(current.as_deref()))]
    Conflict {
        /// The service.
        name: Box<str>,
        /// As it is; `None`: it is not there.
        current: Option<Box<StoredService>>,
    },
    /// The store has changed since.
    #[error("the services are at revision {current}, not {expected}; nothing was changed")]
    Behind {
        /// The revision that the change was made for.
        expected: u64,
        /// The store's.
        current: u64,
    },
    /// The file of last services, the only one that knows orphans, cannot be written.
    #[error(
        "failed to write {}, which alone says that a service no provider defines was removed: {what}; nothing was changed; make it \
         writable, then try again",
        tcpgw_core::escape::path(path)
    )]
    Last {
        /// The file of last services.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// There is no such deploy, or it is forgotten.
    #[error("there is no deploy {0}")]
    NoDeploy(u64),
    /// A deploy of this service has not switched yet.
    #[error("deploy {id} of service \"{service}\" is under way; wait for it, or end it first")]
    Deploying {
        /// The service.
        service: Box<str>,
        /// Number of the deploy.
        id: u64,
    },
    /// A deploy does not go from this phase to that.
    #[error("deploy {id} is {}, it cannot become {}", from.word(), to.word())]
    Phase {
        /// Number of the deploy.
        id: u64,
        /// Where it is.
        from: Phase,
        /// Where it was to go.
        to: Phase,
    },
}

fn conflict(current: Option<&StoredService>) -> String {
    match current {
        Some(current) => format!("is at revision {}", current.revision),
        None => "is not there".to_owned(),
    }
}

impl StoreError {
    /// Whether a store that could not be opened because of it may be opened later though nobody touches the file.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly { .. } | Self::Full(_) | Self::Locked { .. } | Self::Io { .. }
        )
    }

    /// Whether the store itself is in trouble, not what was asked of it.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::ReadOnly { .. }
                | Self::Full(_)
                | Self::Corrupt { .. }
                | Self::Newer { .. }
                | Self::Older { .. }
                | Self::Incomplete(_)
                | Self::Locked { .. }
                | Self::Io { .. }
        )
    }
}

/// What may go wrong within a transaction, before it is known which file it was.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    /// What was read is not what was written.
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
            // Unknown is among others what SQLite says of a schema that is not ours: no such table.
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
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full(path.to_owned()),
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => read_only(path),
        _ => StoreError::Io {
            path: path.to_owned(),
            what: error.to_string(),
        },
    }
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
    is_full.then(|| StoreError::Full(path.to_owned()))
}
