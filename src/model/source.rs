//! Where a state comes from: a file or standard input, never more of it than [`MAX_STATE_BYTES`].

use std::fs::File;
use std::io::{self, Read};
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
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > MAX_STATE_BYTES {
        return Err(SourceError::TooLarge(path.to_owned()));
    }
    read_from(file, size, path)
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
