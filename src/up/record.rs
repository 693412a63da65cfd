//! Records of `tcpgw up` in the run directory, by which a later command can clean up after one that was killed.
//!
//! `up-NAMESPACE-ID/` belongs to an app: its lock is held as long as its `tcpgw up` lives. `up-NAMESPACE.json` has the things
//! that all apps of a network namespace share, and `up-NAMESPACE.lock` is held during changes of these.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::AppId;
use super::owner::UpOwner;
use crate::run_file;
use tcpgw_core::escape;

/// Maximum size of a record, in bytes.
const MAX_SIZE: u64 = 64 << 10;
/// Maximum time for another `tcpgw up` to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Reason why the records cannot be kept.
#[derive(Debug, Error)]
pub enum RecordError {
    /// An operation on the file system failed.
    #[error("failed to {what} {}: {source}", escape::path(path))]
    File {
        /// Operation that failed.
        what: &'static str,
        /// File of the operation.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The app runs already.
    #[error("`tcpgw up` runs in this directory already (process {0}); `tcpgw up stop` ends it")]
    Running(String),
    /// Another `tcpgw up` is starting or ending, and has not finished in time.
    #[error(
        "another `tcpgw up` of this network namespace has been starting or ending for {}",
        tcpgw_core::model::duration::show(PATIENCE)
    )]
    Busy,
}

/// Record of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// The directory of its Procfile.
    pub directory: PathBuf,
    /// Network of the app.
    pub network: String,
    /// Id of the app in the add-on; `None`: the app has no resource.
    pub app: Option<String>,
}

/// Record of the things that the apps of a network namespace share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    /// The daemon that a `tcpgw up` has started, by its process number.
    pub daemon: Option<u32>,
    /// The `tcpgw up` that has started it.
    #[serde(default)]
    pub starter: Option<UpOwner>,
    /// The daemon's configuration, if `tcpgw up` has written that.
    pub config: Option<PathBuf>,
    /// The daemon's store, if there was none before.
    pub store: Option<PathBuf>,
    /// Virtual links that existed when forwarding was switched on; `None`: `tcpgw up` has not switched it on.
    pub forwarding: Option<BTreeSet<String>>,
}

/// Paths of the records of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPaths {
    run_dir: PathBuf,
    namespace: u64,
}

/// The lock that allows changes of the things that apps share.
#[derive(Debug)]
pub struct SharedLock {
    path: PathBuf,
    _lock: Flock<File>,
}

/// The directory of an app, locked by this process.
#[derive(Debug)]
pub struct AppDirectory {
    /// Path of the directory.
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl RecordPaths {
    /// Returns the paths for the network namespace with this cookie; makes the run directory.
    ///
    /// # Errors
    /// Fails when the run directory cannot be created.
    pub fn new(run_dir: &Path, namespace: u64) -> Result<Self, RecordError> {
        fs::create_dir_all(run_dir).map_err(|source| RecordError::File {
            what: "make",
            path: run_dir.to_owned(),
            source,
        })?;
        // The socket and the daemon are told of it, from another directory.
        let run_dir = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
        Ok(Self { run_dir, namespace })
    }

    /// Returns the run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn named(&self, end: &str) -> PathBuf {
        self.run_dir.join(format!("up-{}{end}", self.namespace))
    }

    /// Returns the directory of an app.
    pub fn of(&self, id: &AppId) -> PathBuf {
        self.named(&format!("-{id}"))
    }

    /// Returns the app of a directory.
    pub fn id_of(&self, directory: &Path) -> AppId {
        AppId::of(directory, self.namespace)
    }

    /// Waits for the right to change what apps share.
    ///
    /// # Errors
    /// Fails when the lock's file cannot be opened, or another `tcpgw up` holds the lock for too long.
    pub fn lock(&self) -> Result<SharedLock, RecordError> {
        let path = self.named(".lock");
        let begin = Instant::now();
        loop {
            match try_lock(&path)? {
                // The former holder may have removed the file: the next process would lock another one.
                Ok(lock) if !run_file::is_at(&lock, &path) => {}
                Ok(lock) => return Ok(SharedLock { path, _lock: lock }),
                Err(_) if begin.elapsed() >= PATIENCE => return Err(RecordError::Busy),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Takes the directory of an app, and makes it if it is not there.
    ///
    /// # Errors
    /// Fails when the app runs already, or its directory cannot be created or locked.
    pub fn take(&self, id: &AppId) -> Result<AppDirectory, RecordError> {
        let path = self.of(id);
        private_directory(&path)?;
        let fail = |what, source| RecordError::File {
            what,
            path: path.clone(),
            source,
        };
        match try_lock(&path.join("lock"))? {
            Ok(mut lock) => {
                let signed = lock.set_len(0).and_then(|()| lock.rewind());
                signed
                    .and_then(|()| write!(lock, "{}", std::process::id()))
                    .map_err(|source| fail("write to the lock of", source))?;
                Ok(AppDirectory { path, _lock: lock })
            }
            Err(mut file) => {
                let mut holder = String::new();
                let _ = file
                    .rewind()
                    .and_then(|()| (&mut file).take(16).read_to_string(&mut holder));
                Err(RecordError::Running(escape::text(holder.trim())))
            }
        }
    }

    /// Returns the network namespace's cookie.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// Returns the directories of apps whose `tcpgw up` has ended without removing them, each taken, and the ids of those that live.
    ///
    /// # Errors
    /// Fails when the run directory cannot be listed, or a directory of an app cannot be locked.
    pub fn leftovers(&self) -> Result<(Vec<AppDirectory>, BTreeSet<String>), RecordError> {
        let fail = |source| RecordError::File {
            what: "list",
            path: self.run_dir.clone(),
            source,
        };
        let start = format!("up-{}-", self.namespace);
        let (mut dead, mut living) = (Vec::new(), BTreeSet::new());
        for entry in fs::read_dir(&self.run_dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix(&start)) else {
                continue;
            };
            if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                continue;
            }
            let path = entry.path();
            match try_lock(&path.join("lock"))? {
                Ok(lock) => dead.push(AppDirectory { path, _lock: lock }),
                Err(_) => drop(living.insert(id.to_owned())),
            }
        }
        Ok((dead, living))
    }

    /// Returns whether a `tcpgw up` of the app with this id lives, in any network namespace that uses this run directory.
    ///
    /// # Errors
    /// Fails when the run directory cannot be listed.
    pub fn is_held(&self, id: &str) -> Result<bool, RecordError> {
        let fail = |source| RecordError::File {
            what: "list",
            path: self.run_dir.clone(),
            source,
        };
        for entry in fs::read_dir(&self.run_dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let ids = name
                .to_str()
                .and_then(|name| name.strip_prefix("up-")?.rsplit_once('-'));
            let is_its =
                ids.is_some_and(|(namespace, app)| namespace.bytes().all(|byte| byte.is_ascii_digit()) && app == id);
            // A lock that cannot be tried counts as held.
            if is_its && !matches!(try_lock(&entry.path().join("lock")), Ok(Ok(_))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the directory for the configuration of a daemon that apps share, and makes it.
    ///
    /// # Errors
    /// Fails when the directory cannot be created, or is not this user's.
    pub fn shared_directory(&self) -> Result<PathBuf, RecordError> {
        let path = self.named("-daemon");
        private_directory(&path)?;
        Ok(path)
    }

    /// Returns the record of the network namespace.
    pub fn shared(&self) -> SharedRecord {
        read(&self.named(".json")).unwrap_or_default()
    }

    /// Writes the record of the network namespace.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn set_shared(&self, shared: &SharedRecord) -> Result<(), RecordError> {
        let path = self.named(".json");
        if *shared == SharedRecord::default() {
            let _ = fs::remove_file(path);
            let _ = fs::remove_dir_all(self.named("-daemon"));
            return Ok(());
        }
        write(&path, shared)
    }
}

impl SharedLock {
    /// Removes the lock's file with the lock.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl AppDirectory {
    /// Returns the record of the app, if there is one.
    pub fn record(&self) -> Option<AppRecord> {
        read(&self.path.join("record.json"))
    }

    /// Writes the record of the app.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn set_record(&self, record: &AppRecord) -> Result<(), RecordError> {
        write(&self.path.join("record.json"), record)
    }

    /// Returns the app's id, in digits.
    pub fn id(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.rsplit_once('-')).map_or("", |(_, id)| id)
    }

    /// Returns the path of the control socket.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }

    /// Removes the directory.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the path of the control socket of an app with this directory.
pub fn socket_in(directory: &Path) -> PathBuf {
    directory.join("control")
}

/// Makes a directory that only this user may enter.
fn private_directory(path: &Path) -> Result<(), RecordError> {
    let fail = |what, source| RecordError::File {
        what,
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(|source| fail("make", source))?,
    }
    let there = fs::symlink_metadata(path).map_err(|source| fail("inspect", source))?;
    let own = nix::unistd::geteuid().as_raw();
    if !there.is_dir() || there.uid() != own || there.mode() & 0o077 != 0 {
        let why = "is no directory of this user alone: remove it";
        return Err(fail("use", io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    Ok(())
}

fn try_lock(path: &Path) -> Result<Result<Flock<File>, File>, RecordError> {
    let fail = |source| RecordError::File {
        what: "lock",
        path: path.to_owned(),
        source,
    };
    let file = run_file::open_lock(path).map_err(fail)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => Ok(Err(file)),
        Err((_, errno)) => Err(fail(errno.into())),
    }
}

/// Reads a record; `None` if it is missing, invalid, or may have been written by another user.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let content = run_file::read(path, MAX_SIZE).ok()?;
    content.trusted.then(|| serde_json::from_slice(&content.bytes).ok())?
}

/// Writes a record to a new file, and puts that in place of the old one.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let fail = |source| RecordError::File {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec_pretty(value).map_err(|error| fail(error.into()))?;
    run_file::replace(path, &text).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_taken_once_and_found_when_it_is_left() {
        let run = tempfile::tempdir().unwrap();
        let places = RecordPaths::new(run.path(), 7).unwrap();
        let id = places.id_of(Path::new("/app"));
        let place = places.take(&id).unwrap();
        let error = places.take(&id).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        let record = AppRecord {
            directory: "/app".into(),
            network: "10.213.1.0/24".into(),
            app: Some(id.app()),
        };
        place.set_record(&record).unwrap();
        assert_eq!(place.id(), id.to_string());
        assert_eq!(
            places.leftovers().unwrap().1,
            BTreeSet::from([id.to_string()]),
            "it lives"
        );
        let other = RecordPaths::new(run.path(), 8).unwrap();
        assert!(other.is_held(&id.to_string()).unwrap(), "in another network namespace");
        assert!(!other.is_held("0123abcd").unwrap());
        drop(place);
        assert!(!other.is_held(&id.to_string()).unwrap());
        assert_eq!(other.leftovers().unwrap().0.len(), 0);
        let (mut dead, living) = places.leftovers().unwrap();
        assert_eq!((dead.len(), living.len()), (1, 0));
        let dead = dead.remove(0);
        assert_eq!(dead.record(), Some(record));
        dead.remove();
        assert_eq!(places.leftovers().unwrap().0.len(), 0);
    }

    #[test]
    fn what_apps_share_goes_when_it_is_nothing() {
        let run = tempfile::tempdir().unwrap();
        let places = RecordPaths::new(run.path(), 7).unwrap();
        let shared = SharedRecord {
            forwarding: Some(BTreeSet::from(["br0".to_owned()])),
            ..SharedRecord::default()
        };
        places.set_shared(&shared).unwrap();
        assert_eq!(places.shared(), shared);
        places.set_shared(&SharedRecord::default()).unwrap();
        assert_eq!(places.shared(), SharedRecord::default());
        assert!(!run.path().join("up-7.json").exists());
        std::fs::write(run.path().join("up-7.json"), "{").unwrap();
        assert_eq!(places.shared(), SharedRecord::default(), "what is damaged says nothing");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let run = tempfile::tempdir().unwrap();
        let places = RecordPaths::new(run.path(), 7).unwrap();
        let id = places.id_of(Path::new("/app"));
        fs::create_dir(places.of(&id)).unwrap();
        fs::set_permissions(places.of(&id), fs::Permissions::from_mode(0o777)).unwrap();
        let error = places.take(&id).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
