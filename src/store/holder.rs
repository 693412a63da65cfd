//! Process that holds the lock of a file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Returns the process that holds the lock, from `/proc/locks`: opening the file to ask would end this process' own
/// locks on it.
pub(super) fn of(path: &Path) -> String {
    let pid = fs::metadata(path).ok().and_then(|file| {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        find(&locks, file.ino())
    });
    let Some(pid) = pid else {
        return "another process".into();
    };
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => {
            let name = String::from_utf8_lossy(&name);
            format!(
                "process {pid} ({})",
                tcpgw_core::escape::text(name.trim_end_matches('\n'))
            )
        }
        Err(_) => format!("process {pid}"),
    }
}

/// Finds the process in lines such as `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 1073741824 1073742335`, see proc(5).
fn find(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        let is_it = kind == "POSIX" && file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_inode() {
        let locks = "1: FLOCK  ADVISORY  WRITE 7 08:01:41 0 EOF\n2: POSIX  ADVISORY  WRITE 1234 08:01:41 1073741826 1073742335\n\
                     2: -> POSIX  ADVISORY  WRITE 99 08:01:43 0 EOF\nodd\n";
        assert_eq!(find(locks, 41), Some(1234));
        assert_eq!(find(locks, 42), None);
        assert_eq!(find("", 41), None);
    }
}
