//! Observations of the gateway's surroundings: the request and the result.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::handshakes::HandshakeReport;
use super::turned_away::TurnedAwayCounts;
use crate::doctor::CheckSubject;
use crate::store::FileId;
use tcpgw_core::problem::Problem;

/// Request for an observation.
#[derive(Debug, Clone)]
pub struct ObservationRequest {
    /// Services and configuration to check against.
    pub subject: CheckSubject,
    /// Backends that answer probes, as far as is known.
    pub answering: Arc<BTreeSet<SocketAddr>>,
    /// Path of the store, and the identity of its file when it was opened.
    pub store: Option<(PathBuf, FileId)>,
    /// Whether to observe the surroundings.
    pub surroundings: bool,
    /// Whether to observe handshakes.
    pub handshakes: bool,
}

/// State of a file that the daemon has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFile {
    /// The file is still at its path.
    Same,
    /// The file is not at its path any more.
    Gone,
    /// Another file is at its path.
    Other,
}

impl StoreFile {
    /// Compares with the file at the path. Returns `None` when that file cannot be examined.
    pub fn compare(path: &Path, opened: FileId) -> Option<Self> {
        match FileId::of(path) {
            Ok(file) if file == opened => Some(Self::Same),
            Ok(_) => Some(Self::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Self::Gone),
            Err(_) => None,
        }
    }
}

/// Result of an observation.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Problems of the surroundings, if these were requested.
    pub surroundings: Option<Vec<Problem>>,
    /// Problem that what earlier observations remembered is lost, if surroundings were requested.
    pub lost_memory: Option<Problem>,
    /// State of the store's file, if surroundings were requested and it is known.
    pub store: Option<StoreFile>,
    /// Handshakes, if these were requested and could be read.
    pub handshakes: Option<HandshakeReport>,
    /// Clients that were turned away, if handshakes were requested and the counts could be read.
    pub turned_away: Option<TurnedAwayCounts>,
    /// Minimum time until the next observation of handshakes.
    pub pause: Duration,
}
