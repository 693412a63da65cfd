//! The file of the run directory that keeps the daemon's own counters for the next daemon.
//!
//! Counters are written before they are shown, so that a daemon that is killed is followed by one whose counters are no smaller
//! than those that anybody has seen. They begin anew when the machine starts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::own::OwnMetrics;
use super::reading::KernelReads;
use crate::locked::locked;
use crate::run_file;

/// Maximum size of the file.
const MOST_BYTES: u64 = 64 << 10;
/// Format of the file. A file of another format is not read.
const VERSION: u32 = 1;

/// The file of a network namespace, and the counters in it. Clones share both: tasks that serve metrics end and begin with the
/// configuration of their listener.
#[derive(Debug, Clone)]
pub struct OwnFile {
    path: PathBuf,
    boot: String,
    state: Arc<Mutex<FileState>>,
}

#[derive(Debug, Default)]
struct FileState {
    /// Counters that were written last, or read.
    kept: KeptCounters,
    /// Reads until now.
    reads: KernelReads,
}

/// Counters that are in the file, so that they can be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptCounters {
    /// Counters of the main loop.
    pub own: OwnMetrics,
    /// Counters of those who read the kernel for metrics.
    pub reads: KernelReads,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    boot: String,
    counters: OwnMetrics,
    /// Daemons before this counter did not keep it.
    #[serde(default)]
    reads: KernelReads,
}

impl OwnFile {
    /// Returns the file of a network namespace in the run directory, for the boot with this id.
    pub fn new(run_dir: &Path, namespace: u64, boot: String) -> Self {
        Self {
            path: run_dir.join(format!("netns-{namespace}.metrics")),
            boot,
            state: Arc::default(),
        }
    }

    /// Reads the counters, and goes on counting from there. Returns those of the main loop; `None` if there is no file, or one that is
    /// damaged, of another boot, or not to be trusted.
    pub fn load(&self) -> Option<OwnMetrics> {
        let document = self.read()?;
        let mut state = self.state();
        state.reads = document.reads;
        state.kept = KeptCounters {
            own: document.counters,
            reads: document.reads,
        };
        Some(state.kept.own.clone())
    }

    fn read(&self) -> Option<Document> {
        let content = run_file::read(&self.path, MOST_BYTES).ok()?;
        let document: Document = serde_json::from_slice(&content.bytes).ok()?;
        let is_mine = content.trusted && document.version == VERSION && document.boot == self.boot;
        Some(document).filter(|document| is_mine && document.counters.is_whole())
    }

    /// Counts a read of the kernel that begins.
    pub fn read_begins(&self) {
        self.state().reads.begun += 1;
    }

    /// Counts the end of a read. `took`: its duration.
    pub fn read_ended(&self, took: Duration, is_failure: bool) {
        let reads = &mut self.state().reads;
        reads.took = took;
        reads.failed += u64::from(is_failure);
    }

    /// Writes the counters, and returns those that are in the file then, which may be shown. If it cannot be written, they are those that
    /// were written last. Counters that are older than those stay unwritten.
    pub fn keep(&self, own: &OwnMetrics) -> (KeptCounters, io::Result<()>) {
        // One at a time: the others would write into the same temporary file.
        let mut state = self.state();
        let newest = if own.sum() < state.kept.own.sum() {
            state.kept.own.clone()
        } else {
            own.clone()
        };
        let counters = KeptCounters {
            own: newest,
            reads: state.reads,
        };
        let saved = self.save(&counters);
        if saved.is_ok() {
            state.kept = counters;
        }
        // The duration is no counter.
        state.kept.reads.took = state.reads.took;
        (state.kept.clone(), saved)
    }

    fn state(&self) -> MutexGuard<'_, FileState> {
        locked(&self.state)
    }

    /// Writes the counters, whole or not at all.
    fn save(&self, counters: &KeptCounters) -> io::Result<()> {
        let document = Document {
            version: VERSION,
            boot: self.boot.clone(),
            counters: counters.own.clone(),
            reads: counters.reads,
        };
        run_file::replace(&self.path, &serde_json::to_vec(&document)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn counters_go_on_within_a_boot_and_nothing_else_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let file = |boot: &str| OwnFile::new(directory.path(), 5, boot.into());
        assert_eq!(file("a").load(), None);
        let mut counters = OwnMetrics::default();
        counters.probes.observe(Duration::from_millis(3));
        counters.deployed("failed");
        counters.commit_failures = 2;
        file("a").keep(&counters).1.unwrap();
        assert_eq!(file("a").load(), Some(counters));
        assert_eq!(file("b").load(), None, "another boot");
        let path = directory.path().join("netns-5.metrics");
        let text = fs::read_to_string(&path).unwrap();
        for (old, new) in [
            ("\"version\":1", "\"version\":2"),
            ("[", "[7,"),
            ("\"failed\"", "\"x\""),
            ("}", ""),
        ] {
            assert!(text.contains(old), "{text}");
            fs::write(&path, text.replacen(old, new, 1)).unwrap();
            assert_eq!(file("a").load(), None, "{new}");
        }
        // An earlier version did not keep the reads.
        let reads = text.find(",\"reads\"").unwrap();
        fs::write(&path, format!("{}}}", &text[..reads])).unwrap();
        assert!(file("a").load().is_some());
    }

    #[test]
    fn what_is_shown_was_written_and_never_falls() {
        let directory = tempfile::tempdir().unwrap();
        let file = || OwnFile::new(directory.path(), 5, "a".into());
        let first = file();
        // A listener that is configured anew has a clone.
        let moved = first.clone();
        first.read_begins();
        first.read_ended(Duration::from_millis(2), true);
        moved.read_begins();
        let mut own = OwnMetrics {
            commit_failures: 7,
            ..OwnMetrics::default()
        };
        let (shown, saved) = moved.keep(&own);
        saved.unwrap();
        assert_eq!((shown.reads.begun, shown.reads.failed), (2, 1));
        // One that asked the main loop earlier comes later.
        let (late, _) = first.keep(&OwnMetrics::default());
        assert_eq!(late.own.commit_failures, 7);
        // Where nothing can be written, nothing new is shown.
        fs::create_dir(directory.path().join("netns-5.metrics.new")).unwrap();
        first.read_begins();
        own.commit_failures = 8;
        let (unwritten, saved) = first.keep(&own);
        saved.unwrap_err();
        assert_eq!(unwritten, late);
        let next = file();
        let loaded = next.load().unwrap();
        fs::remove_dir(directory.path().join("netns-5.metrics.new")).unwrap();
        let (after, saved) = next.keep(&loaded);
        saved.unwrap();
        assert_eq!((after.own.commit_failures, after.reads.begun), (7, 2));
    }
}
