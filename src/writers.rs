//! Users who may change the content of a file besides the trusted ones: by owner and mode of the file, and of every
//! directory on the path to it, through all symbolic links.
//!
//! It knows nothing of the content, and of the treatment of a file that others may write.
//!
//! Source: `path_resolution(7)`, `unlink(2)` (the sticky bit), `symlink(7)`.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::FsFlags;

use crate::path_steps::{MOST_LINKS, MOST_STEPS, push_front};
use tcpgw_core::escape;

const BY_GROUP: u32 = 0o020;
const BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Users and groups that may change a file: root, those of this process, and the user who called it by `sudo` or
/// `pkexec`.
#[derive(Debug, Clone)]
pub struct Trusted {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Trusted {
    /// Returns the trusted users and groups of this process.
    pub fn here() -> Self {
        let mut trusted = Self {
            users: vec![0, nix::unistd::geteuid().as_raw()],
            groups: vec![0, nix::unistd::getegid().as_raw()],
        };
        // In a user namespace without the machine's root, "/" belongs to the overflow user.
        trusted.users.extend(fs::metadata("/").ok().map(|root| root.uid()));
        // Only root's environment counts, and other users cannot set that.
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        if nix::unistd::geteuid().is_root() {
            trusted.users.extend(number("SUDO_UID"));
            trusted.users.extend(number("PKEXEC_UID"));
            trusted.groups.extend(number("SUDO_GID"));
        }
        trusted
    }
}

/// Reason why another user may change the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    what: FileKind,
    how: WritableBy,
    path: PathBuf,
    is_planted: bool,
    is_read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    File,
    Directory,
    Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WritableBy {
    Everybody,
    Group(u32),
    Owner(u32),
}

impl Exposed {
    /// Returns whether everybody may change it, or may have created it in a directory that everybody may write.
    pub fn is_to_everybody(&self) -> bool {
        self.how == WritableBy::Everybody || self.is_planted
    }

    /// Returns whether the file belongs to another user or group, or a link of another user is on the path. A
    /// directory that a group may write does not count: some systems have these by default, such as `/usr/local`.
    pub fn is_of_another(&self) -> bool {
        !(self.what == FileKind::Directory && matches!(self.how, WritableBy::Group(_)))
    }

    /// Returns whether it is mounted read-only, like volumes of containers, whose modes mean little.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Returns the command that takes the permission away.
    pub fn remedy(&self) -> String {
        let path = escape::path(&self.path);
        match self.how {
            WritableBy::Everybody => format!("chmod o-w {path}"),
            WritableBy::Group(_) => format!("chmod g-w {path}"),
            WritableBy::Owner(_) if self.what == FileKind::Link => format!("chown -h root {path}"),
            WritableBy::Owner(_) => format!("chown root {path}"),
        }
    }
}

impl Exposed {
    fn new(what: FileKind, how: WritableBy, path: &Path) -> Self {
        let flags = nix::sys::statvfs::statvfs(path).map(|there| there.flags());
        Self {
            what,
            how,
            path: path.to_owned(),
            is_planted: false,
            is_read_only: flags.is_ok_and(|flags| flags.contains(FsFlags::ST_RDONLY)),
        }
    }
}

/// Returns the reason that lets more users write; the first, if both are alike.
fn worse(one: Option<Exposed>, other: Option<Exposed>) -> Option<Exposed> {
    let rank = |exposed: &Exposed| {
        (
            !exposed.is_read_only,
            exposed.is_to_everybody(),
            exposed.is_of_another(),
        )
    };
    match (one, other) {
        (Some(one), Some(other)) => Some(if rank(&other) > rank(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            FileKind::File => f.write_str("the file")?,
            FileKind::Directory => write!(f, "the directory {}", escape::path(&self.path))?,
            FileKind::Link => write!(f, "the link {}", escape::path(&self.path))?,
        }
        match self.how {
            WritableBy::Everybody => f.write_str(" may be written by everybody"),
            WritableBy::Group(group) => write!(f, " may be written by its group ({group})"),
            WritableBy::Owner(user) if self.is_planted => {
                write!(f, " belongs to uid {user}, in a directory that everybody may write")
            }
            WritableBy::Owner(user) => write!(f, " belongs to uid {user}"),
        }
    }
}

/// Returns the first reason why others may change the content of the file, if there is one. `file`: metadata of the
/// open file at the end of `path`. A descriptor that the caller has opened (`/dev/stdin`) is trusted.
pub fn exposed(path: &Path, file: &Metadata, trusted: &Trusted) -> Option<Exposed> {
    let way = match walk(path, trusted) {
        PathVerdict::Descriptor => return None,
        PathVerdict::Exposed(exposed) => Some(exposed),
        PathVerdict::Safe => None,
    };
    let at_file = writer(file, trusted).map(|how| Exposed::new(FileKind::File, how, path));
    worse(at_file, way)
}

fn writer(metadata: &Metadata, trusted: &Trusted) -> Option<WritableBy> {
    let mode = metadata.mode();
    if mode & BY_ALL != 0 {
        Some(WritableBy::Everybody)
    } else if !trusted.users.contains(&metadata.uid()) {
        Some(WritableBy::Owner(metadata.uid()))
    } else if mode & BY_GROUP != 0 && !trusted.groups.contains(&metadata.gid()) {
        Some(WritableBy::Group(metadata.gid()))
    } else {
        None
    }
}

enum PathVerdict {
    Safe,
    Exposed(Exposed),
    Descriptor,
}

/// Follows the path from `/` to the file, through every link. A step that does not exist ends it.
fn walk(path: &Path, trusted: &Trusted) -> PathVerdict {
    let mut at = PathBuf::from("/");
    let mut ahead = VecDeque::new();
    push_front(
        &mut ahead,
        &std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    );
    let mut found = None;
    let mut links = 0;
    for _ in 0..MOST_STEPS {
        let Some(name) = ahead.pop_front() else { break };
        if name == ".." {
            at.pop();
            continue;
        }
        let Ok(directory) = fs::symlink_metadata(&at) else {
            break;
        };
        let here = at.join(&name);
        let Ok(entry) = here.symlink_metadata() else { break };
        found = worse(found, exposed_entry(&at, &directory, &here, &entry, trusted));
        if entry.is_symlink() {
            // The entry is an open file and not a path.
            if at.starts_with("/proc") {
                return PathVerdict::Descriptor;
            }
            links += 1;
            let Ok(target) = here.read_link() else { break };
            if links > MOST_LINKS {
                break;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            push_front(&mut ahead, &target);
        } else {
            at = here;
        }
    }
    found.map_or(PathVerdict::Safe, PathVerdict::Exposed)
}

/// Returns the reason why others may replace this entry.
fn exposed_entry(at: &Path, directory: &Metadata, here: &Path, entry: &Metadata, trusted: &Trusted) -> Option<Exposed> {
    let is_sticky = directory.mode() & STICKY != 0;
    let how = writer(directory, trusted)?;
    // In a sticky directory, only the owners of the entry and of the directory can replace it.
    if !is_sticky {
        return Some(Exposed::new(FileKind::Directory, how, at));
    }
    if !trusted.users.contains(&directory.uid()) {
        return Some(Exposed::new(
            FileKind::Directory,
            WritableBy::Owner(directory.uid()),
            at,
        ));
    }
    let what = if entry.is_symlink() {
        FileKind::Link
    } else if entry.is_dir() {
        FileKind::Directory
    } else {
        FileKind::File
    };
    let is_other = !trusted.users.contains(&entry.uid());
    is_other.then(|| Exposed {
        is_planted: how == WritableBy::Everybody,
        ..Exposed::new(what, WritableBy::Owner(entry.uid()), here)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    const OTHER: u32 = 59_123;

    fn told(path: &Path) -> Option<String> {
        let file = fs::metadata(path).unwrap();
        exposed(path, &file, &Trusted::here()).map(|exposed| format!("{exposed}: {}", exposed.remedy()))
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn modes_of_the_file_and_of_each_directory_count() {
        let directory = tempfile::tempdir().unwrap();
        let upper = directory.path().join("a");
        let lower = upper.join("b");
        fs::create_dir_all(&lower).unwrap();
        let path = lower.join("f");
        fs::write(&path, "x").unwrap();
        for (file, of_lower, of_upper, words) in [
            (0o600, 0o700, 0o755, None),
            (0o664, 0o775, 0o1777, None),
            (
                0o666,
                0o700,
                0o755,
                Some("the file may be written by everybody: chmod o-w"),
            ),
            (0o644, 0o777, 0o755, Some("/a/b may be written by everybody: chmod o-w")),
            (0o644, 0o755, 0o777, Some("/a may be written by everybody: chmod o-w")),
        ] {
            mode(&path, file);
            mode(&lower, of_lower);
            mode(&upper, of_upper);
            let answer = told(&path);
            assert_eq!(answer.is_some(), words.is_some(), "{answer:?}");
            assert!(
                answer.unwrap_or_default().contains(words.unwrap_or_default()),
                "{words:?}"
            );
        }
        mode(&upper, 0o777);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(told(&link).unwrap().contains("/a may be written"), "through a link");
        let beside = directory.path().join("beside");
        symlink("a/../f", &beside).unwrap();
        fs::write(directory.path().join("f"), "x").unwrap();
        assert_eq!(
            told(&beside),
            None,
            "who may write a directory can replace neither it nor what is above it"
        );
        let through = directory.path().join("through");
        symlink("a/b/f", &through).unwrap();
        assert!(
            told(&through).unwrap().contains("/a may be written"),
            "on the way of a link"
        );
    }

    #[test]
    fn owners_and_groups_count() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("d");
        fs::create_dir(&place).unwrap();
        let path = place.join("f");
        fs::write(&path, "x").unwrap();
        chown(&path, Some(OTHER), None).unwrap();
        assert_eq!(
            told(&path).unwrap(),
            format!("the file belongs to uid {OTHER}: chown root {}", path.to_string_lossy())
        );
        chown(&path, Some(0), Some(OTHER)).unwrap();
        mode(&path, 0o664);
        assert!(
            told(&path).unwrap().contains("by its group (59123): chmod g-w"),
            "{:?}",
            told(&path)
        );
        mode(&path, 0o644);
        assert_eq!(told(&path), None);
        chown(&place, Some(OTHER), None).unwrap();
        assert!(
            told(&path).unwrap().contains("/d belongs to uid 59123: chown root"),
            "{:?}",
            told(&path)
        );
        mode(&place, 0o1777);
        assert!(
            told(&path).unwrap().contains("/d belongs to"),
            "its owner may replace all: {:?}",
            told(&path)
        );
        mode(&place, 0o777);
        assert!(
            told(&path).unwrap().contains("/d may be written by everybody"),
            "the worse: {:?}",
            told(&path)
        );
        mode(&place, 0o1777);
        chown(&place, Some(0), None).unwrap();
        assert_eq!(told(&path), None, "one's own file in a sticky directory");
        let link = place.join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(told(&link), None);
        std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
        // With `fs.protected_symlinks=1` the kernel does not follow such a link.
        match fs::metadata(&link) {
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
            Ok(_) => assert!(told(&link).unwrap().contains("chown -h root"), "{:?}", told(&link)),
        }
        mode(&place, 0o755);
        assert_eq!(told(&link), None, "nobody can change a link, only replace it");
    }

    #[test]
    fn in_a_directory_of_everybody_the_owner_counts() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        mode(&shared, 0o1777);
        let path = shared.join("f");
        fs::write(&path, "x").unwrap();
        chown(&path, Some(OTHER), None).unwrap();
        let by = |users: &[u32]| {
            let trusted = Trusted {
                users: users.to_vec(),
                groups: vec![0],
            };
            exposed(&path, &fs::metadata(&path).unwrap(), &trusted)
        };
        assert_eq!(by(&[0, OTHER]), None, "a user's own");
        let planted = by(&[0]).unwrap();
        assert!(planted.is_to_everybody(), "{planted}");
        assert!(
            planted
                .to_string()
                .contains("uid 59123, in a directory that everybody may write"),
            "{planted}"
        );
        mode(&shared, 0o755);
        let given = by(&[0]).unwrap();
        assert!(!given.is_to_everybody() && given.is_of_another(), "{given}");
        mode(&shared, 0o775);
        chown(&shared, Some(0), Some(OTHER)).unwrap();
        chown(&path, Some(0), None).unwrap();
        assert!(!by(&[0]).unwrap().is_of_another(), "a group's directory");
    }

    #[test]
    fn an_open_file_is_the_callers() {
        let file = fs::File::open("/dev/null").unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        assert_eq!(told(&path), None);
    }
}
