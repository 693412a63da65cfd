//! Bounds of the history.

/// Bounds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries of the history, at most; at least the last one stays.
    pub entries: u64,
    /// Bytes of services in the history, at most.
    pub bytes: u64,
    /// Deploys that are over, at most.
    pub deploys: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            entries: 100_000,
            bytes: 256 << 20,
            deploys: 10_000,
        }
    }
}
