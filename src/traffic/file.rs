//! The file of the run directory that keeps a ledger.

use std::io;
use std::path::{Path, PathBuf};

use super::ledger::Ledger;
use crate::run_file;

/// Maximum size of the file: that of some 300,000 backends.
const MOST_BYTES: u64 = 128 << 20;

/// Reason why the file was not used.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not as a daemon of this boot wrote it.
    #[error("it is damaged, or of another boot or version")]
    Damaged,
}

/// The file of a network namespace.
#[derive(Debug, Clone)]
pub struct TotalsFile {
    path: PathBuf,
}

impl TotalsFile {
    /// Returns the file of a network namespace in the run directory.
    pub fn new(run_dir: &Path, namespace: u64) -> Self {
        Self {
            path: run_dir.join(format!("netns-{namespace}.totals")),
        }
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the ledger; `None` if there is no file.
    ///
    /// # Errors
    /// Fails when the file cannot be read, belongs to another user, or is damaged.
    pub fn load(&self, boot: &str) -> Result<Option<Ledger>, NotRead> {
        let content = match run_file::read(&self.path, MOST_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            content => content?,
        };
        let ledger = Ledger::decode(&content.bytes, boot).filter(|_| content.trusted);
        ledger.map(Some).ok_or(NotRead::Damaged)
    }

    /// Writes the ledger, whole or not at all.
    ///
    /// # Errors
    /// Fails when the file cannot be written; the former one stays then.
    pub fn save(&self, ledger: &Ledger, boot: &str) -> io::Result<()> {
        run_file::replace(&self.path, &ledger.encode(boot)?)
    }
}
