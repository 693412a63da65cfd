//! Search for the daemon of this network namespace.

use crate::api::client::Client;
use crate::api::client::error::ClientError;
use std::io;
use std::path::{Path, PathBuf};

use tcpgw_kernel::ffi::socket;

/// Value of `--socket` with which a command works on the kernel without a daemon.
pub const NOBODY: &str = "none";

/// Default path of the daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/tcpgw/tcpgw.sock";

/// Socket at which a daemon is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'p> {
    /// A socket that was named for this command: a daemon must be there. [`NOBODY`] means that no daemon is asked.
    Named(&'p Path),
    /// The socket at which daemons of this gateway usually listen: there may be no daemon.
    Usual(&'p Path),
}

/// Looks for a daemon. `Ok(None)`: there is none for this network namespace, so the kernel is worked on directly.
///
/// # Errors
/// Fails when the daemon that was named is not there or is of another network namespace, and when one is there that hangs, refuses, or
/// is none.
pub fn find(at: At<'_>) -> Result<Option<Client>, ClientError> {
    Ok(match search(at)? {
        FoundDaemon::Daemon(client) => Some(client),
        FoundDaemon::Nobody | FoundDaemon::Elsewhere(_) => None,
    })
}

/// Result of looking for a daemon.
#[derive(Debug)]
pub enum FoundDaemon {
    /// The daemon of this network namespace.
    Daemon(Client),
    /// No daemon listens there, or none was to be asked.
    Nobody,
    /// A daemon of another network namespace, behind this socket.
    Elsewhere(PathBuf),
}

/// Looks for a daemon like [`find`], and distinguishes the cases in which there is none.
///
/// # Errors
/// Fails as [`find`] does.
pub fn search(at: At<'_>) -> Result<FoundDaemon, ClientError> {
    let (path, is_usual) = match at {
        At::Named(path) if path == Path::new(NOBODY) => return Ok(FoundDaemon::Nobody),
        At::Named(path) => (path, false),
        At::Usual(path) => (path, true),
    };
    match Client::connect(path) {
        Ok(client) => Ok(FoundDaemon::Daemon(client)),
        Err(ClientError::OtherNamespace(at)) if is_usual => Ok(FoundDaemon::Elsewhere(at)),
        Err(error @ ClientError::NoDaemon { .. }) if is_usual => {
            tracing::debug!("no daemon is used, and this command works on the kernel itself: {error}");
            Ok(FoundDaemon::Nobody)
        }
        Err(error) => Err(error),
    }
}

/// Returns the cookie of this process's network namespace.
///
/// # Errors
/// Fails when the system does not return the cookie, as before Linux 5.14.
pub fn namespace() -> io::Result<u64> {
    // A socket of this process is in its network namespace.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket::netns_cookie(std::os::fd::AsFd::as_fd(&socket))
}
