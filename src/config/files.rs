//! Files of a daemon: those that it reads and those that it writes, by the configuration, the command line and the
//! defaults. A file that it writes must not be another one of them as well: what it writes would replace, or be appended
//! to, what an operator or the daemon itself keeps there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::daemon::{DEFAULT_STATE, DaemonSettings, FlowLogTarget};
use super::{Config, copy};
use crate::run_file;
use crate::store;
use crate::transport::Transport;

/// Maximum number of symbolic links that are followed, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Ending of the lock of a socket, after the name of the socket.
pub const SOCKET_LOCK: &str = ".lock";
/// Ending of the directory in which a socket is bound, after the name of the socket.
pub const SOCKET_DIRECTORY: &str = ".new";

/// Paths of files that no setting names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// The configuration.
    pub(super) configuration: &'a Path,
    /// The copy of the configuration at its default path.
    pub(super) copy: &'a Path,
    /// The run directory, if it is known.
    pub(super) run_dir: Option<&'a Path>,
}

/// Two uses of one file, one of which is that the daemon writes it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{} is named twice, as {first} and as {second}, and the daemon would overwrite it: name another path for one of the two",
    tcpgw_core::escape::path(path)
)]
pub struct FileClash {
    /// First use of the file: the daemon writes it.
    first: String,
    /// Second use of the file.
    second: String,
    /// The path, as the first use names it.
    path: PathBuf,
}

/// Use of a file.
#[derive(Debug)]
struct FileUse {
    name: String,
    path: PathBuf,
    kind: FileUseKind,
    file: FileIdentity,
}

/// Use of a file by the daemon or by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileUseKind {
    /// The daemon writes it.
    Written,
    /// The daemon serves clients there.
    Served,
    /// The daemon, or a program that it runs, reads it.
    Read,
    /// A program is given its name, if it is the name of a file.
    Argument,
}

impl FileUse {
    fn is_written(&self) -> bool {
        matches!(self.kind, FileUseKind::Written | FileUseKind::Served)
    }

    /// Returns whether this use, with which the daemon writes a file, and the other one are of one file.
    fn clashes_with(&self, other: &Self) -> bool {
        // A program may be told where the socket is.
        let is_told = self.kind == FileUseKind::Served && other.kind == FileUseKind::Argument && !other.path.is_file();
        other.file.is(&self.file) && !is_told
    }
}

/// Identity of a file: its path without links, and its device and inode if it exists.
#[derive(Debug, PartialEq, Eq)]
struct FileIdentity {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl FileIdentity {
    fn of(path: &Path) -> Self {
        let inode = fs::metadata(path).ok().map(|of| (of.dev(), of.ino()));
        Self {
            path: without_links(path),
            inode,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.path == other.path || self.inode.is_some() && self.inode == other.inode
    }
}

/// Checks that the daemon writes no file that is used otherwise, too.
///
/// # Errors
/// Fails with the first two uses of one file, when the daemon would write it.
pub(super) fn check(places: Places<'_>, settings: &DaemonSettings, config: &Config) -> Result<(), FileClash> {
    let files = files(places, settings, config);
    for (at, written) in files.iter().enumerate().filter(|(_, file)| file.is_written()) {
        // Of two files that are both written, the first one is compared with the second one.
        let others = files.iter().enumerate();
        let mut others = others.filter(|(other, file)| !file.is_written() || *other > at);
        if let Some((_, other)) = others.find(|(_, other)| written.clashes_with(other)) {
            return Err(FileClash {
                first: written.name.clone(),
                second: other.name.clone(),
                path: written.path.clone(),
            });
        }
    }
    if let Some(FlowLogTarget::File(path)) = &settings.flow_log
        && is_of_run_directory(places, path)
    {
        return Err(FileClash {
            first: FLOW_LOG.into(),
            second: "one of the daemon's own files in the run directory".into(),
            path: path.clone(),
        });
    }
    Ok(())
}

const FLOW_LOG: &str = "the flow log (daemon.flow_log)";

/// Returns all files, those that the daemon writes first.
fn files(places: Places<'_>, settings: &DaemonSettings, config: &Config) -> Vec<FileUse> {
    let mut files = Vec::new();
    let mut add = |name: &str, path: &Path, kind: FileUseKind| {
        files.push(FileUse {
            name: name.to_owned(),
            path: path.to_owned(),
            kind,
            file: FileIdentity::of(path),
        });
    };
    if let Some(FlowLogTarget::File(path)) = &settings.flow_log {
        add(FLOW_LOG, path, FileUseKind::Written);
    }
    for path in store::files_of(&settings.store) {
        let name = if path == settings.store {
            "the store (daemon.store)"
        } else {
            "a file of the store (daemon.store)"
        };
        add(name, &path, FileUseKind::Written);
    }
    let sockets = [
        ("daemon.socket", Some(&settings.socket)),
        ("daemon.socket_readonly", settings.socket_readonly.as_ref()),
    ];
    for (key, socket) in sockets {
        let Some(socket) = socket else { continue };
        for path in files_of_socket(socket) {
            let is_socket = path == *socket;
            let name = if is_socket {
                "the socket"
            } else {
                "a file of the socket"
            };
            add(&format!("{name} ({key})"), &path, FileUseKind::Served);
        }
    }
    for path in copy::files_of(places.copy) {
        add("the copy of the configuration", &path, FileUseKind::Written);
    }
    add("the configuration", places.configuration, FileUseKind::Read);
    // A start follows this one as soon as it exists.
    let state = settings.state.as_deref().unwrap_or(Path::new(DEFAULT_STATE));
    add("the state file (daemon.state)", state, FileUseKind::Read);
    if let Some(addon) = &config.addon {
        add(
            "the file of credentials (addon.credentials)",
            &addon.credentials,
            FileUseKind::Read,
        );
        for (name, path) in transport("addon", &addon.transport) {
            add(&name, path, FileUseKind::Read);
        }
    }
    if let Some(web) = &config.web {
        if let Some(token) = &web.token {
            add("the file of the token (web.token_file)", token, FileUseKind::Read);
        }
        for (name, path) in transport("web", &web.transport) {
            add(&name, path, FileUseKind::Read);
        }
    }
    if let Some(docker) = &config.docker {
        add(
            "the engine's socket (docker.socket)",
            docker.socket(),
            FileUseKind::Read,
        );
    }
    for hook in &config.hooks {
        for (what, path) in hook.files() {
            add(
                &format!("{what} of the hook \"{}\"", hook.name),
                path,
                FileUseKind::Read,
            );
        }
        // A file that does not exist yet is one as soon as the daemon has written it.
        let is_name = |path: &&Path| path.is_file() || path.is_absolute() && path.symlink_metadata().is_err();
        for path in hook.arguments().map(Path::new).filter(is_name) {
            let name = format!("an argument of the hook \"{}\" (run)", hook.name);
            add(&name, path, FileUseKind::Argument);
        }
    }
    files
}

/// Returns the files of a socket: its own, that of its lock, and the directory in which it is bound.
fn files_of_socket(socket: &Path) -> [PathBuf; 3] {
    ["", SOCKET_LOCK, SOCKET_DIRECTORY].map(|ending| run_file::with_suffix(socket, ending))
}

fn transport<'a>(section: &str, transport: &'a Transport) -> Vec<(String, &'a Path)> {
    match transport {
        Transport::Tls { certificate, key } => vec![
            (format!("the certificate ({section}.tls_cert)"), certificate),
            (format!("the private key ({section}.tls_key)"), key),
        ],
        Transport::Plain { .. } => Vec::new(),
    }
}

/// Returns whether a path is that of a file which the daemon writes for a network namespace in the run directory.
fn is_of_run_directory(places: Places<'_>, path: &Path) -> bool {
    let Some(run_dir) = places.run_dir else { return false };
    let path = without_links(path);
    let is_own = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"netns-");
    path.parent() == Some(&without_links(run_dir)) && path.file_name().is_some_and(is_own)
}

/// Returns the absolute path without symbolic links and `..`, of a file that need not exist.
fn without_links(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MOST_LINKS {
        if let Ok(real) = fs::canonicalize(&path) {
            return real;
        }
        match (fs::read_link(&path), path.parent()) {
            // A link to a file that does not exist.
            (Ok(to), Some(directory)) => path = directory.join(to),
            _ => break,
        }
    }
    match (path.parent(), path.components().next_back()) {
        (Some(directory), Some(Component::Normal(name))) => without_links(directory).join(name),
        (Some(directory), Some(Component::ParentDir)) => {
            let directory = without_links(directory);
            directory.parent().map(Path::to_owned).unwrap_or(directory)
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests;
