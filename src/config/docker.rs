//! `[docker]` in the configuration: the engine whose containers are followed.

use std::path::Path;

use serde::Deserialize;

use super::daemon::SocketPath;

/// Default path of the engine's socket.
pub const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// The section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerSection {
    /// The engine's socket, if it is not the usual one.
    socket: Option<SocketPath>,
}

impl DockerSection {
    /// Returns the path of the engine's socket.
    pub fn socket(&self) -> &Path {
        let socket = self.socket.as_ref();
        socket.map_or(Path::new(DEFAULT_DOCKER_SOCKET), SocketPath::path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_an_absolute_path() {
        let read = |text: &str| toml::from_str::<DockerSection>(text).map_err(|error| error.message().to_owned());
        assert_eq!(
            read("").map(|section| section.socket().to_owned()),
            Ok(DEFAULT_DOCKER_SOCKET.into())
        );
        assert_eq!(
            read("socket = '/run/x.sock'").map(|section| section.socket().to_owned()),
            Ok("/run/x.sock".into())
        );
        for (wrong, part) in [
            ("socket = 'docker.sock'", "must be an absolute path"),
            ("socket = ''", "must be an absolute path"),
            ("socket = 5", "invalid type"),
            ("sockets = '/x'", "unknown field"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
        let long = format!("socket = '/{}'", "x".repeat(200));
        assert!(read(&long).unwrap_err().contains("longer than"));
    }
}
