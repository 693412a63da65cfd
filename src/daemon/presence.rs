//! The presence file of a daemon in the run directory. When there is no socket, it tells whether a daemon runs or was
//! killed.
//!
//! It is written at the start and removed at a regular end. The lock of the network namespace tells whether the daemon
//! runs. This module knows nothing of sockets and of a daemon's work.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lock::Lock;
use crate::run_file;

/// Maximum size of the file in bytes.
const MOST: u64 = 8192;

/// Contents of the presence file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Process id of the daemon.
    pub pid: u32,
    /// Path of its socket.
    pub socket: PathBuf,
}

/// State of the daemon that wrote a presence file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceState {
    /// The daemon runs.
    Running(Presence),
    /// The daemon has ended irregularly.
    Gone(Presence),
}

fn file(directory: &Path, namespace: u64) -> PathBuf {
    directory.join(format!("netns-{namespace}.daemon"))
}

impl Presence {
    /// Writes the file. The caller must hold the lock.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn leave(&self, directory: &Path, namespace: u64) -> io::Result<()> {
        let mut file = run_file::create(&file(directory, namespace))?;
        file.write_all(&serde_json::to_vec(self)?)
    }

    /// Returns whether there is a presence file.
    pub fn is_there(directory: &Path, namespace: u64) -> bool {
        file(directory, namespace).symlink_metadata().is_ok()
    }

    /// Removes the file at a regular end.
    pub fn withdraw(directory: &Path, namespace: u64) {
        let _ = fs::remove_file(file(directory, namespace));
    }

    /// Returns the state of the last daemon, if it runs or was killed.
    pub fn find(directory: &Path, namespace: u64) -> Option<PresenceState> {
        let content = run_file::read(&file(directory, namespace), MOST).ok()?;
        let presence: Self = serde_json::from_slice(&content.bytes).ok()?;
        // For a user who may not examine the lock, /proc gives the best answer.
        let lives = Lock::is_held(directory, namespace).unwrap_or_else(|_| is_daemon(presence.pid));
        Some(if lives {
            PresenceState::Running(presence)
        } else {
            PresenceState::Gone(presence)
        })
    }
}

fn is_daemon(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|word| word == b"daemon")
}

/// Removes the files of network namespaces that are gone, in a thread of its own: it takes some milliseconds, and half a
/// second at most.
pub(super) fn remove_files_of_vanished_namespaces(run_dir: &Path) {
    let run_dir = run_dir.to_owned();
    let remove = move || {
        crate::vanished::remove_files(&run_dir);
    };
    let thread = std::thread::Builder::new().name("run-files".into()).spawn(remove);
    if let Err(error) = thread {
        tracing::debug!(%error, "failed to look for files of network namespaces that are gone");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_was_killed_leaves_a_trace_and_one_that_ended_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let presence = Presence {
            pid: 7,
            socket: "/run/x.sock".into(),
        };
        assert_eq!(Presence::find(directory, 1), None);
        let lock = Lock::take(directory, 1, Duration::ZERO).unwrap();
        presence.leave(directory, 1).unwrap();
        presence.leave(directory, 1).unwrap();
        assert_eq!(
            Presence::find(directory, 1),
            Some(PresenceState::Running(presence.clone()))
        );
        drop(lock);
        assert_eq!(Presence::find(directory, 1), Some(PresenceState::Gone(presence)));
        assert_eq!(Presence::find(directory, 2), None);
        Presence::withdraw(directory, 1);
        assert_eq!(Presence::find(directory, 1), None);
        fs::write(file(directory, 1), "{").unwrap();
        assert_eq!(Presence::find(directory, 1), None);
    }
}
