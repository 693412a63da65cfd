//! The socket of the API.

use super::error::DaemonError;
use crate::api::{Socket, SocketSettings};
use crate::config::daemon::DaemonSettings;

pub(super) fn bind(settings: &DaemonSettings) -> Result<Socket, DaemonError> {
    Ok(Socket::bind(&socket_settings(settings)?)?)
}

pub(super) fn socket_settings(settings: &DaemonSettings) -> Result<SocketSettings, DaemonError> {
    Ok(SocketSettings {
        path: settings.socket.clone(),
        mode: settings.socket_mode,
        group: group_of(settings)?,
    })
}

/// Returns the id of the group that may use the socket.
///
/// # Errors
/// Fails with [`DaemonError::Group`] when there is no such group.
pub(super) fn group_of(settings: &DaemonSettings) -> Result<Option<u32>, DaemonError> {
    group_named(settings.socket_group.as_deref()).map_err(|NoGroup(name)| DaemonError::Group(name))
}

/// Name of a group that does not exist.
pub(super) struct NoGroup(pub(super) String);

/// Returns the id of a group.
pub(super) fn group_named(name: Option<&str>) -> Result<Option<u32>, NoGroup> {
    let group = name.map(|name| {
        let found = nix::unistd::Group::from_name(name).ok().flatten();
        found
            .map(|group| group.gid.as_raw())
            .ok_or_else(|| NoGroup(name.to_owned()))
    });
    group.transpose()
}
