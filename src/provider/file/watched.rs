//! Places that are watched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::inotify::WatchDescriptor;

use crate::provider::chain::Names;

/// Places that inotify watches.
pub(super) type WatchedPlaces = BTreeMap<WatchDescriptor, WatchedPlace>;

#[derive(Debug, Clone)]
pub(super) enum WatchedPlace {
    Directory(PathBuf, Names),
    File,
}
