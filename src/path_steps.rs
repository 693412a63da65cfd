//! Steps of a path, as the kernel follows it through symbolic links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path};

/// Maximum number of symbolic links, as in the kernel (`MAXSYMLINKS`).
pub(crate) const MOST_LINKS: usize = 40;
/// Maximum number of steps of a path that the kernel accepts, through all symbolic links.
pub(crate) const MOST_STEPS: usize = 4096;

/// Puts the steps of a path, which are names and `..`, before those that are still to be followed.
pub(crate) fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
