//! Errors of requests to a daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use tcpgw_core::model::InputProblems;

/// Reason why the daemon did not do as requested.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No daemon listens on the socket.
    #[error("no daemon answers on {}: {source}", tcpgw_core::escape::path(path))]
    NoDaemon {
        /// Path of the socket that was tried.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// This user may not use the socket.
    #[error(
        "a daemon may serve {}, and this user may not connect to it: become root, or a member of the socket's group; \
         `--socket none` works on the kernel without it",
        tcpgw_core::escape::path(.0)
    )]
    Forbidden(PathBuf),
    /// The daemon serves another network namespace.
    #[error(
        "the daemon behind {} serves another network namespace than this one: run the command in that namespace \
         (`ip netns exec NAME tcpgw ...`), or with `--socket none` to work on the rules of this one without a daemon",
        tcpgw_core::escape::path(.0)
    )]
    OtherNamespace(PathBuf),
    /// The daemon takes connections, or has taken too many, and does not answer.
    #[error(
        "the daemon behind {}{} has not answered for {waited:?}: it hangs, or has too much to do. `tcpgw --socket none status` \
         reads the kernel without it; changes need the daemon: `systemctl restart tcpgw` starts it anew; where it is not a service of systemd, end that process and start the daemon again. No connection ends", tcpgw_core::escape::path(path), process(*pid)
    )]
    Hung {
        /// Path of the socket that was tried.
        path: PathBuf,
        /// The process that listens there, where the kernel tells.
        pid: Option<i32>,
        /// Time for which an answer was awaited.
        waited: Duration,
    },
    /// The socket belongs to a user who is not trusted.
    #[error(
        "{} is not served by a daemon that can be trusted: uid {uid} listens there, and not root, this user, or the owner of the \
         socket's directory (uid {owner}); nothing was asked. End that process; `--socket none` works on the kernel without a daemon",
        tcpgw_core::escape::path(path)
    )]
    Stranger {
        /// Path of the socket that was tried.
        path: PathBuf,
        /// The user who listens.
        uid: u32,
        /// The owner of the directory.
        owner: u32,
    },
    /// The answer has not ended in time.
    #[error(
        "the daemon behind {} has begun an answer and not ended it in time: it hangs, or is no tcpgw daemon; `--socket none` works \
         on the kernel without it",
        tcpgw_core::escape::path(path)
    )]
    Late {
        /// Path of the socket that was tried.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("failed to ask the daemon behind {}: {why}", tcpgw_core::escape::path(path))]
    Connection {
        /// Path of the socket that was tried.
        path: PathBuf,
        /// Description of the failure.
        why: String,
    },
    /// The daemon refused the state as invalid.
    #[error("{0}")]
    Invalid(InputProblems),
    /// The daemon answered with an error.
    #[error("{message}")]
    Refused {
        /// The status code of HTTP.
        status: u16,
        /// One word for programs.
        code: String,
        /// Message of the daemon.
        message: String,
    },
}

pub(super) fn process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
