//! Reasons why `tcpgw up` does not run.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::env_file::EnvFileError;
use super::formation::FormationError;
use super::network::NetworkSetupError;
use super::own_daemon::OwnDaemonError;
use super::procfile::ProcfileError;
use super::record::RecordError;
use crate::api::client::ClientError;
use tcpgw_core::escape;
use tcpgw_kernel::netlink::error::NetlinkError;

/// Reason why `tcpgw up` does not run.
#[derive(Debug, Error)]
pub enum UpError {
    /// The Procfile is wrong.
    #[error("{}: {error}", escape::path(file))]
    Procfile {
        /// Path of the Procfile.
        file: PathBuf,
        /// Error in the Procfile.
        error: ProcfileError,
    },
    /// A file of variables is wrong.
    #[error("{}: {error}", escape::path(file))]
    EnvFile {
        /// Path of the environment file.
        file: PathBuf,
        /// Error in the environment file.
        error: EnvFileError,
    },
    /// The formation is wrong.
    #[error("--formation: {0}")]
    Formation(#[from] FormationError),
    /// The arguments are contradictory or invalid.
    #[error("{0}")]
    Usage(String),
    /// Another program or setting prevents the start.
    #[error("{0}")]
    Refused(String),
    /// The app runs already, or its records cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Links or addresses could not be made.
    #[error(transparent)]
    Network(#[from] NetworkSetupError),
    /// Rules could not be made.
    #[error(transparent)]
    Rules(#[from] NetlinkError),
    /// No daemon is available.
    #[error(transparent)]
    Daemon(#[from] OwnDaemonError),
    /// The daemon refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system refused.
    #[error("failed to {what}: {source}")]
    System {
        /// Operation that failed.
        what: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Something that the app had could not be removed.
    #[error("not everything was removed: {0}; `tcpgw up stop` tries again")]
    Left(String),
}

impl UpError {
    /// Returns whether the input is at fault, not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Procfile { .. } | Self::EnvFile { .. } | Self::Formation(_) | Self::Usage(_)
        )
    }
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> UpError {
    move |source| UpError::System { what, source }
}
