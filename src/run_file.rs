//! Files of the run directory, which processes of several users share: the daemon's user owns the directory, and root's
//! commands work in it.
//!
//! The owner of the directory can put anything there: a symbolic link to a file that only root may write, a FIFO that no
//! process writes to, a file of another user. So nothing here follows a link, waits for a peer, or reads without a bound, and
//! no file is used before its type and its owner are known. Does not know the contents of the files, nor who locks them.
//!
//! Source: `open(2)` (`O_NOFOLLOW`, `O_EXCL`, `O_NONBLOCK`), `fifo(7)`.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::sys::signal::Signal as SignalNumber;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, faccessat};
use tokio::signal::unix::{SignalKind, signal};

/// Contents of a file, and whether its owner can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub struct FileContent {
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// Whether the file belongs to root or to this process's user. Other contents are no more than a hint to root.
    pub trusted: bool,
}

/// Returns whether an open file is still the one of that name. The holder of a lock may have removed the file, and a new one
/// may have been made.
pub fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(identity).ok();
    opened.is_some() && opened == fs::symlink_metadata(path).map(identity).ok()
}

/// Reads a whole file of the run directory.
///
/// # Errors
/// Fails with [`io::ErrorKind::NotFound`] when there is no file; with [`io::ErrorKind::PermissionDenied`] when it is no
/// regular file, has several names, belongs to a user who is neither root, nor this one, nor the owner of its
/// directory, or may be written by others; and with [`io::ErrorKind::FileTooLarge`] when it has more than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<FileContent> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
        .map_err(explained)?;
    let metadata = file.metadata()?;
    let directory = directory_of(path)?;
    accept(&metadata, &directory)?;
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("has more than {most} bytes"));
    if metadata.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // The file may grow while it is read.
    (&file).take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(FileContent {
        bytes,
        trusted: is_trusted(metadata.uid()),
    })
}

/// Returns the reason why nothing can be written into a directory now, as far as that is known without writing: it is
/// read-only, belongs to another user, or its file system is full. `None` if the directory does not exist, since it is made on
/// the first write.
pub fn unwritable(directory: &Path) -> Option<io::Error> {
    let may = AccessFlags::W_OK | AccessFlags::X_OK;
    match faccessat(AT_FDCWD, directory, may, AtFlags::AT_EACCESS) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return None,
        Err(errno) => return Some(errno.into()),
    }
    let room = statvfs(directory).ok()?;
    let blocks = if effective_user() == 0 {
        room.blocks_free()
    } else {
        room.blocks_available()
    };
    // Zero in all is that of a file system without a bound.
    let is_full = room.blocks() > 0 && blocks == 0 || room.files() > 0 && room.files_available() == 0;
    is_full.then(|| Errno::ENOSPC.into())
}

/// Opens a lock file for reading and writing, and creates it if it is missing. A new file belongs to the owner of the
/// directory, with mode 0600: any process that can open it can hold the lock.
///
/// # Errors
/// Fails as [`read`] does, and when the file cannot be created.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let directory = directory_of(path)?;
    // Another process may make it, or remove it, between the two calls.
    for _ in 0..8 {
        match create_new(path, 0o600) {
            Ok(file) => {
                give_to(&file, &directory, Some(directory.uid()))?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match open_lock_there(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
    Err(io::Error::other("another process makes and removes it all the time"))
}

/// Opens a lock file for reading and writing, if it exists.
///
/// # Errors
/// Fails as [`read`] does.
pub fn open_lock_there(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
        .map_err(explained)?;
    accept(&file.metadata()?, &directory_of(path)?)?;
    Ok(file)
}

/// Checks that [`read`] would accept a file, whatever its length.
///
/// # Errors
/// Fails as [`read`] does.
pub fn check(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    accept(&file.map_err(explained)?.metadata()?, &directory_of(path)?)
}

/// Creates a file for writing, in place of what an earlier process has left there. Its mode is 0600; where the
/// directory belongs to another user, that user's group may read it.
///
/// # Errors
/// Fails when the file cannot be created, or the old one cannot be removed.
pub fn create(path: &Path) -> io::Result<File> {
    let directory = directory_of(path)?;
    let file = match create_new(path, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create_new(path, 0o600)?
        }
        made => made?,
    };
    if directory.uid() != effective_user() {
        give_to(&file, &directory, None)?;
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    Ok(file)
}

/// Returns the path of a file beside another one: its name with a suffix.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Writes a file, whole or not at all: to a new file, whose name ends with `.new`, that is put in its place. A process may
/// be killed at any moment; for a machine that may, see [`replace_durably`].
///
/// # Errors
/// Fails when the file cannot be written; a former one stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put_in_place(path, |mut file| file.write_all(bytes))
}

/// Writes a file as [`replace`] does; it is on the disk when this returns, under its name.
///
/// # Errors
/// Fails when the file cannot be written; a former one stays then, except where the disk failed after the new one was in its place.
pub fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put_in_place(path, |mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    })?;
    File::open(parent_of(path))?.sync_all()
}

fn put_in_place(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    let new = with_suffix(path, ".new");
    let replaced = create(&new).and_then(write).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // Where the disk is full, what is left of it would keep it full.
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// Opens an existing file to append to it.
///
/// # Errors
/// Fails as [`read`] does.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
        .map_err(explained)?;
    accept(&file.metadata()?, &directory_of(path)?)?;
    Ok(file)
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(O_NOFOLLOW)
        .open(path)
}

/// Gives a file that this process has just made to the group, and if asked to the user, of the directory.
fn give_to(file: &File, directory: &Metadata, user: Option<u32>) -> io::Result<()> {
    let user = user.filter(|user| *user != effective_user());
    let is_own = directory.uid() == effective_user();
    if is_own {
        return Ok(());
    }
    match fchown(file, user, Some(directory.gid())) {
        // Without CAP_CHOWN the file stays this user's, who can write to the directory all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        changed => changed,
    }
}

fn directory_of(path: &Path) -> io::Result<Metadata> {
    fs::metadata(parent_of(path))
}

fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == effective_user()
}

fn accept(file: &Metadata, directory: &Metadata) -> io::Result<()> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if !file.is_file() {
        return refuse("is no regular file: remove it".into());
    }
    if file.nlink() > 1 {
        return refuse("has more than one name (a hard link): remove it".into());
    }
    if !is_trusted(file.uid()) && file.uid() != directory.uid() {
        return refuse(format!(
            "belongs to uid {}, and not to root, to this user or to the owner of its directory: remove it",
            file.uid()
        ));
    }
    if file.mode() & 0o022 != 0 {
        let mode = file.mode() & 0o7777;
        return refuse(format!("may be written by others (mode {mode:04o}): remove it"));
    }
    Ok(())
}

/// Explains errors of `open(2)`: ELOOP is a symbolic link, ENXIO a FIFO or a socket that no process serves.
fn explained(error: io::Error) -> io::Error {
    let what = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ELOOP) => "is a symbolic link: remove it",
        Some(nix::errno::Errno::ENXIO | nix::errno::Errno::EISDIR) => "is no regular file: remove it",
        _ => return error,
    };
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

/// Lets a write over the limit of file sizes (`RLIMIT_FSIZE`) fail with `EFBIG`, as on a full disk, instead of ending the process. Programs
/// that this one starts have the default again. It needs a runtime, and holds as long as the process lives.
///
/// # Errors
///
/// Fails when the signal cannot be caught.
pub(crate) fn survive_size_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(SignalNumber::SIGXFSZ as i32)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    const MOST: u64 = 100;

    /// Puts everything into the directory that another user could put into the place of a file.
    fn plants(directory: &Path) -> Vec<&'static str> {
        let at = |name: &str| directory.join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        drop(UnixListener::bind(at("socket")).unwrap());
        fs::create_dir(at("directory")).unwrap();
        fs::write(at("open"), "x").unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o666)).unwrap();
        fs::write(at("twice"), "x").unwrap();
        fs::hard_link(at("twice"), at("again")).unwrap();
        vec!["link", "dangling", "fifo", "socket", "directory", "open", "twice"]
    }

    #[test]
    fn nothing_planted_is_read_appended_to_or_locked_and_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        for name in plants(directory.path()) {
            let path = directory.path().join(name);
            let error = read(&path, MOST).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
            let error = open_to_append(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
            let error = open_lock(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
            assert!(error.to_string().ends_with("remove it"), "{name}: {error}");
        }
        assert!(
            !directory.path().join("nowhere").exists(),
            "nothing was made through a link"
        );
    }

    #[test]
    fn a_new_file_takes_the_place_of_what_was_planted() {
        let directory = tempfile::tempdir().unwrap();
        for name in plants(directory.path()) {
            let path = directory.path().join(name);
            if name == "directory" {
                create(&path).unwrap_err();
                continue;
            }
            create(&path).unwrap().write_all(b"new").unwrap();
            let there = fs::symlink_metadata(&path).unwrap();
            assert!(there.is_file(), "{name}");
            assert_eq!(there.mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read(directory.path().join("victim")).unwrap(), b"precious");
        assert_eq!(fs::read(directory.path().join("again")).unwrap(), b"x");
    }

    #[test]
    fn a_replaced_file_is_private_and_whole_and_nothing_is_left_beside_it() {
        for replace in [replace, replace_durably] {
            let directory = tempfile::tempdir().unwrap();
            let names = plants(directory.path());
            for name in names {
                let path = directory.path().join(name);
                let at_temporary = with_suffix(&path, ".new");
                symlink(directory.path().join("victim"), &at_temporary).unwrap();
                let replaced = replace(&path, b"new");
                assert_eq!(replaced.is_err(), name == "directory", "{name}");
                at_temporary.symlink_metadata().unwrap_err();
                if replaced.is_ok() {
                    let there = fs::symlink_metadata(&path).unwrap();
                    assert!(there.is_file(), "{name}");
                    assert_eq!(there.mode() & 0o777, 0o600, "{name}");
                    assert_eq!(fs::read(&path).unwrap(), b"new", "{name}");
                }
            }
            assert_eq!(fs::read(directory.path().join("victim")).unwrap(), b"precious");
            assert_eq!(fs::read(directory.path().join("again")).unwrap(), b"x");
        }
    }

    #[test]
    fn a_suffix_is_of_the_name() {
        assert_eq!(with_suffix(Path::new("/a/b.db"), ".last"), Path::new("/a/b.db.last"));
        assert_eq!(with_suffix(Path::new("b"), "-wal"), Path::new("b-wal"));
        assert_eq!(with_suffix(Path::new("/a/b/"), ".lock"), Path::new("/a/b.lock"));
        assert_eq!(parent_of(Path::new("b")), Path::new("."));
    }

    #[test]
    fn what_is_in_order_is_read_up_to_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path, MOST).unwrap_err().kind(), io::ErrorKind::NotFound);
        create(&path).unwrap().write_all(&[7; 100]).unwrap();
        let content = read(&path, MOST).unwrap();
        assert_eq!((content.bytes, content.trusted), (vec![7; 100], true));
        create(&path).unwrap().write_all(&[7; 101]).unwrap();
        assert_eq!(read(&path, MOST).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_lock_file_is_private_and_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        write!(open_lock(&path).unwrap(), "1").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mut text = String::new();
        open_lock(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "1");
    }
}
