//! Note beside a store that replaced a lost one. It stays until an operator removes it: only an operator knows whether
//! the last orders before the loss have to be repeated.

use std::path::{Path, PathBuf};

use super::error::{StoreError, system};
use super::last_services::LastServices;
use super::write_count;
use crate::run_file;
use tcpgw_core::problem::{Problem, ProblemKind};

/// Returns the path of a store's note.
pub fn path(store: &Path) -> PathBuf {
    run_file::with_suffix(store, ".lost")
}

/// Writes the note to the disk before it returns. `now` is the time since 1970, `last` what is known of the lost store.
///
/// # Errors
///
/// Fails when the file cannot be written.
pub(crate) fn note(store: &Path, last: &LastServices, now: std::time::Duration) -> Result<(), StoreError> {
    let path = path(store);
    let resources = last.resources.as_ref().map_or(0, |known| known.resources.len());
    let text = format!(
        "{}\nlost before {} (seconds since 1970), at revision {} or later; {resources} resources of the add-on were known of it\n",
        words(store),
        now.as_secs(),
        last.revision
    );
    run_file::replace_durably(&path, text.as_bytes()).map_err(|error| system(&path, &error))
}

/// Returns the problem that a store was lost, until the note is removed, or that the count of its acknowledged writes was damaged.
pub fn problem(store: &Path) -> Option<Problem> {
    let is_there = path(store).symlink_metadata().is_ok();
    let lost = is_there.then(|| Problem::new(ProblemKind::StoreLost, words(store)));
    lost.or_else(|| write_count::problem(store))
}

fn words(store: &Path) -> String {
    format!(
        "{store} was lost, and a new one is in its place: history and deploys are gone, services of the API have no provider (`tcpgw export`, `tcpgw \
         apply`), and resources of the add-on are as {last} had them, so that one that was provisioned, suspended, resumed, given another plan or \
         deprovisioned in the last second before may be other: compare `tcpgw addon ls` with the platform, or put a backup in its place, then remove \
         {note}",
        store = tcpgw_core::escape::path(store),
        last = tcpgw_core::escape::path(&LastServices::path(store)),
        note = tcpgw_core::escape::path(&path(store)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_told_until_somebody_removes_the_note() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("tcpgw.db");
        assert_eq!(problem(&store), None);
        note(&store, &LastServices::default(), Duration::from_secs(5)).unwrap();
        note(&store, &LastServices::default(), Duration::from_secs(6)).unwrap();
        let problems = problem(&store).unwrap().message;
        assert!(
            problems.contains("remove") && problems.contains("tcpgw.db.lost"),
            "{problems}"
        );
        std::fs::remove_file(path(&store)).unwrap();
        assert_eq!(problem(&store), None);
        let nowhere = directory.path().join("gone/tcpgw.db");
        note(&nowhere, &LastServices::default(), Duration::ZERO).unwrap_err();
    }
}
