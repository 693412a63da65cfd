//! Failures of commands, and the exit codes.

use std::path::PathBuf;

use thiserror::Error;

use crate::api::client::ClientError;
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::lock::LockError;
use crate::observe::ObserveError;
use crate::reconcile::ReconcileError;
use crate::state_file::SourceError;
use std::io;
use tcpgw_core::model::InputProblems;
use tcpgw_kernel::KernelError;
use tcpgw_kernel::listeners::ListenersError;
use tcpgw_kernel::netlink::error::NetlinkError;

/// Reason why a command failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The input is wrong.
    #[error("{}", Invalid(file, problems))]
    Invalid { file: PathBuf, problems: InputProblems },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Observe(ObserveError),
    #[error(transparent)]
    Daemon(ClientError),
    /// Refused for the operator's own good.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("{error}{option}", error = .0, option = option_of(.0))]
    Lock(#[from] LockError),
    #[error(transparent)]
    Listeners(#[from] ListenersError),
    #[error(transparent)]
    Serving(#[from] DaemonError),
    #[error(transparent)]
    Up(#[from] crate::up::error::UpError),
    #[error("failed to {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused {
                status: 400, message, ..
            } => Self::Usage(message),
            other => Self::Daemon(other),
        }
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Families(..) => Self::Usage(error.to_string()),
            ObserveError::Write(source) => Self::Io {
                what: "write to standard output",
                source,
            },
            other => Self::Observe(other),
        }
    }
}

impl Failure {
    /// Returns the exit code: 2 for an error of the caller, 1 for every other one.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Invalid { .. } | Self::Config(_) | Self::Source(_) | Self::Usage(_) => 2,
            Self::Up(error) if error.is_usage() => 2,
            _ => 1,
        }
    }
}

/// Returns the option by which a command waits longer for the lock.
pub(super) fn option_of(error: &LockError) -> &'static str {
    match error {
        LockError::Held { holder, .. } if holder.contains(" daemon") => {
            " (--lock-timeout). The holder is a daemon, which holds the lock as long as it runs: use its socket (without `--socket none`), or \
             end it first (`systemctl stop tcpgw`)"
        }
        LockError::Held { .. } => " (--lock-timeout)",
        LockError::File { .. } => "",
    }
}

struct Invalid<'a>(&'a PathBuf, &'a InputProblems);

impl std::fmt::Display for Invalid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = if self.0.as_os_str() == "-" {
            "<stdin>".to_owned()
        } else {
            tcpgw_core::escape::path(self.0)
        };
        for (at, problem) in self.1.iter().enumerate() {
            let problem = tcpgw_core::escape::text(&problem.to_string());
            write!(f, "{}{file}: {problem}", if at > 0 { "\n" } else { "" })?;
        }
        match self.1.total() - self.1.iter().count() {
            0 => Ok(()),
            more => write!(f, "\n{file}: and {more} more"),
        }
    }
}

/// Result of a command.
pub(super) type Outcome = Result<Code, Failure>;

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Success,
    /// `diff`: there are changes; `apply`: it is not finished; `status`: something is unhealthy; `who`: no client was found.
    Failure,
    /// Ended by that signal.
    Signal(u8),
    /// Exit code of a command that was run.
    Other(u8),
}

/// Returns a function that treats the daemon's errors about an order for a service as wrong input.
pub(super) fn of_service(name: &str) -> impl Fn(ClientError) -> Failure {
    move |error| match error {
        ClientError::Invalid(problems) => Failure::Invalid {
            file: name.into(),
            problems,
        },
        other => other.into(),
    }
}
