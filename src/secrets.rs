//! Files of secrets, which are credentials and private keys, with their permitted owners and readers.
//!
//! The file belongs to root or to the user that reads it, and no other user may read or write it. Root's commands also read
//! those of the user that the daemon runs as, since that daemon uses them.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tcpgw_core::escape;
use thiserror::Error;

/// Maximum size of a file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// User in the unit that comes with this program (`dist/systemd/tcpgw.service`).
const UNIT_USER: &str = "tcpgw";

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the text, for those who have to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether this is the text, in a time that does not tell how much of it is right.
    pub fn is(&self, text: &[u8]) -> bool {
        // Digests are of one length, so that the time of the comparison does not tell the secret's.
        Sha256::digest(&self.0).ct_eq(&Sha256::digest(text)).into()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reason why a file of secrets is not used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Users other than the owner may read or write the file. The number is its mode.
    #[error(
        "others than its owner may read or write it (mode {mode:04o}): chmod 600 {}",
        escape::path(path)
    )]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// Mode of the file.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("belongs to {owner}, who is neither {accepted}: chown {to} {}", escape::path(path))]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Owner of the file.
        owner: String,
        /// Permitted owners.
        accepted: &'static str,
        /// The user that the file has to be given to.
        to: String,
    },
    /// The file belongs to root, and the daemon runs as another user.
    #[error(
        "belongs to root, so that the daemon, which runs as {daemon}, cannot read it: chown {to} {}",
        escape::path(path)
    )]
    NotOfDaemon {
        /// Path of the file.
        path: PathBuf,
        /// The daemon's user.
        daemon: String,
        /// The daemon's user, for `chown`.
        to: String,
    },
}

/// Users whose files of secrets are used.
#[derive(Debug, Clone)]
pub struct Owners {
    process: u32,
    reader: SecretReader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretReader {
    /// The program that is to use the file.
    Daemon,
    /// A command beside a daemon of this user, if the user is known.
    Command { daemon: Option<u32> },
    /// A command that checks whether a daemon of this user could use the file.
    Judge { daemon: Option<u32> },
}

impl Owners {
    /// Returns root and the user of this process: for the daemon itself.
    pub fn of_daemon() -> Self {
        Self {
            process: nix::unistd::geteuid().as_raw(),
            reader: SecretReader::Daemon,
        }
    }

    /// Returns, for a command: root, the user of this process, and, if that is root, the user that the daemon runs as, who is
    /// the owner of the run directory or the user of the unit.
    pub fn beside_daemon(run_dir: &Path) -> Self {
        Self {
            reader: SecretReader::Command {
                daemon: owner_of(run_dir),
            },
            ..Self::of_daemon()
        }
    }

    /// Returns the same as [`Owners::beside_daemon`], for a command that checks whether a daemon that starts could use the
    /// file.
    pub fn judging(run_dir: &Path) -> Self {
        Self {
            reader: SecretReader::Judge {
                daemon: owner_of(run_dir),
            },
            ..Self::of_daemon()
        }
    }

    fn check(&self, path: &Path, owner: u32) -> Result<(), SecretError> {
        let daemon = match self.reader {
            SecretReader::Daemon => None,
            SecretReader::Command { daemon } | SecretReader::Judge { daemon } => daemon.filter(|_| self.process == 0),
        };
        let is_judge = matches!(self.reader, SecretReader::Judge { .. });
        if let Some(daemon) = daemon.filter(|daemon| is_judge && *daemon != 0 && owner == 0) {
            return Err(SecretError::NotOfDaemon {
                path: path.to_owned(),
                daemon: user(daemon),
                to: name(daemon),
            });
        }
        if owner == 0 || owner == self.process || daemon == Some(owner) {
            return Ok(());
        }
        let is_command = self.reader != SecretReader::Daemon && self.process == 0;
        let of_unit = || unit_user().filter(|_| is_command);
        if of_unit() == Some(owner) {
            return Ok(());
        }
        Err(SecretError::Foreign {
            path: path.to_owned(),
            owner: user(owner),
            accepted: if is_command {
                "root nor the user that the daemon runs as"
            } else {
                "root nor the user that reads it"
            },
            to: name(
                daemon
                    .filter(|daemon| *daemon != 0)
                    .or_else(of_unit)
                    .unwrap_or(self.process),
            ),
        })
    }

    /// Adds advice to the error that this user may not read a file.
    fn explained(&self, path: &Path, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return error;
        }
        let who = user(self.process);
        let shown = escape::path(path);
        let why = match (closed_directory(path), self.reader) {
            (Some(directory), _) => format!(
                "{who} may not enter the directory {}: let that user in, or put the file elsewhere",
                escape::path(&directory)
            ),
            (None, SecretReader::Daemon) => format!("{who} may not read it: chown {} {shown}", name(self.process)),
            (None, _) => format!("{who} may not read it: run this command as root, or as the owner of the file"),
        };
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// Fails with [`SecretError`] when the file cannot be read, is open to other users, or belongs to a user who is not
/// among the owners.
pub fn read(path: &Path, owners: &Owners) -> Result<Vec<u8>, SecretError> {
    let (file, metadata) = open(path).map_err(|error| owners.explained(path, error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    owners.check(path, metadata.uid())?;
    Ok(contents(file)?)
}

/// Reads a file beside a file of secrets that all users may read: a certificate.
///
/// # Errors
/// Fails when the file cannot be opened or read, and with an error that says so when it is no regular file, or larger
/// than 256 KiB.
pub fn read_public(path: &Path, owners: &Owners) -> io::Result<Vec<u8>> {
    let (file, _) = open(path).map_err(|error| owners.explained(path, error))?;
    contents(file)
}

/// Opens a regular file. Does not block on a pipe in its place.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok((file, metadata))
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("is larger than 256 KiB"));
    }
    Ok(bytes)
}

fn owner_of(run_dir: &Path) -> Option<u32> {
    fs::metadata(run_dir).ok().map(|directory| directory.uid())
}

fn unit_user() -> Option<u32> {
    User::from_name(UNIT_USER).ok().flatten().map(|user| user.uid.as_raw())
}

/// Returns the name of a user, for `chown`; the number if the user has no name.
fn name(uid: u32) -> String {
    let named = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    named.map_or_else(|| uid.to_string(), |user| escape::text(&user.name).clone())
}

/// Returns a user in words, for people.
fn user(uid: u32) -> String {
    match name(uid) {
        name if name == uid.to_string() => format!("uid {uid}"),
        name => format!("user {name} (uid {uid})"),
    }
}

/// Returns the first directory on the path to a file that this user may not enter.
fn closed_directory(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let is_closed =
        |pair: &&[&Path]| fs::metadata(pair[1]).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    way.windows(2).find(is_closed).map(|pair| pair[0].to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    const DAEMON: u32 = 59_123;
    const STRANGER: u32 = 59_124;

    fn by(process: u32, reader: SecretReader) -> Owners {
        Owners { process, reader }
    }

    /// Each reader accepts the permitted owners, and no others.
    #[test]
    fn a_file_is_roots_its_readers_or_for_root_the_daemons() {
        let daemon = Some(DAEMON);
        for (owners, accepted, refused) in [
            (by(DAEMON, SecretReader::Daemon), &[0, DAEMON][..], &[STRANGER][..]),
            (by(0, SecretReader::Daemon), &[0], &[DAEMON, STRANGER]),
            (by(0, SecretReader::Command { daemon }), &[0, DAEMON], &[STRANGER]),
            (by(0, SecretReader::Command { daemon: None }), &[0], &[DAEMON, STRANGER]),
            (by(0, SecretReader::Judge { daemon }), &[DAEMON], &[0, STRANGER]),
            (by(0, SecretReader::Judge { daemon: None }), &[0], &[DAEMON, STRANGER]),
            (
                by(0, SecretReader::Judge { daemon: Some(0) }),
                &[0],
                &[DAEMON, STRANGER],
            ),
            (
                by(STRANGER, SecretReader::Command { daemon }),
                &[0, STRANGER],
                &[DAEMON],
            ),
        ] {
            for owner in accepted {
                owners
                    .check(Path::new("f"), *owner)
                    .unwrap_or_else(|error| panic!("{owners:?} {owner}: {error}"));
            }
            for owner in refused {
                let error = owners.check(Path::new("f"), *owner).unwrap_err().to_string();
                assert!(error.contains(": chown "), "{owners:?} {owner}: {error}");
            }
        }
        let reported = |owners: Owners, owner| owners.check(Path::new("f"), owner).unwrap_err().to_string();
        assert_eq!(
            reported(by(0, SecretReader::Command { daemon }), STRANGER),
            "belongs to uid 59124, who is neither root nor the user that the daemon runs as: chown 59123 f"
        );
        assert_eq!(
            reported(by(0, SecretReader::Judge { daemon }), 0),
            "belongs to root, so that the daemon, which runs as uid 59123, cannot read it: chown 59123 f"
        );
    }

    #[test]
    fn the_owner_of_the_run_directory_is_the_daemons_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (run_dir, path) = (directory.path().join("run"), directory.path().join("addon.toml"));
        fs::create_dir(&run_dir).unwrap();
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for file in [&run_dir, &path] {
            chown(file, Some(DAEMON), None).unwrap();
        }
        assert_eq!(read(&path, &Owners::beside_daemon(&run_dir)).unwrap(), b"secret");
        assert_eq!(read(&path, &Owners::judging(&run_dir)).unwrap(), b"secret");
        let error = read(&path, &Owners::of_daemon()).unwrap_err();
        assert!(matches!(error, SecretError::Foreign { .. }), "{error}");
        // No other user may write or read it, whoever the owner is.
        for mode in [0o620, 0o602, 0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, &Owners::beside_daemon(&run_dir)).unwrap_err();
            assert!(matches!(error, SecretError::Exposed { .. }), "{mode:o}: {error}");
        }
    }

    #[test]
    fn no_pipe_makes_anybody_wait_and_no_large_file_is_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(&path, &Owners::of_daemon()).unwrap_err().to_string();
        assert_eq!(error, "is not a regular file");
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'x'; (256 << 10) + 1]).unwrap();
        let error = read_public(&path, &Owners::of_daemon()).unwrap_err().to_string();
        assert_eq!(error, "is larger than 256 KiB");
    }
}
