//! Path from `/` to a file, through every symbolic link: the places where a change of any step would show.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::path_steps::{MOST_LINKS, MOST_STEPS, push_front};

/// The path, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathChain {
    /// Directories of the path, with the names in each that belong to it.
    pub(super) directories: BTreeMap<PathBuf, Names>,
    /// End of the path, if it exists.
    pub(super) end: Option<PathEnd>,
    signature: Vec<ChainStep>,
}

/// Names in a directory, each with whether it is the file itself.
pub(super) type Names = BTreeMap<OsString, bool>;

/// End of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathEnd {
    /// Path without symbolic links.
    pub(super) path: PathBuf,
    /// Whether reading it ends: it is neither a pipe nor a device.
    pub(super) is_readable: bool,
}

/// Identity and version of a step, known without reading its content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ChainStep {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl ChainStep {
    fn of(metadata: &Metadata) -> Self {
        // Other changes in a directory do not matter.
        let is_own = !metadata.is_dir();
        let own = |at: (i64, i64)| if is_own { at } else { (0, 0) };
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: if is_own { metadata.size() } else { 0 },
            modified: own((metadata.mtime(), metadata.mtime_nsec())),
            changed: own((metadata.ctime(), metadata.ctime_nsec())),
        }
    }
}

impl PathChain {
    /// Follows a path from `/`; it must be absolute. A step that does not exist or cannot be examined ends it.
    pub(super) fn walk(path: &Path) -> Self {
        let mut chain = Self {
            directories: BTreeMap::new(),
            end: None,
            signature: Vec::new(),
        };
        let mut at = PathBuf::from("/");
        let mut ahead = VecDeque::new();
        push_front(&mut ahead, path);
        let mut links = 0;
        for _ in 0..MOST_STEPS {
            let Some(name) = ahead.pop_front() else {
                break;
            };
            if name == ".." {
                at.pop();
                continue;
            }
            let is_last = ahead.is_empty();
            let is_file = chain.directories.entry(at.clone()).or_default();
            *is_file.entry(name.clone()).or_default() |= is_last;
            let here = at.join(&name);
            let Ok(metadata) = here.symlink_metadata() else {
                break;
            };
            chain.signature.push(ChainStep::of(&metadata));
            if metadata.is_symlink() {
                let Ok(target) = here.read_link() else {
                    break;
                };
                links += 1;
                if links > MOST_LINKS {
                    break;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                push_front(&mut ahead, &target);
            } else if is_last {
                chain.end = Some(PathEnd {
                    path: here,
                    is_readable: metadata.is_file() || metadata.is_dir(),
                });
            } else if metadata.is_dir() {
                at = here;
            } else {
                break;
            }
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(chain: &PathChain, directory: &Path) -> Vec<(String, bool)> {
        let names = chain.directories.get(directory).into_iter().flatten();
        names
            .map(|(name, is_file)| (name.to_string_lossy().into_owned(), *is_file))
            .collect()
    }

    #[test]
    fn every_link_on_the_way_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir(dir.join("..1")).unwrap();
        fs::write(dir.join("..1/state.json"), "{}").unwrap();
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/state.json", dir.join("state.json")).unwrap();
        let chain = PathChain::walk(&dir.join("state.json"));
        assert_eq!(
            names(&chain, &dir),
            [
                ("..1".into(), false),
                ("..data".into(), false),
                ("state.json".into(), true)
            ]
        );
        assert_eq!(names(&chain, &dir.join("..1")), [("state.json".into(), true)]);
        let end = chain.end.as_ref().unwrap();
        assert_eq!((end.path.clone(), end.is_readable), (dir.join("..1/state.json"), true));
        let parent = names(&chain, dir.parent().unwrap());
        assert_eq!(parent.len(), 1, "{parent:?}");
        assert_eq!(chain, PathChain::walk(&dir.join("state.json")));
        fs::write(dir.join("other"), "").unwrap();
        assert_eq!(
            chain,
            PathChain::walk(&dir.join("..1/../..data/../state.json")).only(&chain)
        );
    }

    impl PathChain {
        /// Checks that the end of the path is the same, and returns the other chain for comparison.
        fn only(self, other: &Self) -> Self {
            assert_eq!(self.end, other.end);
            other.clone()
        }
    }

    #[test]
    fn the_way_ends_where_something_is_missing_or_goes_round() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let missing = PathChain::walk(&dir.join("a/b/state.json"));
        assert_eq!(missing.end, None);
        assert_eq!(names(&missing, &dir), [("a".into(), false)]);
        symlink("round", dir.join("round")).unwrap();
        assert_eq!(PathChain::walk(&dir.join("round")).end, None);
        fs::write(dir.join("file"), "").unwrap();
        assert_eq!(PathChain::walk(&dir.join("file/below")).end, None);
        let pipe = dir.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!PathChain::walk(&pipe).end.unwrap().is_readable);
    }

    #[test]
    fn another_content_looks_different() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "1").unwrap();
        let first = PathChain::walk(&path);
        fs::write(&path, "12").unwrap();
        assert_ne!(first, PathChain::walk(&path));
    }
}
