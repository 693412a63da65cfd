//! The socket file: only one daemon uses it, and no client can connect before mode and group are set.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::config::{SOCKET_DIRECTORY, SOCKET_LOCK};
use crate::run_file;

/// The longest path that a socket address holds (`sun_path` of `unix(7)`, with its zero at the end).
const LONGEST_PATH: usize = 107;

/// Path, mode and group of the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSettings {
    /// The socket file.
    pub path: PathBuf,
    /// Permissions of the socket, such as `0o660`: users who may write may connect.
    pub mode: u32,
    /// The number of its group; `None` leaves that of the process.
    pub group: Option<u32>,
}

/// Reason why the socket cannot be made.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another daemon uses the socket.
    #[error("another daemon answers on {}; it serves there until it ends", tcpgw_core::escape::path(.0))]
    InUse(PathBuf),
    /// The path is that of a file that is no socket.
    #[error("{} exists and is not a socket: remove it, or choose another path", tcpgw_core::escape::path(.0))]
    NotASocket(PathBuf),
    /// The path does not fit into a socket address.
    #[error("{} is too long for a socket: {LONGEST_PATH} bytes at most, with some to spare", tcpgw_core::escape::path(.0))]
    TooLong(PathBuf),
    /// An operation on the file system failed.
    #[error("failed to {what} {}: {source}", tcpgw_core::escape::path(path))]
    File {
        /// Operation that failed.
        what: &'static str,
        /// File of the operation.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A listening socket. Dropping it removes its file, if that is still this socket's.
#[derive(Debug)]
pub struct Socket {
    /// Accepts connections without blocking; `None` after it was taken.
    listener: Option<UnixListener>,
    path: PathBuf,
    file: (u64, u64),
    lock: Flock<File>,
}

impl Socket {
    /// Binds the socket. The file of a dead daemon is replaced.
    ///
    /// # Errors
    /// Fails with [`SocketError`] when another daemon uses the socket, the path is not usable, or its directory
    /// does not permit a new file.
    pub fn bind(settings: &SocketSettings) -> Result<Self, SocketError> {
        let path = &settings.path;
        make_directory(path)?;
        let lock = lock(path)?;
        make_way(path)?;
        let (listener, file) = bind_beside(settings)?;
        Ok(Self {
            listener: Some(listener),
            path: path.clone(),
            file,
            lock,
        })
    }

    /// Returns the listener, which does not block.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::NotFound`] when the listener was taken before.
    pub fn take_listener(&mut self) -> io::Result<UnixListener> {
        let taken = || io::Error::new(io::ErrorKind::NotFound, "the listener has been taken already");
        self.listener.take().ok_or_else(taken)
    }
}

impl Socket {
    /// Returns whether its file is still there.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file)
    }

    /// Takes the lock again if its file was removed; returns whether that was so.
    ///
    /// # Errors
    /// Fails with [`SocketError`] when another daemon has the lock now, or the file cannot be created.
    pub fn renew_lock(&mut self) -> Result<bool, SocketError> {
        if run_file::with_suffix(&self.path, SOCKET_LOCK)
            .symlink_metadata()
            .is_ok()
        {
            return Ok(false);
        }
        make_directory(&self.path)?;
        self.lock = lock(&self.path)?;
        Ok(true)
    }

    /// Makes the socket again after its file was removed; returns the new listener.
    ///
    /// # Errors
    /// Fails with [`SocketError`] when another program has created a file of that name, or its
    /// directory does not permit a new socket.
    pub fn renew(&mut self, settings: &SocketSettings) -> Result<UnixListener, SocketError> {
        make_directory(&self.path)?;
        make_way(&self.path)?;
        let settings = SocketSettings {
            path: self.path.clone(),
            ..settings.clone()
        };
        let (listener, file) = bind_beside(&settings)?;
        self.file = file;
        Ok(listener)
    }
}

impl Socket {
    /// Gives the socket another mode and group; its path stays. Users whom both modes exclude cannot connect in between.
    ///
    /// # Errors
    /// Fails with [`SocketError::File`] when the file system refuses; mode and group are then as before, as far as
    /// possible.
    pub fn set_access(&self, settings: &SocketSettings) -> Result<(), SocketError> {
        const OWNER_ONLY: u32 = 0o600;
        let fail = |what| {
            let path = self.path.clone();
            move |source| SocketError::File { what, path, source }
        };
        let before = fs::symlink_metadata(&self.path).map_err(fail("look at"))?;
        let set_mode = |mode| fs::set_permissions(&self.path, Permissions::from_mode(mode));
        set_mode(OWNER_ONLY).map_err(fail("set the mode of"))?;
        let group = settings.group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
        if let Err(error) = chown(&self.path, None, Some(group)) {
            let _ = set_mode(before.mode() & 0o777);
            return Err(fail("give the group to")(error));
        }
        set_mode(settings.mode).map_err(fail("set the mode of"))
    }
}

/// Makes the directory of the socket, if it does not exist.
fn make_directory(path: &Path) -> Result<(), SocketError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
    made.map_err(|source| SocketError::File {
        what: "make the directory",
        path: parent.to_owned(),
        source,
    })
}

/// Binds the socket in a directory that no other user can enter, until its mode and group are set.
fn bind_beside(settings: &SocketSettings) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let path = &settings.path;
    let hidden = run_file::with_suffix(path, SOCKET_DIRECTORY);
    if hidden.as_os_str().len() + "/s".len() > LONGEST_PATH {
        return Err(SocketError::TooLong(path.clone()));
    }
    let _ = fs::remove_dir_all(&hidden);
    let made = DirBuilder::new().mode(0o700).create(&hidden);
    made.map_err(|source| SocketError::File {
        what: "make the directory",
        path: hidden.clone(),
        source,
    })?;
    let moved = bind_in(&hidden, settings);
    let _ = fs::remove_dir_all(&hidden);
    moved
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock of the socket, so that two daemons that start at the same moment cannot both use it.
fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let file = run_file::with_suffix(path, SOCKET_LOCK);
    let fail = |source| SocketError::File {
        what: "lock",
        path: file.clone(),
        source,
    };
    let opened = run_file::open_lock(&file).map_err(fail)?;
    match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        // The former holder may have removed the file: the next process would lock another one.
        Ok(lock) if !run_file::is_at(&lock, &file) => self::lock(path),
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(SocketError::InUse(path.to_owned())),
        Err((_, errno)) => Err(fail(errno.into())),
    }
}

/// Removes the lock's file, which a daemon leaves beside its socket, unless a daemon is there.
pub(crate) fn remove_lock(path: &Path) {
    let file = run_file::with_suffix(path, SOCKET_LOCK);
    if file.symlink_metadata().is_ok() && lock(path).is_ok_and(|_lock| fs::remove_file(&file).is_ok()) {
        tracing::debug!("removed {}", tcpgw_core::escape::path(&file));
    }
}

/// Makes room for a new socket of that name: removes an abandoned one, and fails if a daemon answers there.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let fail = |source| SocketError::File {
        what: "inspect",
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            // The queue is full, so a program listens there.
            io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
            _ => Err(fail(error)),
        },
    }
}

fn bind_in(hidden: &Path, settings: &SocketSettings) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let at = hidden.join("s");
    let fail = |what| {
        let path = settings.path.clone();
        move |source| SocketError::File { what, path, source }
    };
    let listener = UnixListener::bind(&at).map_err(fail("bind"))?;
    listener.set_nonblocking(true).map_err(fail("bind"))?;
    if settings.group.is_some() {
        chown(&at, None, settings.group).map_err(fail("give the group to"))?;
    }
    fs::set_permissions(&at, Permissions::from_mode(settings.mode)).map_err(fail("set the mode of"))?;
    let there = fs::symlink_metadata(&at).map_err(fail("inspect"))?;
    fs::rename(&at, &settings.path).map_err(fail("put in place"))?;
    Ok((listener, (there.dev(), there.ino())))
}
