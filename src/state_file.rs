//! Input of a state from a file or standard input, up to [`MAX_STATE_BYTES`].

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{ENXIO, O_NONBLOCK};
use nix::sys::statfs::{FsType, fstatfs};
use thiserror::Error;

use tcpgw_core::model::MAX_STATE_BYTES;

use crate::writers::{self, Exposed, Trusted};

const FIRST_CHUNK: usize = 64 << 10;

/// Reason why an input could not be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The file does not exist.
    #[error("{}: no such file", tcpgw_core::escape::path(.0))]
    Missing(PathBuf),
    /// The path is a directory.
    #[error("{}: is a directory, not a file", tcpgw_core::escape::path(.0))]
    Directory(PathBuf),
    /// Opening or reading failed.
    #[error("{}: failed to read: {source}", tcpgw_core::escape::path(path))]
    Unreadable {
        /// The file, or `-`.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Other users may write the file, and root acts on its content.
    #[error(
        "{}: {exposed}, and root does what the file says: {}",
        tcpgw_core::escape::path(file),
        exposed.remedy()
    )]
    Writable {
        /// Path of the file.
        file: PathBuf,
        /// Users who may write it, and the reason.
        exposed: Exposed,
    },
    /// The path is a pipe, a socket or a device, which may never begin or end.
    #[error("{}: is a pipe, a socket or a device, not a file", tcpgw_core::escape::path(.0))]
    NotAFile(PathBuf),
    /// The path is a FIFO, which may never have a writer.
    #[error(
        "{}: is a FIFO, not a file, and nobody may ever write to it: give its content on standard input (`-`)",
        tcpgw_core::escape::path(.0)
    )]
    Fifo(PathBuf),
    /// The file exceeds the maximum size.
    #[error("{}: is larger than {} MiB", tcpgw_core::escape::path(.0), MAX_STATE_BYTES >> 20)]
    TooLarge(PathBuf),
}

/// Purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilePurpose {
    /// Settings and fences: if root reads them, only root may be able to write them.
    Configuration,
    /// Services: another user may be able to write them.
    State,
}

/// Reads a state file, or standard input when the path is `-`. A file that the caller has opened already (a pipe of
/// `<(...)`, a terminal) is read until its end, like standard input.
///
/// # Errors
/// Fails with [`SourceError`] when the file cannot be read, is too large, or may be written by others; a FIFO, a
/// socket and a device are refused at once.
pub fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    if path == Path::new("-") {
        read_from(io::stdin().lock(), 0, path)
    } else {
        read_opened(path, open(path), FilePurpose::State, true)
    }
}

/// Reads a regular file, or `/dev/null`, also one whose name is `-`. It never waits for a writer.
///
/// # Errors
/// Fails like [`read`].
pub fn read_file(path: &Path, input: FilePurpose) -> Result<Vec<u8>, SourceError> {
    read_opened(path, open(path), input, false)
}

/// Opens a file without waiting for the other end of a FIFO.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(O_NONBLOCK).open(path)
}

fn read_opened(
    path: &Path,
    opened: io::Result<File>,
    input: FilePurpose,
    takes_stdin: bool,
) -> Result<Vec<u8>, SourceError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
        io::ErrorKind::IsADirectory => SourceError::Directory(path.to_owned()),
        // `open(2)`: a socket, or a device that is not there.
        _ if source.raw_os_error() == Some(ENXIO) => SourceError::NotAFile(path.to_owned()),
        _ => SourceError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let file = opened.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(SourceError::Directory(path.to_owned()));
    }
    if !metadata.is_file() && !is_null(&metadata) {
        if !(takes_stdin && is_of_caller(&file)) {
            let is_fifo = takes_stdin && metadata.file_type().is_fifo();
            let refused = if is_fifo {
                SourceError::Fifo
            } else {
                SourceError::NotAFile
            };
            return Err(refused(path.to_owned()));
        }
        // The file is read like standard input: until its end.
        let unset = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
        unset.map_err(|error| unreadable(error.into()))?;
    }
    check_writers(path, &metadata, input)?;
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > MAX_STATE_BYTES {
        return Err(SourceError::TooLarge(path.to_owned()));
    }
    read_from(file, size, path)
}

/// Returns whether the file is a terminal, or a pipe without a name, whose other end the caller has made. Source:
/// `magic.h` of Linux, `PIPEFS_MAGIC`.
fn is_of_caller(file: &File) -> bool {
    const PIPEFS: FsType = FsType(0x5049_5045);
    file.is_terminal() || fstatfs(file).is_ok_and(|system| system.filesystem_type() == PIPEFS)
}

/// Returns whether the file is `/dev/null`. Source: `null(4)`.
fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == nix::sys::stat::makedev(1, 3)
}

/// Refuses files that others may write, since their content decides what the gateway does: for root those that
/// everybody may write, and settings that any other user may write. A state file of another user or group is accepted
/// with a warning.
fn check_writers(path: &Path, metadata: &Metadata, input: FilePurpose) -> Result<(), SourceError> {
    if !metadata.is_file() {
        return Ok(());
    }
    let Some(exposed) = writers::exposed(path, metadata, &Trusted::here()) else {
        return Ok(());
    };
    let is_root = nix::unistd::geteuid().is_root();
    let is_refused = match input {
        _ if exposed.is_read_only() => false,
        _ if exposed.is_to_everybody() => is_root || metadata.uid() == 0,
        FilePurpose::Configuration => is_root && exposed.is_of_another(),
        FilePurpose::State => false,
    };
    if is_refused {
        let file = path.to_owned();
        return Err(SourceError::Writable { file, exposed });
    }
    let path = tcpgw_core::escape::path(path);
    let remedy = exposed.remedy();
    tracing::warn!("{path}: {exposed}: whoever writes it decides what the gateway does ({remedy})");
    Ok(())
}

/// Reads all of an input. One byte of room beyond the expected size shows whether there is more.
fn read_from(mut from: impl Read, expected: usize, path: &Path) -> Result<Vec<u8>, SourceError> {
    let unreadable = |source| SourceError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::with_capacity(expected.min(MAX_STATE_BYTES) + 1);
    loop {
        let room = text.capacity() - text.len();
        let got = from
            .by_ref()
            .take(room as u64)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        if text.len() > MAX_STATE_BYTES {
            return Err(SourceError::TooLarge(path.to_owned()));
        }
        if got < room {
            return Ok(text);
        }
        text.reserve_exact(text.len().max(FIRST_CHUNK).min(MAX_STATE_BYTES + 1 - text.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, FIRST_CHUNK, FIRST_CHUNK + 1] {
            let path = dir.path().join("state.json");
            std::fs::write(&path, vec![b' '; size]).unwrap();
            assert_eq!(read(&path).unwrap().len(), size);
        }
    }

    #[test]
    fn streams_are_read_up_to_the_bound_and_no_more_is_kept() {
        let path = Path::new("-");
        for size in [0, 1, FIRST_CHUNK, 1_000_000, MAX_STATE_BYTES] {
            let text = read_from(io::repeat(b' ').take(size as u64), 0, path).unwrap();
            assert_eq!(text.len(), size);
            assert!(text.capacity() <= MAX_STATE_BYTES + 1);
        }
        let error = read_from(io::repeat(b' '), 0, path).unwrap_err();
        assert_eq!(error.to_string(), "-: is larger than 64 MiB");
    }

    #[test]
    fn what_everybody_may_write_is_refused_by_root() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let is_root = nix::unistd::geteuid().is_root();
        std::fs::write(&path, "x").unwrap();
        for (file, directory, is_open) in [
            (0o600, 0o700, false),
            (0o664, 0o775, false),
            (0o644, 0o1777, false),
            (0o666, 0o700, true),
            (0o644, 0o777, true),
        ] {
            set(&path, file);
            set(dir.path(), directory);
            let read = read(&path);
            assert_eq!(read.is_err(), is_open && is_root, "{file:o} {directory:o}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod o-w"), "{error}");
            }
        }
        set(dir.path(), 0o700);
    }

    #[test]
    fn what_is_followed_is_a_file_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        for path in [&*fifo, &*socket, Path::new("/dev/zero")] {
            let error = read_file(path, FilePurpose::Configuration).unwrap_err();
            assert!(matches!(error, SourceError::NotAFile(_)), "{error}");
        }
        assert_eq!(
            read_file(Path::new("/dev/null"), FilePurpose::Configuration).unwrap(),
            b""
        );
    }

    #[test]
    fn a_state_comes_through_a_pipe_of_the_caller_and_through_no_fifo() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(&fifo).unwrap_err();
        assert!(error.to_string().contains("is a FIFO, not a file"), "{error}");
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, SourceError::NotAFile(_)), "{error}");
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let writing = std::thread::spawn(move || {
            // The reader has to wait for this.
            std::thread::sleep(std::time::Duration::from_millis(50));
            writer.write_all(b"x")
        });
        assert_eq!(read(&path).unwrap(), b"x");
        writing.join().unwrap().unwrap();
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, SourceError::Missing(_)), "{missing}");
        let directory = read(dir.path()).unwrap_err();
        assert!(
            directory.to_string().ends_with("is a directory, not a file"),
            "{directory}"
        );
        let file = dir.path().join("file");
        File::create(&file)
            .unwrap()
            .set_len(MAX_STATE_BYTES as u64 + 1)
            .unwrap();
        assert!(matches!(read(&file).unwrap_err(), SourceError::TooLarge(_)));
        let below = read(&file.join("x")).unwrap_err();
        assert!(below.to_string().contains("failed to read"), "{below}");
    }
}
