//! Files in the run directory of network namespaces that are gone: they are removed where that is certain.
//!
//! A lost record costs time and knowledge, and ends no service: absence is not a wish, and what the kernel holds is adopted. So an error
//! here would do no harm to what is served. Knows nothing of what the files hold.

mod processes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::processes::Processes;
use crate::lock::{Lock, Signature};
use crate::run_file;
use tcpgw_core::escape;

/// Suffixes of the files that tcpgw keeps for a network namespace beside its lock, in the order in which they are removed.
const ENDINGS: [&str; 13] = [
    "journal.new",
    "journal",
    "torn-down.new",
    "torn-down",
    "totals.new",
    "totals",
    "metrics.new",
    "metrics",
    "memory.new",
    "memory",
    "daemon",
    "new",
    "state",
];
/// Maximum number of entries of the run directory that are examined, and of namespaces whose files are removed at a time.
const MOST_ENTRIES: usize = 16_384;
const MOST_AT_A_TIME: usize = 256;

/// Removes the files of network namespaces that are gone from a run directory. Returns the number of those namespaces.
///
/// Where there are files of other namespaces, all processes are examined, twice if there is something to remove: some milliseconds, and
/// half a second at most. Nothing is removed where this process may not see all of them, as it is for users other than root, in a
/// container, and behind `hidepid`.
pub fn remove_files(run_dir: &Path) -> usize {
    if !nix::unistd::geteuid().is_root() {
        return 0;
    }
    remove_files_of(run_dir, &Processes::default())
}

/// Removes files as [`remove_files`] does, with the processes that are visible through `processes`.
pub fn remove_files_of(run_dir: &Path, processes: &Processes) -> usize {
    let own = Signature::own();
    let mut others = signed(run_dir);
    others.retain(|_, signature| signature.boot == own.boot && signature.inode != own.inode);
    let removed = if others.is_empty() {
        Ok(0)
    } else {
        remove(run_dir, others, processes)
    };
    removed.unwrap_or_else(|why| {
        tracing::debug!(
            why = why.0,
            "files of network namespaces that may be gone stay where they are"
        );
        0
    })
}

fn remove(
    run_dir: &Path,
    mut others: BTreeMap<u64, Signature>,
    processes: &Processes,
) -> Result<usize, processes::Unsure> {
    let living = processes.network_namespaces()?;
    others.retain(|_, signature| is_gone(signature, &living));
    let others = others.into_iter().take(MOST_AT_A_TIME);
    let locked: Vec<(u64, Signature, Lock)> = others
        .filter_map(|(namespace, signature)| {
            let lock = Lock::of_nobody(run_dir, namespace, &signature)?;
            Some((namespace, signature, lock))
        })
        .collect();
    if locked.is_empty() {
        return Ok(0);
    }
    // A process may have begun another one while they were examined, and ended before its turn.
    let living = processes.network_namespaces()?;
    let mut removed = 0;
    for (namespace, signature, lock) in locked {
        if !is_gone(&signature, &living) {
            continue;
        }
        if let Err(error) = remove_files_beside(run_dir, namespace) {
            tracing::debug!(%error, namespace, "failed to remove files of a network namespace that is gone");
            continue;
        }
        lock.discard();
        removed += 1;
    }
    if removed > 0 {
        tracing::info!(
            namespaces = removed,
            run_dir = %escape::path(run_dir),
            "removed files of network namespaces that are gone"
        );
    }
    Ok(removed)
}

fn is_gone(signature: &Signature, living: &BTreeSet<u64>) -> bool {
    signature.inode.is_some_and(|inode| !living.contains(&inode))
}

/// Removes all files but the lock. Removes nothing if one of them is not of the kind that tcpgw makes.
fn remove_files_beside(run_dir: &Path, namespace: u64) -> io::Result<()> {
    let path = |ending: &&str| run_dir.join(format!("netns-{namespace}.{ending}"));
    let there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let files: Vec<PathBuf> = ENDINGS.iter().map(path).filter(there).collect();
    for file in &files {
        run_file::check(file)?;
    }
    files.iter().try_for_each(fs::remove_file)
}

/// Returns the last signature in each lock of a run directory, by the cookie of the network namespace.
fn signed(run_dir: &Path) -> BTreeMap<u64, Signature> {
    let entries = fs::read_dir(run_dir).into_iter().flatten().take(MOST_ENTRIES).flatten();
    let namespaces = entries.filter_map(|entry| cookie(entry.file_name().to_str()?));
    namespaces
        .filter_map(|namespace| Some((namespace, Signature::of(run_dir, namespace)?)))
        .collect()
}

/// Returns the number in a name such as `netns-5.lock`.
fn cookie(name: &str) -> Option<u64> {
    let number = name.strip_prefix("netns-")?.strip_suffix(".lock")?;
    // As it is written: no sign, no zero before it.
    number.parse::<u64>().ok().filter(|cookie| cookie.to_string() == number)
}
