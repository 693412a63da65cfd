//! Number of acknowledged writes of a store, in a file beside it.
//!
//! The store counts its writes itself. An acknowledged change is on the disk with its number, and then the number is
//! written to this file, which is not flushed: it may lag behind, and is never ahead of the store. If it is ahead all
//! the same, the store has lost acknowledged writes: its log was removed or cut, or it was copied without its log. The
//! revision does not tell all of that: steps of deploys, bindings and suspensions do not raise it, and it is not in the
//! record before the kernel has changed.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::run_file;
use tcpgw_core::escape;
use tcpgw_core::problem::{Problem, ProblemKind};

/// Upper bound of the file's size in bytes.
const MOST: u64 = 64;

/// Returns the path of a store's file.
pub fn path(store: &Path) -> PathBuf {
    run_file::with_suffix(store, ".written")
}

/// Returns the number; `None` if there is none or it is torn.
pub(super) fn read(store: &Path) -> Option<u64> {
    let content = run_file::read(&path(store), MOST).ok()?;
    let text = std::str::from_utf8(&content.bytes).ok()?;
    let number = text.split(' ').next()?.parse().ok()?;
    (self::text(number) == text).then_some(number)
}

/// Writes the number.
pub(super) fn note(store: &Path, number: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    // Always as long as before: it is not cut first, so that a kill leaves the one or the other.
    let mut file = options.custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path(store))?;
    file.write_all(text(number).as_bytes())
}

/// Renames a file whose number is invalid (empty, torn, changed), so that it is not overwritten and [`problem`] reports
/// it. A failure to rename is logged.
pub fn set_aside(store: &Path) {
    let path = path(store);
    if path.symlink_metadata().is_err() || read(store).is_some() {
        return;
    }
    let aside = aside(store);
    match std::fs::rename(&path, &aside) {
        Ok(()) => tracing::error!(
            "{} is damaged; it is kept as {}",
            escape::path(&path),
            escape::path(&aside)
        ),
        Err(error) => tracing::error!("{} is damaged; failed to move it aside: {error}", escape::path(&path)),
    }
}

/// Returns the problem that the number of acknowledged writes was not known when the store was opened, until the
/// renamed file is removed.
pub fn problem(store: &Path) -> Option<Problem> {
    let aside = aside(store);
    aside.symlink_metadata().is_ok().then(|| {
        let message = format!(
            "{} was damaged, and is kept as {aside}: if {store} lost its log at the same time, what was ordered last may be missing, and \
             nothing else tells: compare `tcpgw service ls` and `tcpgw addon ls` with what was ordered, then remove {aside}",
            escape::path(&path(store)),
            aside = escape::path(&aside),
            store = escape::path(store),
        );
        Problem::new(ProblemKind::StoreLost, message)
    })
}

fn aside(store: &Path) -> PathBuf {
    run_file::with_suffix(store, ".written.damaged")
}

fn text(number: u64) -> String {
    let number = format!("{number:020}");
    format!("{number} {:08x}\n", crc32fast::hash(number.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_says_nothing_is_told_until_somebody_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("tcpgw.db");
        set_aside(&store);
        assert_eq!(problem(&store), None, "there never was one");
        note(&store, 7).unwrap();
        set_aside(&store);
        assert_eq!((problem(&store), read(&store)), (None, Some(7)));
        for damaged in ["", "0000", "00000000000000000007 00000000\n"] {
            std::fs::write(path(&store), damaged).unwrap();
            set_aside(&store);
            let problems = problem(&store).unwrap();
            assert_eq!(problems.kind, ProblemKind::StoreLost);
            assert!(
                problems.message.contains("tcpgw.db.written.damaged"),
                "{}",
                problems.message
            );
            assert!(!path(&store).exists());
            note(&store, 8).unwrap();
            std::fs::remove_file(aside(&store)).unwrap();
            assert_eq!(problem(&store), None);
        }
    }

    #[test]
    fn a_number_is_believed_as_it_was_written_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("tcpgw.db");
        assert_eq!(read(&store), None);
        for number in [0, 7, u64::MAX, 8] {
            note(&store, number).unwrap();
            assert_eq!(read(&store), Some(number));
        }
        let whole = std::fs::read(path(&store)).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(path(&store), changed).unwrap();
            assert_eq!(read(&store), None, "byte {at}");
            std::fs::write(path(&store), &whole[..at]).unwrap();
            assert_eq!(read(&store), None, "{at} bytes");
        }
    }
}
