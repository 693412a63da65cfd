//! Bounds of the history.

/// Bounds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Largest number of entries of the history; at least the last one stays.
    pub entries: u64,
    /// Largest number of bytes of services in the history.
    pub bytes: u64,
    /// Largest number of deploys that are over.
    pub deploys: u64,
}

impl Default for HistoryBounds {
    fn default() -> Self {
        Self {
            entries: 100_000,
            bytes: 256 << 20,
            deploys: 10_000,
        }
    }
}
