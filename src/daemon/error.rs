//! Reasons why the daemon did not start, or ended.

use std::io;

use thiserror::Error;

use crate::api::SocketError;
use crate::config::ConfigError;
use crate::lock::LockError;
use crate::probe::ProbeError;
use tcpgw_kernel::KernelError;
use tcpgw_kernel::netlink::error::NetlinkError;

/// Reason why the daemon did not start, or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another tcpgw writes in this network namespace.
    #[error("{0}; a network namespace has one writer, and a daemon holds that role as long as it runs")]
    Lock(#[from] LockError),
    /// The kernel does not answer, or refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The socket to the kernel cannot be opened.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The socket of the API cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The group that may use the socket does not exist.
    #[error("the group {0:?} (socket_group) does not exist: create it, or name another one")]
    Group(String),
    /// The prober cannot be started, or has ended.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Another system call failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// The failed action.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread that writes the store has ended.
    #[error("the thread that writes the store has died: this is a bug in tcpgw, please report it")]
    Store,
    /// A task that lives as long as the daemon has ended.
    #[error("the task that {0} has ended: this is a bug in tcpgw, please report it")]
    Task(&'static str),
    /// The thread that changes the kernel has ended.
    #[error("the thread that talks to the kernel has died: this is a bug in tcpgw, please report it")]
    KernelThread,
}

pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Io { what, source }
}
