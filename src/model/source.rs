//! Where a state comes from: a file or standard input, never more of it than [`MAX_STATE_BYTES`].

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The largest input that is read.
pub const MAX_STATE_BYTES: usize = 64 << 20;

const FIRST_CHUNK: usize = 64 << 10;

/// Why an input could not be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("{}: no such file", crate::escape::path(.0))]
    Missing(PathBuf),
    /// It is a directory.
    #[error("{}: is a directory, not a file", crate::escape::path(.0))]
    Directory(PathBuf),
    /// Opening or reading failed.
    #[error("{}: failed to read: {source}", crate::escape::path(path))]
    Unreadable {
        /// The file, or `-`.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Everybody may write it, and it is root's, or root reads it.
    #[error(
        "{}: {what} may be written by everybody, and root does what it says: chmod o-w {}",
        crate::escape::path(file),
        crate::escape::path(writable)
    )]
    Writable {
        /// The file.
        file: PathBuf,
        /// The file or its directory.
        what: &'static str,
        /// What to change the mode of.
        writable: PathBuf,
    },
    /// There is more of it than is read.
    #[error("{}: is larger than {} MiB", crate::escape::path(.0), MAX_STATE_BYTES >> 20)]
    TooLarge(PathBuf),
}

/// Reads a file, or standard input when the path is `-`.
pub fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    if path == Path::new("-") {
        read_from(io::stdin().lock(), 0, path)
    } else {
        read_file(path)
    }
}

/// Reads a file, even one whose name is `-`.
pub fn read_file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
        io::ErrorKind::IsADirectory => SourceError::Directory(path.to_owned()),
        _ => SourceError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(SourceError::Directory(path.to_owned()));
    }
    check_writers(path, &metadata)?;
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > MAX_STATE_BYTES {
        return Err(SourceError::TooLarge(path.to_owned()));
    }
    read_from(file, size, path)
}

/// Whoever may write the file decides what the gateway does. Root does not take orders from everybody; another user is warned.
fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), SourceError> {
    const BY_ALL: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    if !metadata.is_file() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    let directory = std::fs::metadata(parent).ok();
    let (what, writable) = if metadata.mode() & BY_ALL != 0 {
        ("the file", path)
    } else if directory.is_some_and(|there| there.mode() & (BY_ALL | STICKY) == BY_ALL) {
        ("its directory", parent)
    } else {
        return Ok(());
    };
    let (file, writable) = (path.to_owned(), writable.to_owned());
    if metadata.uid() == 0 || nix::unistd::geteuid().is_root() {
        return Err(SourceError::Writable { file, what, writable });
    }
    let path = crate::escape::path(path);
    tracing::warn!("{path}: {what} may be written by everybody: who does decides what the gateway does");
    Ok(())
}

/// One byte of room beyond the expected size tells "all read" from "there is more".
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
