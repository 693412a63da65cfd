//! Lock of a network namespace, which has one writer: a lock file in the run directory.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use thiserror::Error;

use crate::record::boot_id;
use crate::run_file;
use tcpgw_core::escape;

const PAUSE: Duration = Duration::from_millis(20);

/// The lock. It is released when the value is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: Option<Flock<File>>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Dropping a `Flock` that cannot be unlocked panics. The lock then ends with the process.
        if let Some(Err((file, _))) = self.file.take().map(Flock::unlock) {
            std::mem::forget(file);
        }
    }
}

/// Text that a process writes into the file of a lock that it takes. It stays there when the lock is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The process that holds the lock, or held it last.
    pub pid: u32,
    /// Inode of its network namespace (`net:[4026531840]` in `namespaces(7)`): the cookie in the file's name cannot be looked up from
    /// outside. `None`: it was not known.
    pub inode: Option<u64>,
    /// The kernel's name for the boot: cookies and inodes begin anew with it.
    pub boot: String,
}

impl Signature {
    /// Largest size of a signature, in bytes.
    const MOST: u64 = 128;

    /// Returns the signature of this thread.
    pub fn own() -> Self {
        let link = fs::read_link("/proc/thread-self/ns/net").ok();
        let inode = link.and_then(|link| link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
        Self {
            pid: std::process::id(),
            inode,
            boot: boot_id(),
        }
    }

    /// Returns the signature in the lock file of a network namespace; `None` if it cannot be read, or if an earlier version has written only its
    /// process id.
    pub fn of(directory: &Path, namespace: u64) -> Option<Self> {
        let content = run_file::read(&directory.join(format!("netns-{namespace}.lock")), Self::MOST).ok()?;
        Self::read(&String::from_utf8(content.bytes).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok(),
            boot: words.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, inode, boot } = self;
        match inode {
            Some(inode) => write!(f, "{pid} {inode} {boot}"),
            None => write!(f, "{pid} - {boot}"),
        }
    }
}

/// Reason why the lock could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds the lock, and did not release it in time.
    #[error(
        "another tcpgw holds the lock of this network namespace: {holder} (waited {}); try again when it has ended, or wait longer (--lock-timeout)",
        tcpgw_core::model::duration::show(*waited)
    )]
    Held {
        /// Process id and command of the holder.
        holder: String,
        /// Time for which it was waited.
        waited: Duration,
    },
    /// The lock file could not be opened.
    #[error("failed to lock {}: {source}", tcpgw_core::escape::path(path))]
    File {
        /// Path of the lock file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of the network namespace, waiting for it up to `timeout`.
    ///
    /// # Errors
    /// Fails with [`LockError::Held`] when another process keeps it, and with [`LockError::File`] when the file cannot
    /// be opened or locked.
    pub fn take(directory: &Path, namespace: u64, timeout: Duration) -> Result<Self, LockError> {
        let path = directory.join(format!("netns-{namespace}.lock"));
        let fail = |source| LockError::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(fail)?;
        let mut file = run_file::open_lock(&path).map_err(fail)?;
        let begin = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The last holder may have removed the file, see `discard`: the next process would lock another one.
                Ok(locked) if !run_file::is_at(&locked, &path) => file = run_file::open_lock(&path).map_err(fail)?,
                Ok(mut locked) => {
                    // The lock is held even if the holder cannot be written to its file, for example on a full disk.
                    if let Err(error) = sign(&mut locked) {
                        tracing::debug!(%error, path = %tcpgw_core::escape::path(&path), "failed to write who holds the lock");
                    }
                    return Ok(Self {
                        file: Some(locked),
                        path,
                    });
                }
                Err((back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) if begin.elapsed() < timeout => {
                    file = back;
                    std::thread::sleep(PAUSE.min(timeout));
                }
                Err((mut back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => {
                    return Err(LockError::Held {
                        holder: holder(&mut back),
                        waited: timeout,
                    });
                }
                Err((_, errno)) => return Err(fail(errno.into())),
            }
        }
    }
}

/// Returns the holder of the lock of the network namespace, if it is held and the holder is known. It creates no file.
pub fn held_by(directory: &Path, namespace: u64) -> Option<String> {
    let path = directory.join(format!("netns-{namespace}.lock"));
    fs::symlink_metadata(&path).ok()?;
    let file = run_file::open_lock(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => Some(holder(&mut file)),
        _ => None,
    }
}

impl Lock {
    /// Takes the lock again if another process has removed its file, so that others find it held. Returns whether this
    /// was so.
    ///
    /// # Errors
    /// Fails with [`LockError::Held`] when another process holds it now, and with [`LockError::File`] when the file
    /// cannot be opened or locked.
    pub fn renew(&mut self) -> Result<bool, LockError> {
        if self.file.as_ref().is_some_and(|file| run_file::is_at(file, &self.path)) {
            return Ok(false);
        }
        let fail = |source| LockError::File {
            path: self.path.clone(),
            source,
        };
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        let file = run_file::open_lock(&self.path).map_err(fail)?;
        let mut locked =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| match errno {
                nix::errno::Errno::EWOULDBLOCK => LockError::Held {
                    holder: holder(&mut file),
                    waited: Duration::ZERO,
                },
                errno => fail(errno.into()),
            })?;
        if let Err(error) = sign(&mut locked) {
            tracing::debug!(%error, path = %escape::path(&self.path), "failed to write who holds the lock");
        }
        if let Some(Err((file, _))) = self.file.replace(locked).map(Flock::unlock) {
            std::mem::forget(file);
        }
        Ok(true)
    }

    /// Takes the lock that has this signature, if it is there and nobody holds it. Waits for nobody, and makes and writes no file.
    pub fn of_nobody(directory: &Path, namespace: u64, signature: &Signature) -> Option<Self> {
        let path = directory.join(format!("netns-{namespace}.lock"));
        let file = run_file::open_lock_there(&path).ok()?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        let is_same =
            run_file::is_at(&locked, &path) && Signature::of(directory, namespace).as_ref() == Some(signature);
        let lock = Self {
            file: Some(locked),
            path,
        };
        is_same.then_some(lock)
    }

    /// Removes the file with the lock, so that nothing of tcpgw is left for the namespace.
    pub fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %escape::path(&self.path), "failed to remove the lock file");
        }
    }
}

impl Lock {
    /// Returns whether another process holds the lock of the network namespace.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::PermissionDenied`] when this user may not open the file.
    pub fn is_held(directory: &Path, namespace: u64) -> io::Result<bool> {
        let path = directory.join(format!("netns-{namespace}.lock"));
        let mut options = OpenOptions::new();
        let opened = options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(free) => {
                drop(Self { file: Some(free), path });
                Ok(false)
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", Signature::own())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    // What else is there may be cut off.
    let Some(pid) = text
        .split_ascii_whitespace()
        .next()
        .and_then(|pid| pid.parse::<u32>().ok())
    else {
        return "an unknown process".into();
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .collect();
    let command = escape::text(&String::from_utf8_lossy(&words.join(&b' ')));
    if command.is_empty() {
        format!("process {pid}")
    } else {
        format!("process {pid} ({command})")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_holds_it_and_the_next_is_told_who() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path(), 1, Duration::ZERO).unwrap();
        let error = Lock::take(directory.path(), 1, Duration::from_millis(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        let holder = held_by(directory.path(), 1).expect("it is held");
        assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
        assert_eq!(held_by(directory.path(), 2), None);
        assert!(!directory.path().join("netns-2.lock").exists(), "looking makes no file");
        Lock::take(directory.path(), 2, Duration::ZERO).expect("another namespace has another lock");
        let mode = fs::metadata(directory.path().join("netns-1.lock"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else can hold it");
        drop(first);
        let last = Lock::take(directory.path(), 1, Duration::ZERO).expect("it ends with its value");
        let path = directory.path().join("netns-1.lock");
        last.discard();
        assert!(!path.exists());
    }

    #[test]
    fn one_whose_file_is_removed_is_taken_again_unless_another_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let mut lock = Lock::take(&run, 1, Duration::ZERO).unwrap();
        assert!(!lock.renew().unwrap());
        fs::remove_dir_all(&run).unwrap();
        assert!(lock.renew().unwrap());
        Lock::take(&run, 1, Duration::ZERO).expect_err("it is held");
        fs::remove_dir_all(&run).unwrap();
        let other = Lock::take(&run, 1, Duration::ZERO).unwrap();
        assert!(matches!(lock.renew(), Err(LockError::Held { .. })));
        drop(other);
        assert!(lock.renew().unwrap());
    }

    #[test]
    fn one_who_waits_for_a_file_that_is_removed_takes_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path(), 1, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(directory.path(), 1, Duration::from_secs(10)).unwrap());
            std::thread::sleep(3 * PAUSE);
            first.discard();
            let second = second.join().unwrap();
            Lock::take(directory.path(), 1, Duration::ZERO).expect_err("the second has it");
            drop(second);
        });
    }
}
