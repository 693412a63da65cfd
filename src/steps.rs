//! The steps of a path, as the kernel walks it through links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path};

/// As the kernel (`MAXSYMLINKS`).
pub(crate) const MOST_LINKS: usize = 40;
/// Steps of the longest path that the kernel takes, through all links.
pub(crate) const MOST_STEPS: usize = 4096;

/// Puts the steps of a path before those that are still to be walked: names, and `..`.
pub(crate) fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
