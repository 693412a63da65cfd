//! How many writes of a store were acknowledged, in a file beside it.
//!
//! The store counts its writes itself. What is acknowledged is on the disk with its number, and then the number goes into this file,
//! which is not flushed: it may lag behind, and is never ahead of the store. Where it is ahead all the same, the store has lost what was
//! acknowledged: its log was removed or cut, or it was copied without its log. The revision does not tell all of that: steps of deploys,
//! bindings and suspensions do not raise it, and it is not in the record before the kernel has changed.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::run_file;

/// The file has no more bytes.
const MOST: u64 = 64;

/// Returns where the file of a store is.
pub fn path(store: &Path) -> PathBuf {
    super::beside(store, ".written")
}

/// Returns the number; `None` where there is none that can be believed, such as one that is torn.
pub(super) fn read(store: &Path) -> Option<u64> {
    let content = run_file::read(&path(store), MOST).ok()?;
    let text = std::str::from_utf8(&content.bytes).ok()?;
    let number = text.split(' ').next()?.parse().ok()?;
    (self::text(number) == text).then_some(number)
}

/// Writes it.
pub(super) fn note(store: &Path, number: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    // Always as long as before: it is not cut first, so that a kill leaves the one or the other.
    let mut file = options.custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path(store))?;
    file.write_all(text(number).as_bytes())
}

fn text(number: u64) -> String {
    let number = format!("{number:020}");
    format!("{number} {:08x}\n", crc32fast::hash(number.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
