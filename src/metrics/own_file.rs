//! The file of the run directory that keeps the daemon's own counters for the next daemon.
//!
//! Counters are written before they are shown, so that a daemon that is killed is followed by one whose counters are no smaller
//! than those that anybody has seen. They begin anew when the machine starts.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::own::OwnMetrics;
use crate::run_file;

/// Maximum size of the file.
const MOST_BYTES: u64 = 64 << 10;
/// Format of the file. A file of another format is not read.
const VERSION: u32 = 1;

/// The file of a network namespace.
#[derive(Debug, Clone)]
pub struct OwnFile {
    path: PathBuf,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    boot: String,
    counters: OwnMetrics,
}

impl OwnFile {
    /// Returns the file of a network namespace in the run directory, for the boot with this id.
    pub fn new(run_dir: &Path, namespace: u64, boot: String) -> Self {
        Self {
            path: run_dir.join(format!("netns-{namespace}.metrics")),
            boot,
        }
    }

    /// Reads the counters; `None` if there is no file, or one that is damaged, of another boot, or not to be trusted.
    pub fn load(&self) -> Option<OwnMetrics> {
        let content = run_file::read(&self.path, MOST_BYTES).ok()?;
        let document: Document = serde_json::from_slice(&content.bytes).ok()?;
        let is_mine = content.trusted && document.version == VERSION && document.boot == self.boot;
        Some(document.counters).filter(|counters| is_mine && counters.is_whole())
    }

    /// Writes the counters, whole or not at all.
    ///
    /// # Errors
    /// Fails when the file cannot be written; the former one stays then.
    pub fn save(&self, counters: &OwnMetrics) -> io::Result<()> {
        let document = Document {
            version: VERSION,
            boot: self.boot.clone(),
            counters: counters.clone(),
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
        file("a").save(&counters).unwrap();
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
    }
}
