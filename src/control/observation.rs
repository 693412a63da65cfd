//! Looks at the gateway's surroundings: what is asked for, and what was seen.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::handshakes::HandshakeReport;
use crate::doctor::Subject;
use crate::store::FileId;
use tcpgw_core::problem::Problem;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct ObservationRequest {
    /// The services, and what the configuration says of them.
    pub subject: Subject,
    /// Backends that answer probes, as far as is known.
    pub answering: Arc<BTreeSet<SocketAddr>>,
    /// Where the store is, and which file it was when it was opened.
    pub store: Option<(PathBuf, FileId)>,
    /// Whether to look at the surroundings.
    pub surroundings: bool,
    /// Whether to look at handshakes.
    pub handshakes: bool,
}

/// What has become of a file that the daemon has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFile {
    /// It is where it was.
    Same,
    /// There is none any more.
    Gone,
    /// Another one is in its place.
    Other,
}

impl StoreFile {
    /// Compares with the file that is there now. `None`: nobody knows.
    pub fn look(path: &Path, opened: FileId) -> Option<Self> {
        match FileId::of(path) {
            Ok(file) if file == opened => Some(Self::Same),
            Ok(_) => Some(Self::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Self::Gone),
            Err(_) => None,
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What is wrong with the surroundings, where these were asked for.
    pub surroundings: Option<Vec<Problem>>,
    /// What has become of the file of the store, where surroundings were asked for and it is known.
    pub store: Option<StoreFile>,
    /// Handshakes, where these were asked for and could be read.
    pub handshakes: Option<HandshakeReport>,
    /// Handshakes need not be looked for sooner.
    pub pause: Duration,
}
