//! Authors of changes.

/// Process that orders a change, and the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeAuthor {
    /// User id of the API's peer.
    pub uid: u32,
    /// Process id; 0 if unknown.
    pub pid: u32,
    /// The command: `apply`, `service set`, `deploy`.
    pub what: String,
}
